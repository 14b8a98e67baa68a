"""What travels between client, collector and workers, and what results look like."""
