"""Products of spectra on a GPU, twins of `kernels.cpu.spectra`."""

from .module import kernel

_THREADS = 256
_IMAGES = 4  # signals, or channels, that a thread makes at once


def add_synthesis(spectra, atoms, first, total):
    """total[j, c] += sum_k atoms[first + k, c] spectra[j, k]."""
    n_signals, n_atoms, n_frequencies = spectra.shape
    n_channels = atoms.shape[1]
    images, channels = (_IMAGES, 1) if n_channels == 1 else (1, _IMAGES)
    kernel("spectra", "add_synthesis", total.real.dtype, images, channels)(
        (-(-n_frequencies // _THREADS), -(-n_signals // images), -(-n_channels // channels)), (_THREADS,),
        _reals(spectra), _reals(atoms), first, n_signals, n_atoms, n_channels, n_frequencies, _reals(total),
    )  # fmt: skip


def correlate_spectra(signal, atoms, first, out):
    """out[j, k] = sum_c conj(atoms[first + k, c]) signal[j, c]."""
    n_signals, n_atoms, n_frequencies = out.shape
    kernel("spectra", "correlate_spectra", out.real.dtype)(
        (-(-n_frequencies // _THREADS), n_atoms, -(-n_signals // _IMAGES)), (_THREADS,),
        _reals(signal), _reals(atoms), first, n_signals, n_atoms, signal.shape[1], n_frequencies, _reals(out),
    )  # fmt: skip


def _reals(spectra):
    """Complex numbers as pairs, which kernels take."""
    return spectra.view(spectra.real.dtype)
