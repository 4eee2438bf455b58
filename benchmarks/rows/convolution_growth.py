"""How the time of convolutional coding grows with the size of an image, the number of atoms and their size."""

import convolutional
import numpy as np
from contest import race
from row import Row

SIDE, N_ATOMS, SUPPORT = 128, 32, 8
SHARE = 0.15  # of the least penalty that gives zero codes
TOL = 1e-3
SOLVERS = ("auto", "fista", "admm")


def conv_growth(settings):
    """Three walks from 128 x 128, 32 atoms 8 x 8, one size changed at a time; SPORCO stops by its own rule at 1e-3."""
    walks = {
        "image": [(side, N_ATOMS, SUPPORT) for side in (32, 64, 128, 256)],
        "atoms": [(SIDE, n_atoms, SUPPORT) for n_atoms in (8, 16, 32, 64, 128)],
        "atom": [(SIDE, N_ATOMS, support) for support in (4, 8, 12, 16, 24)],
    }
    row = Row("conv_growth", "convolutional coding, float32, growth with image, atoms and atom size", "ms an image")
    for walk, places in walks.items():
        for side, n_atoms, support in places[:1] if settings.quick else places:
            at = {"image": side, "atoms": n_atoms, "atom": support}[walk]
            for name, seconds in _times(settings, side, n_atoms, support).items():
                curve = row.series.setdefault(f"{walk}: {name}", {"x": [], "y": []})
                curve["x"].append(at)
                curve["y"].append(1e3 * seconds)
    return row


def _times(settings, side, n_atoms, support):
    x = convolutional.image(side, settings)
    atoms = convolutional.starting_atoms(convolutional.crops(6, 256, settings), n_atoms, support)
    alpha = SHARE * convolutional.largest_alpha(x, atoms)
    arrays = {"x": x.astype(np.float32), "atoms": atoms.astype(np.float32)}
    entries = {
        f"sparseshare {solver}": ("sparseshare", "conv_encode", arrays, {"alpha": alpha, "tol": TOL, "solver": solver})
        for solver in SOLVERS
    }
    own_rule = {"alpha": alpha, "setting": {"adapt": True}, "n_iterations": 500, "tol": TOL}
    entries["SPORCO ADMM"] = ("sporco", "encode", arrays, own_rule)
    shape = {"shape": [side, side], "n_maps": n_atoms, "dtype": "float32"}
    entries["one iteration's Fourier transforms"] = ("floor", "transforms", {}, shape)
    outcomes = race(entries, settings, repeats=2 if settings.quick else 3)
    return {name: outcome["seconds"] for name, outcome in outcomes.items() if "failed" not in outcome}
