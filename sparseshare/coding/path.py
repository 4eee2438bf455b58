"""Codes at many penalties, or of many sizes, from one pass over the signals."""

from contextlib import closing

import numpy as np

from sparseshare.devices import (
    array_module,
    computing_on,
    memory_errors,
    module_of,
    on_gpu,
    resolve_device,
    rows_that_fit,
    to_host,
)
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.sources import Source, check_source, rows_of
from sparseshare.staging import StagedRows
from sparseshare.threads import run_in_threads, thread_count
from sparseshare.validation import check_bool, check_dictionary, check_signals

from .codes import ROUNDING, Codes, certify
from .encode import encode, warn_if_not_converged
from .lasso import solve_masked
from .masks import check_mask
from .pieces import CollectedRows, DeviceTile, ProblemOnDevice, bytes_a_signal
from .problem import Problem
from .pursuit import solve_ols, solve_omp
from .streams import CollectedCodes, coded_blocks
from .tiles import RowsInOrder, Tile, rows_a_tile, tile_run

_MANY = 20  # penalties, from which following the path event by event is cheaper than a start at each of them


def sparse_encode_path(
    X,
    dictionary,
    alphas=None,
    *,
    algorithm="lasso_lars",
    n_nonzero_coefs=None,
    positive=False,
    l1_ratio=1.0,
    weights=None,
    tol=1e-6,
    max_iter=1000,
    n_jobs=None,
    mask=None,
    device="auto",
    sparse_output=False,
):
    """Sparse codes of signals at every penalty of a list, or for every number of non-zeros.

    Each code of the lasso starts from the one at the next larger penalty, with its active set and factor kept (beyond
    20 penalties the path is followed by homotopy); a pursuit of the largest count passes all smaller ones on its way.
    So a path costs little more than its last entry.

    Parameters
    ----------
    X : array-like, sparse array or source of rows of shape (n_samples, n_features)
        Memory maps, zarr arrays, HDF5 data sets, and iterables of blocks (arrays or sparse arrays of some rows each)
        are read block by block.
    dictionary : array-like of shape (n_components, n_features)
    alphas : array-like of shape (n_alphas,), default=None
        Penalties, in any order, for "lasso_lars".
    algorithm : {"lasso_lars", "omp", "ols"}, default="lasso_lars"
    n_nonzero_coefs : array-like of int of shape (n_counts,), default=None
        Numbers of non-zeros, in any order, for "omp" and "ols".
    positive : bool, default=False
        Codes >= 0, for "lasso_lars" and "omp" (which then codes each count on its own).
    l1_ratio : float, default=1.0
        As in `sparse_encode`; below 1 each penalty is solved on its own, since its Gram matrix is its own.
    weights : array-like of shape (n_components,), default=None
        Positive factors of the penalties, an atom each.
    tol : float, default=1e-06
        Relative duality gap.
    max_iter : int, default=1000
        Rounds at most, a signal and penalty.
    n_jobs : int or None, default=None
        Threads; None means all.
    mask : bool array of shape (n_samples, n_features) or "nan", default=None
        True where an entry is missing; "nan": where X is NaN. Missing entries do not count in the error. With a mask,
        "ols" and positive "omp" code each count on its own.
    device : str, default="auto"
        "auto" follows X: NumPy means the CPU, CuPy its GPU. "cpu", "cuda" and "cuda:N" ask for one.
    sparse_output : bool, default=False

    Returns
    -------
    ndarray of shape (n_alphas, n_samples, n_components), or a list of csr_array if `sparse_output`
        In the order of `alphas` or `n_nonzero_coefs`. CuPy arrays if X is one.

    Raises
    ------
    ValueError
        As `sparse_encode` does, and if the list is missing or empty. For rows on disk and in blocks a BlockError, which
        names the block.

    Warns
    -----
    ConvergenceWarning
        If a code of the lasso is not within `tol` after `max_iter`.

    References
    ----------
    Osborne, Presnell, Turlach, "A new approach to variable selection in least squares problems", 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import sparse_encode_path
    >>> sparse_encode_path([[3.0, -0.5, 1.5]], np.eye(3), alphas=[2.0, 1.0, 0.0])[:, 0]
    array([[ 1. ,  0. ,  0. ],
           [ 2. ,  0. ,  0.5],
           [ 3. , -0.5,  1.5]])
    >>> sparse_encode_path([[3.0, -0.5, 1.5]], np.eye(3), algorithm="omp", n_nonzero_coefs=[1, 2])[:, 0]
    array([[3. , 0. , 0. ],
           [3. , 0. , 1.5]])
    """
    device = resolve_device(device, X, dictionary)
    check_bool("sparse_output", sparse_output, of="sparse_encode_path")
    dictionary, alphas, n_nonzero_coefs, weights, mask = map(
        to_host, (dictionary, alphas, n_nonzero_coefs, weights, mask)
    )
    dictionary = check_dictionary(dictionary)
    X = rows_of(X)
    X, dtype = (check_source if isinstance(X, Source) else check_signals)(X, dictionary.shape[1])
    dictionary = check_dictionary(dictionary, dtype)
    if algorithm not in ("lasso_lars", "omp", "ols"):
        raise ValueError(
            f"The 'algorithm' parameter of sparse_encode_path must be 'lasso_lars', 'omp' or 'ols', got {algorithm!r}"
        )
    name, wanted = ("alphas", alphas) if algorithm == "lasso_lars" else ("n_nonzero_coefs", n_nonzero_coefs)
    stops = np.asarray([] if wanted is None else wanted)
    if stops.ndim != 1 or not len(stops):
        raise ValueError(
            f"sparse_encode_path needs {name}, a list with at least one entry, for algorithm={algorithm!r}"
        )
    mask = mask if X.shape[0] is None else check_mask(mask, X.shape, read=not isinstance(X, Source))
    settings = dict(positive=positive, tol=tol, max_iter=max_iter, owner="sparse_encode_path")
    if algorithm == "lasso_lars":
        order = np.argsort(-stops, kind="stable")
        settings.update(weights=weights, l1_ratio=l1_ratio)
        problems = [Problem(dictionary, algorithm=algorithm, alpha=alpha, **settings) for alpha in stops[order]]
        if np.ndim(problems[0].weights) == 2 or (problems[0].weights is not None and (problems[0].weights == 0).any()):
            raise ValueError("sparse_encode_path takes weights of shape (n_components,), all above 0")
        groups = [problems] if l1_ratio == 1 else [[problem] for problem in problems]

        def code(X, mask):
            parts = [_lasso_path(X, group, n_jobs, mask, device) for group in groups]
            gap, converged = (np.concatenate([part[k] for part in parts], axis=None) for k in (1, 2))
            return Codes([codes for values, _, _ in parts for codes in values], gap, None, converged)

    else:
        order = np.argsort(stops, kind="stable")
        problem = Problem(dictionary, algorithm=algorithm, n_nonzero_coefs=stops.max(), **settings)
        if (stops < 1).any() or stops.dtype.kind not in "iu":
            raise ValueError(f"n_nonzero_coefs must hold integers of at least 1, got {wanted}")
        stops = np.minimum(stops[order], problem.counts).astype(np.int64)
        # Non-negative codes lose atoms, too, so that no pursuit passes the codes of smaller ones.
        by_count = positive or (mask is not None and not problem.takes_masks)
        settings.update(algorithm=algorithm)
        problems = [Problem(dictionary, n_nonzero_coefs=stop, **settings) for stop in stops] if by_count else [problem]

        def code(X, mask):
            if by_count:
                paths = [encode(X, problem, n_jobs=n_jobs, mask=mask, device=device).values for problem in problems]
            else:
                paths = _pursuit_path(X, problem, stops, n_jobs, mask, device)
            return Codes(paths, np.zeros(0), None, np.ones(0, bool))

    codes = _codes_of_blocks(X, code, mask, problems[0]) if isinstance(X, Source) else code(X, mask)
    warn_if_not_converged(codes, problems[0])
    paths = [codes.values[k] for k in np.argsort(order)]
    return paths if sparse_output else array_module(paths[0]).stack([path.toarray() for path in paths])


