"""Codes of rows that are read piece by piece: block after block, and each block's codes to where they are wanted."""

from contextlib import closing
from pathlib import Path

import numpy as np

from sparseshare.buffering import WriteBehind, read_ahead
from sparseshare.devices import to_host
from sparseshare.fingerprints import in_words, sampled
from sparseshare.outputs import write_pieces
from sparseshare.progress import RowProgress
from sparseshare.sources import BlockError, as_source, check_block, rows_a_block, stacked

from .codes import Codes
from .forms import encode_form
from .masks import check_mask, mask_of_rows
from .problem import BY_SIGNAL
from .saved import CodeWriter, open_codes
from .tiles import RowsInOrder


class StreamedCodes:
    """Codes of the blocks of a source, and after the last how good those are that missed the goal.

    Parameters
    ----------
    source : Source
    problem : Problem
    n_jobs : int or None, default=None
    device : str, default="cpu"
    dense : bool, default=False
    init, mask, cov : as of `encode`
        Cut along with the signals.
    keep_info : bool, default=False
        Remember of every signal how good its codes are.
    verbose : int, default=0
        Above 0, lines say how far it is.
    n_rows : int or None, default=None
        Signals of a block; None is what `rows_a_block` says.
    first : int, default=0
        The first signal that is asked for.

    Attributes
    ----------
    n_signals : int
        Coded so far.

    Raises
    ------
    BlockError
        If signals cannot be coded; the message names their block.
    """

    def __init__(
        self, source, problem, *, n_jobs=None, device="cpu", dense=False, init=None, mask=None, cov=None,
        keep_info=False, verbose=0, n_rows=None, first=0,
    ):  # fmt: skip
        if source.shape[0] is not None:
            problem.check_samples(source.shape[0])
            mask = check_mask(mask, source.shape, read=False)
        self.source, self.problem, self.n_jobs, self.device, self.dense = source, problem, n_jobs, device, dense
        self.init, self.mask, self.cov, self.verbose = init, mask, cov, verbose
        self.n_rows = rows_a_block(source.shape[1], source.dtype) if n_rows is None else n_rows
        self.first, self._keep_info = first, keep_info
        self._unsolved, self._info, self.n_signals = [], [], 0

    def __iter__(self):
        """Pairs of a block and its codes."""
        progress = RowProgress(self.problem.owner, self.source.shape[0], self.verbose, done=self.first)
        with closing(coded_blocks(self.source, self._encode, self.mask, self.n_rows, self.first)) as pairs:
            for block, codes in pairs:
                if not codes.converged.all():
                    self._unsolved.append(codes.gap[~codes.converged])
                if self._keep_info:
                    self._info.append(codes[1:])
                self.n_signals += len(codes.gap)
                yield block, codes
                progress.add(block.rows.shape[0])
        progress.end()

    def unsolved(self):
        """Codes without values, of the signals that missed the goal only: how good they are."""
        gaps = np.concatenate([np.zeros(0), *self._unsolved])
        return Codes(None, gaps, None, np.zeros(len(gaps), bool))

    def info(self):
        """Codes without values, of all signals: how good they are."""
        return Codes(None, *(np.concatenate(column) for column in zip(*self._info, strict=True)))

    def _encode(self, block, mask):
        rows = slice(block.first, block.first + block.rows.shape[0])
        problem = self.problem
        if any(np.ndim(getattr(problem, name)) for name in BY_SIGNAL):
            weights = problem.weights[rows] if np.ndim(problem.weights) == 2 else None
            problem = problem.restricted(weights=weights, rows=rows)
        problem.check_samples(block.rows.shape[0])
        return encode_form(
            block.rows,
            problem,
            init=None if self.init is None else self.init[rows],
            n_jobs=self.n_jobs,
            mask=mask,
            cov=None if self.cov is None or self.mask is not None else self.cov[:, rows],
            dense=self.dense,
            device=self.device,
        )


def coded_blocks(source, encode, mask=None, n_rows=None, first=0):
    """Blocks of a source, each with what is made of it; the next one is read meanwhile.

    Parameters
    ----------
    source : Source
    encode : callable
        ``encode(block, mask)`` is called with the part of the mask that belongs to the block.
    mask : bool array of the source's shape, "nan" or None, default=None
    n_rows, first : as of `Source.blocks`

    Yields
    ------
    block : Block
    codes : object

    Raises
    ------
    BlockError
        If signals cannot be coded; the message names their block.
    """
    # Checks of the solvers find NaN on their own.
    blocks = source.blocks(n_rows, first, finite=source.in_order_only and mask is None)
    with closing(read_ahead(blocks) if source.in_threads else blocks) as blocks:
        for block in blocks:
            rows = slice(block.first, block.first + block.rows.shape[0])
            try:
                codes = encode(block, check_mask(mask_of_rows(mask, rows), block.rows.shape))
            except BlockError:
                raise
            except ValueError as error:
                where = f"block {block.number} (rows {rows.start} to {rows.stop - 1}) of {source.name}"
                if mask is None:
                    check_block(block.rows, where, block.first, block.number)
                raise BlockError(f"{where}, counted from its first row: {error}", block.number, rows) from error
            yield block, codes


