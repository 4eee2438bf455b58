"""Multi-layer sparse coding: a signal is sparse in a dictionary whose codes are sparse in the next one, and so on.

With codes g_L of the deepest of L layers and g_{i-1} = D_i g_i, the problem is to minimise over g_L

    0.5 |x - D_1 ... D_L g_L|^2 + sum_i alpha_i |g_i|_1                                    (multi-layer basis pursuit)

One pass of thresholds through the layers, `layered_thresholding`, is a network; ML-ISTA goes through it many times.
"""

from contextlib import closing
from functools import partial

import numpy as np

from sparseshare.devices import computing_on, device_of, memory_errors, module_of, on_gpu, resolve_device, to_device
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.sources import Stack
from sparseshare.staging import StagedRows
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count
from sparseshare.validation import check_bool, check_number

from .chains import chain_of, check_each
from .pieces import pieces_of

SOFT, SOFT_NONNEGATIVE = 1, 2  # modes of the kernels


def ml_ista(
    X, dictionaries, alpha, *, stride=1, padding="valid", n_iter=100, step=1.0, positive=False, n_jobs=None,
    device="auto",
):  # fmt: skip
    """Multi-layer sparse codes by ML-ISTA, the multi-layer iterative soft thresholding algorithm.

    Every iteration synthesises the codes of all layers from the deepest ones, then goes through the layers: a gradient
    step towards the layer before, and a soft threshold. With one layer it is ISTA.

    Parameters
    ----------
    X : array-like of shape (n, n_features), (n, height, width[, channels]) or (n, time, channels)
        Signals.
    dictionaries : list of arrays of shape (n_atoms, n_features) or (n_atoms, *kernel, n_channels)
        One a layer, of the codes of the one before; atoms of more than one axis are shared over positions.
    alpha : float or sequence of float
        Penalty of all layers, or of each.
    stride : int or list, default=1
        Steps between positions of shared atoms: one for all layers or a list of one a layer.
    padding : "valid" or "same", or a list of them, default="valid"
        "valid": shared atoms lie wholly inside of their layer; "same": they may stick out, with a position for every
        one of the layer over the stride.
    n_iter : int, default=100
        Iterations; 1 is a pass from codes of 0.
    step : float or sequence of float, default=1.0
        Step sizes as parts of 1 / |D_i|^2, above 0 and at most 1.
    positive : bool, default=False
        Codes >= 0 in every layer.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where X and the dictionaries live: NumPy's on the CPU, CuPy's on their GPU. "cuda" and "cuda:N"
        send NumPy's to a GPU in pieces; codes are arrays of the kind of X.

    Returns
    -------
    list of ndarray
        Codes of every layer, (n, n_atoms) or (n, *positions, n_atoms); float32 for float32 signals, else float64.

    Raises
    ------
    ValueError
        For dictionaries that do not chain, with the numbers and shapes of both, and what is out of range.

    See Also
    --------
    ml_fista : The same with momentum.
    DeepSparseEncoder : Learns the dictionaries.

    Notes
    -----
    A threshold is the penalty times the step sizes of its layer and of those before it. The paper's mu_i lambda_i is
    that where the step sizes before are 1; with others its lambda_i are penalties in another scale.

    Iterations are averaged maps, so the change of the deepest codes never grows from one to the next, and they
    converge; but to a point near the minimum only. The reason is that entries of an inner layer below the threshold
    are penalised by their squares instead of their magnitude. With smaller `step` in all layers but the last this
    vanishes, in proportion, and so does the speed. With one layer, or without penalties on inner ones, there is no gap.

    The codes of inner layers that come back have gone through their thresholds. They are sparse, and near to what the
    deepest ones synthesise, not equal to it.

    References
    ----------
    J. Sulam, A. Aberdam, A. Beck, M. Elad, "On multi-layer basis pursuit, efficient algorithms and convolutional neural
    networks", IEEE TPAMI 2019: algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import ml_ista
    >>> rng = np.random.default_rng(0)
    >>> dictionaries = [rng.standard_normal(shape) for shape in [(12, 8), (20, 12)]]
    >>> codes = ml_ista(rng.standard_normal((5, 8)), dictionaries, [0.1, 0.5])
    >>> [layer.shape for layer in codes]
    [(5, 12), (5, 20)]
    """
    return _codes(X, dictionaries, alpha, stride, padding, n_iter, step, positive, n_jobs, device, "ml_ista")


