"""Codes of segments, by steps over rows of tokens and a cache in pages: on a GPU, with the kernels."""
