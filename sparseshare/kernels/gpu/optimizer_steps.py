"""Steps of optimizers, all parameters of a network in one launch: they are many and most of them small."""

import numpy as np

from .module import kernel

SGD, MOMENTUM, ADAM = 0, 1, 2
_VALUES, _THREADS = 1024, 256  # values a block works on, by so many threads
_NONNEGATIVE, _PENALISED = 1, 2
_KEPT = 64  # tables: where memory is reused, steps ask for a few in turn


def fused_step(kind, entries, tables, rate, l1=0.0, l2=0.0, decay1=0.0, decay2=0.0, epsilon=0.0):
    """One step of several parameters.

    Parameters
    ----------
    kind : int
        SGD, MOMENTUM or ADAM, as `sgd_step`, `momentum_step` and `adam_step` of the CPU.
    entries : list of tuples
        (values, gradient, first state, second state, uses, nonnegative, penalised, step, l1, l2): arrays of one float
        type, `gradient` of shape (parts, n) or of the shape of `values`, `uses` of int64; None where there is none.
    tables : dict
        Kept between calls: addresses that have been sent to the device.
    rate, decay1, decay2, epsilon : float
        The rate is multiplied by `step`, but of ADAM.
    l1, l2 : float
        Penalties, added to those of entries that are penalised.
    """
    import cupy

    addresses, factors, n_blocks = [], [], 0
    for values, gradient, first, second, uses, nonnegative, penalised, step, own_l1, own_l2 in entries:
        size = values.size
        if gradient.dtype != values.dtype or not gradient.flags.c_contiguous:  # the kernel sees addresses alone
            raise TypeError(f"A gradient must be C-contiguous and of dtype {values.dtype}, got {gradient.dtype}")
        arrays = (values, gradient, first, second, uses)
        addresses += [0 if array is None else array.data.ptr for array in arrays]
        addresses += [size, gradient.size // max(size, 1), _NONNEGATIVE * nonnegative + _PENALISED * penalised]
        factors += [step, own_l1, own_l2]
        n_blocks += -(-size // _VALUES)
    key = (*addresses, *factors)
    if key not in tables:
        if len(tables) >= _KEPT:
            tables.clear()
        tables[key] = cupy.asarray(np.array(addresses, np.int64)), cupy.asarray(np.array(factors, np.float64))
    table, factors = tables[key]
    launch = kernel("optimizer_steps", "fused_step", entries[0][0].dtype, kind)
    launch((n_blocks,), (_THREADS,), table, factors, rate, l1, l2, decay1, decay2, epsilon)