def ml_fista(
    X, dictionaries, alpha, *, stride=1, padding="valid", n_iter=100, step=1.0, positive=False, n_jobs=None,
    device="auto",
):  # fmt: skip
    """Multi-layer sparse codes by ML-FISTA: ML-ISTA with the momentum of FISTA on the deepest codes.

    Parameters
    ----------
    X : array-like of shape (n, n_features), (n, height, width[, channels]) or (n, time, channels)
        Signals.
    dictionaries : list of arrays of shape (n_atoms, n_features) or (n_atoms, *kernel, n_channels)
        One a layer, of the codes of the one before; atoms of more than one axis are shared over positions.
    alpha : float or sequence of float
        Penalty of all layers, or of each.
    stride : int or list, default=1
        Steps between positions of shared atoms: one for all layers or a list of one a layer.
    padding : "valid" or "same", or a list of them, default="valid"
        As in `ml_ista`.
    n_iter : int, default=100
        Iterations; 1 is a pass from codes of 0.
    step : float or sequence of float, default=1.0
        Step sizes as parts of 1 / |D_i|^2, above 0 and at most 1.
    positive : bool, default=False
        Codes >= 0 in every layer.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where X and the dictionaries live: NumPy's on the CPU, CuPy's on their GPU. "cuda" and "cuda:N"
        send NumPy's to a GPU in pieces; codes are arrays of the kind of X.

    Returns
    -------
    list of ndarray
        Codes of every layer, as of `ml_ista`.

    Raises
    ------
    ValueError
        As `ml_ista`.

    Notes
    -----
    Where it comes to rest ML-ISTA does, too: near the minimum, as told there. That it does is a matter of experience
    for more than one layer.

    References
    ----------
    J. Sulam, A. Aberdam, A. Beck, M. Elad, "On multi-layer basis pursuit, efficient algorithms and convolutional neural
    networks", IEEE TPAMI 2019: algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import ml_fista
    >>> rng = np.random.default_rng(0)
    >>> filters = [rng.standard_normal((8, 5, 5, 1)), rng.standard_normal((16, 3, 3, 8))]
    >>> codes = ml_fista(rng.standard_normal((2, 28, 28)), filters, 0.1, stride=[2, 1], n_iter=10)
    >>> [layer.shape for layer in codes]
    [(2, 12, 12, 8), (2, 10, 10, 16)]
    """
    return _codes(X, dictionaries, alpha, stride, padding, n_iter, step, positive, n_jobs, device, "ml_fista")


def layered_thresholding(
    X, dictionaries, alpha, *, stride=1, padding="valid", positive=False, n_jobs=None, device="auto"
):
    """One pass through the layers, every code the soft threshold of products with atoms: g_i = soft(D_i' g_{i-1}).

    This is the forward pass of a network of `Dense` and `Conv` with activation "soft", or "soft_nonnegative",
    thresholds `alpha` and weights D_i'.

    Parameters
    ----------
    X : array-like of shape (n, n_features), (n, height, width[, channels]) or (n, time, channels)
        Signals.
    dictionaries : list of arrays of shape (n_atoms, n_features) or (n_atoms, *kernel, n_channels)
        One a layer, of the codes of the one before; atoms of more than one axis are shared over positions.
    alpha : float or sequence of float
        Threshold of all layers, or of each.
    stride : int or list, default=1
        As in `ml_ista`.
    padding : "valid" or "same", or a list of them, default="valid"
        As in `ml_ista`.
    positive : bool, default=False
        Codes >= 0 in every layer.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where X and the dictionaries live: NumPy's on the CPU, CuPy's on their GPU. "cuda" and "cuda:N"
        send NumPy's to a GPU in pieces; codes are arrays of the kind of X.

    Returns
    -------
    list of ndarray
        Codes of every layer, as of `ml_ista`.

    Raises
    ------
    ValueError
        As `ml_ista`.

    References
    ----------
    V. Papyan, Y. Romano, M. Elad, "Convolutional neural networks analyzed via convolutional sparse coding", JMLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import layered_thresholding
    >>> layered_thresholding([[2.0, -1.0]], [np.eye(2), [[1.0, 1.0]]], [0.5, 0.25])
    [array([[ 1.5, -0.5]]), array([[0.75]])]
    """
    X, chain = _chain(X, dictionaries, stride, padding, device)
    thresholds = check_each("alpha", alpha, len(chain.operators), 0)
    infer = partial(unrolled, thresholds=spread(chain, thresholds), steps=[1.0] * len(thresholds), n_iter=1)
    return code(X, chain, partial(infer, positive=check_bool("positive", positive)), thread_count(n_jobs))


