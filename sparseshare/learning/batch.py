"""Dictionary learning on all signals at once: codes for the dictionary, then the dictionary for the codes."""

import numpy as np
from scipy.sparse import csr_array, issparse

from sparseshare.callbacks import with_callbacks
from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.devices import array_module, computing_on, device_of, memory_errors, to_device, to_host

from .batches import Pieces
from .learner import DictionaryLearner
from .replacement import duplicate_atoms, replace_atoms
from .statistics import Statistics, joined_rows, squared_residuals
from .transformer import WARM, coding_options
from .updates import optimal_directions, sweep_atoms


class Alternation:
    """Coding of all signals and an update of the dictionary, in turns; codes start from those of the turn before.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dictionary : array of shape (n_components, n_features)
        On the device that learns. Updated in place.
    options : dict
        Of the coding problem.
    constraint : AtomConstraint
    dict_update : {"bcd", "mod"}
    replace : bool
        Whether dead and duplicate atoms are replaced.
    codes : csr_array or None
        Where the first codes start from.
    n_jobs : int or None
    """

    def __init__(self, X, dictionary, options, constraint, dict_update, replace, codes, n_jobs):
        self.X, self.dictionary = X, dictionary
        self.options, self.constraint, self.dict_update, self.n_jobs = options, constraint, dict_update, n_jobs
        self.alpha, self.l1_ratio = options.get("alpha", 0.0), options.get("l1_ratio", 1.0)
        self.replace = replace
        self.device = device_of(dictionary)
        self.pieces = Pieces(X, dictionary.dtype, self.device, len(dictionary))
        self._codes = [None if codes is None else self._piece(codes, rows) for rows in self.pieces.slices]
        # Atoms that the data pull together again and again would be exchanged for ever.
        self.exchanges_left = 2 * len(dictionary)
        self.restarted = False

    def _piece(self, codes, rows):
        return to_device(codes if len(self.pieces.slices) == 1 else codes[rows], self.device)

    @property
    def state(self):
        """All that going on needs, as arrays and numbers."""
        return dict(
            dictionary=self.dictionary,
            codes=self._codes,
            edges=self.pieces.edges,
            exchanges_left=self.exchanges_left,
            restarted=self.restarted,
        )

    def restore(self, state):
        """Go on from a `state`."""
        self.dictionary[...] = to_device(state["dictionary"], self.device)
        self.exchanges_left, self.restarted = state["exchanges_left"], state["restarted"]
        self.pieces.cut(state["edges"])
        if state["codes"][0] is not None:
            codes = joined_rows(state["codes"])
            self._codes = [self._piece(codes, rows) for rows in self.pieces.slices]

    @property
    def codes(self):
        """Codes of all signals."""
        return joined_rows(self._codes)

    def step(self):
        """One turn; the objective after it, summed over the signals."""
        dictionary = self.dictionary
        problem = Problem(to_host(dictionary), **self.options)
        warm = self.options["algorithm"] in WARM and "alpha" in self.options
        statistics = Statistics.zeros(*dictionary.shape, self.device)
        for number, (_, X) in enumerate(self.pieces):
            init = self._codes[number] if warm else None
            codes = encode(X, problem, init=init, n_jobs=self.n_jobs, device=self.device, keep=True).values
            statistics.add(X, codes, n_jobs=self.n_jobs)
            self._codes[number] = codes
        if self.dict_update == "mod":
            norms = optimal_directions(dictionary, statistics, self.constraint)
            for codes in self._codes:
                codes.data *= norms.astype(codes.dtype)[codes.indices]
        else:
            sweep_atoms(dictionary, statistics, self.constraint)
        if self.replace:
            self._exchange_atoms(statistics)
        return statistics.objective(dictionary, self.alpha, self.l1_ratio)

    def _exchange_atoms(self, statistics):
        usage = to_host(statistics.usage)
        dead = np.flatnonzero(usage == 0)
        duplicates = duplicate_atoms(self.dictionary, statistics)[: self.exchanges_left]
        duplicates = [entry for entry in duplicates if usage[entry[0]] > 0]
        self.restarted = False
        if len(dead) or duplicates:
            parts = zip(self.pieces, self._codes, strict=True)
            residuals = [squared_residuals(X, codes, self.dictionary) for (_, X), codes in parts]
            residuals = array_module(residuals[0]).concatenate(residuals)
            replaced = replace_atoms(self.dictionary, statistics, dead, duplicates, self.X, residuals, self.constraint)
            exchanged = np.intersect1d(replaced, [atom for atom, _, _ in duplicates])
            self.exchanges_left -= len(exchanged)
            self.restarted = len(exchanged) > 0
            if self.restarted:  # codes of the old atoms are no start for the new ones
                for codes in self._codes:
                    xp = array_module(codes)
                    codes.data[xp.isin(codes.indices, xp.asarray(exchanged))] = 0
                    codes.eliminate_zeros()


