"""Triton kernels, each beside a plain torch function that computes the same."""
