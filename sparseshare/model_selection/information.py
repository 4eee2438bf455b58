"""How many non-zeros: information criteria over the path of a pursuit."""

import numpy as np
from scipy.special import gammaln

from sparseshare.coding.path import sparse_encode_path
from sparseshare.devices import array_module, computing_on, csr_of, device_of, resolve_device, to_device, to_host
from sparseshare.learning.statistics import squared_residuals
from sparseshare.validation import check_bool, check_choice, check_dictionary, check_number, check_signals

_TINY = 1e-200  # energy of signals of zeros: its product with eps squared still has a logarithm


def select_n_nonzero_coefs(
    X,
    dictionary,
    counts=None,
    *,
    criterion="mdl",
    sigma=None,
    per_signal=True,
    algorithm="omp",
    n_jobs=None,
    return_criterion=False,
    device="auto",
):
    r"""Choose the number of non-zeros of pursuit codes by an information criterion.

    A larger count always lowers the squared error r(k) of k atoms, so the error alone takes the largest. A criterion
    adds what k non-zeros cost to describe. For a signal of n entries, K atoms and noise of standard deviation sigma,

        bic    r(k) / sigma^2 + k log n
        mdl    r(k) / (2 sigma^2) + k/2 log n + log binomial(K, k)

    "bic" pays for the values of the non-zeros, as if the atoms had been fixed beforehand; "mdl", in nats, pays for
    saying which of the K atoms they are, too. A pursuit picks the best of K atoms at every step, by which noise alone
    earns more than bic charges: bic takes too many atoms, the more so the larger K is.

    Parameters
    ----------
    X : array-like or sparse array of shape (n_samples, n_features)
    dictionary : array-like of shape (n_components, n_features)
    counts : array-like of int of shape (n_counts,), default=None
        Numbers of non-zeros to choose from, in any order; 0 stands for a signal that is all noise. None takes 0 up to
        half of the smaller of n_features and n_components: beyond it residuals shrink because there is little left.
    criterion : {"mdl", "bic"}, default="mdl"
    sigma : float or None, default=None
        Standard deviation of the noise of an entry. None estimates one for all signals, from the variance that k atoms
        leave, ``v(k) = r(k) / (N (n - k))`` with r summed over the N signals: the first local minimum over k of
        ``N n/2 log v(k)`` plus what mdl charges for k atoms in N signals. It needs `counts` in steps of 1 from few on.
    per_signal : bool, default=True
        Choose for every signal by itself. False sums the criterion over all signals and chooses one count.
    algorithm : {"omp", "ols"}, default="omp"
        The pursuit; one pass up to the largest count gives all smaller ones.
    n_jobs : int or None, default=None
        Threads; None takes all.
    return_criterion : bool, default=False
        Return the values of the criterion, too.
    device : str, default="auto"
        "auto" follows X, "cuda" and "cuda:N" send NumPy arrays to a GPU; "cpu".

    Returns
    -------
    counts : int, or array of int of shape (n_samples,) with `per_signal`
        As `n_nonzero_coefs` of `sparse_encode` takes them, CuPy where X is.
    criterion : array of shape (n_counts,) or (n_counts, n_samples)
        For increasing counts; only with `return_criterion`.

    Raises
    ------
    ValueError
        For parameters and data that are out of range; the message names them.

    References
    ----------
    G. Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978 (bic). J. Rissanen, Modeling by
    shortest data description, Automatica 14, 1978 (k/2 log n for the values). I. Ramirez, G. Sapiro, An MDL framework
    for sparse coding and dictionary learning, IEEE Trans. Signal Processing 60, 2012, section III (an enumerative code
    of the support, log binomial). J. Chen, Z. Chen, Extended Bayesian information criteria for model selection with
    large model spaces, Biometrika 95, 2008 (2 mdl is their criterion with gamma = 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import sparse_encode
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import select_n_nonzero_coefs
    >>> X, dictionary, _ = make_sparse_signals(500, n_features=40, snr_db=20, random_state=0)
    >>> select_n_nonzero_coefs(X, dictionary, per_signal=False)
    3
    >>> counts = select_n_nonzero_coefs(X, dictionary)
    >>> np.bincount(counts)
    array([  0,   7,  67, 353,  68,   4,   1])
    >>> codes = sparse_encode(X, dictionary, algorithm="omp", n_nonzero_coefs=counts)
    """
    of = "select_n_nonzero_coefs"
    check_choice("criterion", criterion, ("mdl", "bic"), of=of)
    check_choice("algorithm", algorithm, ("omp", "ols"), of=of)
    sigma = check_number("sigma", sigma, 0, open_low=True, allow_none=True, of=of)
    per_signal = check_bool("per_signal", per_signal, of=of)
    return_criterion = check_bool("return_criterion", return_criterion, of=of)
    device = resolve_device(device, X, dictionary)
    dictionary = check_dictionary(to_host(dictionary))
    X, dtype = check_signals(X, dictionary.shape[1])
    dictionary = check_dictionary(dictionary, dtype)
    n_components, n_features = dictionary.shape
    counts = _check_counts(counts, min(n_components, n_features))

    with computing_on(device):
        codes = _path(X, dictionary, counts, algorithm, n_jobs, device)
        atoms, home = to_device(dictionary, device_of(X)), device_of(X)
        errors = np.stack([to_host(squared_residuals(X, code, atoms)) for code in codes])
        # Below this a residual is rounding, which noise of no length at all would reward atoms for fitting.
        energy = np.maximum(to_host(squared_residuals(X, _no_codes(codes[0]), atoms)), _TINY)
    used = np.stack([np.diff(to_host(code.indptr)) for code in codes])  # a pursuit that has reached x stops early
    price = 0.5 * used * np.log(n_features) + _log_binomial(n_components, used)
    errors = np.maximum(errors, n_features * np.finfo(dtype).eps ** 2 * energy)
    variance = _noise_variance(errors, used, price, n_features) if sigma is None else sigma**2
    values = errors / (2 * variance) + price
    if criterion == "bic":
        values = errors / variance + used * np.log(n_features)
    if not per_signal:
        values = values.sum(axis=1)
    best = np.argmin(values, axis=0)
    chosen = to_device(counts[best], home) if per_signal else int(counts[best])
    return (chosen, to_device(values, home)) if return_criterion else chosen


