"""Problems in the form in which kernels take them: scaled, padded, aligned."""

import numpy as np

from reference import relative_gap

PADDING = 64
PROBLEMS = ("wide", "tall", "coherent", "duplicates", "any_norm", "zero_atoms", "low_rank")


def problem(name, n_signals=9, seed=0):
    """Signals (N, n) and atoms (K, n) of unit norm unless the name says otherwise; the last signal is zero."""
    rng = np.random.default_rng(seed)
    n_atoms, n_features = {"tall": (10, 40), "coherent": (100, 25)}.get(name, (70, 20))
    atoms = rng.standard_normal((n_atoms, n_features))
    if name == "coherent":  # bumps beside each other: neighbours have an inner product of 0.98
        grid, centre = np.linspace(0, 1, n_features), np.linspace(0, 1, n_atoms)[:, None]
        atoms = np.exp(-50 * (grid - centre) ** 2)
    elif name == "duplicates":
        atoms[n_atoms // 2 :] = atoms[: n_atoms - n_atoms // 2]
        atoms[-10:] *= -1
    elif name == "low_rank":
        atoms = atoms[:, :6] @ rng.standard_normal((6, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    if name == "any_norm":
        atoms *= np.exp2(rng.uniform(-5, 0, (n_atoms, 1)))
    elif name == "zero_atoms":
        atoms[::3] = 0
    signals = (rng.standard_normal((n_signals, 5, 1)) * atoms[rng.integers(0, n_atoms, (n_signals, 5))]).sum(axis=1)
    signals += 0.05 * np.abs(signals).max() * rng.standard_normal(signals.shape)
    signals[-1] = 0
    return signals, atoms


def power_of_two_below(a):
    """The largest power of two that is no larger than a; 1 for zero."""
    return np.exp2(np.floor(np.log2(np.where(a > 0, a, 1.0))))


def aligned(a):
    """A copy whose data starts at a multiple of 64 bytes."""
    room = np.empty(a.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


class Tile:
    """One tile of signals with everything a kernel asks for, and room for what it gives."""

    def __init__(self, signals, atoms, dtype):
        self.X = (signals / power_of_two_below(np.abs(signals).max(axis=1, keepdims=True))).astype(dtype)
        self.D = (atoms / power_of_two_below(np.linalg.norm(atoms, axis=1).max())).astype(dtype)
        self.n_atoms, padded = len(atoms), -(-len(atoms) // PADDING) * PADDING
        D = np.zeros((padded, atoms.shape[1]), dtype)
        D[: self.n_atoms] = self.D
        self.Q, self.G = aligned(self.X @ D.T), aligned(D @ D.T)
        self.norms2 = np.sum(self.X.astype(float) ** 2, axis=1)
        self.largest = np.abs(self.Q).max(axis=1)
        self.clear()

    def clear(self, capacity=None):
        """Forget the codes; `capacity` is the room for one of them, all atoms unless told."""
        n_signals, capacity = len(self.Q), capacity or len(self.G)
        self.indices = np.zeros((n_signals, capacity), np.int32)
        self.values = np.zeros((n_signals, capacity), self.Q.dtype)
        self.counts, self.iterations = np.zeros((2, n_signals), np.int32)
        self.certificates = np.full(n_signals, np.nan)
        self.status = np.full(n_signals, -1, np.int8)
        return self

    def alone(self, i):
        """The tile of signal i alone, without codes."""
        other = object.__new__(Tile)
        other.__dict__.update(self.__dict__)
        other.X, other.Q, other.norms2, other.largest = (
            a[i : i + 1].copy() for a in (self.X, self.Q, self.norms2, self.largest)
        )
        return other.clear(self.indices.shape[1])

    @property
    def codes(self):
        return self.indices, self.values, self.counts

    @property
    def report(self):
        return self.certificates, self.iterations, self.status

    def dense(self):
        """Codes (T, K) in float64; padding must have stayed out, and no atom may appear twice or at zero."""
        W = np.zeros((len(self.Q), self.n_atoms))
        for w, atoms, values, count in zip(W, *self.codes, strict=True):
            used = atoms[:count]
            assert len(set(used.tolist())) == count
            assert np.all((used >= 0) & (used < self.n_atoms))
            assert np.all(np.isfinite(values[:count])) and np.all(values[:count] != 0)
            w[used] = values[:count]
        return W

    def residuals(self):
        """|x - w D|^2 in float64."""
        return np.sum((self.X.astype(float) - self.dense() @ self.D.astype(float)) ** 2, axis=1)

    def check_residuals(self):
        """Reported residuals are right up to what rounding of the Gram matrix does to them."""
        rounding = 4 * np.finfo(self.Q.dtype).eps
        error = np.abs(self.certificates - self.residuals())
        assert np.all(error <= rounding * (self.norms2 + np.abs(self.dense()).sum(axis=1) ** 2))

    def gaps(self, alpha, positive=False):
        """Relative duality gaps in float64, from signals, atoms and codes alone."""
        return np.array(
            [relative_gap(x, self.D, w, a, positive) for x, w, a in zip(self.X, self.dense(), alpha, strict=True)]
        )

    def same_bits(self, other, i):
        """Whether the code and the report of signal i equal those of a tile of that signal alone."""
        count = self.counts[i]
        return (
            count == other.counts[0]
            and np.array_equal(self.indices[i, :count], other.indices[0, :count])
            and np.array_equal(self.values[i, :count], other.values[0, :count])
            and all(np.array_equal(a[i : i + 1], b) for a, b in zip(self.report, other.report, strict=True))
        )
