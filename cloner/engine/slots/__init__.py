"""Codes of segments, each in a slot of its own in one block of memory.

Used on a CPU, and on a GPU for which kernels cannot be compiled.
"""