def multilayer_objective(X, dictionaries, codes, alpha, *, stride=1, padding="valid", device="auto"):
    """What multi-layer basis pursuit minimises, at codes of the deepest layer.

    Parameters
    ----------
    X, dictionaries, alpha, stride, padding, device : as in `ml_ista`
    codes : array of shape (n, n_atoms) or (n, *positions, n_atoms)
        Of the deepest layer; those of the others are what it synthesises.

    Returns
    -------
    float64 ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.multilayer import multilayer_objective
    >>> multilayer_objective([[2.0, -1.0]], [np.eye(2), [[1.0, 1.0]]], [[1.0]], [0.5, 0.25])
    array([3.75])
    """
    resolve_device(device, X, codes)
    X, chain = _chain(X, dictionaries, stride, padding, device)
    alpha = check_each("alpha", alpha, len(chain.operators), 0)
    codes = codes.astype(chain.dtype, copy=False) if on_gpu(codes) else np.asarray(codes, chain.dtype)
    expected = (len(X), *chain.operators[-1].output_shape)
    if codes.shape != expected:
        raise ValueError(f"codes must have the shape {expected}, those of the deepest layer, got {codes.shape}")
    with computing_on(chain.device):
        there, home = to_device(X, chain.device), device_of(X)
        return to_device(objective(there, chain.estimates(to_device(codes, chain.device)), alpha), home)


def objective(x, estimates, alpha):
    """The objective of every sample, from what its codes stand for in every layer."""
    total = 0.5 * _sums((x - estimates[0]) ** 2)
    for penalty, codes in zip(alpha, estimates[1:], strict=True):
        total += penalty * _sums(abs(codes))
    return total


def _sums(array):
    return array.reshape(len(array), -1).sum(axis=1, dtype=np.float64)


def unrolled(x, chain, thresholds, steps, n_iter, positive, accelerated=False, keep=None):
    """Iterations of ML-ISTA or ML-FISTA from codes of 0, for a block of samples in one thread, or on a GPU.

    Parameters
    ----------
    x : ndarray of shape (n, *input_shape)
    chain : Chain
    thresholds : list of ndarray of shape (n_atoms,)
        Of every layer.
    steps : list of float, or of arrays of one number where the samples are
    n_iter : int
    positive, accelerated : bool
    keep : list or None, default=None
        Takes of every iteration the codes, signals first, and the estimates that it began with, or None for zeros.

    Returns
    -------
    list of ndarray
        Codes of every layer.
    """
    mode, scalar = SOFT_NONNEGATIVE if positive else SOFT, chain.dtype.type
    codes = estimates = before = None
    momentum = 1.0
    for iteration in range(n_iter):
        if iteration:
            point = codes[-1]
            if accelerated:
                following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
                if before is not None:
                    point = point + (point - before) * scalar((momentum - 1) / following)
                before, momentum = codes[-1], following
            estimates = chain.estimates(point)
        codes = [x]
        for i, operator in enumerate(chain.operators):
            # From codes of 0 there is nothing to subtract, nor to add.
            towards = codes[i] if estimates is None else codes[i] - estimates[i]
            z = operator.analyse(towards, chain.weights[i])
            if not isinstance(steps[i], float):
                z *= steps[i]
            elif steps[i] != 1:
                z *= scalar(steps[i])
            if estimates is not None:
                z += estimates[i + 1]
            shrink(z, thresholds[i], mode)
            codes.append(z)
        if keep is not None:
            keep.append((codes, estimates))
    return codes[1:]


def shrink(z, thresholds, mode):
    """Soft threshold of the last axis, in place; the number of non-zeros, on a GPU in parts that add up to it."""
    rows, device = z.reshape(-1, z.shape[-1]), device_of(z)
    no_bias = np.zeros_like(thresholds) if device == "cpu" else None
    return kernels_for(device, "activations").activate(rows, no_bias, thresholds, mode)


def code(X, chain, infer, n_threads, out=None, step=None):
    """Codes of samples, shared out to threads, or in pieces on a GPU.

    Parameters
    ----------
    X : array of shape (n, ...)
        Of any real dtype; a block of it is cast, and brought into the shape of the input, when its turn comes.
    chain : Chain
        With its weights where to compute.
    infer : callable
        ``infer(x, chain)`` for some samples, a list of arrays.
    n_threads : int
    out : list of array or None, or None, default=None
        Where what `infer` makes goes: arrays of n rows where X lives, None for what is not wanted. None: new arrays for
        codes of every layer.
    step : int or None, default=None
        Samples of a block. Codes of a piece have the bits they have among all samples with the step of these.

    Returns
    -------
    list of array or None
        `out`.
    """
    if out is None:
        out = _room(chain, len(X), device_of(X))
    step = chain.step(len(X)) if step is None else step
    if chain.device != "cpu":
        return _code_on_device(X, chain, infer, out, step)
    blocks, shape = chain.blocks(len(X), step), chain.operators[0].input_shape

    def work(i, worker):
        x = np.ascontiguousarray(X[blocks[i]], chain.dtype).reshape(-1, *shape)
        for layer, codes in zip(out, infer(x, chain), strict=True):
            if layer is not None:
                layer[blocks[i]] = codes

    with single_threaded_blas:
        run_in_threads(work, len(blocks), n_threads)
    return out


