"""Standard pictures denoised by K-SVD: decibels beside those of the paper, seconds beside a script on scikit-learn."""

import numpy as np
from contest import race
from data import picture
from row import Line, Row

from sparseshare.image.denoising import error_goal
from sparseshare.image.restoration import overcomplete_cosines
from sparseshare.metrics import peak_signal_noise_ratio

SIDE, N_COMPONENTS, TURNS, PATCHES = 8, 256, 20, 40_000
# Elad and Aharon 2006, table I, K-SVD on the picture's own patches; peak 255.
PUBLISHED = {
    "house": {10: 35.98, 15: 34.32, 20: 33.20, 25: 32.15, 50: 27.95},
    "peppers": {10: 34.28, 15: 32.22, 20: 30.82, 25: 29.73, 50: 26.13},
    "boat": {10: 33.64, 15: 31.73, 20: 30.36, 25: 29.28, 50: 25.95},
}
CLOSE = 0.1  # decibels below the published figure that still count as the same
LONGEST = 10  # seconds that a picture may take


def denoising(settings, n_sample=2000, at_least=3):
    """Ours whole; theirs on a share of the patches, as many turns and patches added up.

    "missed (accuracy)" is one that is more than `CLOSE` below the paper; above `LONGEST` is said beside the decibels.
    """
    row = Row("denoising", f"K-SVD denoising, {N_COMPONENTS} atoms, {SIDE} x {SIDE}, {TURNS} turns", "s")
    D = overcomplete_cosines((SIDE, SIDE), N_COMPONENTS)
    for name, published in PUBLISHED.items():
        clean = picture(name, settings).astype(np.float64)
        for sigma, decibels in published.items():
            noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
            goal = error_goal(SIDE**2, sigma)
            n_patches = np.prod([length - SIDE + 1 for length in clean.shape])
            n_training = min(PATCHES, _above(noisy, goal))
            share = {"learned": settings.count(n_sample), "coded": settings.count(n_sample)}
            entries = {
                "ours": ("sparseshare", "denoise", {"noisy": noisy}, {"sigma": sigma}),
                "script": (
                    "scikit_learn", "denoise", {"noisy": noisy, "D": D},
                    {"sigma": sigma, "side": SIDE, "max_error": goal, **share},
                ),
            }  # fmt: skip
            outcomes = race(entries, settings, repeats=2)
            ours, script = outcomes["ours"], outcomes["script"]
            reached = peak_signal_noise_ratio(clean, ours["result"]["image"], data_range=255)
            theirs = None
            if "failed" not in script:
                cost = script["result"]
                theirs = float(ours["result"]["turns"] * n_training * cost["learning"] + n_patches * cost["coding"])
            long = "" if ours["seconds"] <= LONGEST else f", above {LONGEST} s"
            row.lines.append(
                Line(
                    f"{name}, sigma {sigma}: {script.get('peer', 'scikit-learn')}",
                    ours["seconds"],
                    theirs,
                    at_least,
                    f"{reached:.2f} dB, published {decibels:.2f}{long}",
                    bool(reached >= decibels - CLOSE),
                    script.get("failed", f"theirs from the time of {share['coded']:,} patches"),
                )
            )
    return row


def _above(noisy, goal):
    """Patches that are more than noise: those that are learned from."""
    patches = np.lib.stride_tricks.sliding_window_view(noisy, (SIDE, SIDE))
    return int(np.count_nonzero(patches.var(axis=(2, 3)) * SIDE**2 > goal))
