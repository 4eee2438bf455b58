"""Steps of an unrolled sparse coder: of the codes before, only the non-zeros are kept, and only they are multiplied."""

import numpy as np

from .jit import kernel
from .thresholding import nonzeros, soft_threshold
from .vectors import weighted_rows


@kernel
def unrolled_step(inputs, factor, weights, thresholds, positive, indices, values, counts):
    """codes = soft(factor * inputs + codes @ weights, thresholds) for every row of a tile.

    Parameters
    ----------
    inputs : (T, K) array, the signals times the input weights; K is a multiple of `vectors.PADDING`
    factor : float of inputs' dtype
    weights : (K, K) array, what the codes before are multiplied by; zeros pad it
    thresholds : (K,) array, at least 0
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32; in: the codes before (count 0: zeros), out: the codes,
        non-zeros only, in the order of the atoms
    """
    n_atoms = inputs.shape[1]
    total = np.empty(n_atoms, inputs.dtype)
    for i in range(inputs.shape[0]):
        row, idx, coef = inputs[i], indices[i], values[i]
        weighted_rows(weights, idx, coef, counts[i], total)
        for k in range(n_atoms):
            total[k] = soft_threshold(factor * row[k] + total[k], thresholds[k], positive)
        counts[i] = nonzeros(total, idx, coef)


@kernel
def spread_rows(indices, values, counts, out):
    """Non-zeros into rows (T, n_components) of zeros."""
    for i in range(out.shape[0]):
        row, idx, coef = out[i], indices[i], values[i]
        for a in range(counts[i]):
            row[idx[a]] = coef[a]


@kernel
def pack_rows(indices, values, counts, out_indices, out_values):
    """Non-zeros of the rows one after the other, (sum of counts,) each."""
    entry = 0
    for i in range(counts.shape[0]):
        idx, coef = indices[i], values[i]
        for a in range(counts[i]):
            out_indices[entry], out_values[entry] = idx[a], coef[a]
            entry += 1