def _codes_of_blocks(source, code, mask, problem):
    """What `code(rows, mask)` makes of the blocks of a source, put together: CSR codes of all signals at every stop."""
    collected, parts = None, []
    with closing(coded_blocks(source, lambda block, mask: code(block.rows, mask), mask)) as pairs:
        for block, codes in pairs:
            if collected is None:
                collected = [CollectedCodes(source.shape[0], problem, False, values) for values in codes.values]
            for rows_of_stop, values in zip(collected, codes.values, strict=True):
                rows_of_stop.put(block, values)
            parts.append((codes.gap, codes.converged))
    gap, converged = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Codes([rows_of_stop.values() for rows_of_stop in collected], gap, None, converged)


def _lasso_path(X, problems, n_jobs, mask, device):
    """Codes for problems that differ in alpha alone, from large to small, with gaps and whether they converged."""
    first = problems[0]
    gap, converged = np.zeros((len(problems), X.shape[0])), np.ones((len(problems), X.shape[0]), bool)
    tol = max(first.tol, ROUNDING[first.dtype])
    if device != "cpu":
        problems = [ProblemOnDevice(problem, device) for problem in problems]
    # The homotopy's one gain is that it starts once, and signals that start side by side cost a GPU little.
    follows = len(problems) > _MANY and device == "cpu"

    def solve(tile, path):
        xp = array_module(tile.units)
        alphas = xp.stack([problem.penalties(tile.rows, tile.units) for problem in problems], axis=1)
        codes = path.indices, path.values, path.counts, path.gaps, path.iterations, path.status
        if tile.missing is not None:
            solve_masked(tile.problem, tile, tol, alphas, *codes)
        else:
            solve_path = kernels_for(tile.device, "active_set").lasso_path_tile
            if follows:
                solve_path = kernels_for(tile.device, "homotopy").path_tile
            solve_path(
                tile.correlations, tile.norms2, tile.problem.gram, alphas, tol, first.max_iter, first.positive, *codes
            )
        for p in range(len(problems)):
            for name in ("indices", "values", "counts", "gaps", "status"):
                setattr(tile, name, xp.ascontiguousarray(getattr(path, name)[:, p]))
            gap[p, tile.rows], converged[p, tile.rows] = map(to_host, certify(first, tile, tol))
            yield

    return _run(X, first, len(problems), solve, n_jobs, mask, device), gap, converged


