"""Inspects a box's GPUs and keeps its pinned workers running."""
