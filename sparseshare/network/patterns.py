"""Which weights share which value: an index array, kept as it is or as a rule that makes it when it is needed."""

from abc import ABC, abstractmethod
from math import ceil, prod

import numpy as np

from sparseshare.devices import module_of, to_device
from sparseshare.kernels.dispatch import kernels_for

PIECE = 16  # weights that a product takes at a time: a run is a whole number of them


class Pattern(ABC):
    """The number of the value behind every weight.

    Attributes
    ----------
    shape : tuple of int
        Of the weights.
    n_values : int
    nbytes : int
        What keeping the pattern costs.
    """

    nbytes = 0
    _stays_on_host = ("indices", "fixed_signs", "bits", "starts", "base", "merged")  # the index made of them does not

    def __init__(self, shape, n_values):
        self.shape, self.n_values = tuple(int(length) for length in shape), int(n_values)

    @abstractmethod
    def index(self):
        """Number of the value of every weight, -1 for a weight that is always 0; int32 array of `shape`."""

    def signs(self):
        """+1 or -1 for every weight, an int8 array of `shape`; None if all are +1."""
        return None

    def on(self, device):
        """`index` and `signs` where they are wanted.

        Parameters
        ----------
        device : str

        Returns
        -------
        index, signs : arrays of `shape`, or None for signs that are all +1
        """
        return to_device(self.index(), device), to_device(self.signs(), device)

    def state(self):
        """Constructor's arguments, for storage: a dict of numbers, tuples, arrays and patterns."""
        return {"shape": self.shape, "n_values": self.n_values}


class Listed(Pattern):
    """The index array itself, in the smallest integers that hold it.

    Parameters
    ----------
    indices : int ndarray
    n_values : int or None, default=None
        None is one more than the largest index.
    signs : int8 ndarray or None, default=None
    """

    def __init__(self, indices, n_values=None, signs=None):
        n_values = int(indices.max()) + 1 if n_values is None else n_values
        super().__init__(indices.shape, n_values)
        self.indices = indices.astype(np.min_scalar_type(-max(self.n_values, 1)), copy=False)
        self.fixed_signs = signs

    @property
    def nbytes(self):
        return self.indices.nbytes + (0 if self.fixed_signs is None else self.fixed_signs.nbytes)

    def index(self):
        return self.indices.astype(np.int32)

    def signs(self):
        return self.fixed_signs

    def state(self):
        return {"indices": self.indices, "n_values": self.n_values, "signs": self.fixed_signs}


