"""Codes of signals for atoms shared over positions: the function for users."""

from warnings import warn

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sparseshare.devices import computing_on, on_gpu, to_device
from sparseshare.validation import check_bool

from .encoder import ConvOptions, Encoder
from .layout import lay_out, unstack
from .maps import SparseMaps
from .signals import check_atoms_and_signals, device_for


def conv_sparse_encode(
    X,
    atoms,
    *,
    alpha=None,
    alpha_relative=False,
    boundary="circular",
    solver="auto",
    positive=False,
    mask=None,
    weights=None,
    joint=0.0,
    smoothness=None,
    n_nonzero_coefs=None,
    max_error=None,
    init=None,
    tol=1e-4,
    max_iter=None,
    sparse_output=False,
    n_jobs=None,
    return_info=False,
    device="auto",
    channels="auto",
):
    """Sparse activation maps of signals for atoms shared over all positions.

    For every signal x find maps z_k, one an atom d_k, that minimise

        0.5 |sum_k d_k * z_k - x|^2 + alpha sum_k w_k |z_k|_1

    where * is the convolution. Signals are 1-D (time series), 2-D (images) or 3-D (volumes), with or without channels.

    Parameters
    ----------
    X : array-like of shape (n_samples, *signal_shape[, n_channels]), or list of signals
        Signals; in a list they may have different sizes. float32 and float64 are computed in as they are, all else in
        float64. CuPy arrays are coded on their GPU, and give CuPy codes.
    atoms : array-like of shape (n_components, *atom_shape[, n_channels])
        Atoms of any norm. With channels, a map activates an atom in all channels at once; without, on signals that have
        channels, every channel has maps of its own.
    alpha : float, default=None
        Penalty; needed by all solvers but "omp".
    alpha_relative : bool, default=False
        Take alpha as a fraction, at most 1, of the least penalty at which all codes of X are zero.
    boundary : {"circular", "full", "valid"}, default="circular"
        "circular": signals wrap around, N positions on N samples, entry 0 of an atom lies at its position. "full":
        atoms of L samples lie wholly inside, N - L + 1 positions. "valid": atoms may stick out at both ends,
        N + L - 1 positions.
    solver : str, default="auto"
        - "lgcd": locally greedy coordinate descent; the fastest for sparse codes. Not for masks, joint penalties,
          smoothness and boundary="valid"
        - "working_set": coordinate descent on the few coefficients in use, for all but smoothness and weights of 0
        - "fista": accelerated proximal gradient with backtracking, for every problem; the one that runs on a GPU
        - "admm": in the frequency domain, for every problem
        - "omp": orthogonal matching pursuit, with `n_nonzero_coefs` or `max_error` in the place of alpha
        - "auto": "lgcd" where it can, else "working_set", or "fista" if that cannot, the codes are not sparse, or on a
          GPU
    positive : bool, default=False
        Codes >= 0.
    mask : bool array of X's shape, with or without channels, or "nan", default=None
        True where a sample is missing; "nan": where X is NaN. Missing samples do not count in the error.
    weights : array-like of shape (n_components,) or (n_components, *positions), default=None
        Factors w of alpha; 0 leaves an atom without penalty.
    joint : float, default=0.0
        For a map a channel: the part, 0 to 1, of the penalty that is the sum over atoms and positions of the l2 norm
        over the channels. 1 makes channels share their supports.
    smoothness : array-like of shape (n_components,), default=None
        Adds 0.5 * smoothness_k * |gradient of z_k|^2, for atoms that shall carry what is smooth in the signal (give
        them the weight 0).
    n_nonzero_coefs : int or None, default=None
        With "omp": non-zeros a signal.
    max_error : float or None, default=None
        With "omp": stop when the squared norm of the residual of a signal is no larger.
    init : array of the shape of the codes, default=None
        Codes to start from.
    tol : float, default=0.0001
        Relative duality gap at which a solver stops: the objective is at most ``tol * 0.5 * |x|^2`` above the least.
    max_iter : int or None, default=None
        Iterations (lgcd, working_set: rounds) a signal; None is the solver's own limit.
    sparse_output : bool, default=False
        Return a `csr_array` with a row a signal, the codes' axes laid out in order; no dense array is kept.
    n_jobs : int or None, default=None
        Threads; None and -1 mean all that this process may use. The codes do not depend on it, to the last bit.
    return_info : bool, default=False
        Return a dictionary about every signal as well.
    device : str, default="auto"
        "auto" computes where X and the atoms live; "cpu", "cuda" and "cuda:N" say where.
    channels : bool or "auto", default="auto"
        Whether the last axis of X holds channels. "auto": it does if X has one axis more than atoms without channels
        would lie on, or if it is as long as the last axis of the atoms, which then has channels, too.

    Returns
    -------
    codes : array of shape (n_samples, n_components, *positions[, n_channels]), or csr_array (cupyx csr_matrix for CuPy)
        The channels only if the signals have some and the atoms do not. A list of maps, or of csr_arrays of one row,
        for signals of different sizes.
    info : dict, if `return_info`
        "objective", "gap" (relative duality gap; for "omp" the squared norm of the residual is "residual"), "n_iter",
        "converged", each of shape (n_samples,), and "alpha", the absolute penalty.

    Raises
    ------
    ValueError
        For NaN or infinity outside `mask`, signals without any observed sample, shapes that do not fit, atoms larger
        than the signals, and parameters that are wrong or that the solver does not know.
    MemoryError
        If the codes would not fit; the message says how much they take and what to lower.
    TypeError, RuntimeError
        For arrays of different devices, and a GPU that cannot be used.

    Warns
    -----
    ConvergenceWarning
        If codes are not within `tol` after `max_iter`.
    UserWarning
        If alpha is so large that all codes are zero.

    References
    ----------
    B. Wohlberg, "Efficient algorithms for convolutional sparse representations", IEEE Trans. Image Processing 2016.
    T. Moreau, L. Oudre, N. Vayatis, "DICOD: distributed convolutional coordinate descent", ICML 2018.

    Notes
    -----
    A GPU codes signals of one shape together, as many at once as its memory holds; each stops by its own duality gap.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import conv_sparse_encode
    >>> atoms = np.array([[1.0, 2.0, 1.0], [1.0, 0.0, -1.0]])
    >>> signal = np.zeros((1, 12))
    >>> signal[0, 2:5] += 3 * atoms[0]
    >>> signal[0, 7:10] -= 2 * atoms[1]
    >>> maps = conv_sparse_encode(signal, atoms, alpha=0.01)
    >>> maps.shape
    (1, 2, 12)
    >>> [[int(i) for i in place] for place in np.argwhere(np.abs(maps[0]) > 0.1)]
    [[0, 2], [1, 7]]
    """
    device = device_for(device, X, atoms, *(array for array in (mask, weights, init) if on_gpu(array)))
    check_bool("sparse_output", sparse_output, of="conv_sparse_encode")
    check_bool("return_info", return_info, of="conv_sparse_encode")
    options = ConvOptions(
        alpha=alpha,
        alpha_relative=alpha_relative,
        boundary=boundary,
        solver=solver,
        positive=positive,
        weights=weights,
        joint=joint,
        smoothness=smoothness,
        n_nonzero_coefs=n_nonzero_coefs,
        max_error=max_error,
        tol=tol,
        max_iter=max_iter,
    )
    atoms, X = check_atoms_and_signals(atoms, X, channels=channels, mask=mask, device=device)
    encoder = Encoder(atoms, options, n_jobs)
    start = None if init is None else _check_init(init, X, encoder)
    masks = X.masks
    encoder.check_memory(X, masks, sparse_output)
    alpha = encoder.alpha(X, masks)
    solutions = encoder.encode(X, alpha, masks=masks, init=start, sparse=sparse_output, home=X.home)
    tally = Tally()
    for solution in solutions:
        tally.add(solution)
    warn_about(tally, encoder, X, masks, alpha)
    with computing_on(X.home):
        codes = lay_out(solutions, X, sparse_output)
    return (codes, info_of(solutions, options, alpha)) if return_info else codes