def encode_source(source, problem, *, init=None, n_jobs=None, mask=None, cov=None, dense=False, device="cpu"):
    """Codes of a source, all of them in memory; the signals are not.

    Parameters
    ----------
    source, problem, init, n_jobs, mask, cov, dense, device
        As of `StreamedCodes`.

    Returns
    -------
    Codes
    """
    stream = StreamedCodes(
        source, problem, n_jobs=n_jobs, device=device, dense=dense, init=init, mask=mask, cov=cov, keep_info=True
    )
    collected = None
    for block, codes in stream:
        if collected is None:
            collected = CollectedCodes(source.shape[0], problem, dense, codes.values)
        collected.put(block, codes.values)
    return stream.info()._replace(values=collected.values())


class CollectedCodes:
    """Codes of all blocks as one array; where it is not known how many will come, parts until the end.

    Parameters
    ----------
    n_samples : int or None
    problem : Problem
    dense : bool
    first : array or csr_array
        The codes of the first block.
    """

    def __init__(self, n_samples, problem, dense, first):
        self._dense, self._parts, self._values, self._packed = dense, [], None, None
        if n_samples is None:
            return
        if dense:
            self._values = np.empty((n_samples, problem.n_components), problem.dtype)
        else:
            self._packed = RowsInOrder(n_samples, problem.n_components, problem.dtype, first.nnz)

    def put(self, block, values):
        if self._packed is not None:
            self._packed.put(block.number, np.diff(values.indptr).astype(np.int64), values.indices, values.data)
        elif self._values is not None:
            self._values[block.first : block.first + len(values)] = values
        else:
            self._parts.append(values)

    def values(self):
        if self._packed is not None:
            return self._packed.csr()
        return stacked(self._parts) if self._values is None else self._values


def write_codes(X, problem, out, *, columns, finish, **options):
    """Codes of signals to where they are wanted, block by block.

    Parameters
    ----------
    X : Source, or signals as `check_signals` returns them
    problem : Problem
    out : array to be written to, or path of a folder
        Arrays have a shape, a dtype and take rows: ``out[rows] = codes``.
    columns : int
        Of what `finish` makes.
    finish : callable
        Makes of the codes of a block, CSR, what is written.
    **options : n_jobs, device, init, mask, cov, keep_info and verbose, as of `StreamedCodes`

    Returns
    -------
    codes : object
        `out` itself, or `SavedCodes` of the folder.
    stream : StreamedCodes
        With `unsolved()` and `n_signals`, those coded now.

    Raises
    ------
    ValueError
        If `out` does not suit.
    BlockError
        If a block of signals is bad: the codes of those before it stay where they are.
    OSError
        If codes cannot be written, because the disk is full for instance: those before them stay.
    """
    stream = StreamedCodes(as_source(X), problem, **options)
    if isinstance(out, str | Path):
        return _to_folder(stream, Path(out), columns, finish), stream
    pieces = ((block.number, block.first, finish(codes.values)) for block, codes in stream)
    return write_pieces(pieces, out, (stream.source.shape[0], columns), folder=True), stream


def _to_folder(stream, folder, columns, finish):
    source, problem = stream.source, stream.problem
    made_from = dict(
        problem=_description(problem, stream.mask),
        signals=in_words(source.sample()),
        shape=f"{source.shape} {source.dtype}",
    )
    writer = CodeWriter(folder, columns, problem.dtype, stream.n_rows, made_from)
    stream.first = writer.n_written * stream.n_rows
    if not writer.complete:
        with WriteBehind() as behind, closing(iter(stream)) as pairs:
            for _, codes in pairs:
                behind.call(writer.write, to_host(finish(codes.values)))
        writer.finish()
    return open_codes(folder)


def _description(problem, mask):
    """Digest of a dictionary and of what is asked for."""
    options = {
        name: value
        for name, value in vars(problem).items()
        if isinstance(value, bool | int | float | str | np.generic) and not name.startswith("_")
    }
    arrays = {name: in_words(getattr(problem, name)) for name in BY_SIGNAL if np.ndim(getattr(problem, name))}
    if mask is not None:
        arrays["mask"] = in_words(
            mask if isinstance(mask, str) else np.array([mask[row] for row in sampled(np.shape(mask)[0])])
        )
    return f"{in_words(problem.dictionary)} {sorted(options.items())}{f' {arrays}' if arrays else ''}"
