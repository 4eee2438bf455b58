"""K-SVD: codes by a pursuit, then every atom together with its coefficients."""

import numpy as np

from sparseshare.callbacks import with_callbacks
from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.devices import (
    array_module,
    computing_on,
    csr_of,
    device_of,
    memory_errors,
    module_of,
    to_device,
    to_host,
)
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.constraints import AtomConstraint

from .batches import Pieces
from .learner import DictionaryLearner
from .replacement import duplicate_atoms, replace_atoms
from .statistics import Statistics, code_blocks, dense_rows, joined_rows, order_by_atom, squared_residuals
from .transformer import coding_options

_TOLERANCE, _MOST_PRODUCTS = 1e-7, 300  # of power iteration, before LAPACK takes over


class AtomByAtom:
    """Coding of all signals, and atom steps on their residuals, in turns.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dictionary : array of shape (n_components, n_features)
        Unit atoms, on the device that learns. Updated in place.
    options : dict
        Of the coding problem.
    exact : bool
        Leading singular pairs, or one alternation.
    replace : bool
        Whether dead and duplicate atoms are replaced.
    n_jobs : int or None
    """

    def __init__(self, X, dictionary, options, exact, replace, n_jobs):
        self.X, self.dictionary, self.codes = X, dictionary, None
        self.options, self.exact, self.replace, self.n_jobs = options, exact, replace, n_jobs
        self.device = device_of(dictionary)
        self.pieces = Pieces(X, dictionary.dtype, self.device, len(dictionary))
        self.exchanges_left = 2 * len(dictionary)
        self.restarted = False

    @property
    def state(self):
        """All that going on needs, as arrays and numbers: codes are made anew in every turn."""
        return dict(dictionary=self.dictionary, exchanges_left=self.exchanges_left, restarted=self.restarted)

    def restore(self, state):
        """Go on from a `state`."""
        self.dictionary[...] = to_device(state["dictionary"], self.device)
        self.exchanges_left, self.restarted = state["exchanges_left"], state["restarted"]

    def step(self):
        """One turn; half the squared error after it, summed over the signals."""
        dictionary = self.dictionary
        codes, residual = self._coded()
        lists = order_by_atom(codes)
        starts, signals, positions = lists
        values = codes.data[positions]
        kernels = kernels_for(self.device, "ksvd")
        if self.exact:
            kernels.exact_steps(starts, signals, values, residual, dictionary, _TOLERANCE, _MOST_PRODUCTS)
        else:
            kernels.approximate_steps(starts, signals, values, residual, dictionary)
        codes.data[positions] = values
        self.codes = codes
        residuals = _row_energies(residual)
        if self.replace:
            self._exchange_atoms(residuals, lists)
        return 0.5 * float(residuals.sum())

    def _coded(self):
        """Codes of all signals, and what they leave."""
        problem = Problem(to_host(self.dictionary), **self.options)
        residual = module_of(self.device).empty(self.X.shape, self.dictionary.dtype)
        kernels = kernels_for(self.device, "statistics")
        parts = []
        for piece, X in self.pieces:
            codes = encode(X, problem, n_jobs=self.n_jobs, device=self.device, keep=True).values
            left = residual[piece]
            for rows, arrays in code_blocks(codes):
                left[rows] = dense_rows(X, rows, codes.dtype)
                kernels.subtract_reconstruction(*arrays, self.dictionary, left[rows])
            parts.append(codes)
        return joined_rows(parts), residual

    def _exchange_atoms(self, residuals, lists):
        n_components = len(self.dictionary)
        usage, masses = self._usage(lists)
        dead = np.flatnonzero(usage == 0)
        # Only the masses are asked for: which of two equal atoms is used less.
        statistics = Statistics.zeros(n_components, 0)
        statistics.A[np.diag_indices(n_components)] = masses
        duplicates = duplicate_atoms(self.dictionary, statistics)[: self.exchanges_left]
        duplicates = [entry for entry in duplicates if usage[entry[0]] > 0]
        replaced = replace_atoms(
            self.dictionary, statistics, dead, duplicates, self.X, residuals, AtomConstraint("sphere")
        )
        exchanged = np.intersect1d(replaced, [atom for atom, _, _ in duplicates])
        self.exchanges_left -= len(exchanged)
        self.restarted = len(exchanged) > 0

    def _usage(self, lists):
        """How many codes use each atom, and the sum of their squares; on the host."""
        codes, n_components = self.codes, len(self.dictionary)
        if self.device == "cpu":
            squares = np.square(codes.data, dtype=np.float64)
            return (np.bincount(codes.indices, weights, n_components) for weights in (None, squares))
        xp, (starts, _, positions) = array_module(codes), lists
        squares = xp.square(codes.data, dtype=np.float64)
        masses, non_zeros = xp.zeros(n_components), xp.zeros(n_components)
        kernels_for(self.device, "statistics").atom_usage(starts, positions, squares, 1.0, masses, non_zeros)
        return to_host(starts[1:] - starts[:-1]), to_host(masses)


