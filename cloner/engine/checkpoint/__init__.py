"""Checkpoint folders: their files, checked, fetched, made of random weights, and loaded into upstream's models."""
