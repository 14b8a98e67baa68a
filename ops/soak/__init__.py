"""Sends many batches through one standing fleet, and looks for leaks of memory, files, keys and processes."""
