"""Convolutions in the frequency domain: products of spectra of maps, atoms and signals, summed over atoms or channels.

Spectra of maps are (J, K, F) arrays, those of atoms (K, C, F) and of signals (J, C, F): J signals, K atoms, C channels
and F frequencies. Blocks of atoms start at atom `first` of the whole.
"""

from .jit import kernel


@kernel
def add_synthesis(spectra, atoms, first, total):
    """total[j, c] += sum_k atoms[first + k, c] spectra[j, k]."""
    n_signals, n_atoms, n_frequencies = spectra.shape
    for j in range(n_signals):
        for k in range(n_atoms):
            for c in range(atoms.shape[1]):
                for f in range(n_frequencies):
                    total[j, c, f] += atoms[first + k, c, f] * spectra[j, k, f]


@kernel
def correlate_spectra(signal, atoms, first, out):
    """out[j, k] = sum_c conj(atoms[first + k, c]) signal[j, c]."""
    n_signals, n_atoms, n_frequencies = out.shape
    for j in range(n_signals):
        for k in range(n_atoms):
            for f in range(n_frequencies):
                out[j, k, f] = atoms[first + k, 0, f].conjugate() * signal[j, 0, f]
            for c in range(1, atoms.shape[1]):
                for f in range(n_frequencies):
                    out[j, k, f] += atoms[first + k, c, f].conjugate() * signal[j, c, f]
