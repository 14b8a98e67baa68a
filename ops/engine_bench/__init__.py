"""Measurements of the batched engine against upstream's code: same weights, machine, threads and allocator settings."""
