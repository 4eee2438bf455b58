"""Coding with shared atoms, to an accuracy: times until the objective is so close to the least.

Both sides are told kindly: SPORCO's ADMM runs for exactly the iterations that the accuracy takes with the best of some
penalties rho, found beforehand; ours stops by the loosest `tol` of a ladder that reaches it, and once more by the `tol`
that guarantees it.
"""

from dataclasses import replace

import convolutional
import numpy as np
from contest import PeerFailed, race
from row import Line, Row

# rho as a factor of alpha: 70 is about SPORCO's own for alpha = 0.05
RHOS = (70, 35, 140, 20, 10)
LADDER = tuple(float(f"{first}e-{power}") for power in range(1, 10) for first in (5, 3, 2, 1))
EXACT = 1e-9  # relative gap of the codes that stand for the optimum


def conv_128(settings, alpha=0.05):
    """A piece of a photograph, SPORCO's 32 small atoms."""
    x = convolutional.image(_side(settings, 128), settings)
    return _row(settings, "conv_128", x, convolutional.atoms("8x8x32"), alpha, {1e-3: 4, 1e-6: 8})


def conv_256(settings, alpha=0.05):
    """A larger piece, SPORCO's 36 larger atoms."""
    x = convolutional.image(_side(settings, 256), settings)
    return _row(settings, "conv_256", x, convolutional.atoms("12x12x36"), alpha, {1e-4: 8})


def conv_rgb(settings, alpha=0.1):
    """Atoms with colours."""
    x = convolutional.colour_image(_side(settings, 128))
    return _row(settings, "conv_rgb", x, convolutional.atoms("8x8x3x64"), alpha, {1e-3: 6, 1e-6: 6})


def conv_1d(settings):
    """A long recording, to the objective of alphacsc's LGCD with its own tolerance; on one thread and on two."""
    x, atoms, alpha = convolutional.recording()
    if settings.quick:
        x = x[:4000]
    arrays, options = {"x": x, "atoms": atoms}, {"alpha": alpha, "boundary": "full", "positive": True}
    row = Row("conv_1d", f"{len(x):,} samples, 25 atoms of 64, codes >= 0, to alphacsc's accuracy, float64", "ms")
    theirs = ("alphacsc", "encode", arrays, {"alpha": alpha, "tol": 1e-3})
    outcome = race({"theirs": theirs}, settings, repeats=1)["theirs"]
    if "failed" in outcome:
        raise PeerFailed(f"alphacsc sets the mark of this row and failed: {outcome['failed']}")
    judge = {"boundary": "full", "positive": True}
    mark, _ = convolutional.worth(x, atoms, outcome["result"]["maps"], alpha, **judge)
    tol = _loosest(settings, arrays, options, mark, judge)
    for threads, least in ((2, 15), (1, 8)):
        entries = {"ours": ("sparseshare", "conv_encode", arrays, options | {"tol": tol}), "theirs": theirs}
        outcomes = race(entries, replace(settings, threads=threads))
        reached, gap = convolutional.worth(x, atoms, outcomes["ours"]["result"]["maps"], alpha, **judge)
        row.lines.append(
            Line(
                f"{outcomes['theirs']['peer']}, {threads} thread(s)",
                1e3 * outcomes["ours"]["seconds"],
                1e3 * outcomes["theirs"]["seconds"],
                least,
                f"objective {reached:.6f} (gap {gap:.0e}), theirs {mark:.6f}; ours tol={tol:g}",
                same=reached <= mark,
            )
        )
    row.lines.append(_floor(settings, row.lines[0].ours, x.shape, len(atoms)))
    return row


