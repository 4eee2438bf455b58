"""Two stains of a histology picture taken apart by a non-negative sparse dictionary of two colours; some ten seconds.

    python examples/separate_stains.py [folder]

prints the colours that are found beside those in the literature, and writes separate_stains.png into the folder, or
into the current one. The picture, glands of a colon with haematoxylin (blue, cell nuclei) and DAB (brown, shows a
protein), is scikit-image's; it comes inside that package.

By the law of Beer and Lambert the light that a stain lets through falls exponentially with its concentration: the
logarithm of a pixel is minus a sum of stain colours times concentrations, both of them at least zero. Few pixels hold
both stains, which the penalty on the concentrations expresses (Vahadane et al., "Structure-preserving color
normalization and sparse stain separation for histological images", IEEE Trans. Med. Imaging 2016, eq. 6).
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from skimage.data import immunohistochemistry

from sparseshare import DictionaryLearning, sparse_encode

STAINS = ("haematoxylin", "DAB")
# Measured on slides with one stain each: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color
# deconvolution", for red, green and blue light.
LITERATURE = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])
PENALTIES = (0.005, 0.02, 0.1)
PENALTY = 0.02
TISSUE = 0.15  # optical density in some colour, from which a pixel counts as stained
INK, QUIET = "#1f2a37", "#6b7280"


def optical_density(image):
    """Minus the logarithm of the light that passes, and the light where there is no tissue."""
    light = image.reshape(-1, 3).astype(np.float64)
    lamp = np.quantile(light, 0.99, axis=0)
    return np.maximum(np.log((lamp + 1) / (light + 1)), 0), lamp


def learn_stains(density, penalty):
    """Colours of the two stains, of norm 1, the one that lets most blue through first."""
    stained = density[density.max(axis=1) > TISSUE]
    learner = DictionaryLearning(
        2, alpha=penalty, fit_algorithm="lasso_lars", positive_dict=True, positive_code=True, atom_norm="sphere",
        max_iter=500, tol=1e-6, random_state=0,
    ).fit(stained[::16])  # fmt: skip
    return learner.components_[np.argsort(learner.components_[:, 2])]


def degrees(a, b):
    """Angle between two colours."""
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


def through_one_stain(concentration, stain, lamp, shape):
    """What the slide would look like with that stain alone."""
    light = np.exp(-concentration[:, None] * stain)
    return np.clip(light * lamp / 255, 0, 1).reshape(shape)


def panel(axes, title):
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_pixels(axes, density, stains):
    """Pixels by how much red and blue light they take, and the directions of the stains."""
    stained = density[density.max(axis=1) > TISSUE]
    axes.hexbin(
        stained[:, 0], stained[:, 2], gridsize=70, bins="log", cmap="Greys", extent=(0, 1.5, 0, 2), linewidths=0
    )
    for stain, name, colour in zip(stains, STAINS, ("#0072b2", "#8a4b08"), strict=True):
        end = 3 * stain / stain.max()
        axes.plot([0, end[0]], [0, end[2]], color=colour, linewidth=2.5, label=name)
    for reference in LITERATURE:
        axes.plot([0, 4 * reference[0]], [0, 4 * reference[2]], "--", color="black", linewidth=1.2)
    axes.lines[-1].set_label("in the literature")
    axes.set(xlim=(0, 1.5), ylim=(0, 2), xlabel="optical density of red", ylabel="optical density of blue")
    axes.set_title("Pixels and the colours found", loc="left", fontsize=11, color=INK)
    axes.set_box_aspect(1)
    axes.tick_params(colors=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(edgecolor="white", framealpha=0.85, fontsize=8.5, loc="upper right", labelcolor=INK)


def draw(path, image, density, stains, concentrations, lamp):
    figure, rows = plt.subplots(2, 3, figsize=(11.5, 7.7), layout="constrained")
    rows[0, 0].imshow(image)
    panel(rows[0, 0], "Tissue with both stains")
    draw_pixels(rows[1, 0], density, stains)
    for k, name in enumerate(STAINS):
        alone = through_one_stain(concentrations[:, k], stains[k], lamp, image.shape)
        rows[0, k + 1].imshow(alone)
        panel(rows[0, k + 1], f"{name[0].upper()}{name[1:]} alone")
        largest = np.quantile(concentrations[:, k], 0.995)
        colours = LinearSegmentedColormap.from_list(name, ["white", np.exp(-0.9 * stains[k]), np.exp(-3.5 * stains[k])])
        shown = rows[1, k + 1].imshow(concentrations[:, k].reshape(image.shape[:2]), cmap=colours, vmin=0, vmax=largest)
        panel(rows[1, k + 1], f"Concentration of {name}")
        bar = figure.colorbar(shown, ax=rows[1, k + 1], shrink=0.8, aspect=30, pad=0.02)
        bar.set_label("optical density", color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=QUIET)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(folder):
    start = time.perf_counter()
    image = immunohistochemistry()
    density, lamp = optical_density(image)
    print(f"{len(density):,} pixels, {(density.max(axis=1) > TISSUE).mean():.0%} of them stained", flush=True)

    between = degrees(*LITERATURE)
    mean = density[density.max(axis=1) > TISSUE].mean(axis=0)
    print(f"\n{'degrees from the literature':30} {'haematoxylin':>12} {'DAB':>6} {'between the two':>16}")
    print(f"{'literature':30} {0:12.1f} {0:6.1f} {between:16.1f}")
    print(f"{'mean colour, no separation':30} {degrees(mean, LITERATURE[0]):12.1f} {degrees(mean, LITERATURE[1]):6.1f}")
    found = {}
    for penalty in PENALTIES:
        found[penalty] = stains = learn_stains(density, penalty)
        angles = [degrees(*pair) for pair in zip(stains, LITERATURE, strict=True)]
        print(f"{f'penalty {penalty}':30} {angles[0]:12.1f} {angles[1]:6.1f} {degrees(*stains):16.1f}", flush=True)
    stains = found[PENALTY]

    print(f"\n{f'penalty {PENALTY}':14} {'red':>5} {'green':>5} {'blue':>5}   {'literature':>17}")
    for name, stain, reference in zip(STAINS, stains, LITERATURE, strict=True):
        reference = reference / np.linalg.norm(reference)
        print(f"{name:14} " + " ".join(f"{v:5.2f}" for v in stain) + "   " + " ".join(f"{v:5.2f}" for v in reference))

    concentrations = sparse_encode(density, stains, alpha=PENALTY, positive=True)
    error = np.sum((density - concentrations @ stains) ** 2) / np.sum(density**2)
    only = (np.count_nonzero(concentrations, axis=1) == 1).mean()
    print(f"\ntwo colours leave {error:.1%} of the squared density; {only:.0%} of the pixels hold one stain alone")
    print(f"correlation of the two concentrations: {np.corrcoef(concentrations.T)[0, 1]:.2f}")
    picture = folder / "separate_stains.png"
    draw(picture, image, density, stains, concentrations, lamp)
    print(f"picture: {picture}, {time.perf_counter() - start:.1f} s in all")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
