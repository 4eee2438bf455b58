"""Checkpoints: the state of a long fit in a file, from which a fit that was killed goes on to the same bits.

A file is an .npz of arrays with a JSON header; nothing in it is pickled and no code of it is run. It is replaced
as a whole, so there is always either the checkpoint before or this one.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from .atomic import partial_path, replaced_file
from .fingerprints import fingerprint
from .states import restored, written
from .validation import check_number
from .version import __version__

_WHAT, _FORMAT = "sparseshare checkpoint", 1
_EVERY = 60.0  # seconds
_COST = 20  # times as long as writing took is learned before the next: a twentieth of the time at most


class Checkpoint:
    """Where, and how often, a fit writes its state.

    Learners take one, or just its path, as their parameter `checkpoint`. A fit that was killed and is started again
    with the same data and parameters goes on from the last checkpoint and ends with the bits of a fit that was not.
    After the fit the file stays: to fit again with it returns the same result at once.

    Signals that come in blocks must come again as they did. Of an iterator that is a new one, from the first block on:
    blocks that have been learned from are read and passed over. One that has moved on is refused as another fit.

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
            state=written(state, arrays),
        )
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        try:
            with replaced_file(self.path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            last = "the last good one is kept" if os.path.exists(self.path) else "there is none yet"
            reason = f"writing the checkpoint failed ({error.strerror or error}); {last}"
            raise OSError(error.errno, reason, self.path) from error
        now = time.monotonic()
        self._next = now + (max(self.every, _COST * (now - began)) if self.every > 0 else 0)

    def _check_writable(self):
        if os.path.isdir(self.path):
            raise IsADirectoryError(f"checkpoint={self.path!r} is a folder: give the path of a file in it")
        if not Path(self.path).parent.is_dir():
            raise FileNotFoundError(f"checkpoint={self.path!r} cannot be written: there is no such folder")
        try:
            with open(partial_path(self.path), "wb"):
                pass
            os.remove(partial_path(self.path))
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
            number, version, theirs = header["format"], header["version"], header["fingerprint"]
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
        if number != _FORMAT or version != __version__:
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
        return restored(header["state"], arrays)


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
