"""Rounds of accelerated proximal gradient for several convolutional problems at once, on a GPU.

The CPU solves one problem at a time with `optimization.proximal`; this is the same method with all that it decides left
on the device. Arrays as `conv_fista.cu` describes them.
"""

from math import prod

import numpy as np

from .module import kernel

_THREADS = 256
_ENTRIES = 2048  # of a map that a block goes through
_BLOCKS = 64  # of a map or an image, at most
STATE = (
    "phase", "commit", "share", "curvature", "total", "stride", "objective", "bound", "tolerance", "most", "iterations",
    "old_share", "pull", "converged", "from_new", "energy",
)  # fmt: skip
LOAD, DONE = 0, 3  # phases


def inset(inner, outer, first):
    """Where an array of shape `inner` lies in one of shape `outer`, from entry `first` on, as the kernels take it."""
    import cupy

    rows = [(fill,) * (3 - len(shape)) + tuple(shape) for shape, fill in ((inner, 1), (outer, 1), (first, 0))]
    return cupy.asarray(np.array(sum(rows, ()), np.int32))


def n_blocks(n):
    """Blocks for n entries, by which sums are cut: the same for any number of problems."""
    return max(1, min(_BLOCKS, -(-n // _ENTRIES)))


def aim(state, target, mask, made, place, image, far, residual, sums):
    """Images that were decided upon, and the residual at the extrapolated point."""
    n = prod(target.shape[1:])
    kernel("conv_fista", "aim", target.dtype)(
        (sums.shape[1], len(target)), (_THREADS,), state, target, mask, made, place, n, image, far, residual, sums
    )


def step(state, slopes, weights, place, n_inner, alpha, joint, positive, codes, far, fresh, sums):
    """Maps that were decided upon, and new ones by a proximal step: maps (B, J, K, ...)."""
    n_problems, n_signals, n_atoms = codes.shape[:3]
    weights_a_map = 0 if weights is None else weights[0].size
    grid = n_atoms if joint else n_signals * n_atoms, n_blocks(n_inner), n_problems
    if joint:
        kernel("conv_fista", "joint_step", codes.dtype)(
            grid, (_THREADS,), state, slopes, weights, weights_a_map, place, n_signals, alpha, joint, positive, codes,
            far, fresh, sums,
        )  # fmt: skip
    else:
        kernel("conv_fista", "step", codes.dtype)(
            grid, (_THREADS,), state, slopes, weights, weights_a_map, place, n_atoms, alpha, positive, codes, far,
            fresh, sums,
        )  # fmt: skip


def look(state, target, mask, image, far, synthesized, place, made, sums):
    """Sums over the images of the new maps."""
    n = prod(target.shape[1:])
    kernel("conv_fista", "look", target.dtype)(
        (sums.shape[1], len(target)), (_THREADS,), state, target, mask, image, far, synthesized, place, n, made, sums
    )


def decide(aimed, stepped, looked, alpha, bounded, max_iter, state):
    """What every problem does next."""
    kernel("conv_fista", "decide", _THREADS)(
        (len(state),), (_THREADS,), aimed, aimed.shape[1], stepped, stepped.shape[1], looked, looked.shape[1], alpha,
        bounded, max_iter, state,
    )  # fmt: skip


def take(state, problems, place, codes, fresh, out):
    """The maps of some problems, out (n, J, K, *positions)."""
    n_inner = prod(out.shape[3:])
    kernel("conv_fista", "take", out.dtype)(
        (prod(out.shape[1:3]), n_blocks(n_inner), len(problems)), (_THREADS,), state, problems, place, codes, fresh, out
    )
