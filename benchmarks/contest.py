"""Contestants, each in a process of its own, and races between them.

Separate processes keep a peer's licence (SPAMS is under the GPL), crashes, thread settings and memory out of ours, and
put every contestant, this package included, on the same footing: the worker that a contestant lives in times the call
from inside, and hands back its result for us to judge.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy.sparse import load_npz

WORKER = Path(__file__).with_name("worker.py")
# OpenMP and OpenBLAS let idle threads spin for a while: let those of the last contestant go to sleep first.
PAUSE = 0.05


class PeerFailed(RuntimeError):
    """A contestant is not installed, refused the task or died; the message says which."""


class Contestant:
    """A process that holds one contestant (a module of `peers`) and one prepared task.

    Parameters
    ----------
    name : str
        Module of `peers`.
    threads : int
        For every thread pool that the process may start.
    python : str or None, default=None
        Interpreter that has the peer installed; None takes this one.
    """

    def __init__(self, name, threads, python=None):
        self.name = name
        self.label = name
        self._folder = tempfile.TemporaryDirectory()
        pools = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")
        environment = os.environ | {f"{pool}_NUM_THREADS": str(threads) for pool in pools}
        self._process = subprocess.Popen(
            [python or sys.executable, str(WORKER), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.version = self._listen()["version"]

    def prepare(self, task, arrays, options, warm_up=True):
        """Hand over the arrays and options of a task, and let the contestant warm up on it."""
        for key, array in arrays.items():
            np.save(Path(self._folder.name, f"{key}.npy"), array)
        reply = self._ask(do="prepare", task=task, arrays=sorted(arrays), options=options, warm_up=warm_up)
        self.label = reply["label"] or self.name

    def run(self):
        """Do the task once; return the seconds it took."""
        time.sleep(PAUSE)
        return self._ask(do="run")["seconds"]

    def watch(self):
        """Do the task once; return the bytes of memory it took at its peak beyond what was there and its result."""
        return self._ask(do="watch")["extra_bytes"]

    def result(self):
        """What the last run returned: a csr_array of codes, or a dict of arrays and numbers."""
        reply = self._ask(do="result")
        if reply["kind"] == "codes":
            return load_npz(Path(self._folder.name, "codes.npz"))
        with np.load(Path(self._folder.name, "result.npz")) as stored:
            return dict(stored)

    def close(self):
        """End the process."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ask(self, **question):
        try:
            self._process.stdin.write(json.dumps(question | {"folder": self._folder.name}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._death()) from None
        return self._listen()

    def _listen(self):
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(self._death())
        reply = json.loads(line)
        if "error" in reply:
            raise PeerFailed(reply["error"])
        return reply

    def _death(self):
        return f"its process ended with status {self._process.wait()}"


def race(entries, settings, repeats=None):
    """Time contestants in turns and fetch their results.

    Parameters
    ----------
    entries : dict of str to (peer, task, arrays, options)
        What each contestant does, by the name its outcome shall have.
    settings : Settings
    repeats : int or None, default=None
        Rounds; in each one every contestant runs once. None takes that of the settings.

    Returns
    -------
    dict of str to dict
        `seconds` (the least of all rounds), `all_seconds`, `peer` (name and version), `result`; for one that failed
        only `failed`, the reason.

    Raises
    ------
    PeerFailed
        If this package failed: its own absence is no note in a table.
    """
    outcomes, runners = {}, {}
    with ExitStack() as stack:
        for key, (peer, task, arrays, options) in entries.items():
            try:
                contestant = settings.contestant(peer)
                stack.enter_context(contestant)
                contestant.prepare(task, arrays, options)
                runners[key] = contestant
                outcomes[key] = {"peer": f"{contestant.label} {contestant.version}".strip(), "all_seconds": []}
            except PeerFailed as reason:
                outcomes[key] = _failed(peer, reason)
        for _ in range(repeats or settings.repeats):
            for key, contestant in list(runners.items()):
                try:
                    outcomes[key]["all_seconds"].append(contestant.run())
                except PeerFailed as reason:
                    outcomes[key] = _failed(contestant.name, reason)
                    del runners[key]
        for key, contestant in runners.items():
            outcomes[key] |= {"seconds": min(outcomes[key]["all_seconds"]), "result": contestant.result()}
    return outcomes


def _failed(peer, reason):
    if peer == "sparseshare":
        raise PeerFailed(f"{peer}: {reason}") from reason
    return {"failed": str(reason)}
