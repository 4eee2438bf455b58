"""CUDA twins of the kernels in `sparseshare.kernels.cpu`: the same names, the same arguments, arrays on a GPU."""
