"""Learning shared atoms: seconds until they are as good as SPORCO's after 200 iterations."""

import convolutional
from contest import PeerFailed, race
from row import Line, Row

ALPHA = 0.2  # of SPORCO's own example
JUDGED_TO = 1e-4  # relative gap of the codes that say what atoms are worth
N_ITERATIONS = 200
METHODS = ("cns", "pgm")


def conv_learning(settings, n_atoms=64, support=8, n_images=5, side=128):
    """Everybody learns from the same pieces of photographs and begins with the same atoms.

    Atoms are worth the least objective that they allow, summed over the images; one judge codes for all.
    """
    side, n_iterations = (side // 2, 20) if settings.quick else (side, N_ITERATIONS)
    images = convolutional.crops(n_images, side, settings)
    arrays = {"images": images, "atoms": convolutional.starting_atoms(images, n_atoms, support)}
    every = max(1, n_iterations // 20)
    sporco = {"alpha": ALPHA, "n_iterations": n_iterations, "every": every}
    entries = {
        "sparseshare": ("sparseshare", "conv_learn", arrays, {"alpha": ALPHA, "n_iterations": n_iterations // 2})
    }
    entries |= {f"SPORCO {method}": ("sporco", "learn", arrays, sporco | {"method": method}) for method in METHODS}
    outcomes = race(entries, settings, repeats=1)  # SPORCO takes minutes, the ratio is far from the mark
    failed = [outcome["failed"] for outcome in outcomes.values() if "failed" in outcome]
    if failed:
        raise PeerFailed(f"SPORCO sets the mark of this row and failed: {failed[0]}")
    row = Row(
        "conv_learning",
        f"{n_atoms} atoms {support} x {support} from {n_images} images {side} x {side}, float64: time to the objective "
        f"of SPORCO after {n_iterations} iterations",
        "s",
    )
    row.series = {name: _curve(outcome["result"], images, settings) for name, outcome in outcomes.items()}
    ours = row.series["sparseshare"]
    for name in list(entries)[1:]:
        theirs = row.series[name]
        mark = theirs["y"][-1]
        reached = next((x for x, y in zip(ours["x"], ours["y"], strict=True) if y <= mark), None)
        row.lines.append(
            Line(
                outcomes[name]["peer"],
                ours["x"][-1] if reached is None else reached,
                theirs["x"][-1],
                4,
                f"objective {mark:.4f}; ours ends at {ours['y'][-1]:.4f} after {ours['x'][-1]:.2f} s",
                same=reached is not None,
            )
        )
    return row


def _curve(result, images, settings):
    """Objective against seconds: the same coder for all atoms, what it says checked by the judge."""
    curve = {"x": result["seconds"].tolist(), "y": []}
    with settings.contestant("sparseshare") as coder:
        for atoms in result["dictionaries"]:
            options = {"alpha": ALPHA, "tol": JUDGED_TO}
            total = 0.0
            for x in images:
                coder.prepare("conv_encode", {"x": x, "atoms": atoms}, options, warm_up=False)
                coder.run()
                total += convolutional.worth(x, atoms, coder.result()["maps"], ALPHA)[0]
            curve["y"].append(total)
    return curve
