"""Submitting batches to a fleet and following them. `cloner.Client` is the entry."""
