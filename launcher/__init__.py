"""The launcher: reads a box's GPUs, starts a worker pinned to each part of them, and keeps the workers running."""