def _pursuit_path(X, problem, stops, n_jobs, mask, device):
    """Codes of the first atoms of one pursuit, for increasing counts."""
    solver = {"omp": solve_omp, "ols": solve_ols}[problem.algorithm]

    def solve(tile, path):
        xp = array_module(tile.units)
        solver(tile.problem, tile, problem.tol, stops, path.values)
        counts, order = tile.counts, tile.indices
        for p, stop in enumerate(stops):
            tile.indices = order.copy()  # packing sorts it
            tile.values = xp.ascontiguousarray(path.values[:, p])
            tile.counts = xp.minimum(counts, stop).astype(np.int32)
            yield

    return _run(X, problem, len(stops), solve, n_jobs, mask, device)


class _Path:
    """Results of a tile at every stop of a path."""

    def __init__(self, problem, n_rows, n_stops, xp):
        self._arrays = {
            "indices": xp.zeros((n_rows, n_stops, problem.capacity), np.int32),
            "values": xp.zeros((n_rows, n_stops, problem.capacity), problem.dtype),
            "counts": xp.zeros((n_rows, n_stops), np.int32),
            "gaps": xp.zeros((n_rows, n_stops)),
            "iterations": xp.zeros((n_rows, n_stops), np.int32),
            "status": xp.zeros((n_rows, n_stops), np.int8),
        }

    def load(self, n):
        for name, array in self._arrays.items():
            setattr(self, name, array[:n])
        self.counts[:] = 0


def _run(X, problem, n_stops, solve, n_jobs, mask, device):
    """Tiles solved one after the other, `solve` a generator that leaves the codes of each stop in the tile."""
    if device != "cpu":
        return _run_pieces(X, problem, n_stops, solve, mask, device)
    n_samples, n_rows = X.shape[0], rows_a_tile(problem)
    packed = [
        RowsInOrder(n_samples, problem.n_components, problem.dtype, n_samples * min(problem.capacity, 32))
        for _ in range(n_stops)
    ]
    scratch = {}

    def work(number, worker):
        if worker not in scratch:
            scratch[worker] = Tile(problem, n_rows), _Path(problem, n_rows, n_stops, np)
        tile, path = scratch[worker]
        rows = slice(number * n_rows, min((number + 1) * n_rows, n_samples))
        tile.load(X, rows, mask=mask)
        path.load(rows.stop - rows.start)
        for rows_of_stop, _ in zip(packed, solve(tile, path), strict=True):
            rows_of_stop.put(number, *tile.pack())

    with tile_run(problem, mask is not None):
        run_in_threads(work, -(-n_samples // n_rows), thread_count(n_jobs))
    return [rows_of_stop.csr() for rows_of_stop in packed]


def _run_pieces(X, problem, n_stops, solve, mask, device):
    """The same on a GPU, piece by piece."""
    n_samples, shape = X.shape[0], (X.shape[0], problem.n_components)
    packed = [CollectedRows(shape, problem.dtype, False, device if on_gpu(X) else None) for _ in range(n_stops)]
    with computing_on(device), memory_errors(device, f"the codes of a path with {n_stops} stops"):
        problem = ProblemOnDevice(problem, device)
        bytes_a_path = n_stops * (problem.capacity * (problem.dtype.itemsize + 4) + 17)
        n_rows = min(rows_that_fit(device, bytes_a_signal(problem) + bytes_a_path), n_samples)
        tile, path = DeviceTile(problem, n_rows), _Path(problem, n_rows, n_stops, module_of(device))
        pieces = StagedRows(X, problem.dtype, device, n_rows)
        for rows, block in pieces:
            tile.load(block, rows, mask=mask)
            path.load(rows.stop - rows.start)
            for rows_of_stop, _ in zip(packed, solve(tile, path), strict=True):
                rows_of_stop.put(tile)
            pieces.prefetch()
            tile.refuse_bad_rows()
        return [rows_of_stop.result() for rows_of_stop in packed]
