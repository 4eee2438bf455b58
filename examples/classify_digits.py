"""Digits classified through sparse features of their patches, with a grid search of the penalty; under a minute.

    python examples/classify_digits.py [folder]

prints a table and writes classify_digits.png into the folder, or into the current one. What the encoder learns from
patches is kept between the fits of the search: only codes are made anew for another threshold.
"""

import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparseshare.image import SparseImageEncoder

THRESHOLDS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6])
N_COMPONENTS = 100
INK, ACCENT, QUIET = "#1f2a37", "#c2410c", "#6b7280"


def classifier():
    return RidgeClassifier(alpha=300)


def search_threshold(images, labels, folder):
    """Five-fold accuracy over the threshold."""
    encoder = SparseImageEncoder(N_COMPONENTS, patch_shape=4, max_iter=20, memory=str(folder), random_state=0)
    pipeline = make_pipeline(encoder, StandardScaler(), classifier())
    return GridSearchCV(pipeline, {"sparseimageencoder__alpha": THRESHOLDS}, cv=5).fit(images, labels)


def share_of_zeros(encoder, images):
    """How many codes of patches each threshold leaves out."""
    return [np.mean(encoder.set_params(alpha=alpha).encode(images) == 0) for alpha in THRESHOLDS]


def mosaic(filters):
    """Filters side by side, each scaled to its own largest value, between lines of NaN."""
    side = int(np.sqrt(len(filters)))
    height, width = filters.shape[1:]
    tiles = np.full((side, side, height + 1, width + 1), np.nan)
    tiles[:, :, :-1, :-1] = (filters / abs(filters).max(axis=(1, 2), keepdims=True)).reshape(side, side, height, width)
    return tiles.swapaxes(1, 2).reshape(side * (height + 1), -1)[:-1, :-1]


def draw(path, encoder, image, search, pixels, zeros):
    """Atoms, maps of one digit, and the search."""
    plt.rcParams.update({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "text.color": INK, "axes.edgecolor": QUIET,
        "axes.labelcolor": INK, "xtick.color": QUIET, "ytick.color": QUIET, "axes.spines.top": False,
        "axes.spines.right": False, "axes.axisbelow": True,
    })  # fmt: skip
    figure = plt.figure(figsize=(12, 4.3), layout="constrained")
    atoms, middle, curve = figure.subfigures(1, 3, width_ratios=(1, 1, 1.25))

    axes = atoms.subplots()
    axes.imshow(mosaic(encoder.components_.reshape(-1, 4, 4)), cmap="gray", vmin=-1, vmax=1)
    axes.set_title(f"{N_COMPONENTS} atoms of 4x4 patches")
    axes.set_axis_off()

    maps = encoder.encode(image[None])[0]
    strongest = np.argsort(-maps.sum(axis=(1, 2)))[:8]
    cells = middle.subplots(3, 3).ravel()
    cells[0].imshow(image, cmap="gray_r")
    cells[0].set_title("A digit")
    for axes, number in zip(cells[1:], strongest, strict=True):
        axes.imshow(maps[number], cmap="gray_r", vmin=0, vmax=maps.max())
        axes.set(xticks=[], yticks=[])
    cells[1].set_title("Its largest maps")
    cells[0].set_axis_off()

    accuracy = 100 * search.cv_results_["mean_test_score"]
    axes = curve.subplots()
    axes.plot(THRESHOLDS, accuracy, "o-", color=INK, markersize=4)
    axes.plot(search.best_params_["sparseimageencoder__alpha"], accuracy.max(), "o", color=ACCENT, markersize=11,
              fillstyle="none", markeredgewidth=2)  # fmt: skip
    axes.axhline(100 * pixels, color=QUIET, linestyle="--", linewidth=1)
    axes.annotate("from pixels", (THRESHOLDS[-1], 100 * pixels), (0, 5), textcoords="offset points", color=QUIET,
                  ha="right")  # fmt: skip
    for threshold, share, height in list(zip(THRESHOLDS, zeros, accuracy, strict=True))[1::2]:
        axes.annotate(f"{share:.0%} zero", (threshold, height), (0, 9), textcoords="offset points", color=QUIET,
                      ha="center", fontsize=9)  # fmt: skip
    axes.margins(x=0.08, y=0.15)
    axes.grid(color="#e5e7eb")
    axes.set(title="Threshold by grid search", xlabel="threshold", ylabel="right in cross-validation, %")
    figure.savefig(path, dpi=110)


def main(folder):
    started = time.perf_counter()
    digits = load_digits()
    images = digits.images.astype(np.float32)
    images, test, labels, test_labels = train_test_split(images, digits.target, stratify=digits.target, random_state=0)
    flat = images.reshape(len(images), -1)
    by_pixels = make_pipeline(StandardScaler(), classifier())
    pixels = cross_val_score(by_pixels, flat, labels, cv=5).mean()
    with tempfile.TemporaryDirectory() as cache:
        search = search_threshold(images, labels, Path(cache))
    encoder = search.best_estimator_[0]
    best = search.best_params_["sparseimageencoder__alpha"]
    zeros = share_of_zeros(encoder, images[:200])
    encoder.set_params(alpha=best)

    print(f"{'threshold':>10} {'zeros':>7} {'right':>7}")
    for alpha, share, accuracy in zip(THRESHOLDS, zeros, search.cv_results_["mean_test_score"], strict=True):
        print(f"{alpha:10.2g} {share:7.1%} {accuracy:7.1%}{'  <- chosen' if alpha == best else ''}")
    print(f"from pixels {pixels:.1%} right in cross-validation")
    print(f"{len(test)} digits kept back: {search.score(test, test_labels):.1%} right from sparse features, "
          f"{by_pixels.fit(flat, labels).score(test.reshape(len(test), -1), test_labels):.1%} from pixels")  # fmt: skip
    picture = folder / "classify_digits.png"
    draw(picture, encoder, images[4], search, pixels, zeros)
    print(f"{picture}, after {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
