"""Submitting batches to a fleet and waiting for them: `cloner.Client`."""
