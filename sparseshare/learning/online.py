"""Dictionary learning from mini-batches."""

from sparseshare.callbacks import with_callbacks

from .stream import StreamLearner


class MiniBatchDictionaryLearning(StreamLearner):
    """Learn a dictionary from one mini-batch after the other.

    Minimises, over the dictionary D, the mean over the signals of

        min over w of 0.5 |x - w D|^2 + alpha * |w|_1    with every atom (row of D) in the unit ball

    Every step codes a batch, adds it to statistics that slowly forget, and goes through the atoms once.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means n_features, or the length of `dict_init`.
    alpha : float, default=1
        Penalty on |code|_1.
    max_iter : int, default=1000
        Most epochs, passes over all signals.
    fit_algorithm : str, default="lars"
        "lars" and "lasso_lars", "cd" and "lasso_cd" mean the same two lasso solvers, as in scikit-learn; also
        "auto", "ista", "fista", "omp", "ols", "mp", "iht", "threshold".
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    batch_size : int, default=256
        Signals in a batch. As many as there are atoms, or more, make the best use of an atom sweep.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals.
    transform_algorithm : str or None, default=None
        As in `sparse_encode`. None solves in `transform` the problem that was fitted (scikit-learn: "omp").
    transform_n_nonzero_coefs : int or None, default=None
        What `transform` uses in the place of `n_nonzero_coefs`.
    transform_alpha : float or None, default=None
        What `transform` uses in the place of `alpha`.
    verbose : bool or int, default=False
        Print a line an epoch.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    random_state : int, RandomState or None, default=None
        For the first dictionary and the batches.
    positive_code : bool, default=False
        No negative entries in the codes.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    transform_max_iter : int, default=1000
        Most iterations for a code, in `fit` and in `transform`.
    callback : callable or None, default=None
        Called after every batch of `fit` with a dict: i, dictionary (NumPy or CuPy, as X is), batch_cost. For progress
        bars and early stopping see `set_callbacks`, which does not make a GPU wait after every batch.
    tol : float, default=0.001
        Stop when a batch moves the dictionary by at most this, as a Frobenius norm divided by n_components. 0
        turns that off.
    max_no_improvement : int or None, default=10
        Stop after this many batches without a new minimum of the smoothed loss. None turns that off.
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
        Give the places of atoms that have gone unused for 10 * n_components signals, and of one of two nearly
        equal atoms, to badly coded signals.
    warm_start : bool, default=False
        Let `fit` go on from the dictionary and the statistics of the last fit or `partial_fit`.
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
    device : str, default="auto"
        "auto" follows X: NumPy arrays are learned from on the CPU, CuPy arrays on their GPU. "cuda" and "cuda:N" send
        NumPy arrays to a GPU batch by batch, and what is learned comes back as NumPy; "cpu".
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The dictionary, float32 if X was, on a GPU if X was.
    loss_curve_ : list of float
        Mean objective per signal, one value an epoch and one a call of `partial_fit`; each signal counted with the
        dictionary that it met.
    n_iter_ : int
        Epochs begun.
    n_steps_ : int
        Batches.
    converged_ : bool
        Whether `tol` or `max_no_improvement` ended the fit.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit` and `partial_fit`, for parameters and data that are out of range; the message names them.

    See Also
    --------
    DictionaryLearning : All signals at once.

    References
    ----------
    J. Mairal, F. Bach, J. Ponce, G. Sapiro, Online learning for matrix factorization and sparse coding, JMLR 2010:
    algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import MiniBatchDictionaryLearning
    >>> X = np.random.default_rng(0).standard_normal((300, 6))
    >>> learner = MiniBatchDictionaryLearning(8, alpha=0.5, batch_size=32, max_iter=5, random_state=0).fit(X)
    >>> learner.transform(X).shape
    (300, 8)
    >>> steps = learner.n_steps_
    >>> learner.partial_fit(X[:10]).n_steps_ - steps
    1
    """

    def __init__(
        self,
        n_components=None,
        *,
        alpha=1,
        max_iter=1_000,
        fit_algorithm="lars",
        n_jobs=None,
        batch_size=256,
        shuffle=True,
        dict_init=None,
        transform_algorithm=None,
        transform_n_nonzero_coefs=None,
        transform_alpha=None,
        verbose=False,
        split_sign=False,
        random_state=None,
        positive_code=False,
        positive_dict=False,
        transform_max_iter=1000,
        callback=None,
        tol=1e-3,
        max_no_improvement=10,
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
        self.fit_algorithm = fit_algorithm
        self.n_jobs = n_jobs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.dict_init = dict_init
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.verbose = verbose
        self.split_sign = split_sign
        self.random_state = random_state
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.transform_max_iter = transform_max_iter
        self.callback = callback
        self.tol = tol
        self.max_no_improvement = max_no_improvement
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
            Never copied as a whole; sparse signals are made dense batch by batch.
        y : ignored

        Returns
        -------
        self
        """
        self._learn(X, y)
        return self

    def partial_fit(self, X, y=None):
        """Learn from one more batch; the first call also makes the first dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
            The batch, whatever `batch_size` says; from disk it is read whole. Each block of an iterable of blocks is
            a batch.
        y : ignored

        Returns
        -------
        self
        """
        self._learn_more(X)
        return self

    @property
    def _A(self):
        """Statistics under scikit-learn's private names, in the dtype of the dictionary."""
        return self._memory["statistics"]["A"].astype(self.components_.dtype, copy=False)

    @property
    def _B(self):
        return self._memory["statistics"]["B"].T.astype(self.components_.dtype, copy=False)


def dict_learning_online(
    X,
    n_components=2,
    *,
    alpha=1,
    max_iter=100,
    return_code=True,
    dict_init=None,
    callback=None,
    batch_size=256,
    verbose=False,
    shuffle=True,
    n_jobs=None,
    method="lars",
    random_state=None,
    positive_dict=False,
    positive_code=False,
    method_max_iter=1000,
    tol=1e-3,
    max_no_improvement=10,
    device="auto",
):
    """Learn a dictionary from mini-batches, and code the signals with it.

    The function behind `MiniBatchDictionaryLearning`, whose docstring has the objective and the parameters.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        The signals.
    n_components : int or None, default=2
        Number of atoms. None means n_features, or the length of `dict_init`.
    alpha : float, default=1
        Penalty on |code|_1.
    max_iter : int, default=100
        Most epochs, passes over all signals.
    return_code : bool, default=True
        Return the codes, too.
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals.
    callback : callable or None, default=None
        Called after every batch of `fit` with a dict: i, dictionary, batch_cost. For progress bars and early
        stopping see `set_callbacks`.
    batch_size : int, default=256
        Signals in a batch. As many as there are atoms, or more, make the best use of an atom sweep.
    verbose : bool or int, default=False
        Print a line an epoch.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    method : str, default="lars"
        The `fit_algorithm`.
    random_state : int, RandomState or None, default=None
        For the first dictionary and the batches.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    positive_code : bool, default=False
        No negative entries in the codes.
    method_max_iter : int, default=1000
        Most iterations for a code.
    tol : float, default=0.001
        Stop when a batch moves the dictionary by at most this, as a Frobenius norm divided by n_components. 0
        turns that off.
    max_no_improvement : int or None, default=10
        Stop after this many batches without a new minimum of the smoothed loss. None turns that off.
    device : str, default="auto"
        Where to compute, as for `MiniBatchDictionaryLearning`.

    Returns
    -------
    code : array of shape (n_samples, n_components)
        Only with `return_code`. NumPy or CuPy, as X is.
    dictionary : array of shape (n_components, n_features)

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import dict_learning_online
    >>> X = np.random.default_rng(0).standard_normal((300, 6))
    >>> code, dictionary = dict_learning_online(X, 8, alpha=0.5, batch_size=32, max_iter=5, random_state=0)
    >>> code.shape, dictionary.shape
    ((300, 8), (8, 6))
    """
    learner = MiniBatchDictionaryLearning(
        n_components,
        alpha=alpha,
        max_iter=max_iter,
        fit_algorithm=method,
        n_jobs=n_jobs,
        batch_size=batch_size,
        shuffle=shuffle,
        dict_init=dict_init,
        verbose=verbose,
        random_state=random_state,
        positive_code=positive_code,
        positive_dict=positive_dict,
        transform_max_iter=method_max_iter,
        callback=callback,
        tol=tol,
        max_no_improvement=max_no_improvement,
        device=device,
    ).fit(X)
    if not return_code:
        return learner.components_
    return learner.transform(X), learner.components_
