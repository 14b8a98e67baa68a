"""What Redis holds. Every key has one owner here."""
