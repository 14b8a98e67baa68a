"""What travels between the processes of a fleet: messages, results, references, content keys."""