def _row_energies(rows):
    """Squared norm of every row, in float64."""
    if device_of(rows) == "cpu":
        return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    # The kernel of residuals, with codes of zeros: no copy of the rows in float64.
    xp = array_module(rows)
    none = csr_of(xp.zeros(0, rows.dtype), xp.zeros(0, np.int32), xp.zeros(len(rows) + 1, np.int32), (len(rows), 1))
    return squared_residuals(rows, none, xp.zeros((1, rows.shape[1]), rows.dtype))


class KSVD(DictionaryLearner):
    """Learn a dictionary for codes with few non-zeros, by K-SVD.

    Minimises, over the codes W and the dictionary D of unit atoms, in turns,

        |X - W D|^2    with at most n_nonzero_coefs non-zeros in every code, or with |x - w D|^2 <= max_error

    A turn codes all signals by orthogonal matching pursuit, then takes the atoms one after the other: the atom and the
    coefficients of the signals that use it, against the error that the other atoms leave.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means n_features, or the length of `dict_init`.
    n_nonzero_coefs : int or None, default=None
        Non-zeros of a code. None takes `transform_n_nonzero_coefs`, and if that is None too a tenth of
        n_features, at least 1, or no bound if `max_error` is given.
    max_error : float or None, default=None
        Squared error at which a pursuit stops; it stops at whichever of the two comes first.
    dict_update : {"approximate", "exact"}, default="approximate"
        One alternation between atom and coefficients, which costs less and mostly learns as well, or the
        leading singular pair.
    fit_algorithm : str, default="omp"
        "omp", "ols", "mp", "iht", or one of the penalised solvers with `alpha`.
    alpha : float, default=1
        Penalty, for the penalised solvers only.
    max_iter : int, default=50
        Most turns.
    tol : float, default=0.0001
        Stop when none of three turns has lowered the lowest error by more than this fraction of it. 0 makes
        `max_iter` turns.
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals.
    transform_algorithm : str or None, default=None
        As in `sparse_encode`. None solves in `transform` the problem that was fitted.
    transform_n_nonzero_coefs : int or None, default=None
        What `transform` uses in the place of `n_nonzero_coefs`.
    transform_alpha : float or None, default=None
        What `transform` uses in the place of `alpha`.
    transform_max_error : float or None, default=None
        What `transform` uses in the place of `max_error`.
    transform_max_iter : int, default=1000
        Most iterations for a code, for the solvers that iterate.
    transform_tol : float, default=1e-06
        Relative duality gap of the penalised solvers.
    l1_ratio : float, default=1.0
        Below 1, an elastic net, for the penalised solvers.
    positive_code : bool, default=False
        No negative coefficients in the codes. The atom steps of `fit` may turn some negative in between.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    replace_atoms : bool, default=True
        Give the places of atoms that no signal uses, and of one of two nearly equal atoms, to badly coded
        signals.
    warm_start : bool, default=False
        Let `fit` go on from the dictionary of the last fit.
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    callback : callable or None, default=None
        Called every five turns with a dict: ii, dictionary, code, errors, current_cost; dictionary and code (CSR) are
        NumPy or CuPy, as X is. For progress bars and early stopping see `set_callbacks`.
    verbose : bool or int, default=False
        Print a line a turn.
    random_state : int, RandomState or None, default=None
        For the first dictionary.
    device : str, default="auto"
        "auto" follows X: NumPy arrays are learned from on the CPU, CuPy arrays on their GPU. "cuda" and "cuda:N" send
        NumPy arrays to a GPU in pieces, and what is learned comes back as NumPy; "cpu".
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The dictionary, float32 if X was, on a GPU if X was.
    error_ : list of float
        0.5 |X - W D|^2 after each turn.
    loss_curve_ : list of float
        The same per signal.
    n_iter_ : int
        Turns made.
    converged_ : bool
        Whether `tol` was reached.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit`, for parameters and data that are out of range; the message names them.

    References
    ----------
    M. Aharon, M. Elad, A. Bruckstein, K-SVD: an algorithm for designing overcomplete dictionaries for sparse
    representation, IEEE Trans. Signal Processing 2006: figure 2 (exact). R. Rubinstein, M. Zibulevsky, M. Elad,
    Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit, Technion CS-2008-08:
    algorithm 5 (approximate).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import KSVD
    >>> rng = np.random.default_rng(0)
    >>> X = np.where(rng.random((200, 12)) < 0.2, rng.standard_normal((200, 12)), 0) @ rng.standard_normal((12, 8))
    >>> learner = KSVD(12, n_nonzero_coefs=2, max_iter=10, tol=0, random_state=0).fit(X)
    >>> int((learner.transform(X) != 0).sum(axis=1).max())
    2
    >>> learner.error_[-1] < learner.error_[0]
    True
    """

    _dict_updates = ("approximate", "exact")
    atom_norm, positive_dict, zero_mean_dict, atom_l1_budget = "sphere", False, False, None

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs=None,
        max_error=None,
        dict_update="approximate",
        fit_algorithm="omp",
        alpha=1,
        max_iter=50,
        tol=1e-4,
        dict_init=None,
        transform_algorithm=None,
        transform_n_nonzero_coefs=None,
        transform_alpha=None,
        transform_max_error=None,
        transform_max_iter=1000,
        transform_tol=1e-6,
        l1_ratio=1.0,
        positive_code=False,
        split_sign=False,
        replace_atoms=True,
        warm_start=False,
        sparse_output=False,
        n_jobs=None,
        callback=None,
        verbose=False,
        random_state=None,
        device="auto",
        checkpoint=None,
    ):
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.max_error = max_error
        self.dict_update = dict_update
        self.fit_algorithm = fit_algorithm
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.dict_init = dict_init
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.transform_max_error = transform_max_error
        self.transform_max_iter = transform_max_iter
        self.transform_tol = transform_tol
        self.l1_ratio = l1_ratio
        self.positive_code = positive_code
        self.split_sign = split_sign
        self.replace_atoms = replace_atoms
        self.warm_start = warm_start
        self.sparse_output = sparse_output
        self.n_jobs = n_jobs
        self.callback = callback
        self.verbose = verbose
        self.random_state = random_state
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
            A dense array of residuals of this shape is made.
        y : ignored

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        X, dtype = self._check_training_signals(X)
        self._refuse_a_single_pass(X)
        device = self._device(X, fitted=self.warm_start)
        with computing_on(device), memory_errors(device, f"the residuals of {X.shape[0]} signals"):
            checkpoint, saved = self._begin_checkpoints(X)
            dictionary = self._first_dictionary(X, self._constraint(), dtype, device)
            options = coding_options(**self._fitting_problem())
            exact = self.dict_update == "exact"
            alternation = AtomByAtom(X, dictionary, options, exact, self.replace_atoms, self.n_jobs)
            self._iterate(alternation, X, y, checkpoint, saved, patience=3)
        return self