def codes_of(X, chain, infer, n_threads, only_deepest=False):
    """Codes of samples, which are read piece by piece if they are on disk.

    Parameters
    ----------
    X : array or Stack of shape (n, ...)
    chain, infer, n_threads : as of `code`
    only_deepest : bool, default=False

    Returns
    -------
    list of array or None
        None for all layers but the last if `only_deepest`.
    """
    out, step = _room(chain, len(X), device_of(X), only_deepest), chain.step(len(X))
    slices = chain.pieces(len(X)) if isinstance(X, Stack) else [slice(0, len(X))]
    with closing(pieces_of(X, slices)) as pieces:
        for number, _, samples in pieces:
            own = [None if layer is None else layer[slices[number]] for layer in out]
            code(samples, chain, infer, n_threads, own, step)
    return out


def deepest_codes(X, chain, infer, n_threads):
    """Codes of the deepest layer, piece by piece.

    Parameters
    ----------
    X, chain, infer, n_threads : as of `codes_of`

    Yields
    ------
    number, first : int
        Of the piece, and of its first sample.
    codes : array of shape (n, n_codes)
    """
    step = chain.step(len(X))
    with closing(pieces_of(X, chain.pieces(len(X)))) as pieces:
        for number, first, samples in pieces:
            out = _room(chain, len(samples), device_of(X), only_deepest=True)
            yield number, first, code(samples, chain, infer, n_threads, out, step)[-1].reshape(len(samples), -1)


def _room(chain, n_samples, home, only_deepest=False):
    """Arrays for codes of every layer, None for all but the last if `only_deepest`; at `home`, "cpu" or "cuda:N"."""
    with computing_on(chain.device), memory_errors(chain.device, "codes of all layers"):
        n_left_out = len(chain.operators) - 1 if only_deepest else 0
        wanted = chain.operators[n_left_out:]
        rooms = [module_of(home).empty((n_samples, *operator.output_shape), chain.dtype) for operator in wanted]
    return [None] * n_left_out + rooms


def _code_on_device(X, chain, infer, out, step):
    home, shape = device_of(X), chain.operators[0].input_shape
    with computing_on(chain.device), memory_errors(chain.device, "codes of all layers"):
        pieces = StagedRows(X.reshape(len(X), -1), chain.dtype, chain.device, step)
        for rows, block in pieces:
            found = infer(block.reshape(-1, *shape), chain)
            pieces.prefetch()
            for layer, codes in zip(out, found, strict=True):
                if layer is not None:
                    layer[rows] = to_device(codes, home)
        return out


def scaled(chain, alpha, step):
    """Thresholds and step sizes of ML-ISTA.

    Parameters
    ----------
    chain : Chain
    alpha, step : list of float
        Penalties, and parts of 1 / |D_i|^2.

    Returns
    -------
    thresholds, steps : lists of float
    """
    steps = [part / norm2 if norm2 else 1.0 for part, norm2 in zip(step, chain.norms2(), strict=True)]
    return [float(penalty * so_far) for penalty, so_far in zip(alpha, np.cumprod(steps), strict=True)], steps


def spread(chain, thresholds):
    """A threshold for every atom of every layer."""
    return [
        to_device(np.full(operator.output_shape[-1], threshold, chain.dtype), chain.device)
        for operator, threshold in zip(chain.operators, thresholds, strict=True)
    ]


def _chain(X, dictionaries, stride, padding, device):
    """Signals and a chain with its weights where to compute."""
    given = dictionaries if isinstance(dictionaries, list | tuple) else []
    device = resolve_device(device, X, *given)
    with computing_on(device):
        return chain_of(X, dictionaries, stride, padding, device)


def _codes(X, dictionaries, alpha, stride, padding, n_iter, step, positive, n_jobs, device, algorithm):
    X, chain = _chain(X, dictionaries, stride, padding, device)
    alpha = check_each("alpha", alpha, len(chain.operators), 0)
    step = check_each("step", step, len(chain.operators), 0, 1, open_low=True)
    thresholds, steps = scaled(chain, alpha, step)
    infer = partial(
        unrolled,
        thresholds=spread(chain, thresholds),
        steps=steps,
        n_iter=check_number("n_iter", n_iter, 1, integer=True),
        positive=check_bool("positive", positive),
        accelerated=algorithm == "ml_fista",
    )
    return code(X, chain, infer, thread_count(n_jobs))
