"""Batch voice cloning on people's own GPU boxes."""
