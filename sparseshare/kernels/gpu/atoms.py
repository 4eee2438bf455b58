"""The atom sweep on a GPU: blocks of atoms by matrix products, the atoms of a block one after the other."""

from .module import kernel

_BLOCKS = (64, 32, 16, 8)  # atoms; a block of more makes fewer launches, and must fit in shared memory
_SHARED = 64 * 1024  # bytes that every GPU since compute capability 7.5 has for a block of threads
_WARPS = 16


def normalise_rows(A, B, first, last, least_mass, A_rows, B_rows):
    """A_rows = A_k / A_kk and B_rows = B_k / A_kk, as the CPU's twin; `least_mass` is a device array of one number."""
    n_atoms, n_features = B.shape
    kernel("atoms", "normalise_rows", A_rows.dtype)(
        (last - first,), (256,), A, B, least_mass, first, n_atoms, n_features, A_rows, B_rows
    )


def sweep_block(first, ratios, targets, products, sphere, nonnegative, zero_mean, l1_budget, dictionary):
    """Block coordinate descent over the atoms of a block.

    As the CPU's twin, but for the steps before the block, which are `targets` - `products`, unchanged.
    """
    import cupy

    n_block, n_atoms = ratios.shape
    n_features = dictionary.shape[1]
    room = n_block * (n_block + n_features) * dictionary.itemsize
    scratch = None
    if room > _SHARED:
        scratch, room = cupy.empty((n_block, n_features), dictionary.dtype), n_block * n_block * dictionary.itemsize
    threads = 32 * max(2, min(n_block, _WARPS))
    kernel("atoms", "sweep_block", dictionary.dtype)(
        (1,), (threads,), first, n_block, n_atoms, n_features, ratios, targets, products, sphere, nonnegative,
        zero_mean, l1_budget, dictionary, scratch, shared=room,
    )  # fmt: skip


def sweep(A, B, least_share, sphere, nonnegative, zero_mean, l1_budget, dictionary):
    """One pass over all atoms, in place.

    Parameters
    ----------
    A, B : (K, K) and (K, n) arrays, float64
    least_share : float
        Atoms whose mass A_kk is at most this share of the largest take no step.
    sphere, nonnegative, zero_mean, l1_budget : as of `sweep_block`
    dictionary : (K, n) array, updated in place
    """
    import cupy

    (n_atoms, n_features), dtype = dictionary.shape, dictionary.dtype
    least_mass = least_share * A.diagonal().max().reshape(1)
    ratios, targets = cupy.empty((n_atoms, n_atoms), dtype), cupy.empty((n_atoms, n_features), dtype)
    normalise_rows(A, B, 0, n_atoms, least_mass, ratios, targets)
    n_block = next((b for b in _BLOCKS if b * (b + n_features) * dtype.itemsize <= _SHARED), _BLOCKS[-2])
    products = cupy.empty((n_block, n_features), dtype)
    for first in range(0, n_atoms, n_block):
        last = min(first + n_block, n_atoms)
        own = products[: last - first]
        cupy.matmul(ratios[first:last], dictionary, out=own)
        form = sphere, nonnegative, zero_mean, l1_budget
        sweep_block(first, ratios[first:last], targets[first:last], own, *form, dictionary)
