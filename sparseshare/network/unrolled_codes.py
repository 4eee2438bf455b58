"""Codes by unrolled steps, fast: tiles of signals that stay in the cache, and products that skip zeros.

On a GPU pieces of signals, and dense products: there they are quicker than reading the rows that count.
"""

import numpy as np

from sparseshare.coding.device_rows import ArrivingRows, entries_of
from sparseshare.coding.problem import aligned_zeros
from sparseshare.coding.tiles import RowsInOrder
from sparseshare.devices import array_module, computing_on, device_of, rows_that_fit, to_device, to_host
from sparseshare.kernels.dispatch import kernels_for, plain
from sparseshare.staging import StagedRows
from sparseshare.threads import run_in_threads, single_threaded_blas

from .blocks import product

_TILE = 256  # signals whose codes stay in the second-level cache beside the weights of a step
_QUIET = 1e-3  # of alpha: a sweep that changes no correlation by more is the last


def unrolled_codes(
    x, steps, positive, n_threads, sparse=False, dictionary=None, momenta=None, *, alpha=0.0, n_sweeps=0
):
    """Codes z of signals x by steps z <- soft(factor * x W + z S, theta) from z = 0.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
        Where the weights are; or of the host, from where it is sent to them.
    steps : list of tuples (W, factor, S, theta)
        W (n_features, n_components), S (n_components, n_components) and theta (n_components,) of one dtype. Where W is
        the array of the step before, the product with it is, too. An S of None stands for I - D W, and the step is
        taken from what the codes leave of the signals, z + (x - z D) W, which is less work where D is wide.
    positive : bool
        Codes >= 0.
    n_threads : int
        The codes do not depend on it.
    sparse : bool, default=False
    dictionary : ndarray of shape (n_components, n_features) or None, default=None
        D, for steps without an S and for sweeps.
    momenta : ndarray of shape (n_steps,) or None, default=None
        Step t starts from z + momenta[t] (z - the codes before z): the non-zeros of two codes, in place of one.
    alpha : float, default=0.0
        For sweeps.
    n_sweeps : int, default=0
        After the steps coordinate descent on 0.5 |x - z D|^2 + alpha |z|_1 goes at most so often over the atoms in use.

    Returns
    -------
    ndarray or csr_array of shape (n_samples, n_components)
        Where x is.
    """
    if device_of(steps[0][0]) != "cpu":
        return _codes_on_device(x, steps, positive, sparse, dictionary, momenta, alpha, n_sweeps)
    dtype, n_components = steps[0][0].dtype, steps[0][0].shape[1]
    kernels = kernels_for("cpu", "unrolled_steps")
    steps, atoms = _padded(steps), None if dictionary is None else _wide(dictionary)
    shape, scratch = (min(_TILE, len(x)), len(steps[0][3])), {}
    gram = product(dictionary, dictionary.T, n_threads) if n_sweeps else None
    if sparse:
        packed = RowsInOrder(len(x), n_components, dtype, 16 * len(x))
    else:
        out = np.zeros((len(x), n_components), dtype)

    def work(number, worker):
        rows = slice(number * _TILE, min((number + 1) * _TILE, len(x)))
        if worker not in scratch:
            scratch[worker] = _scratch(shape, dtype, momenta is not None)
        inputs, indices, values, counts, *old = (array[: rows.stop - rows.start] for array in scratch[worker])
        signals, before = plain(x[rows], dtype), None
        counts[:], old[-1][:] = 0, 0
        for t, (weights, factor, recurrent, thresholds) in enumerate(steps):
            if momenta is not None and t:
                kernels.extrapolate_rows(indices, values, counts, *old, momenta[t])
            if recurrent is None:
                left = signals
                if before is not None:
                    left = np.empty_like(signals)
                    kernels.residual_rows(signals, atoms, indices, values, counts, left)
                np.matmul(left, weights, out=inputs)
                before, recurrent = weights, weights  # there are no codes left to multiply it by
                kernels.add_codes(inputs, indices, values, counts)
            elif weights is not before:
                np.matmul(signals, weights, out=inputs)
                before = weights
            kernels.unrolled_step(inputs, factor, recurrent, thresholds, positive, indices, values, counts)
        if n_sweeps:
            penalty, quiet = dtype.type(alpha), dtype.type(_QUIET * alpha)
            kernels.descend_rows(signals, atoms, gram, penalty, quiet, n_sweeps, positive, indices, values, counts)
        if not sparse:
            kernels.spread_rows(indices, values, counts, out[rows])
            return
        n_found = int(counts.sum())
        found = np.empty(n_found, np.int32), np.empty(n_found, dtype)
        kernels.pack_rows(indices, values, counts, *found)
        packed.put(number, counts.astype(np.int64), *found)

    with single_threaded_blas:
        run_in_threads(work, -(-len(x) // _TILE), n_threads)
    return packed.csr() if sparse else out


def _codes_on_device(x, steps, positive, sparse, dictionary, momenta, alpha, n_sweeps):
    weights, device = steps[0][0], device_of(steps[0][0])
    kernels, xp, dtype = kernels_for(device, "unrolled_steps"), array_module(weights), weights.dtype
    momenta = None if momenta is None else to_host(momenta).tolist()
    atoms, home, (n_features, n_components) = to_device(dictionary, device), device_of(x), weights.shape
    collected = ArrivingRows((len(x), n_components), dtype, sparse, home)

    def residual(signals, codes):
        return signals - codes @ atoms

    with computing_on(device):
        gram = atoms @ atoms.T if n_sweeps else None
        n_rows = rows_that_fit(device, (6 * n_components + 3 * n_features) * dtype.itemsize)
        pieces = StagedRows(x, dtype, device, n_rows)
        for _, signals in pieces:
            codes = xp.zeros((len(signals), n_components), dtype)
            start, inputs, before = codes, None, None
            for t, (weights, factor, recurrent, thresholds) in enumerate(steps):
                momentum = 0.0 if momenta is None or t + 1 == len(steps) else momenta[t + 1]
                points = xp.empty_like(codes) if momentum else None
                if recurrent is None:
                    products = (residual(signals, start) if t else signals) @ weights
                    kernels.unrolled_step(products, start, 1.0, thresholds, positive, codes, points, momentum)
                else:
                    if weights is not before:
                        inputs, before = signals @ weights, weights
                    products = start @ recurrent if t else None
                    kernels.unrolled_step(products, inputs, factor, thresholds, positive, codes, points, momentum)
                start = codes if points is None else points
            if n_sweeps:
                left = residual(signals, codes) @ atoms.T
                kernels.descend_rows(left, gram, alpha, _QUIET * alpha, n_sweeps, positive, codes)
            rows = entries_of(codes) if sparse else (codes,)
            pieces.prefetch()
            collected.put(*rows)
        return collected.array()


def _scratch(shape, dtype, accelerated):
    """Inputs of a tile; indices, values and counts of what a step starts from, and of the codes a step earlier."""
    made = [aligned_zeros(shape, dtype)]
    for n_codes in (1 + accelerated, accelerated):
        wide = shape[0], n_codes * shape[1]
        made += [aligned_zeros(wide, np.int32), aligned_zeros(wide, dtype), np.zeros(shape[0], np.int32)]
    return made


def _padded(steps):
    """Steps with arrays of zeros around theirs, as the kernel takes them; what steps share stays one array."""
    made = {}

    def wide(array, square=False):
        if array is None:
            return None
        if id(array) not in made:
            made[id(array)] = _wide(array, square)
        return made[id(array)]

    return [
        (wide(inputs), factor, wide(recurrent, True), wide(thresholds))
        for inputs, factor, recurrent, thresholds in steps
    ]


def _wide(array, square=False):
    """A copy with zeros behind the last column, and if `square` behind the last row, up to whole vectors."""
    step = kernels_for("cpu", "vectors").PADDING
    width = -(-array.shape[-1] // step) * step
    made = aligned_zeros((*((width,) if square else array.shape[:-1]), width), array.dtype)
    made[tuple(slice(length) for length in array.shape)] = array
    return made