def _row(settings, name, x, atoms, alpha, targets):
    """Race to each accuracy of `targets` (relative excess over the optimum: ratio asked for)."""
    arrays, options = {"x": x, "atoms": atoms}, {"alpha": alpha}
    sizes = " x ".join(map(str, x.shape)), " x ".join(map(str, atoms.shape[1:]))
    row = Row(name, f"{sizes[0]} image, {len(atoms)} atoms {sizes[1]}, alpha {alpha}, float64", "ms")
    exact = _codes(settings, arrays, options | {"tol": EXACT})
    optimum, gap = convolutional.worth(x, atoms, exact, alpha)
    share = np.count_nonzero(exact) / exact.size
    marks = [optimum * (1 + accuracy) for accuracy in targets]
    ways = _ways_of_sporco(settings, arrays, alpha, marks)
    for place, (accuracy, least) in enumerate(targets.items()):
        guaranteed = float(f"{accuracy * optimum / (0.5 * np.sum(x**2)):.2g}")
        loosest = _loosest(settings, arrays, options, marks[place])
        entries = {
            f"tol={tol:g}": ("sparseshare", "conv_encode", arrays, options | {"tol": tol})
            for tol in (loosest, min(loosest, guaranteed))
        }
        for label, (way, counts) in ways.items():
            if counts[place] > 0:
                given = {"alpha": alpha, "setting": way, "n_iterations": int(counts[place])}
                entries[label] = ("sporco", "encode", arrays, given)
        outcomes = race(entries, settings)
        raced = [label for label in ways if "seconds" in outcomes.get(label, {})]
        if not raced:
            reason = next((outcomes[each]["failed"] for each in ways if each in outcomes), "accuracy not reached")
            row.lines.append(
                Line(f"SPORCO, to {accuracy:g}", 1e3 * outcomes[f"tol={loosest:g}"]["seconds"], None, note=reason)
            )
            continue
        best = min(raced, key=lambda label: outcomes[label]["seconds"])
        for label in [each for each in entries if each.startswith("tol")]:
            ours, far = convolutional.worth(x, atoms, outcomes[label]["result"]["maps"], alpha)
            their, _ = convolutional.worth(x, atoms, outcomes[best]["result"]["maps"], alpha)
            how = "" if label == f"tol={loosest:g}" else ", guaranteed by ours"
            row.lines.append(
                Line(
                    f"{outcomes[best]['peer']}, to {accuracy:g}{how}",
                    1e3 * outcomes[label]["seconds"],
                    1e3 * outcomes[best]["seconds"],
                    least,
                    f"above the optimum by {ours / optimum - 1:.0e} (gap {far / optimum:.0e}), theirs "
                    f"{their / optimum - 1:.0e}; ours {label}; theirs {ways[best][1][place]} iterations, {best}",
                    same=ours <= marks[place],
                    note=f"{share:.2%} of the codes not 0, optimum to {gap / optimum:.0e}",
                )
            )
    row.lines.append(_floor(settings, row.lines[0].ours, x.shape[: atoms.ndim - 1 - (x.ndim == 3)], len(atoms)))
    return row


def _ways_of_sporco(settings, arrays, alpha, marks):
    """By label: settings and iterations to every mark, of the best fixed rho for each mark and of its adaptive rho."""
    rhos = RHOS[:2] if settings.quick else RHOS
    tried = [{"rho": rho} for rho in rhos] + [{"adapt": True}]
    options = {"alpha": alpha, "targets": marks, "settings": tried, "most": 150 if settings.quick else 600}
    outcome = race({"found": ("sporco", "iterations", arrays, options)}, settings, repeats=1)["found"]
    if "failed" in outcome:
        return {}
    counts = outcome["result"]["counts"]
    ways = {"adaptive rho": (tried[-1], counts[-1])}
    for place in range(len(marks)):
        fixed = np.where(counts[:-1, place] > 0, counts[:-1, place], np.iinfo(int).max)
        best = int(fixed.argmin())
        ways[f"rho = {rhos[best]} alpha"] = (tried[best], counts[best])
    return ways


def _loosest(settings, arrays, options, mark, judge=None):
    """The largest tol of the ladder whose codes are worth no more than the mark."""
    with settings.contestant("sparseshare") as coder:
        for tol in LADDER:
            coder.prepare("conv_encode", arrays, options | {"tol": tol}, warm_up=False)
            coder.run()
            reached, _ = convolutional.worth(
                arrays["x"], arrays["atoms"], coder.result()["maps"], options["alpha"], **(judge or {})
            )
            if reached <= mark:
                return tol
    raise PeerFailed(f"the objective {mark} is not reached with tol={tol:g}: {reached}")


def _codes(settings, arrays, options):
    with settings.contestant("sparseshare") as coder:
        coder.prepare("conv_encode", arrays, options, warm_up=False)
        coder.run()
        return coder.result()["maps"]


def _floor(settings, ours, shape, n_atoms):
    """What one iteration of a solver by Fourier transforms cannot do without, beside our whole time."""
    task = ("floor", "transforms", {}, {"shape": list(shape), "n_maps": n_atoms, "dtype": "float64"})
    seconds = race({"floor": task}, settings)["floor"]["seconds"]
    megabytes = 16 * n_atoms * np.prod(shape) / 1e6
    return Line(
        "one iteration's Fourier transforms",
        ours,
        1e3 * seconds,
        accuracy=f"{2 * n_atoms} of them; {megabytes:.1f} MB for reading and writing all codes once",
    )


def _side(settings, side):
    return side // 4 if settings.quick else side
