"""What a device has for the blocks of a kernel: shared memory, and scratch memory for a limited number of them."""

from functools import cache

_STATIC = 1024  # bytes of shared memory that kernels declare themselves, at most
_SCRATCH = 2**28  # bytes of scratch memory for all blocks of a launch, unless one of them needs more
_BLOCKS = 4  # for each multiprocessor, where blocks go from one signal to the next


def shared_memory():
    """Bytes of dynamic shared memory that a block may have on the current device."""
    return _attributes(_current())["MaxSharedMemoryPerBlockOptin"] - _STATIC


def blocks_of_scratch(n_signals, bytes_a_block):
    """Blocks that share the signals out among them, each with scratch memory of its own."""
    return max(min(n_signals, _BLOCKS * _attributes(_current())["MultiProcessorCount"], _SCRATCH // bytes_a_block), 1)


def block_memory(n_signals, n_bytes, dtype):
    """Where blocks keep what belongs to their signal: in shared memory if that lets several run at once.

    Returns
    -------
    blocks : int
        Blocks to launch; they share the signals out among them.
    scratch : cupy.ndarray or None
        Scratch memory for all blocks.
    items : int
        Items of scratch memory a block, a multiple of 16 bytes.
    shared : int
        Bytes of shared memory a block.
    """
    import cupy

    if n_bytes <= shared_memory() // 2:
        return n_signals, None, 0, n_bytes
    n_bytes = -(-n_bytes // 16) * 16
    blocks, items = blocks_of_scratch(n_signals, n_bytes), n_bytes // dtype.itemsize
    return blocks, cupy.empty(blocks * items, dtype), items, 0


def _current():
    import cupy

    return cupy.cuda.Device().id


@cache
def _attributes(device):
    import cupy

    return cupy.cuda.Device(device).attributes
