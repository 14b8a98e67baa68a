"""What users hand in: batch files, rows and references are read and checked here."""
