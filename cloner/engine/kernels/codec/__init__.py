"""Kernels of the codec's decoder over rows of channels; `rows.py` says how segments lie, `kernel_set.py` lists them."""
