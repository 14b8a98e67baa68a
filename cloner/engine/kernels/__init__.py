"""Triton kernels of the engine on a GPU, one file a family, each kernel beside a plain torch function of the same
effect: those of the decoding step in `step/`, those of the codec in `codec/`.

A file has the Triton functions, one Python function that launches them, and the torch function that computes the same
from the same buffers (its *twin*, named ``..._twin``). Both take the same arguments, allocate nothing that outlives the
call, and never read from the device, so that either can be captured in a CUDA graph and stand in for the other.
"""
