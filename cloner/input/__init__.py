"""Reading and checking what users submit: batch files, their rows, and references."""
