"""What unrolled steps are trained with: a loss, its targets, and signals that are held out."""

from contextlib import closing

import numpy as np

from sparseshare.coding.encode import encode
from sparseshare.devices import device_of, to_device
from sparseshare.sources import Stack, rows_a_block
from sparseshare.threads import thread_count

from .losses import value_of
from .unrolled_losses import CodeError, LassoObjective, LossOfCodes, StepLoss, mean_square

_AT_ONCE = 1000  # signals of the validation part at a time
_EXACT = 1e-6  # relative duality gap of the codes that are learned from


def loss_of(coder, X, signals):
    """The loss of a coder, and its targets.

    Parameters
    ----------
    coder : LearnedSparseCoder
    X : array or Stack of shape (n_samples, n_features)
    signals : Batches
        The same where they are trained on.

    Returns
    -------
    loss : callable
    targets : array of shape (n_samples, n_components), or `signals`
    """
    n_rows = rows_a_block(X.shape[1], signals.dtype)  # wherever they are: sums have the same bits
    slices = [slice(start, min(start + n_rows, len(X))) for start in range(0, len(X), n_rows)]
    if coder.loss == "codes":
        return _loss_against_codes(coder, X, signals, slices)
    with closing(signals.in_order(slices)) as pieces:
        scale = 0.5 * mean_square(rows for _, _, rows in pieces) or 1.0
    loss = LassoObjective(coder.components_, float(coder.alpha), scale, thread_count(coder.n_jobs))
    return _over_steps(coder, loss), signals


def _loss_against_codes(coder, X, signals, slices):
    """Codes of signals on disk would be larger than these: they are computed with every batch."""
    problem = coder._problem(signals.dtype, _EXACT)

    def codes_of(rows):
        return encode(rows, problem, n_jobs=coder.n_jobs, dense=True, device=signals.device).values

    if not isinstance(X, Stack):
        codes = codes_of(X)
        return _over_steps(coder, CodeError(mean_square(codes[rows] for rows in slices) or 1.0)), codes
    with closing(signals.in_order(slices)) as pieces:
        scale = mean_square(codes_of(rows) for _, _, rows in pieces) or 1.0
    return LossOfCodes(_over_steps(coder, CodeError(scale)), codes_of), signals


def _over_steps(coder, loss):
    return StepLoss(loss, coder.discount) if coder.discount > 0 else loss


def split(n_samples, share, random_state):
    """Rows to train on, and those held out.

    Parameters
    ----------
    n_samples : int
    share : float
        The `validation_fraction`.
    random_state : RandomState

    Returns
    -------
    rows, held : int ndarrays

    Raises
    ------
    ValueError
        If none are left to train on.
    """
    n_held = int(np.ceil(share * n_samples))
    if n_held >= n_samples:
        raise ValueError(
            f"early_stopping with validation_fraction={share} leaves none of {n_samples} signals to train on"
        )
    order = random_state.permutation(n_samples)
    return order[n_held:], order[:n_held]


def scorer(loss, signals, held, targets):
    """The negative loss of a network on signals that are held out, some of which are read at a time.

    Parameters
    ----------
    loss : callable
    signals : Batches
    held : int ndarray
        Their rows.
    targets : array or Batches
        As of `loss_of`.

    Returns
    -------
    callable
        Of the network.
    """
    batches = [held[start : start + _AT_ONCE] for start in range(0, len(held), _AT_ONCE)]

    def value(network, rows):
        wanted = part = signals(rows)
        if targets is not signals:
            wanted = to_device(targets[to_device(rows, device_of(targets))], signals.device)
        return value_of(loss(network.output(part), wanted)[0])

    def score(network):
        return -sum(value(network, rows) * len(rows) for rows in batches) / len(held)

    return score
