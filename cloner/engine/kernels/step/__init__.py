"""Kernels of the decoding step over token rows; `layout.py` says what they share, `kernel_set.py` lists them."""