class DictionaryLearning(DictionaryLearner):
    """Learn a dictionary from all signals at once.

    Minimises, over the codes W and the dictionary D, in turns,

        0.5 |X - W D|^2 + alpha * |W|_1    with every atom (row of D) in the unit ball

    Every turn codes all signals, starting from their last codes, then goes through the atoms once; neither increases
    the objective. With a pursuit as `fit_algorithm` the penalty is a number of non-zeros or an error instead.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means n_features, or the length of `dict_init`.
    alpha : float, default=1
        Penalty on |code|_1.
    max_iter : int, default=1000
        Most turns.
    tol : float, default=1e-08
        Stop when a turn lowers the objective by at most this fraction of it. 0 makes `max_iter` turns.
    fit_algorithm : str, default="lars"
        "lars" and "lasso_lars", "cd" and "lasso_cd" mean the same two lasso solvers, as in scikit-learn; also
        "auto", "ista", "fista", "omp", "ols", "mp", "iht", "threshold".
    transform_algorithm : str or None, default=None
        As in `sparse_encode`. None solves in `transform` the problem that was fitted (scikit-learn: "omp").
    transform_n_nonzero_coefs : int or None, default=None
        What `transform` uses in the place of `n_nonzero_coefs`.
    transform_alpha : float or None, default=None
        What `transform` uses in the place of `alpha`.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    code_init : array or sparse array of shape (n_samples, n_components), default=None
        Codes that the first turn starts from (lasso solvers).
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals. An array is honoured with and without `code_init`.
    callback : callable or None, default=None
        Called every five turns with a dict: ii, dictionary, code, errors, current_cost; dictionary and code (CSR) are
        NumPy or CuPy, as X is. For progress bars and early stopping see `set_callbacks`.
    verbose : bool or int, default=False
        Print a line a turn.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    random_state : int, RandomState or None, default=None
        For the first dictionary.
    positive_code : bool, default=False
        No negative entries in the codes.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    transform_max_iter : int, default=1000
        Most iterations for a code, in `fit` and in `transform`.
    n_nonzero_coefs : int or None, default=None
        Non-zeros of a code while fitting with "omp", "ols", "mp", "iht". None takes
        `transform_n_nonzero_coefs`, and if that is None too a tenth of n_features, at least 1.
    max_error : float or None, default=None
        Bound on the squared residual of a signal while fitting.
    transform_max_error : float or None, default=None
        What `transform` uses in the place of `max_error`.
    l1_ratio : float, default=1.0
        Below 1, an elastic net: alpha * (l1_ratio * |w|_1 + 0.5 * (1 - l1_ratio) * |w|^2).
    transform_tol : float, default=1e-06
        Relative duality gap of the codes, in `fit` and in `transform`.
    dict_update : {"bcd", "mod"}, default="bcd"
        Block coordinate descent over the atoms, or the method of optimal directions (for pursuits).
    atom_norm : {"ball", "sphere"}, default="ball"
        Norm of an atom at most 1, or equal to 1.
    zero_mean_dict : bool, default=False
        Atoms whose entries sum to 0.
    atom_l1_budget : float or None, default=None
        Bound on the l1 norm of an atom: sparse atoms.
    replace_atoms : bool, default=True
        Give the places of atoms that no signal uses, and of one of two nearly equal atoms, to badly coded
        signals.
    warm_start : bool, default=False
        Let `fit` go on from the dictionary of the last fit.
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
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
        Objective after each turn, summed over the signals.
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

    See Also
    --------
    MiniBatchDictionaryLearning : Much faster where there are many signals.
    KSVD : For codes of a fixed number of non-zeros.

    References
    ----------
    J. Mairal, F. Bach, J. Ponce, G. Sapiro, Online learning for matrix factorization and sparse coding, JMLR 2010:
    objective (3), dictionary update algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import DictionaryLearning
    >>> X = np.random.default_rng(0).standard_normal((40, 6))
    >>> learner = DictionaryLearning(8, alpha=0.5, max_iter=20, tol=1e-3, random_state=0).fit(X)
    >>> learner.transform(X).shape
    (40, 8)
    >>> bool((np.linalg.norm(learner.components_, axis=1) <= 1 + 1e-9).all())
    True
    """

    def __init__(
        self,
        n_components=None,
        *,
        alpha=1,
        max_iter=1000,
        tol=1e-8,
        fit_algorithm="lars",
        transform_algorithm=None,
        transform_n_nonzero_coefs=None,
        transform_alpha=None,
        n_jobs=None,
        code_init=None,
        dict_init=None,
        callback=None,
        verbose=False,
        split_sign=False,
        random_state=None,
        positive_code=False,
        positive_dict=False,
        transform_max_iter=1000,
        n_nonzero_coefs=None,
        max_error=None,
        transform_max_error=None,
        l1_ratio=1.0,
        transform_tol=1e-6,
        dict_update="bcd",
        atom_norm="ball",
        zero_mean_dict=False,
        atom_l1_budget=None,
        replace_atoms=True,
        warm_start=False,
        sparse_output=False,
        device="auto",
        checkpoint=None,
    ):
        self.n_components = n_components
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.fit_algorithm = fit_algorithm
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.n_jobs = n_jobs
        self.code_init = code_init
        self.dict_init = dict_init
        self.callback = callback
        self.verbose = verbose
        self.split_sign = split_sign
        self.random_state = random_state
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.transform_max_iter = transform_max_iter
        self.n_nonzero_coefs = n_nonzero_coefs
        self.max_error = max_error
        self.transform_max_error = transform_max_error
        self.l1_ratio = l1_ratio
        self.transform_tol = transform_tol
        self.dict_update = dict_update
        self.atom_norm = atom_norm
        self.zero_mean_dict = zero_mean_dict
        self.atom_l1_budget = atom_l1_budget
        self.replace_atoms = replace_atoms
        self.warm_start = warm_start
        self.sparse_output = sparse_output
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
            Sparse signals are made dense block by block.
        y : ignored

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        constraint = self._constraint()
        X, dtype = self._check_training_signals(X)
        self._refuse_a_single_pass(X)
        device = self._device(X, fitted=self.warm_start)
        with computing_on(device), memory_errors(device, f"learning from {X.shape[0]} signals at once"):
            checkpoint, saved = self._begin_checkpoints(X)
            dictionary = self._first_dictionary(X, constraint, dtype, device)
            codes = self._first_codes(X.shape[0], len(dictionary), dtype)
            options = coding_options(**self._fitting_problem())
            alternation = Alternation(
                X, dictionary, options, constraint, self.dict_update, self.replace_atoms, codes, self.n_jobs
            )
            self._iterate(alternation, X, y, checkpoint, saved)
        return self

    def _first_codes(self, n_samples, n_components, dtype):
        if self.code_init is None:
            return None
        code_init = to_host(self.code_init)
        code_init = code_init if issparse(code_init) else np.asarray(code_init)
        if code_init.shape != (n_samples, n_components):
            raise ValueError(f"code_init must have the shape {(n_samples, n_components)}, got {code_init.shape}")
        return csr_array(code_init, dtype=dtype)


