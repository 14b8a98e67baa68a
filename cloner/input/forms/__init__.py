"""The forms of a batch file, each turned from text into rows. `document.py` chooses the form."""
