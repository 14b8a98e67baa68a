"""The CPU worker that opens batches, closes them, and recovers stalled ones."""