def info_of(solutions, options, alpha):
    """What `return_info` returns."""
    measure = "residual" if options.solver == "omp" else "gap"
    return {
        "objective": np.array([solution.objective for solution in solutions]),
        measure: np.array([solution.gap for solution in solutions]),
        "n_iter": np.array([solution.n_iter for solution in solutions]),
        "converged": np.array([solution.converged for solution in solutions]),
        "alpha": alpha,
    }


class Tally:
    """What is to be known of codes when they may be gone already: those that missed the goal, and whether all are zero.

    Attributes
    ----------
    gaps : list of float
        Of those that missed it.
    all_zero : bool
    """

    def __init__(self):
        self.gaps, self.all_zero = [], True

    def add(self, solution):
        """Count the codes of a signal; several threads may at once."""
        if not solution.converged:
            self.gaps.append(solution.gap)
        if self.all_zero and _any_nonzero(solution.maps):
            self.all_zero = False


def warn_about(tally, encoder, signals, masks, alpha, stacklevel=3):
    """Say how many codes missed the tolerance, and if all are zero because of alpha."""
    options = encoder.options
    if tally.gaps and options.solver != "omp":
        warn(
            f"{len(tally.gaps)} of {len(signals)} codes have not converged: their relative duality gaps are up to "
            f"{max(tally.gaps):.2g} (tol={options.tol:g}). Raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    if options.solver == "omp" or not tally.all_zero:
        return
    largest = encoder.largest_alpha(signals, masks)
    if 0 < largest <= alpha:
        warn(
            f"all codes are zero: alpha={alpha:g} is not below {largest:g}, the least penalty at which they are; lower "
            "it, or give a fraction with alpha_relative=True",
            UserWarning,
            stacklevel=stacklevel,
        )


def _any_nonzero(maps):
    return len(maps.values) > 0 if isinstance(maps, SparseMaps) else bool(maps.any())


def _check_init(init, signals, encoder):
    if signals.same_shape is None:
        raise ValueError("init needs signals of one shape, but X is a list of different ones: leave it out")
    init = init if hasattr(init, "tocsr") or on_gpu(init) else np.asarray(init)
    if init.shape[0] != len(signals):
        raise ValueError(f"init has codes of {init.shape[0]} signals, X has {len(signals)}")
    positions, n_codes = encoder.positions(signals.same_shape), signals.n_channels if signals.separate else None
    return [
        to_device(maps, encoder.device)
        for maps in unstack(init, len(encoder.atoms), positions, n_codes, encoder.atoms.dtype)
    ]
