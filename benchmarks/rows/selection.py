"""The penalty that SparseCoderCV chooses, against those that need to know more, and against the ends of its grid."""

import numpy as np
import problems
from row import Line, Row

from sparseshare.coding import sparse_encode_path
from sparseshare.datasets import make_sparse_signals
from sparseshare.model_selection import SparseCoderCV
from sparseshare.model_selection.heldout import entry_folds, heldout_errors

NOISE = (5, 10, 20)  # dB
N_FOLDS = 5  # on patches that had no part in the choice


def selection(settings, n_signals=2000, within=1.05):
    """Errors, not times: against the true signals where they are known, on held-out entries of new patches else."""
    row = Row("selection", f"penalty chosen by held-out entries of {settings.count(n_signals):,} signals", "error")
    for snr_db in NOISE:
        row.lines.append(_known_noise(settings, snr_db, n_signals, within))
    row.lines += _patches(settings, n_signals)
    return row


def _known_noise(settings, snr_db, n_signals, within):
    """Mean squared error of the reconstructions against the signals without their noise."""
    X, D, codes = make_sparse_signals(settings.count(n_signals), snr_db=snr_db, random_state=0)
    coder = SparseCoderCV(D, random_state=0).fit(X)
    path = sparse_encode_path(X, D, coder.alphas_, sparse_output=True)
    errors = np.array([np.mean((one @ D - codes @ D) ** 2) for one in path])
    chosen = errors[coder.best_index_]
    note = f"penalty {coder.alpha_:.3g}, the best of the grid is {coder.alphas_[errors.argmin()]:.3g}"
    against = f"the penalty best for the true signals, noise at {snr_db} dB"
    return Line(against, chosen, errors.min(), 1 / within, "mean squared error against the true signals", note=note)


def _patches(settings, n_signals):
    """Mean squared error on held-out entries of patches that the penalty was not chosen on."""
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    X, new = np.split(problems.test_signals(8, 2 * settings.count(n_signals)), 2)
    coder = SparseCoderCV(D, random_state=0).fit(X)
    places = [coder.best_index_, -1, 0]
    folds = entry_folds(*new.shape, N_FOLDS, np.random.RandomState(1))
    chosen, smallest, largest = heldout_errors(new, D, coder.alphas_[places], folds).folds.mean(axis=1)
    accuracy = "mean squared error on held-out entries of new patches"
    note = f"penalty {coder.alpha_:.3g}, {coder.n_nonzero_path_[coder.best_index_]:.1f} non-zeros of 256"
    return [
        Line("the smallest penalty of the grid, patches", chosen, smallest, 1, accuracy, bool(chosen < smallest), note),
        Line("the largest penalty of the grid, patches", chosen, largest, 1, accuracy, bool(chosen < largest), note),
    ]
