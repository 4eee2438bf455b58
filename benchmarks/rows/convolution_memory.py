"""Memory that convolutional coding and learning take."""

import convolutional
import numpy as np
from contest import PeerFailed
from row import Line, Row

SOLVERS = ("auto", "lgcd", "working_set", "fista", "admm")
COUNTS = (10, 30, 100, 300, 1000)
MEGABYTE = 2**20


def conv_memory(settings, alpha=0.05):
    """Peak of the memory while coding, the codes included, over the memory of dense codes; float32."""
    side = 128 if settings.quick else 512
    x = convolutional.image(side, settings).astype(np.float32)
    atoms = convolutional.atoms("8x8x32").astype(np.float32)
    row = Row("conv_memory", f"peak memory of coding {side} x {side}, 32 atoms 8 x 8, float32", "code arrays")
    array = 4 * len(atoms) * side * side
    try:
        options = {"alpha": alpha, "setting": {}, "n_iterations": 20, "high_memory": False}
        theirs, note = _extra(settings, "sporco", "encode", x, atoms, options) / array + 1, ""
    except PeerFailed as reason:
        theirs, note = None, str(reason)
    for solver in SOLVERS:
        options = {"alpha": alpha, "solver": solver, "tol": 1e-3}
        ours = _extra(settings, "sparseshare", "conv_arrays", x, atoms, options) / array + 1
        row.lines.append(Line(f"limit of 6, {solver}", ours, 6, 1, f"{ours * array / MEGABYTE:.0f} MB"))
        row.lines.append(Line(f"SPORCO ADMM, ours {solver}", ours, theirs, note=note))
    options = {"alpha": alpha, "solver": "lgcd", "tol": 1e-3, "sparse_output": True}
    ours = _extra(settings, "sparseshare", "conv_arrays", x, atoms, options) / array
    row.lines.append(Line("limit of 2, lgcd, sparse output", ours, 2, 1, f"{ours * array / MEGABYTE:.0f} MB"))
    return row


def conv_learning_memory(settings, side=64, n_atoms=32):
    """Peak of the memory while learning from more and more images, the images not counted."""
    counts = COUNTS[:3] if settings.quick else COUNTS
    images = convolutional.crops(counts[-1], side, settings).astype(np.float32)
    atoms = convolutional.starting_atoms(images, n_atoms, 8).astype(np.float32)
    extra = []
    for n in counts:
        with settings.contestant("sparseshare") as learner:
            options = {"alpha": 0.2, "n_iterations": 2}
            learner.prepare("conv_fit", {"images": images[:5], "atoms": atoms}, options)
            learner.prepare("conv_fit", {"images": images[:n], "atoms": atoms}, options, warm_up=False)
            extra.append(learner.watch() / MEGABYTE)
    listed = ", ".join(f"{n:,}" for n in counts)
    row = Row("conv_learning_memory", f"memory of learning from {listed} images {side} x {side}, float32", "MB")
    shown = " / ".join(f"{each:.0f}" for each in extra) + " MB"
    # flat: the most at any size beside the first size, and the page cache of the allocator
    row.lines.append(Line("flat, to 10 % and 8 MB", max(extra), 1.1 * extra[0] + 8, 1, shown))
    row.series = {"sparseshare": {"x": list(counts), "y": extra}}
    return row


def _extra(settings, peer, task, x, atoms, options):
    # A fresh process each, warmed up on a small piece: memory given back earlier would hide what this call takes.
    small = np.ascontiguousarray(x[:48, :48])
    with settings.contestant(peer) as coder:
        coder.prepare(task, {"x": small, "atoms": atoms}, options)
        coder.prepare(task, {"x": x, "atoms": atoms}, options, warm_up=False)
        return coder.watch()
