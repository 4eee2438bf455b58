"""A photograph with scribbles on it, and one of which most is lost, filled in; some ten seconds.

    python examples/inpaint_photo.py [folder]

prints decibels beside those of scikit-image's biharmonic filling, and writes inpaint_photo.png into the folder, or into
the current one. The photograph is scikit-image's; it comes inside that package.
"""

import sys
import time
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, restoration

from sparseshare.image import inpaint_image
from sparseshare.metrics import peak_signal_noise_ratio

decibels = partial(peak_signal_noise_ratio, data_range=255)

LOST = 0.7  # share of the pixels, in the second row
TEXT = "the quick brown fox jumps over the lazy dog"


def scribbles(shape):
    """Where lines of text stand on a picture."""
    figure = plt.figure(figsize=(shape[1] / 100, shape[0] / 100), dpi=100)
    for line in range(5):
        figure.text(-0.02 * line, 0.05 + 0.19 * line, TEXT, fontsize=9, weight="bold", rotation=3)
    figure.canvas.draw()
    ink = np.asarray(figure.canvas.buffer_rgba())[..., 0] < 160
    plt.close(figure)
    return ink


def fill(clean, mask):
    """The damaged picture and two fillings of it."""
    damaged = np.where(mask[..., None], np.float32(0), clean)
    smooth = restoration.inpaint_biharmonic(damaged, mask, channel_axis=-1)
    start = time.perf_counter()
    filled = inpaint_image(damaged, mask, random_state=0)
    return damaged, smooth, filled, time.perf_counter() - start


def draw(path, rows):
    """A row a damage."""
    figure, axes = plt.subplots(len(rows), 4, figsize=(13, 3.55 * len(rows)), layout="constrained")
    for line, row in zip(axes, rows, strict=True):
        for place, (title, picture) in zip(line, row.items(), strict=True):
            place.imshow(np.clip(picture, 0, 255).astype(np.uint8))
            place.set_title(title, loc="left", fontsize=11)
            place.set_axis_off()
    figure.savefig(path, dpi=100)


def main(folder):
    clean = data.astronaut()[24:128, 144:248].astype(np.float32)
    masks = {"text": scribbles(clean.shape[:2]), "lost pixels": np.random.default_rng(0).random(clean.shape[:2]) < LOST}
    rows = []
    for name, mask in masks.items():
        damaged, smooth, filled, seconds = fill(clean, mask)
        print(
            f"{name:12} {mask.mean():4.0%} missing, biharmonic {decibels(clean, smooth):.1f} dB, "
            f"sparse codes {decibels(clean, filled):.1f} dB, {seconds:.1f} s",
            flush=True,
        )
        rows.append(
            {
                "Photograph": clean,
                f"{mask.mean():.0%} missing": damaged,
                f"Biharmonic, {decibels(clean, smooth):.1f} dB": smooth,
                f"Sparse codes, {decibels(clean, filled):.1f} dB": filled,
            }
        )
    draw(folder / "inpaint_photo.png", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
