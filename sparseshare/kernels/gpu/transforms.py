"""Real Fourier transforms over the last axes by cuFFT, with no pass over the data that they do not need."""


def transform(array, grid):
    """Half spectra of arrays filled up with zeros to `grid`; CuPy keeps a plan for each shape."""
    from cupyx.scipy.fft import rfftn

    return rfftn(array, s=grid, axes=tuple(range(-len(grid), 0)))


def back(spectra, grid):
    """The inverse times the number of points of the grid; `spectra` is overwritten."""
    from cupyx.scipy.fft import irfftn

    return irfftn(spectra, s=grid, axes=tuple(range(-len(grid), 0)), norm="forward", overwrite_x=True)
