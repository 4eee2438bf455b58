"""Steps of an unrolled sparse coder on a GPU: codes are dense, and what follows the matrix products is one pass."""

from sparseshare.devices import array_module

from .module import kernel

_THREADS = 256
_BLOCKS = 65_536  # at most: threads go on with the next entries
_SHARED = 48 * 1024
_WARPS = 4  # signals of a block that goes down


def unrolled_step(products, inputs, factor, thresholds, positive, codes, points=None, momentum=0.0):
    """codes = soft(products + factor * inputs, thresholds).

    Parameters
    ----------
    products : (T, K) array or None
        What the step starts from, times the recurrent weights; None for zeros.
    inputs : (T, K) array
        The signals times the input weights; or `points`.
    factor : float
    thresholds : (K,) array, at least 0
    positive : bool
    codes : (T, K) array, in: the codes before, out: the codes
    points : (T, K) array or None, out: codes + momentum * (codes - the codes before)
    momentum : float
    """
    blocks = min(-(-codes.size // _THREADS), _BLOCKS)
    kernel("unrolled_steps", "unrolled_step", codes.dtype)(
        (blocks,), (_THREADS,),
        products, inputs, factor, thresholds, positive, momentum, codes.size, codes.shape[1], codes, points,
    )  # fmt: skip


def descend_rows(correlations, gram, penalty, quiet, n_sweeps, positive, codes):
    """Lower 0.5 |x - w D|^2 + penalty |w|_1 by coordinate descent over the atoms that codes w have, and no others.

    Parameters
    ----------
    correlations : (T, K) array
        Of what codes leave of the signals, with all atoms.
    gram, penalty, quiet, n_sweeps, positive : as of the CPU's twin
    codes : (T, K) array, in and out
    """
    xp, (n, n_atoms) = array_module(codes), codes.shape
    bytes_a_row = n_atoms * (2 * codes.itemsize + 4)
    warps, shared, scratch, places = min(_WARPS, _SHARED // bytes_a_row), 0, None, None
    if warps:
        shared = warps * bytes_a_row
    else:
        warps, scratch, places = _WARPS, xp.empty((2 * n, n_atoms), codes.dtype), xp.empty(codes.shape, "int32")
    kernel("unrolled_steps", "descend_rows", codes.dtype)(
        (-(-n // warps),), (32 * warps,),
        correlations, gram, penalty, quiet, n_sweeps, positive, n, n_atoms, codes, scratch, places,
        shared=shared,
    )  # fmt: skip