def _noise_variance(errors, used, price, n_features):
    """What the atoms leave where one more of them first does not pay, an unknown variance for all signals."""
    left = np.maximum(n_features - used, 1).sum(axis=1)
    variance = errors.sum(axis=1) / left
    length = 0.5 * used.shape[1] * n_features * np.log(variance) + price.sum(axis=1)
    rising = np.flatnonzero(np.diff(length) >= 0)
    return variance[rising[0] if len(rising) else -1]


def _path(X, dictionary, counts, algorithm, n_jobs, device):
    """Codes of every count, increasing, as CSR; a count of 0 has codes of zeros."""
    asked = counts[counts > 0]
    if not len(asked):
        asked = np.array([1])
    options = dict(algorithm=algorithm, n_nonzero_coefs=asked, n_jobs=n_jobs, sparse_output=True, device=device)
    codes = sparse_encode_path(X, dictionary, **options)
    return [_no_codes(codes[0])] * int(counts[0] == 0) + codes[: int((counts > 0).sum())]


def _no_codes(like):
    """Codes of zeros, as many and where others are."""
    xp = array_module(like)
    return csr_of(xp.zeros(0, like.dtype), xp.zeros(0, np.int32), xp.zeros(like.shape[0] + 1, np.int32), like.shape)


def _check_counts(counts, most):
    if counts is None:
        return np.arange(most // 2 + 1)
    try:
        array = np.asarray(counts)
    except ValueError:
        array = np.empty((0, 0))
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu" or (array < 0).any() or (array > most).any():
        given = repr(counts)
        raise ValueError(
            f"The 'counts' parameter of select_n_nonzero_coefs must be None or a list of integers from 0 to {most}, "
            f"the smaller of n_features and n_components, got {given if len(given) <= 60 else given[:57] + '...'}"
        )
    return np.unique(array)


def _log_binomial(n, k):
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
