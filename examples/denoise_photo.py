"""A photograph with noise, denoised by a dictionary learned from its own patches; some ten seconds on two cores.

    python examples/denoise_photo.py [folder]

prints decibels and seconds, and writes denoise_photo.png into the folder, or into the current one. The photograph is
scikit-image's; it comes inside that package. The level of the noise is not told to the function that removes it.
"""

import sys
import time
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from sparseshare.image import denoise_image, estimate_sigma
from sparseshare.metrics import peak_signal_noise_ratio
from sparseshare.plotting import AtomsDisplay

decibels = partial(peak_signal_noise_ratio, data_range=255)

SIGMA = 25  # of grey values from 0 to 255
SIDE = 8  # pixels of a patch


def draw(path, pictures, atoms):
    """Photographs side by side, and the atoms."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 4.3), layout="constrained")
    for place, (title, picture) in zip(axes, pictures.items(), strict=False):
        place.imshow(np.clip(picture, 0, 255).astype(np.uint8))
        place.set_title(title, loc="left", fontsize=11)
        place.set_axis_off()
    AtomsDisplay.from_codes(atoms[:144], atom_shape=(SIDE, SIDE, 3), ax=axes[3], n_columns=12)
    axes[3].set_title("Atoms learned from the noisy patches", loc="left", fontsize=11)
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})


def main(folder):
    clean = data.astronaut()[:256, 96:352].astype(np.float32)
    noisy = clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    print(f"noise of standard deviation {SIGMA}, estimated as {estimate_sigma(noisy):.1f}")
    print(f"{'noisy':24} {decibels(clean, noisy):5.1f} dB")
    pictures = {"Photograph": clean, f"Noisy, {decibels(clean, noisy):.1f} dB": noisy}
    for name, options in {"fixed cosines": {"max_iter": 0}, "learned atoms": {}}.items():
        start = time.perf_counter()
        denoised, atoms = denoise_image(noisy, random_state=0, return_dictionary=True, **options)
        seconds = time.perf_counter() - start
        print(f"{name:24} {decibels(clean, denoised):5.1f} dB {seconds:5.1f} s", flush=True)
    pictures[f"Denoised, {decibels(clean, denoised):.1f} dB"] = denoised
    draw(folder / "denoise_photo.png", pictures, atoms)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
