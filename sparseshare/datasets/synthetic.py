"""Signals made from a dictionary that is known, to see whether learning finds it again."""

import numpy as np
from sklearn.utils import check_random_state

from ..validation import check_number


def make_sparse_signals(
    n_samples=1500,
    *,
    n_components=50,
    n_features=20,
    n_nonzero_coefs=3,
    snr_db=None,
    random_state=None,
    dtype=np.float64,
):
    r"""Signals that are sums of few atoms of a random dictionary, plus white noise.

    The test problem of the K-SVD paper [1]_, section V-A: ``X = codes @ dictionary + noise``, with atoms of i.i.d.
    uniform entries and unit norm, every signal made of the same number of different atoms, i.i.d. uniform
    coefficients. Both uniform distributions are those on [-1, 1].

    Parameters
    ----------
    n_samples : int, default=1500
    n_components : int, default=50
        Number of atoms.
    n_features : int, default=20
    n_nonzero_coefs : int, default=3
        Number of atoms in each signal.
    snr_db : float or None, default=None
        Signal-to-noise ratio in dB over all signals, ``20 * log10(norm(codes @ dictionary) / norm(noise))``. None
        adds no noise.
    random_state : int, RandomState instance or None, default=None
        Dictionary and codes of one `random_state` are the same for every `snr_db`.
    dtype : dtype, default=numpy.float64

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    dictionary : ndarray of shape (n_components, n_features)
        Rows of norm 1.
    codes : ndarray of shape (n_samples, n_components)

    Raises
    ------
    ValueError

    References
    ----------
    .. [1] M. Aharon, M. Elad, A. Bruckstein, "K-SVD: An algorithm for designing overcomplete dictionaries for sparse
       representation", IEEE Trans. Signal Processing 54(11), 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.datasets import make_sparse_signals
    >>> X, dictionary, codes = make_sparse_signals(100, snr_db=20, random_state=0)
    >>> X.shape, dictionary.shape, codes.shape
    ((100, 20), (50, 20), (100, 50))
    >>> noise = X - codes @ dictionary
    >>> print(round(20 * np.log10(np.linalg.norm(codes @ dictionary) / np.linalg.norm(noise)), 3))
    20.0
    """
    n_samples = check_number("n_samples", n_samples, 1, integer=True)
    n_components = check_number("n_components", n_components, 1, integer=True)
    n_features = check_number("n_features", n_features, 1, integer=True)
    n_nonzero_coefs = check_number("n_nonzero_coefs", n_nonzero_coefs, 1, n_components, integer=True)
    snr_db = check_number("snr_db", snr_db, allow_none=True)
    rng = check_random_state(random_state)

    dictionary = rng.uniform(-1, 1, (n_components, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    # The first places of a random order of all atoms: different atoms in every row, no loop over the signals.
    support = rng.random_sample((n_samples, n_components)).argsort(axis=1)[:, :n_nonzero_coefs]
    codes = np.zeros((n_samples, n_components))
    np.put_along_axis(codes, support, rng.uniform(-1, 1, support.shape), axis=1)
    X = codes @ dictionary
    if snr_db is not None:
        noise = rng.standard_normal(X.shape)
        X = X + noise * (np.linalg.norm(X) / np.linalg.norm(noise) * 10 ** (-snr_db / 20))
    return X.astype(dtype), dictionary.astype(dtype), codes.astype(dtype)