def dict_learning(
    X,
    n_components,
    *,
    alpha,
    max_iter=100,
    tol=1e-8,
    method="lars",
    n_jobs=None,
    dict_init=None,
    code_init=None,
    callback=None,
    verbose=False,
    random_state=None,
    return_n_iter=False,
    positive_dict=False,
    positive_code=False,
    method_max_iter=1000,
    device="auto",
):
    """Learn a dictionary and the codes of its signals.

    The function behind `DictionaryLearning`, whose docstring has the objective and the meaning of the parameters.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        The signals.
    n_components : int or None
        Number of atoms. None means n_features, or the length of `dict_init`.
    alpha : float
        Penalty on |code|_1.
    max_iter : int, default=100
        Most turns.
    tol : float, default=1e-08
        Stop when a turn lowers the objective by at most this fraction of it. 0 makes `max_iter` turns.
    method : str, default="lars"
        The `fit_algorithm`.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals. An array is honoured with and without `code_init`.
    code_init : array or sparse array of shape (n_samples, n_components), default=None
        Codes that the first turn starts from (lasso solvers).
    callback : callable or None, default=None
        Called every five turns with a dict: ii, dictionary, code, errors, current_cost. For progress bars and
        early stopping see `set_callbacks`.
    verbose : bool or int, default=False
        Print a line a turn.
    random_state : int, RandomState or None, default=None
        For the first dictionary.
    return_n_iter : bool, default=False
        Return the number of turns, too.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    positive_code : bool, default=False
        No negative entries in the codes.
    method_max_iter : int, default=1000
        Most iterations for a code.
    device : str, default="auto"
        Where to compute, as for `DictionaryLearning`.

    Returns
    -------
    code : array of shape (n_samples, n_components)
        Of the final dictionary (scikit-learn: of the last but one). NumPy or CuPy, as X is.
    dictionary : array of shape (n_components, n_features)
    errors : list of float
        Objective after each turn.
    n_iter : int
        Only with `return_n_iter`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import dict_learning
    >>> X = np.random.default_rng(0).standard_normal((40, 6))
    >>> code, dictionary, errors = dict_learning(X, 8, alpha=0.5, tol=1e-3, random_state=0)
    >>> code.shape, dictionary.shape, errors[-1] < errors[0]
    ((40, 8), (8, 6), True)
    """
    learner = DictionaryLearning(
        n_components,
        alpha=alpha,
        max_iter=max_iter,
        tol=tol,
        fit_algorithm=method,
        n_jobs=n_jobs,
        dict_init=dict_init,
        code_init=code_init,
        callback=callback,
        verbose=verbose,
        random_state=random_state,
        positive_dict=positive_dict,
        positive_code=positive_code,
        transform_max_iter=method_max_iter,
        device=device,
    ).set_output(transform="default")
    code = learner.fit_transform(X)
    result = code, learner.components_, learner.error_
    return (*result, learner.n_iter_) if return_n_iter else result
