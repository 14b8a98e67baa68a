"""Which kernels work on a GPU: compiled and compared with their twins in child processes before an engine uses them."""