class Hashed(Pattern):
    """Value and sign of a weight by a hash of its position; nothing is kept.

    Parameters
    ----------
    shape : tuple of int
    n_values : int
    seed : int
    signed : bool, default=True
    run : int, default=1
        So many weights beside each other in a row take values beside each other, and one sign: 1 or a multiple of 16.
        Shorter where there are fewer values, or fewer columns.
    """

    def __init__(self, shape, n_values, seed, signed=True, run=1):
        super().__init__(shape, n_values)
        self.seed, self.signed = int(seed), bool(signed)
        longest = min(self.n_values // PIECE, -(-self.shape[-1] // PIECE)) * PIECE
        self.run = max(min(int(run), longest), 1)

    def on(self, device):
        """`index` and `signs` where they are wanted, made there."""
        n_columns, xp = self.shape[-1], module_of(device)
        n_runs = -(-n_columns // self.run)
        words = (prod(self.shape[:-1]), n_runs)
        index, signs = xp.empty(prod(words), np.int32), xp.empty(prod(words), np.int8)
        kernels_for(device, "shared_products").hashed_index(self.n_values - self.run + 1, self.seed, index, signs)
        if self.run > 1:
            index = (index[:, None] + xp.arange(self.run, dtype=np.int32)).reshape(words[0], -1)[:, :n_columns]
            signs = xp.repeat(signs, self.run).reshape(words[0], -1)[:, :n_columns]
        index, signs = (xp.ascontiguousarray(each).reshape(self.shape) for each in (index, signs))
        return index, signs if self.signed else None

    def index(self):
        return self.on("cpu")[0]

    def signs(self):
        return self.on("cpu")[1]

    def state(self):
        return {
            "shape": self.shape,
            "n_values": self.n_values,
            "seed": self.seed,
            "signed": self.signed,
            "run": self.run,
        }


class Circulant(Pattern):
    """Weight (i, j) is value (j - i) mod n, n the longer side.

    Parameters
    ----------
    shape : (int, int)
    """

    def __init__(self, shape):
        super().__init__(shape, max(shape))

    def index(self):
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        return ((columns - rows) % self.n_values).astype(np.int32)

    def state(self):
        return {"shape": self.shape}


class Toeplitz(Pattern):
    """A convolution as a matrix from a flat input to its flat output, both with channels last.

    Parameters
    ----------
    input_shape : tuple of int
        (time, channels) or (height, width, channels).
    kernel, stride : tuple of int
        One entry an axis.
    padding : {"valid", "same"}
    n_filters : int
    """

    def __init__(self, input_shape, kernel, stride, padding, n_filters):
        self.input_shape, self.kernel, self.stride = tuple(input_shape), tuple(kernel), tuple(stride)
        self.padding, self.n_filters = padding, int(n_filters)
        self.positions = positions_of(input_shape[:-1], kernel, stride, padding)
        super().__init__(
            (prod(input_shape), prod(self.positions) * self.n_filters),
            prod(self.kernel) * input_shape[-1] * self.n_filters,
        )

    def index(self):
        n_channels = self.input_shape[-1]
        index = np.full((prod(self.input_shape[:-1]), n_channels, prod(self.positions), self.n_filters), -1, np.int32)
        values = np.arange(self.n_values, dtype=np.int32).reshape(-1, n_channels, self.n_filters)
        places = np.indices(self.positions).reshape(len(self.positions), -1)
        first = [
            position * stride - before
            for position, stride, before in zip(
                places, self.stride, padding_before(self.input_shape[:-1], self.kernel, self.stride, self.padding),
                strict=True,
            )
        ]  # fmt: skip
        outputs = np.arange(places.shape[1])
        for number, offset in enumerate(np.ndindex(self.kernel)):
            pixels = [start + step for start, step in zip(first, offset, strict=True)]
            inside = np.logical_and.reduce(
                [(0 <= pixel) & (pixel < n) for pixel, n in zip(pixels, self.input_shape, strict=False)]
            )
            if inside.any():
                flat = np.ravel_multi_index([pixel[inside] for pixel in pixels], self.input_shape[:-1])
                index[flat, :, outputs[inside]] = values[number]
        return index.reshape(self.shape)

    def state(self):
        names = ("input_shape", "kernel", "stride", "padding", "n_filters")
        return {name: getattr(self, name) for name in names}


class Kept(Pattern):
    """Some weights have a value each, the others are 0: a bit a weight.

    Values go through the matrix column by column, which is how a product reads them.

    Parameters
    ----------
    shape : tuple of int
        The last axis counts the columns.
    bits : uint64 ndarray of shape (n_columns, ceil(n_rows / 64))
        Which weights of a column have a value, the lowest bit first.

    Attributes
    ----------
    starts : int64 ndarray of shape (n_columns + 1,)
        The first value of every column, and the number of all.
    """

    def __init__(self, shape, bits):
        starts = np.concatenate([[0], np.cumsum(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))])
        super().__init__(shape, int(starts[-1]))
        self.bits, self.starts = bits, starts

    @classmethod
    def of(cls, mask):
        """From a boolean array."""
        columns = mask.reshape(-1, mask.shape[-1]).T
        packed = np.zeros((len(columns), 8 * -(-columns.shape[1] // 64)), np.uint8)
        packed[:, : -(-columns.shape[1] // 8)] = np.packbits(columns, axis=1, bitorder="little")
        return cls(mask.shape, packed.view("<u8").astype(np.uint64, copy=False))

    @property
    def nbytes(self):
        return self.bits.nbytes + self.starts.nbytes

    def columns(self):
        """Which weights have a value, a bool array of shape (n_columns, n_rows)."""
        packed = self.bits.astype("<u8", copy=False).view(np.uint8)
        return np.unpackbits(packed, axis=1, count=prod(self.shape[:-1]), bitorder="little").view(bool)

    def index(self):
        mask = self.columns()
        index = np.cumsum(mask, dtype=np.int32) - 1
        index[~mask.ravel()] = -1
        return np.ascontiguousarray(index.reshape(mask.shape).T).reshape(self.shape)

    def state(self):
        return {"shape": self.shape, "bits": self.bits}


class Merged(Pattern):
    """A pattern whose values share values in turn, or have gone.

    Parameters
    ----------
    base : Pattern
    merged : Pattern
        Of one axis: for every value of `base` the number of the new one, or -1.
    """

    def __init__(self, base, merged):
        super().__init__(base.shape, merged.n_values)
        self.base, self.merged = base, merged

    @property
    def nbytes(self):
        return self.base.nbytes + self.merged.nbytes

    def index(self):
        return np.append(self.merged.index(), np.int32(-1))[self.base.index()]

    def signs(self):
        own, signs = self.merged.signs(), self.base.signs()
        if own is None:
            return signs
        own = np.append(own, np.int8(1))[self.base.index()]
        return own if signs is None else own * signs

    def state(self):
        return {"base": self.base, "merged": self.merged}


PATTERNS = {cls.__name__: cls for cls in (Listed, Hashed, Circulant, Toeplitz, Kept, Merged)}


def positions_of(lengths, kernel, stride, padding):
    """Output positions of a convolution along each axis."""
    if padding == "same":
        return tuple(ceil(n / s) for n, s in zip(lengths, stride, strict=True))
    return tuple((n - k) // s + 1 for n, k, s in zip(lengths, kernel, stride, strict=True))


def padding_before(lengths, kernel, stride, padding):
    """Zeros before the first sample of each axis: half of what "same" needs, the smaller half of an odd number."""
    if padding == "valid":
        return (0,) * len(kernel)
    positions = positions_of(lengths, kernel, stride, padding)
    needed = [max((p - 1) * s + k - n, 0) for p, s, k, n in zip(positions, stride, kernel, lengths, strict=True)]
    return tuple(n // 2 for n in needed)
