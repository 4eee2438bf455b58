"""Memory that coding takes beyond the signals and the codes: the same for any number of signals."""

import numpy as np
import problems
from contest import PeerFailed
from row import Line, Row

from .lasso import N_NONZEROS

COUNTS = (50_000, 200_000, 800_000)
N_WARM_UP = 2000
MEGABYTE = 2**20


def memory(settings, limit=64 * MEGABYTE):
    """Peak of the resident memory while coding to csr_array, less input, output and what was there before."""
    counts = [settings.count(n) for n in COUNTS]
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    alpha = problems.penalty(8, 256, N_NONZEROS, settings)
    patches = problems.test_signals(8, counts[1])
    peers = {
        "ours": ("sparseshare", "encode", {"alpha": alpha}),
        "SPAMS": ("spams", "lasso", {"alpha": alpha}),
    }
    extra, notes = {}, {}
    for name, (peer, task, options) in peers.items():
        try:
            extra[name] = [_extra(settings, peer, task, np.resize(patches, (n, 64)), D, options) for n in counts]
        except PeerFailed as reason:
            notes[name] = str(reason)
    listed = ", ".join(f"{n:,}" for n in counts)
    row = Row("memory_64x256_float32", f"extra memory while coding {listed} signals to csr_array", "MB")
    worst = max(extra["ours"])
    row.lines.append(
        Line("limit of 64 MB", worst / MEGABYTE, limit / MEGABYTE, 1, _listed(extra["ours"]), worst <= limit)
    )
    theirs = extra.get("SPAMS")
    row.lines.append(
        Line("SPAMS lasso", worst / MEGABYTE, max(theirs) / MEGABYTE if theirs else None, None,
             _listed(theirs) if theirs else "", note=notes.get("SPAMS", ""))
    )  # fmt: skip
    row.series = {name: {"x": counts, "y": [each / MEGABYTE for each in values]} for name, values in extra.items()}
    return row


def _extra(settings, peer, task, X, D, options):
    # A fresh process each: memory that an earlier call has given back to the allocator would hide what this one takes.
    with settings.contestant(peer) as coder:
        coder.prepare(task, {"X": X[:N_WARM_UP], "D": D}, options)
        coder.prepare(task, {"X": X, "D": D}, options, warm_up=False)
        return coder.watch()


def _listed(extra):
    return " / ".join(f"{each / MEGABYTE:.0f}" for each in extra) + " MB"
