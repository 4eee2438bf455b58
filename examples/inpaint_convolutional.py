"""Photographs of which half the pixels are missing, filled in with shared atoms; under a minute on two cores.

    python examples/inpaint_convolutional.py [folder]

prints decibels beside those of scikit-image's biharmonic filling, and writes inpaint_convolutional.png into the folder,
or into the current one. The photographs are scikit-image's; they come inside that package.

Atoms are learned on the left half of a photograph, a piece of the right half is filled in. What is smooth is split off
first: the biharmonic filling under a Gaussian. The rest is coded from the pixels that are there, with atoms that may
stick out at the edges. Shared atoms bring what repeats, the joints of a wall; at smooth areas they have nothing to say.
"""

import sys
import time
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage import data, restoration

from sparseshare.convolution import ConvDictionaryLearning, conv_sparse_encode
from sparseshare.metrics import peak_signal_noise_ratio
from sparseshare.plotting import AtomsDisplay

decibels = partial(peak_signal_noise_ratio, data_range=1)

LOST = 0.5  # share of the pixels
PIECES = {"brick": (200, 300), "camera": (60, 260)}  # corner of the piece that is filled in
SIDE = 128
N_ATOMS, SUPPORT = 32, (8, 8)
ALPHA_LEARNING, ALPHA = 0.1, 0.006  # to fill in, small details count, too
SMOOTH = 2.5  # pixels, of the Gaussian
INK = "#1f2a37"


def smooth(image):
    """What is split off before coding."""
    return gaussian_filter(image, SMOOTH)


def learn(half):
    """Atoms of the pieces of half a photograph."""
    rest = half - smooth(half)
    pieces = np.stack([rest[top : top + SIDE, left : left + SIDE] for top in (64, 320) for left in (0, 128)])
    learner = ConvDictionaryLearning(
        N_ATOMS, SUPPORT, alpha=ALPHA_LEARNING, max_iter=15, tol=0, dict_init="k-means++", random_state=0
    )
    return learner.fit(pieces).components_


def fill(damaged, mask, biharmonic, atoms):
    """Missing pixels from the codes of the others, and how many activations these take."""
    low = smooth(biharmonic)
    maps = conv_sparse_encode(
        (damaged - low)[None], atoms, alpha=ALPHA, mask=mask[None], boundary="valid", solver="fista", tol=2e-2
    )[0]
    made = low + sum(fftconvolve(one, atom, "valid") for one, atom in zip(maps, atoms, strict=True))
    return np.where(mask, made, damaged), np.count_nonzero(maps)


def draw(path, rows):
    """A row a photograph: four pictures and the atoms."""
    figure, axes = plt.subplots(len(rows), 5, figsize=(15.5, 3.35 * len(rows)), layout="constrained")
    for line, (pictures, atoms) in zip(axes, rows, strict=True):
        for place, (title, picture) in zip(line, pictures.items(), strict=False):
            place.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
            place.set_title(title, loc="left", fontsize=11, color=INK)
            place.set_axis_off()
        AtomsDisplay.from_codes(atoms, ax=line[-1], title="Atoms of the other half")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(folder):
    rows = []
    for name, (top, left) in PIECES.items():
        start = time.perf_counter()
        photograph = getattr(data, name)().astype(np.float32) / 255
        atoms = learn(np.ascontiguousarray(photograph[:, :256]))
        clean = photograph[top : top + SIDE, left : left + SIDE]
        mask = np.random.default_rng(0).random(clean.shape) < LOST
        damaged = np.where(mask, np.float32(0), clean)
        biharmonic = restoration.inpaint_biharmonic(damaged, mask).astype(np.float32)
        filled, count = fill(damaged, mask, biharmonic, atoms)
        mean = np.where(mask, clean[~mask].mean(), clean)
        print(
            f"{name:8} {mask.mean():.0%} missing: mean {decibels(clean, mean):.1f} dB, "
            f"biharmonic {decibels(clean, biharmonic):.1f} dB, shared atoms {decibels(clean, filled):.1f} dB, "
            f"{count} activations for {(~mask).sum()} pixels, {time.perf_counter() - start:.1f} s",
            flush=True,
        )
        pictures = {
            "Photograph": clean,
            f"{mask.mean():.0%} missing": damaged,
            f"Biharmonic, {decibels(clean, biharmonic):.1f} dB": biharmonic,
            f"Shared atoms, {decibels(clean, filled):.1f} dB": filled,
        }
        rows.append((pictures, atoms))
    draw(folder / "inpaint_convolutional.png", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
