"""ISTA and FISTA on a GPU, twins of `kernels.cpu.proximal`: all rows take a step at once, and each stops by itself.

An iteration is one or two matrix products and one or two kernels; one of each where codes are sparse. Every ten
iterations a kernel computes duality gaps; the number of rows still at work is read one such check later, and when many
are done the others move together.
"""

import numpy as np

from .module import kernel
from .readback import Readback

_THREADS, _BLOCKS = 256, 4096
_CHECK = 10  # iterations between looks at the gaps
_IDLE = 200  # as in the CPU twin
_CROWDED = 0.75  # share of rows at work below which they move together
_WIDE = (2, 8)  # features, in warps, up to which steps can sum images
_SPARSE = 1 / 16  # share of non-zeros up to which that takes less time than a product
_ROUNDING = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1.8e-15}
_RESIDUAL, _IMAGE, _GRAM = 0, 1, 2


def ista_tile(Q, norms2, G, alpha, step, tol, max_iter, positive, *codes, **forms):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile by iterative soft thresholding.

    Parameters as of `kernels.cpu.proximal.ista_tile`, all arrays on the device; `forms` as of `fista_tile`.
    """
    _proximal_gradient(Q, norms2, G, alpha, step, tol, max_iter, positive, False, *codes, **forms)


def fista_tile(Q, norms2, G, alpha, step, tol, max_iter, positive, *codes, **forms):
    """As `ista_tile`, with momentum that is dropped, in each row, whenever it points uphill.

    Parameters
    ----------
    Q, norms2, G, alpha, step, tol, max_iter, positive, *codes : as of `kernels.cpu.proximal.fista_tile`
        `step` may be an array of shape (T,). G may be None if `atoms` is given.
    signals : (T, n) array or None
    atoms : (K, n) array or None
        Without the ridge that G has on its diagonal. With atoms, products go through the residual where that takes
        fewer operations than the Gram matrix, K >= 2 n.
    ridge : (K,) array or None
        The quadratic penalty of each atom.
    weights : (T, K) array or None
        Factors of alpha.
    missing : (T, n) bool array or None
        Entries that do not count in the error; needs `atoms`. `Q` and `signals` have zeros there.
    scales : (T,) array or None
        Factors of all atoms, for each signal; `Q` has them already. Needs `atoms`, and `missing`.
    """
    _proximal_gradient(Q, norms2, G, alpha, step, tol, max_iter, positive, True, *codes, **forms)


def _proximal_gradient(
    Q, norms2, G, alpha, step, tol, max_iter, positive, accelerated, indices, values, counts, gaps, iterations, status,
    signals=None, atoms=None, ridge=None, weights=None, missing=None, scales=None,
):  # fmt: skip
    import cupy

    (n_signals, n_atoms), dtype = Q.shape, Q.dtype
    if n_signals == 0:
        return
    if atoms is None or (G is not None and missing is None and n_atoms < 2 * atoms.shape[1]):
        form, matrix, ridge = _GRAM, G, None  # the Gram matrix has it
    else:
        form, matrix = _RESIDUAL if signals is not None else _IMAGE, atoms
    capacity, width = indices.shape[1], matrix.shape[1]
    lengths = cupy.full(n_signals, step, dtype) if np.ndim(step) == 0 else step.astype(dtype, copy=False)
    z, before = cupy.empty((n_signals, n_atoms), dtype), cupy.empty((n_signals, n_atoms), dtype)
    image, old_image = cupy.empty((n_signals, width), dtype), cupy.empty((n_signals, width), dtype)
    if form == _GRAM:
        rest = products = None
    else:
        rest, products = cupy.empty((n_signals, width), dtype), cupy.empty((n_signals, n_atoms), dtype)
    momentum, floors, t_now = cupy.empty(n_signals, dtype), cupy.empty(n_signals, dtype), cupy.empty(n_signals)
    lowest, lowest_at = cupy.empty(n_signals), cupy.empty(n_signals, np.int32)
    rows, running = cupy.empty(n_signals, np.int32), cupy.empty(2, np.int32)  # and their non-zeros
    kernel("proximal", "start", dtype)(
        _grid(n_signals), (_THREADS,), Q, weights, alpha, positive, _ROUNDING[dtype], indices, values, counts, capacity,
        n_signals, n_atoms, z, momentum, t_now, floors, lowest, lowest_at, rows, status,
    )  # fmt: skip
    residuals, judge = kernel("proximal", "residuals", dtype), kernel("proximal", "judge", dtype, form)
    wide = next((wide for wide in (0, *_WIDE) if width <= 32 * wide), 0) if form == _RESIDUAL and missing is None else 0
    readback, rounds, n = Readback(running), 0, n_signals
    sparse = ready = False  # whether steps sum the images, and whether the last one has left all for the next

    def correlate(extrapolated):
        """Correlations with what is left of the signals, at the extrapolated points or at the codes."""
        if form == _GRAM:
            return image
        residuals(
            _grid(n),
            (_THREADS,),
            signals,
            missing,
            image,
            old_image,
            momentum,
            scales,
            rows,
            extrapolated,
            n,
            width,
            rest,
        )
        cupy.matmul(rest, atoms.T, out=products)
        return products

    while True:
        if not ready:
            cupy.matmul(z, matrix, out=image)
        last = rounds >= max_iter
        if last or rounds % _CHECK == 0:
            ready = False
            running.fill(0)
            judge(
                _grid(n), (_THREADS,), correlate(False), Q, z, weights, ridge, alpha, norms2, floors, scales, rows, tol,
                positive, rounds, last, _IDLE, n, n_atoms, capacity, lowest, lowest_at, indices, values, counts, gaps,
                iterations, status, running,
            )  # fmt: skip
            if last:
                return
            seen = readback.next(running)
            if seen is not None and seen[0] == 0:
                return
            sparse = seen is not None and wide > 0 and seen[1] <= _SPARSE * seen[0] * n_atoms
            if seen is not None and seen[0] < _CROWDED * n:
                left = cupy.flatnonzero(status[rows] == 2)
                n = len(left)
                if n == 0:
                    return
                rows = rows[left]
                if form == _GRAM:
                    z, before = z[left], before[left]
                    image, old_image = image[left], old_image[left]
                else:  # each into the memory that is free: no more is needed than before
                    z, before, products = _moved(left, z, before, products)
                    image, old_image, rest = _moved(left, image, old_image, rest)
        if ready:
            cupy.matmul(rest, atoms.T, out=products)
        else:
            correlate(True)
        kernel("proximal", "step", dtype, form, wide if sparse else 0)(
            _grid(n), (_THREADS,), image if form == _GRAM else products, old_image if form == _GRAM else None, Q, z,
            before, weights, ridge, alpha, lengths, scales, rows, status, positive, accelerated, n, n_atoms, momentum,
            t_now, atoms, signals, image, width, old_image, rest,
        )  # fmt: skip
        ready = sparse
        z, before = before, z
        image, old_image = old_image, image
        rounds += 1


def _grid(n_rows):
    """Blocks for rows of a warp each."""
    return (min(-(-n_rows * 32 // _THREADS), _BLOCKS),)


def _moved(rows, first, second, free):
    """Some rows of two arrays, each in the memory of the one before it; the memory of the second is free then."""
    import cupy

    n = len(rows)
    cupy.take(first, rows, axis=0, out=free[:n])
    cupy.take(second, rows, axis=0, out=first[:n])
    return free[:n], first[:n], second[:n]
