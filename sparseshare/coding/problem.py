"""The problem that a coder solves: a dictionary, a penalty or a budget, and how far to go. Checked once, solved often.

Kernels see a scaled twin of what the user typed. Signals and dictionary are scaled by powers of two, weights of the
penalty are divided into the atoms, the quadratic part of an elastic net sits on the diagonal of the Gram matrix, atoms
of pursuits have unit norm. So there is one kernel for all these forms, and one certificate.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparseshare.optimization.lipschitz import largest_eigenvalue
from sparseshare.validation import check_bool, check_choice, check_dictionary, check_number

BY_SIGNAL = ("alpha", "counts", "max_error", "max_l1_norm", "weights")  # of which there may be one a signal
ATOM_PADDING = 64  # atoms: the kernels' vectors come in blocks of this many
_BYTES = 64  # of a vector
_DERIVED = ("atoms", "atom_scale", "code_scale", "gram", "lipschitz", "ridge", "transposed_atoms", "_norms", "_unit")
_FREE = 2.0**-60  # the weight that `threshold` gives to atoms without penalty: alpha times this is lost in rounding


@dataclass(frozen=True)
class Form:
    """What an algorithm can be asked for."""

    family: str
    lasso: bool = False
    pursuit: bool = False
    positive: bool = True
    options: frozenset = frozenset()


def _form(family, *options, **flags):
    return Form(family, options=frozenset(options), **flags)


_PENALTY = ("alpha", "weights", "l1_ratio")
FORMS = {
    "lasso_lars": _form("lasso", *_PENALTY, "max_error", "max_l1_norm", lasso=True),
    "lasso_cd": _form("lasso", *_PENALTY, lasso=True),
    "ista": _form("proximal", *_PENALTY, lasso=True),
    "fista": _form("proximal", *_PENALTY, lasso=True),
    "lars": _form("lasso", "n_nonzero_coefs", positive=False),
    "omp": _form("pursuit", "n_nonzero_coefs", "max_error", pursuit=True),
    "ols": _form("pursuit", "n_nonzero_coefs", "max_error", pursuit=True, positive=False),
    "mp": _form("pursuit", "n_nonzero_coefs", "max_error", pursuit=True),
    "iht": _form("thresholding", "n_nonzero_coefs", pursuit=True),
    "threshold": _form("thresholding", "alpha", "weights"),
}
ALGORITHMS = ("auto", *FORMS)


def resolve_algorithm(algorithm, n_nonzero_coefs=None, max_error=None, alpha=None):
    """What "auto" stands for: a pursuit if a count or only an error is given, else the lasso by its active set."""
    if algorithm != "auto":
        return algorithm
    return "omp" if n_nonzero_coefs is not None or (max_error is not None and alpha is None) else "lasso_lars"


class Problem:
    """Codes of signals for one dictionary: what to minimise, under which bounds, how exactly.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
    algorithm : str, default="auto"
        One of `ALGORITHMS`.
    alpha : float or array of shape (n_samples,), default=None
        Penalty; None is 1 for penalised algorithms without another bound.
    l1_ratio : float, default=1.0
        Share of the l1 norm in the penalty; below 1 an elastic net.
    n_nonzero_coefs : int or array of shape (n_samples,), default=None
        Largest number of atoms in a code; None is `max(n_features / 10, 1)` unless an error is given.
    max_error : float or array of shape (n_samples,), default=None
        Squared residual norm at which a pursuit stops, or that `lasso_lars` reaches with the least l1 norm.
    max_l1_norm : float or array of shape (n_samples,), default=None
        Bound on the l1 norm of the codes, for `lasso_lars`.
    weights : array of shape (n_components,) or (n_samples, n_components), default=None
        Factors of `alpha`, an atom or an entry each.
    positive : bool, default=False
    tol : float, default=1e-6
        Relative duality gap of a lasso code.
    max_iter : int, default=1000
    gram : array of shape (n_components, n_components), default=None
        `dictionary @ dictionary.T`, if it is at hand.
    owner : str, default="sparse_encode"
        What error messages say the parameters belong to.

    Raises
    ------
    ValueError
        Naming the parameter, what was given and what is allowed.
    """

    def __init__(
        self,
        dictionary,
        *,
        algorithm="auto",
        alpha=None,
        l1_ratio=1.0,
        n_nonzero_coefs=None,
        max_error=None,
        max_l1_norm=None,
        weights=None,
        positive=False,
        tol=1e-6,
        max_iter=1000,
        gram=None,
        owner="sparse_encode",
    ):
        check_choice("algorithm", algorithm, ALGORITHMS, of=owner)
        self.algorithm = resolve_algorithm(algorithm, n_nonzero_coefs, max_error, alpha)
        self.form = FORMS[self.algorithm]
        self.owner = owner
        self.dictionary = check_dictionary(dictionary)
        self.dtype = self.dictionary.dtype
        self.n_components, self.n_features = self.dictionary.shape
        self.positive = check_bool("positive", positive, of=owner)
        if self.positive and not self.form.positive:
            raise ValueError(f"Positive constraint not supported for '{self.algorithm}' coding method.")
        self.tol = check_number("tol", tol, 0, of=owner)
        self.max_iter = check_number("max_iter", max_iter, 1, integer=True, of=owner)
        self.l1_ratio = check_number("l1_ratio", l1_ratio, 0, 1, open_low=True, of=owner)
        self.max_error = self._per_signal("max_error", max_error)
        self.max_l1_norm = self._per_signal("max_l1_norm", max_l1_norm)
        self.constrained = self.form.lasso and (self.max_error is not None or self.max_l1_norm is not None)
        self.alpha = self._alpha(alpha)
        self.counts = self._counts(n_nonzero_coefs)
        self.weights = self._weights(weights)
        self._refuse("l1_ratio", self.l1_ratio != 1)
        if self.l1_ratio != 1 and (np.ndim(self.alpha) or self.constrained):
            raise ValueError("l1_ratio below 1 needs one alpha for all signals, and neither max_error nor max_l1_norm")
        self._given_gram = self._check_gram(gram)

    # ------------------------------------------------------------------------------------------------ what is asked for
    def _refuse(self, name, given):
        if given and name not in self.form.options:
            able = [algorithm for algorithm, form in FORMS.items() if name in form.options]
            raise ValueError(f"{name} is not used by algorithm={self.algorithm!r}; it is by {', '.join(able)}")

    def _per_signal(self, name, value, low=0.0):
        """A number, or an array with one of them a signal; None stays None."""
        self._refuse(name, value is not None)
        if value is None or np.ndim(value) == 0:
            return check_number(name, value, low, allow_none=True, of=self.owner)
        array = np.asarray(value, dtype=np.float64)
        if array.ndim != 1 or not np.isfinite(array).all() or (array < low).any():
            raise ValueError(
                f"The {name!r} parameter of {self.owner} must be a finite number of at least {low:g} or one such "
                f"number a signal, got an array of shape {array.shape} from {array.min() if array.size else None}"
            )
        return array

    def _alpha(self, alpha):
        if "alpha" not in self.form.options:
            return 0.0  # other algorithms share a signature with those that have a penalty
        if alpha is None:
            return 0.0 if self.constrained else 1.0
        return self._per_signal("alpha", alpha)

    def _counts(self, count):
        if "n_nonzero_coefs" not in self.form.options:
            return self.n_components
        most = min(self.n_features, self.n_components) if self.algorithm != "mp" else self.n_components
        if count is None:
            return most if self.max_error is not None else int(min(max(self.n_features / 10, 1), most))
        if np.ndim(count) == 0:
            return min(check_number("n_nonzero_coefs", count, 1, integer=True, of=self.owner), most)
        array = np.asarray(count)
        if array.ndim != 1 or array.dtype.kind not in "iu" or (array < 0).any():
            raise ValueError(
                f"The 'n_nonzero_coefs' parameter of {self.owner} must be an integer of at least 1 or one integer of "
                f"at least 0 a signal, got an array of shape {array.shape} and dtype {array.dtype}"
            )
        return np.minimum(array, most).astype(np.int64)

    def _weights(self, weights):
        self._refuse("weights", weights is not None)
        if weights is None:
            return None
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim not in (1, 2) or weights.shape[-1] != self.n_components:
            raise ValueError(
                f"weights must have the shape (n_components,) = ({self.n_components},) or (n_samples, n_components), "
                f"got {weights.shape}"
            )
        if np.isnan(weights).any() or (weights < 0).any():
            raise ValueError("weights must be non-negative numbers; infinity keeps an atom out")
        if self.positive and self.form.lasso and (weights == 0).any():
            raise ValueError(
                "weights of 0 (atoms without penalty) are not possible with positive=True; give small ones"
            )
        if weights.ndim == 2 and (weights == 0).any():
            raise ValueError("weights of 0 (atoms without penalty) are possible for all signals alike, not by signal")
        return weights

    def _check_gram(self, gram):
        if gram is None:
            return None
        gram = check_array_beside("gram", gram)
        if gram.shape != (self.n_components, self.n_components):
            raise ValueError(
                f"gram must have the shape (n_components, n_components) = ({self.n_components}, {self.n_components}), "
                f"got {gram.shape}"
            )
        return gram.astype(np.float64)

    def check_samples(self, n_samples):
        """Arrays with one entry a signal must have as many as there are signals."""
        for name in BY_SIGNAL:
            value = getattr(self, name)
            if np.ndim(value) == (2 if name == "weights" else 1) and len(value) != n_samples:
                name = "n_nonzero_coefs" if name == "counts" else name
                raise ValueError(f"{name} has {len(value)} entries for {n_samples} signals: give one, or one a signal")

    def for_rows(self, value, rows):
        """The part of a per-signal parameter that belongs to some rows, as one number a row."""
        if np.ndim(value):
            return value[rows]
        return np.full(rows.stop - rows.start, value)

    def restricted(self, observed=None, weights=None, rows=None):
        """The same problem with some features left out, other weights, or the parameters of some rows only."""
        other = object.__new__(Problem)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _DERIVED})
        if observed is not None:
            other.dictionary = np.ascontiguousarray(self.dictionary * observed)
            other._given_gram = None
            if self.form.options >= {"n_nonzero_coefs"}:
                other.counts = np.minimum(self.counts, max(int(observed.sum()), 1))
        if weights is not None:
            other.weights = weights
        if rows is not None:
            for name in ("alpha", "counts", "max_error", "max_l1_norm"):
                value = getattr(other, name)
                if np.ndim(value):
                    setattr(other, name, value[rows])
        return other

    @property
    def takes_masks(self):
        """Whether the solver takes signals with a mask each; otherwise every mask makes a problem of its own."""
        if self.algorithm == "omp":
            return not self.positive
        plain = self.weights is None or (self.weights.ndim == 1 and bool((self.weights > 0).all()))
        return self.algorithm == "lasso_lars" and plain and not self.constrained

    # --------------------------------------------------------------------------------------------- what the kernels see
    @cached_property
    def atom_scale(self):
        """Factor of each atom from the user's units to the kernels', float64."""
        norms = self._norms
        if self.form.pursuit:
            with np.errstate(divide="ignore"):
                return np.where(norms > 0, 1 / norms, 0.0)
        if self.weights is None:
            return np.full(self.n_components, self._unit)
        weights = np.maximum(self.weights, _FREE) if self.algorithm == "threshold" else self.weights
        with np.errstate(divide="ignore"):
            return np.where(weights > 0, self._unit / weights, 0.0)

    @cached_property
    def code_scale(self):
        """Factor of each atom's code from the kernels' units to the user's, float64.

        A code of `threshold` is a correlation, which grows with its atom; all others shrink with it.
        """
        if self.algorithm != "threshold":
            return self.atom_scale
        return np.divide(1, self.atom_scale, out=np.zeros(self.n_components), where=self.atom_scale > 0)

    @cached_property
    def _norms(self):
        """Norms of the atoms in float64, safe for entries of any size."""
        largest = np.abs(self.dictionary).max(axis=1, initial=0).astype(np.float64)
        scaled = self.dictionary / np.where(largest > 0, largest, 1)[:, None]
        return largest * np.sqrt(np.einsum("kn,kn->k", scaled, scaled, dtype=np.float64))

    @cached_property
    def _unit(self):
        """The power of two that brings the longest atom to a norm in [1, 2)."""
        longest = float(self._norms.max())
        return float(np.ldexp(1.0, 1 - np.frexp(longest)[1])) if longest > 0 else 1.0

    @cached_property
    def atoms(self):
        """Scaled atoms, padded with atoms of zeros to whole vectors: (n_padded, n_features)."""
        padded = -(-self.n_components // ATOM_PADDING) * ATOM_PADDING
        atoms = aligned_zeros((padded, self.n_features), self.dtype)
        if not self.form.pursuit and self.weights is None and self._unit == 1:
            atoms[: self.n_components] = self.dictionary
        else:
            np.multiply(self.dictionary, self.atom_scale[:, None], out=atoms[: self.n_components], casting="same_kind")
        return atoms

    @cached_property
    def gram(self):
        """Gram matrix of the scaled atoms, with the quadratic penalty on its diagonal."""
        padded = len(self.atoms)
        gram = aligned_zeros((padded, padded), self.dtype)
        if self._given_gram is None:
            np.matmul(self.atoms, self.atoms.T, out=gram)
        else:
            scaled = self._given_gram * self.atom_scale * self.atom_scale[:, None]
            gram[: self.n_components, : self.n_components] = 0.5 * (scaled + scaled.T)
        diagonal = np.einsum("ii->i", gram)
        if self.form.pursuit:
            diagonal[diagonal > 0.5] = 1
        elif self.l1_ratio != 1:
            diagonal += self.ridge
        return gram

    @cached_property
    def ridge(self):
        """The quadratic penalty of each of the scaled atoms, padded."""
        ridge = np.zeros(len(self.atoms), self.dtype)
        if self.l1_ratio != 1:
            ridge[: self.n_components] = self.alpha * (1 - self.l1_ratio) * self.atom_scale**2
        return ridge

    @cached_property
    def transposed_atoms(self):
        """Scaled atoms, one a column: (n_features, n_padded)."""
        atoms = aligned_zeros(self.atoms.shape[::-1], self.dtype)
        atoms[...] = self.atoms.T
        return atoms

    @cached_property
    def lipschitz(self):
        return largest_eigenvalue(self.gram)

    @property
    def safe_step(self):
        """A length at which gradient steps never raise the error; any will do where all atoms are zero."""
        return 1 / self.lipschitz if self.lipschitz > 0 else 1.0

    @property
    def norm_unit(self):
        """What 1 in the kernels' l1 norm is in the user's (weighted) l1 norm, for a signal of exponent 0."""
        return self._unit

    @property
    def capacity(self):
        """The largest number of non-zeros that a code can have."""
        if self.form.pursuit or self.algorithm == "lars":
            return int(np.max(self.counts, initial=1))
        if self.algorithm == "lasso_lars" and self.l1_ratio == 1:
            return min(self.n_features, self.n_components)
        return self.n_components

    def penalties(self, rows, units):
        """alpha of some rows in the kernels' units, in their dtype."""
        alpha = self.for_rows(self.alpha, rows) * self.l1_ratio * self._unit
        with np.errstate(over="ignore"):
            return np.minimum(alpha * units, 1e30).astype(self.dtype)


def check_array_beside(name, array):
    """Numbers that come beside signals and atoms, finite all of them."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity")
    return array


def aligned_zeros(shape, dtype):
    """Zeros that start at a multiple of 64 bytes, and so does every row whose length is a multiple of that."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _BYTES, np.uint8)
    start = -memory.ctypes.data % _BYTES
    return memory[start : start + size].view(dtype).reshape(shape)
