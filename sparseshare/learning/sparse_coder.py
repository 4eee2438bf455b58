"""SparseCoder: the estimator for codes, with a dictionary that is given or learned."""

from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sparseshare.callbacks import with_callbacks
from sparseshare.devices import device_of, to_device, to_host
from sparseshare.sources import Source, check_source
from sparseshare.validation import check_dictionary, check_signals

from .stream import StreamLearner
from .transformer import fitting_algorithm


def _learns(coder):
    if coder.dictionary is None:
        return True
    raise AttributeError("a SparseCoder with a dictionary has nothing to learn from a batch: it has no partial_fit")


class SparseCoder(StreamLearner):
    """Sparse codes of signals for a dictionary that is given, or that `fit` learns.

    A code w minimises, in `transform`,

        0.5 |x - w D|^2 + alpha * |w|_1

    or with a pursuit as `transform_algorithm` the error at a number of non-zeros. With a dictionary the estimator is
    scikit-learn's `SparseCoder`: `fit` only checks, and `transform` needs no `fit`. Without one, `fit` learns it as
    `MiniBatchDictionaryLearning` does.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features), default=None
        The atoms, of any norm. None: `fit` learns them.
    n_components : int or None, default=None
        Number of atoms to learn; a given dictionary has its own. None means n_features, or the length of `dict_init`.
    alpha : float or None, default=None
        Penalty on |code|_1, of the codes and of the dictionary that is learned. None is 1.0.
    transform_algorithm : str or None, default=None
        As in `sparse_encode`. None takes `fit_algorithm`, so that `transform` solves what `fit` solved; but
        with a dictionary and no `alpha` it is "omp", as in scikit-learn.
    transform_n_nonzero_coefs : int or None, default=None
        Non-zeros of a code, for "lars", "omp", "ols", "mp", "iht". None takes `n_nonzero_coefs`, and if that is
        None too a tenth of n_features, at least 1.
    transform_alpha : float or None, default=None
        Penalty in `transform`. None takes `alpha`.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    positive_code : bool, default=False
        No negative entries in the codes.
    transform_max_iter : int, default=1000
        Most iterations for a code, in `fit` and in `transform`.
    transform_tol : float, default=1e-06
        Relative duality gap of the codes, in `fit` and in `transform`.
    transform_max_error : float or None, default=None
        Bound on the squared residual of a signal in `transform`. None takes `max_error`.
    n_nonzero_coefs : int or None, default=None
        Non-zeros of a code while learning with a pursuit. None takes `transform_n_nonzero_coefs`.
    max_error : float or None, default=None
        Bound on the squared residual of a signal while learning.
    l1_ratio : float, default=1.0
        Below 1, an elastic net: alpha * (l1_ratio * |w|_1 + 0.5 * (1 - l1_ratio) * |w|^2).
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
    device : str, default="auto"
        "auto" computes where the signals live, CuPy arrays on their GPU, and leaves codes and atoms there. "cuda" and
        "cuda:N" move NumPy arrays over in pieces and give NumPy back; "cpu".
    fit_algorithm : str, default="lasso_lars"
        Solver of the codes while learning, as in `MiniBatchDictionaryLearning`.
    max_iter : int, default=100
        Most epochs of learning.
    batch_size : int, default=256
        Signals in a batch.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    tol : float, default=0.001
        Stop when a batch moves the dictionary by at most this, as a Frobenius norm divided by n_components. 0
        turns that off.
    max_no_improvement : int or None, default=10
        Stop after this many batches without a new minimum of the smoothed loss. None turns that off.
    dict_init : "data", "svd", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals.
    dict_update : {"bcd", "mod"}, default="bcd"
        Block coordinate descent over the atoms, or the method of optimal directions (for pursuits).
    positive_dict : bool, default=False
        No negative entries in the atoms.
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
    random_state : int, RandomState or None, default=None
        For the first dictionary and the batches.
    callback : callable or None, default=None
        Called after every batch of `fit` with a dict: i, dictionary, batch_cost. For progress bars and early
        stopping see `set_callbacks`.
    verbose : bool or int, default=False
        Print a line an epoch of learning.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The dictionary, given or learned.
    n_components_ : int
        Number of atoms.
    loss_curve_ : list of float
        Mean objective per signal, one value an epoch; only where the dictionary was learned.
    n_iter_ : int
        Epochs begun; 1 where the dictionary was given.
    n_steps_ : int
        Batches; only where the dictionary was learned.
    converged_ : bool
        Whether `tol` or `max_no_improvement` ended the learning; only where the dictionary was learned.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit` and `transform`, for parameters and data that are out of range; the message names them.

    See Also
    --------
    MiniBatchDictionaryLearning : The learner, and its references.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning import SparseCoder
    >>> dictionary = np.array([[0.0, 1, 0], [-1, -1, 2], [1, 1, 1], [0, 1, 1], [0, 2, 1]])
    >>> coder = SparseCoder(dictionary, transform_algorithm="lasso_lars", transform_alpha=1e-10)
    >>> np.round(coder.transform(np.array([[-1.0, -1, -1], [0, 0, 3]])), 6) + 0.0
    array([[ 0.,  0., -1.,  0.,  0.],
           [ 0.,  1.,  1.,  0.,  0.]])
    >>> X = np.random.default_rng(0).standard_normal((300, 6))
    >>> coder = SparseCoder(n_components=8, alpha=0.5, max_iter=5, random_state=0).fit(X)
    >>> coder.components_.shape, coder.transform(X).shape
    ((8, 6), (300, 8))
    """

    _alpha_may_be_none = True

    def __init__(
        self,
        dictionary=None,
        *,
        n_components=None,
        alpha=None,
        transform_algorithm=None,
        transform_n_nonzero_coefs=None,
        transform_alpha=None,
        split_sign=False,
        n_jobs=None,
        positive_code=False,
        transform_max_iter=1000,
        transform_tol=1e-6,
        transform_max_error=None,
        n_nonzero_coefs=None,
        max_error=None,
        l1_ratio=1.0,
        sparse_output=False,
        device="auto",
        fit_algorithm="lasso_lars",
        max_iter=100,
        batch_size=256,
        shuffle=True,
        tol=1e-3,
        max_no_improvement=10,
        dict_init=None,
        dict_update="bcd",
        positive_dict=False,
        atom_norm="ball",
        zero_mean_dict=False,
        atom_l1_budget=None,
        replace_atoms=True,
        warm_start=False,
        random_state=None,
        callback=None,
        verbose=False,
        checkpoint=None,
    ):
        self.dictionary = dictionary
        self.n_components = n_components
        self.alpha = alpha
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.split_sign = split_sign
        self.n_jobs = n_jobs
        self.positive_code = positive_code
        self.transform_max_iter = transform_max_iter
        self.transform_tol = transform_tol
        self.transform_max_error = transform_max_error
        self.n_nonzero_coefs = n_nonzero_coefs
        self.max_error = max_error
        self.l1_ratio = l1_ratio
        self.sparse_output = sparse_output
        self.device = device
        self.fit_algorithm = fit_algorithm
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.dict_init = dict_init
        self.dict_update = dict_update
        self.positive_dict = positive_dict
        self.atom_norm = atom_norm
        self.zero_mean_dict = zero_mean_dict
        self.atom_l1_budget = atom_l1_budget
        self.replace_atoms = replace_atoms
        self.warm_start = warm_start
        self.random_state = random_state
        self.callback = callback
        self.verbose = verbose
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the dictionary, or check that the one given suits the signals.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if self.dictionary is None:
            self._learn(X, y)
        else:
            self._check_learning_parameters()
            self._check_training_signals(X)
            self.components_ = to_device(check_dictionary(to_host(self.dictionary)), device_of(X))
            self.n_iter_ = 1
        self.n_components_ = len(self.components_)
        return self

    @available_if(_learns)
    def partial_fit(self, X, y=None):
        """Learn from one more batch; only without a given dictionary.

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
        self.n_components_ = len(self.components_)
        return self

    def _check_signals(self, X, reset):
        checked = super()._check_signals(X, reset)
        if self.dictionary is not None:
            check = check_source if isinstance(checked[0], Source) else check_signals
            check(checked[0], check_dictionary(to_host(self.dictionary)).shape[1])
        return checked

    def _check_is_ready(self):
        if self.dictionary is None:
            check_is_fitted(self)

    def _dictionary(self, dtype):
        if self.dictionary is None:
            return super()._dictionary(dtype)
        return check_dictionary(to_host(self.dictionary), dtype)

    def _device(self, X, fitted=True):
        return super()._device(X, fitted and self.dictionary is None)  # one that was given may live anywhere

    def _transforming_algorithm(self):
        if self.transform_algorithm is not None:
            return self.transform_algorithm
        if self.dictionary is not None and self.alpha is None:
            return "omp"
        return fitting_algorithm(self.fit_algorithm)

    @property
    def _n_features_out(self):
        return 2 * self.n_components_ if self.split_sign else self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = self.dictionary is None
        return tags
