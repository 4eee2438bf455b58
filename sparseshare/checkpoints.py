"""Checkpoints: the state of a long fit in a file, from which a fit that was killed goes on to the same bits.

A file is an .npz of arrays with a JSON header; nothing in it is pickled and no code of it is run. It is written beside
its place and moved there when it has reached the disk, so there is always either the checkpoint before or this one.
"""

import contextlib
import hashlib
import inspect
import io
import json
import os
import time
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, issparse

from .devices import array_module, on_gpu, to_host
from .validation import check_number
from .version import __version__

_WHAT, _FORMAT = "sparseshare checkpoint", 1
_EVERY = 60.0  # seconds
_COST = 20  # times as long as writing took is learned before the next: a twentieth of the time at most
_SAMPLED = 64  # rows of data that a fingerprint looks at
# Parameters that change nothing of what is learned, or only where and how fast.
_FREE = (
    "checkpoint", "callback", "verbose", "n_jobs", "device", "sparse_output", "split_sign", "transform_algorithm",
    "transform_alpha", "transform_max_error",
)  # fmt: skip


class Checkpoint:
    """Where, and how often, a fit writes its state.

    Learners take one, or just its path, as their parameter `checkpoint`. A fit that was killed and is started again
    with the same data and parameters goes on from the last checkpoint and ends with the bits of a fit that was not.
    After the fit the file stays: to fit again with it returns the same result at once.

    Parameters
    ----------
    path : str or path
        The file, usually ending with .npz; one for every fit. `path` with ".partial" appended is written first.
    every : float, default=60.0
        Least seconds from one checkpoint to the next. 0 writes one at every step that could be gone on from; else a
        fit also lets pass 20 times what writing took.

    Raises
    ------
    ValueError
        If `path` or `every` are of a wrong kind.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sparseshare import MiniBatchDictionaryLearning
    >>> from sparseshare.checkpoints import Checkpoint
    >>> X = np.random.default_rng(0).standard_normal((300, 6))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(f"{folder}/atoms.npz", every=10)
    ...     learner = MiniBatchDictionaryLearning(8, max_iter=5, random_state=0, checkpoint=checkpoint)
    ...     first = learner.fit(X).components_
    ...     again = learner.fit(X).components_  # read from the file
    >>> bool((first == again).all())
    True
    """

    def __init__(self, path, every=_EVERY):
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ValueError(f"The path of a checkpoint must be that of a file, got {path!r}")
        self.path = os.fspath(path)
        self.every = check_number("every", every, 0, of="Checkpoint")

    def __repr__(self):
        return f"Checkpoint({self.path!r}, every={self.every:g})"

    def __eq__(self, other):
        return isinstance(other, Checkpoint) and (self.path, self.every) == (other.path, other.every)

    def __hash__(self):
        return hash((self.path, self.every))

    def load(self, fingerprint):
        """The state to go on from, and whether there can be later ones: to be called when a fit begins.

        Parameters
        ----------
        fingerprint : dict of str
            What tells this fit from others, see `fingerprint`.

        Returns
        -------
        dict or None
            What `save` was given last; None if there is no file yet.

        Raises
        ------
        ValueError
            If the file is no checkpoint, is damaged, or is one of another fit.
        OSError
            If the file cannot be read, or none can be written in its place.
        """
        self._fingerprint = {str(name): str(value) for name, value in fingerprint.items()}
        state = self._read() if os.path.lexists(self.path) else None
        if state is None or not state.get("finished"):
            self._check_writable()
        self._next = time.monotonic() + self.every
        return state

    def due(self):
        """Whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, state):
        """Replace the file by one that holds this state; after an error the one before is still there.

        Parameters
        ----------
        state : dict
            Of NumPy and CuPy arrays, CSR arrays, numbers, strings, bytes, None, and lists, tuples and dicts of these.
            `finished=True` in it says that nothing is left to do.

        Raises
        ------
        OSError
            If the file cannot be written, because the disk is full for instance.
        """
        began = time.monotonic()
        arrays = {}
        header = dict(
            what=_WHAT,
            format=_FORMAT,
            version=__version__,
            fingerprint=self._fingerprint,
            state=_written(state, arrays),
        )
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        try:
            with open(self._partial, "wb", buffering=0) as file:
                sink = _Sink(file)
                np.savez(sink, **arrays)
                sink.finish()
                os.fsync(file.fileno())
            os.replace(self._partial, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(self._partial)
            last = "the last good one is kept" if os.path.exists(self.path) else "there is none yet"
            reason = f"writing the checkpoint failed ({error.strerror or error}); {last}"
            raise OSError(error.errno, reason, self.path) from error
        _sync_folder(Path(self.path).parent)
        now = time.monotonic()
        self._next = now + (max(self.every, _COST * (now - began)) if self.every > 0 else 0)

    @property
    def _partial(self):
        return self.path + ".partial"

    def _check_writable(self):
        if os.path.isdir(self.path):
            raise IsADirectoryError(f"checkpoint={self.path!r} is a folder: give the path of a file in it")
        if not Path(self.path).parent.is_dir():
            raise FileNotFoundError(f"checkpoint={self.path!r} cannot be written: there is no such folder")
        try:
            with open(self._partial, "wb"):
                pass
            os.remove(self._partial)
        except OSError as error:
            raise OSError(error.errno, f"no checkpoint can be written ({error.strerror})", self.path) from error

    def _read(self):
        if os.path.isdir(self.path):
            return None  # what is wrong with it is said where it is written
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header = json.loads(arrays.pop("header").tobytes())
            if header["what"] != _WHAT:
                raise ValueError("its header is another one")
            written, version, theirs = header["format"], header["version"], header["fingerprint"]
            differing = [
                name for name in {**theirs, **self._fingerprint} if theirs.get(name) != self._fingerprint.get(name)
            ]
        except (PermissionError, MemoryError):
            raise
        except Exception as reason:  # whatever a foreign or a torn file makes the readers stumble over
            raise ValueError(
                f"checkpoint={self.path!r} is no checkpoint that sparseshare has written, or it is damaged "
                f"({type(reason).__name__}: {reason}): delete it to begin anew, or give another path"
            ) from reason
        if written != _FORMAT or version != __version__:
            raise ValueError(
                f"checkpoint={self.path!r} was written by sparseshare {version}, this is {__version__}, which might "
                "not go on to the same result: finish with that version, or delete it to begin anew"
            )
        if differing:
            told = ", ".join(
                f"{name} was {theirs.get(name, 'not there')}, is {self._fingerprint.get(name, 'not there')}"
                for name in differing
            )
            raise ValueError(
                f"checkpoint={self.path!r} is one of another fit: {told}. Give every fit a path of its own, or delete "
                "the file to begin anew"
            )
        return _read(header["state"], arrays)


class NoCheckpoint:
    """Stands for a checkpoint where none was asked for."""

    def due(self):
        """Never."""
        return False

    def save(self, state):
        """Nothing to do."""


def begin_checkpoints(estimator, **data):
    """Read the state that a fit goes on from, and make ready for those it will write.

    Parameters
    ----------
    estimator : object
        With the parameter `checkpoint`: None, a path or a `Checkpoint`, which is left as it is.
    **data : arrays, lists of arrays, strings or None
        What is learned from, and where the fit starts if that is no parameter.

    Returns
    -------
    checkpoint : Checkpoint or NoCheckpoint
        With `due()` and `save(state)`.
    state : dict or None

    Raises
    ------
    ValueError, OSError
        See `Checkpoint.load`.
    """
    if estimator.checkpoint is None:
        return NoCheckpoint(), None
    given = check_checkpoint(estimator.checkpoint, of=type(estimator).__name__)
    checkpoint = Checkpoint(given.path, given.every)
    return checkpoint, checkpoint.load(fingerprint(estimator, **data))


def check_checkpoint(value, *, of=None):
    """Refuse anything but None, a path or a `Checkpoint`; return a `Checkpoint` or None."""
    if value is None or isinstance(value, Checkpoint):
        return value
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return Checkpoint(value)
    where = f" of {of}" if of else ""
    raise ValueError(f"The 'checkpoint' parameter{where} must be a path, a Checkpoint or None, got {value!r}")


def fingerprint(estimator, **data):
    """What tells a fit from others, in words: its parameters, shape, dtype and some rows of its data.

    Parameters
    ----------
    estimator : object
        With `get_params`.
    **data : arrays, lists of arrays, strings or None
        By what they are called.

    Returns
    -------
    dict of str
        Parameters that change nothing of what is learned are left out, and so is where a `RandomState` stands.
    """
    parameters = estimator.get_params(deep=False)
    described = {"estimator": type(estimator).__name__}
    described.update({name: _in_words(value) for name, value in parameters.items() if name not in _FREE})
    described.update({name: _data_in_words(value) for name, value in data.items()})
    return described


def _in_words(value):
    """A parameter; equal ones read equal, in every process."""
    if isinstance(value, bool | np.bool_ | str) or value is None:
        return repr(value)
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        value = to_host(value)
        whole = value if issparse(value) else np.ascontiguousarray(value)
        return f"{value.dtype} of shape {tuple(value.shape)} with digest {_digest([whole])}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_in_words, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_in_words(key)}: {_in_words(entry)}' for key, entry in value.items())}}}"
    if hasattr(value, "get_params"):
        inner = value.get_params(deep=False).items()
        return f"{type(value).__name__}({', '.join(f'{name}={_in_words(entry)}' for name, entry in inner)})"
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__name__


def _data_in_words(X):
    if X is None or isinstance(X, str):
        return repr(X)
    if isinstance(X, list | tuple):
        shapes = _digest([repr([(str(one.dtype), tuple(one.shape)) for one in X]).encode()])
        rows = [row for number in sampled(len(X)) for row in _some_rows(X[number])]
        return f"{len(X)} arrays of shapes with digest {shapes}, entries with digest {_digest(rows)}"
    return f"{X.dtype} of shape {tuple(X.shape)}, rows with digest {_digest(_some_rows(X))}"


def sampled(n):
    """Numbers of the rows of a data set of `n` that a fingerprint looks at: a list of int."""
    return np.unique(np.linspace(0, n - 1, min(n, _SAMPLED)).astype(int)).tolist() if n else []


def _some_rows(X):
    """Rows from all over an array, the first and the last among them; none of what cannot be indexed."""
    if not hasattr(X, "__getitem__"):
        return []
    rows = sampled(X.shape[0])
    if on_gpu(X):
        return [to_host(X[array_module(X).asarray(rows)])]
    return [X[row : row + 1] for row in rows]


def _digest(parts):
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if issparse(part):
            for array in (part.indptr, part.indices, part.data):
                digest.update(np.ascontiguousarray(array).tobytes())
        else:
            digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def random_bits(random_state):
    """The state of a RandomState, for a checkpoint."""
    return random_state.get_state(legacy=False)


def resumed_random_state(random_state, bits):
    """A RandomState that goes on from `bits`: `random_state` itself, unless that is NumPy's global one.

    Parameters
    ----------
    random_state : numpy.random.RandomState
    bits : dict
        From `random_bits`.

    Returns
    -------
    numpy.random.RandomState
    """
    if random_state is np.random.mtrand._rand:
        random_state = np.random.RandomState()
    random_state.set_state(bits)
    return random_state


class _Sink(io.RawIOBase):
    """A file for `zipfile`, which does not end well after an error: this one keeps the first till the end."""

    def __init__(self, file):
        self._file, self._error = file, None

    def writable(self):
        return True

    def write(self, data):
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def finish(self):
        """Raise the error that there was."""
        if self._error is not None:
            raise self._error


def _sync_folder(folder):
    """Let the new name of a file reach the disk; where folders cannot be opened, that is the system's business."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(value, arrays):
    """What JSON can hold, arrays laid aside."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": value.dtype.str}
    if isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_written(entry, arrays) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [_written(entry, arrays) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[_written(key, arrays), _written(entry, arrays)] for key, entry in value.items()]}
    value = to_host(value)
    if issparse(value):
        value = csr_array(value)
        return {
            "csr": [_written(part, arrays) for part in (value.data, value.indices, value.indptr)],
            "shape": value.shape,
        }
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        key = f"array{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _read(value, arrays):
    if isinstance(value, list):
        return [_read(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "csr" in value:
        return csr_array(tuple(_read(part, arrays) for part in value["csr"]), shape=tuple(value["shape"]))
    if "scalar" in value:
        return np.dtype(value["dtype"]).type(value["scalar"])
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "tuple" in value:
        return tuple(_read(entry, arrays) for entry in value["tuple"])
    return {_read(key, arrays): _read(entry, arrays) for key, entry in value["dict"]}
