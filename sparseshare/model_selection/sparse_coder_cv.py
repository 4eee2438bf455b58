"""SparseCoderCV: a coder that chooses its penalty by the error on held-out entries."""

import time

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sparseshare.devices import device_of, to_device, to_host
from sparseshare.validation import check_bool, check_dictionary, check_number, check_signals

from .choice import PenaltyChooser, in_memory, largest_penalty, some_rows
from .heldout import entry_folds, heldout_errors


class SparseCoderCV(PenaltyChooser):
    """Sparse codes for a given dictionary, at the penalty that best predicts entries which the codes have not seen.

    A code w minimises ``0.5 |x - w D|^2 + alpha |w|_1``. How well it reproduces the entries it was made from says
    nothing about alpha: that error only falls as alpha does, noise and all. So `fit` hides entries, drawn at random,
    codes every signal from the others, and compares ``w D`` with what was hidden. Over `cv` folds every entry is hidden
    once, and a fold costs one path of codes over all penalties.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
        The atoms, of any norm.
    alphas : array-like of shape (n_alphas,), default=None
        Penalties to choose from, in any order. None makes `n_alphas` of them, in a geometric series down from the
        largest correlation of a signal and an atom, at which all codes are zero.
    n_alphas : int, default=40
        Number of penalties, if `alphas` is None: 40 are a factor of 1.2 apart.
    alpha_min_ratio : float, default=0.001
        The smallest of them as a fraction of the largest, if `alphas` is None.
    cv : int, default=10
        Folds, from 2 up, and as many as there are features at most. With more folds a code sees more of its signal,
        and the choice is closer to the best for whole signals; the cost grows with the number of folds.
    rule : {"best", "one_standard_error"}, default="best"
        The penalty of least error; or the largest whose error is within one standard error of the least, for sparser
        codes that predict about as well.
    max_samples : int or None, default=None
        Choose on this many signals, drawn at random; None takes all. Some thousands are enough, and keep a choice so
        short that it has no `checkpoint`.
    positive_code : bool, default=False
        No negative entries in the codes.
    transform_max_iter : int, default=1000
        Most iterations for a code, in `fit` and in `transform`.
    transform_tol : float, default=1e-06
        Relative duality gap of the codes, in `fit` and in `transform`.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    random_state : int, RandomState or None, default=None
        For the folds and the signals of `max_samples`.
    verbose : bool or int, default=False
        Print a line a fold, then the table of all penalties and the choice.
    device : str, default="auto"
        "auto" follows X: NumPy arrays are computed with on the CPU, CuPy arrays on their GPU. "cuda" and "cuda:N" send
        NumPy arrays to a GPU; "cpu". What is told about the choice is NumPy everywhere.

    Attributes
    ----------
    alpha_ : float
        The penalty chosen; `transform` codes whole signals with it.
    best_index_ : int
        Its place in `alphas_`.
    alphas_ : ndarray of shape (n_alphas,)
        All penalties, largest first.
    mse_path_ : ndarray of shape (n_alphas, n_folds)
        Mean squared error on the held-out entries of every fold.
    mean_mse_ : ndarray of shape (n_alphas,)
        The mean over all entries, each while it was held out.
    standard_error_ : ndarray of shape (n_alphas,)
        Of `mean_mse_`, from the spread over the signals; NaN for one signal.
    seen_mse_ : ndarray of shape (n_alphas,)
        Mean squared error on the entries that the codes were made from: always least at the smallest penalty.
    n_nonzero_path_ : ndarray of shape (n_alphas,)
        Mean number of non-zeros of a code.
    components_ : ndarray of shape (n_components, n_features)
        The dictionary.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit`, for parameters and data that are out of range; the message names them.

    See Also
    --------
    DictionaryLearningCV : Where the dictionary is learned, too.
    heldout_entries_scorer : The same error as a score for `GridSearchCV`, for any estimator and parameter.

    Notes
    -----
    The codes of a fold see a share s of the entries, with the penalty ``alpha * sqrt(s)``: the noise in the correlation
    of an atom with the entries seen is smaller by that factor, so it is kept out of the codes as well as with alpha
    and whole signals in `transform`.

    Lasso codes are shrunken, and so are their predictions. The error judges the codes that `transform` gives, with
    their shrinkage; the penalty of least error therefore leaves more atoms in the codes than a choice of atoms alone
    would. "one_standard_error" leans the other way, and pursuits, which do not shrink, are chosen by
    `select_n_nonzero_coefs`.

    The penalty chosen is the best to predict entries that are missing. It removes noise well, too, where a signal's
    entries tell about each other, as those of sums of few incoherent atoms do. Where signals hold detail that only the
    entry itself shows, such as fine texture of photographs, entries that are there should be followed more closely
    than this choice does: with little noise much more. To remove noise of a known level from photographs, give the
    codes an error to reach instead (``max_error = n_features * sigma**2``), as `denoise_image` does.

    References
    ----------
    S. Wold, Cross-validatory estimation of the number of components in factor and principal components models,
    Technometrics 20, 1978, section 3: entries, not rows, are held out. T. Hastie, R. Tibshirani, M. Wainwright,
    Statistical learning with sparsity, 2015, sections 2.3 (the rule of one standard error) and 7.3 (matrix completion).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import SparseCoderCV
    >>> X, dictionary, codes = make_sparse_signals(100, snr_db=10, random_state=0)
    >>> coder = SparseCoderCV(dictionary, alphas=[0.4, 0.2, 0.1, 0.05, 0.025, 0.0125], random_state=0).fit(X)
    >>> coder.alpha_
    0.05
    >>> coder.alphas_[np.argmin(coder.seen_mse_)]  # what the error on entries seen by the codes would choose
    np.float64(0.0125)
    >>> coder.transform(X).shape
    (100, 50)
    """

    def __init__(
        self,
        dictionary,
        *,
        alphas=None,
        n_alphas=40,
        alpha_min_ratio=1e-3,
        cv=10,
        rule="best",
        max_samples=None,
        positive_code=False,
        transform_max_iter=1000,
        transform_tol=1e-6,
        split_sign=False,
        sparse_output=False,
        n_jobs=None,
        random_state=None,
        verbose=False,
        device="auto",
    ):
        self.dictionary = dictionary
        self.alphas = alphas
        self.n_alphas = n_alphas
        self.alpha_min_ratio = alpha_min_ratio
        self.cv = cv
        self.rule = rule
        self.max_samples = max_samples
        self.positive_code = positive_code
        self.transform_max_iter = transform_max_iter
        self.transform_tol = transform_tol
        self.split_sign = split_sign
        self.sparse_output = sparse_output
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def fit(self, X, y=None):
        """Choose the penalty.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
            Or a memory map or another source of rows, of which those of `max_samples` are read into memory.
        y : ignored

        Returns
        -------
        self
        """
        started = time.perf_counter()
        self._check_choice_parameters()
        self._check_coding_parameters()
        X, dtype = self._check_training_signals(X)
        device = self._device(X, fitted=False)
        dictionary = check_dictionary(to_host(self.dictionary), dtype)
        random_state = check_random_state(self.random_state)
        if self.max_samples is not None and self.max_samples < X.shape[0]:
            X = some_rows(X, np.sort(random_state.choice(X.shape[0], self.max_samples, replace=False)))
        X = in_memory(X)
        check_signals(X, dictionary.shape[1])
        alphas = self._penalties(lambda: largest_penalty(X, dictionary, self.positive_code, device))
        n_folds = min(self.cv, X.shape[1])
        folds = entry_folds(*X.shape, n_folds, random_state)

        def report(fold, errors):
            self._report_fold(fold, n_folds, alphas, errors, time.perf_counter() - started)

        errors = heldout_errors(
            X, dictionary, alphas, folds, positive=self.positive_code, tol=self.transform_tol,
            max_iter=self.transform_max_iter, n_jobs=self.n_jobs, device=device, report=report,
        )  # fmt: skip
        self.components_ = to_device(dictionary, device_of(X))
        self._choose(alphas, errors.folds, errors.signals, errors.seen, errors.n_nonzero)
        return self

    def _check_is_ready(self):
        check_is_fitted(self)

    def _check_coding_parameters(self):
        of = type(self).__name__
        check_number("max_samples", self.max_samples, 1, integer=True, allow_none=True, of=of)
        check_number("transform_max_iter", self.transform_max_iter, 1, integer=True, of=of)
        check_number("transform_tol", self.transform_tol, 0, of=of)
        check_number("n_jobs", self.n_jobs, integer=True, allow_none=True, of=of)
        for name in ("positive_code", "split_sign", "sparse_output"):
            check_bool(name, getattr(self, name), of=of)

    def _transforming_problem(self):
        return dict(
            algorithm="lasso_lars",
            alpha=self.alpha_,
            positive=self.positive_code,
            tol=self.transform_tol,
            max_iter=self.transform_max_iter,
            owner=type(self).__name__,
        )
