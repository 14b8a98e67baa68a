"""Batches of several clients through a fleet in which processes are killed, frozen and disconnected all the time."""
