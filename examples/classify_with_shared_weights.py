"""Digits told apart by networks of few non-zero activations and few weights; half a minute.

    python examples/classify_with_shared_weights.py [folder]

prints what a network with hard thresholds stores and computes, then how well networks with fewer and fewer values do,
and writes classify_with_shared_weights.png into the folder, or into the current one.

The first network shares the weights of its convolution over positions and those of its dense layer by a hash (Chen et
al., "Compressing neural networks with the hashing trick", ICML 2015). In training, thresholds move until a fifth
of the activations is not zero. The others have one hidden layer: of 128 units that share a number of values, or of as
few units as have that number of weights. Every line is the mean over two runs, which are dots.
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sparseshare import DeepSparseClassifier
from sparseshare.network import Conv, Dense, MaxPool, hashed

N_FILTERS, DENSITY = 16, 0.2
N_UNITS, FRACTIONS = 128, (1 / 4, 1 / 16, 1 / 64)
FEW_UNITS = (32, 9, 4)  # with about as many weights
SEEDS = (0, 1)
SHOWN = 8  # of the digits kept back
INK, QUIET, ACCENT = "#1f2a37", "#6b7280", "#c2410c"


def thresholded():
    """Two ways of sharing, one of being sparse."""
    return DeepSparseClassifier(
        [Conv(N_FILTERS, 5, padding="same"), MaxPool(2), Dense(64, share=hashed(1 / 8))],
        activation="hard", density=DENSITY, batch_size=32, learning_rate=3e-3, schedule="cosine", max_iter=15,
        n_iter_no_change=None, random_state=0,
    )  # fmt: skip


def one_layer(n_units, share, seed):
    return DeepSparseClassifier(
        [Dense(n_units)], share=share, optimizer="momentum", learning_rate=0.1, schedule="cosine", max_iter=60,
        n_iter_no_change=None, random_state=seed, n_jobs=1,  # too small for threads
    )  # fmt: skip


def accuracies(networks, train, test):
    """Values stored and accuracies, a row for each list of networks."""
    rows = []
    for same in networks:
        for network in same:
            network.fit(*train)
        rows.append((same[0].parameter_report().total.stored, [network.score(*test) for network in same]))
    return rows


def mosaic(pictures, scale=None):
    """Pictures side by side between lines of NaN, each over its own largest value if no scale is given."""
    side = int(np.sqrt(len(pictures)))
    height, width = pictures.shape[1:]
    tiles = np.full((side, side, height + 1, width + 1), np.nan)
    scale = np.abs(pictures).max(axis=(1, 2), keepdims=True) if scale is None else scale
    tiles[:, :, :-1, :-1] = (pictures / scale).reshape(side, side, height, width)
    return tiles.swapaxes(1, 2).reshape(side * (height + 1), -1)[:-1, :-1]


def draw(path, network, image, hashed_rows, small_rows):
    """Filters, a digit and its maps, accuracy against the number of values."""
    plt.rcParams.update({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "text.color": INK, "axes.edgecolor": QUIET,
        "axes.labelcolor": INK, "xtick.color": QUIET, "ytick.color": QUIET, "axes.spines.top": False,
        "axes.spines.right": False, "axes.axisbelow": True,
    })  # fmt: skip
    figure = plt.figure(figsize=(13, 3.9), layout="constrained")
    filters, digit, maps, curve = figure.subplots(1, 4, width_ratios=(1, 0.6, 1, 1.5))
    convolution = network.network_.nodes[0]
    learned = convolution.weights.full().reshape(5, 5, N_FILTERS).transpose(2, 0, 1)
    filters.imshow(mosaic(learned), cmap="gray", vmin=-1, vmax=1)
    filters.set_title(f"{N_FILTERS} learned filters")
    digit.imshow(image, cmap="gray_r")
    digit.set_title("A digit")
    activations = network.network_.output(image[None, :, :, None], 1)[0].transpose(2, 0, 1)
    bound = np.abs(activations).max()
    maps.imshow(mosaic(activations, bound), cmap="RdBu_r", vmin=-1, vmax=1)
    maps.set_title(f"Its maps, {np.mean(activations != 0):.0%} not zero")
    for axes in (filters, digit, maps):
        axes.set_axis_off()
    for rows, colour, label in (
        (hashed_rows, ACCENT, f"{N_UNITS} units that share values"),
        (small_rows, QUIET, "few units, each with its own weights"),
    ):
        stored = np.array([row[0] for row in rows])
        scores = 100 * np.array([row[1] for row in rows])
        curve.plot(stored, scores.mean(axis=1), "-", color=colour, linewidth=2, label=label)
        curve.plot(np.repeat(stored, scores.shape[1]), scores.ravel(), "o", color=colour, markersize=4)
    curve.set(xscale="log", xlabel="values stored", ylabel="right, %", title="Digits kept back")
    ticks = [row[0] for row in hashed_rows]
    curve.set_xticks(ticks, [f"{number:,}" for number in ticks])
    curve.set_xticks([], minor=True)
    curve.set_ylim(curve.get_ylim()[0] - 4, None)  # room for the legend
    curve.grid(color="#e5e7eb")
    curve.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(folder):
    started = time.perf_counter()
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    images, test, labels, test_labels = train_test_split(images, digits.target, stratify=digits.target, random_state=0)
    network = thresholded().fit(images, labels)
    right = network.score(test, test_labels)
    print(f"{right:.1%} right of {len(test)} digits kept back, with hard thresholds")
    shares = " and ".join(f"{density:.1%}" for density in network.densities_)
    print(f"{shares} of the activations behind the two hidden layers are not zero\n")
    print(f"{network.parameter_report()}\n", flush=True)

    train, held = (images.reshape(len(images), -1), labels), (test.reshape(len(test), -1), test_labels)
    hashed_rows = accuracies(
        [[one_layer(N_UNITS, hashed(fraction), seed) for seed in SEEDS] for fraction in FRACTIONS], train, held
    )
    small_rows = accuracies([[one_layer(n_units, None, seed) for seed in SEEDS] for n_units in FEW_UNITS], train, held)
    print(f"{f'{N_UNITS} units that share values':>35} {'few units with weights of their own':>45}")
    print(f"{'share':>8} {'values':>13} {'right':>12} {'units':>21} {'values':>11} {'right':>11}")
    for fraction, n_units, ours, other in zip(FRACTIONS, FEW_UNITS, hashed_rows, small_rows, strict=True):
        print(
            f"{f'1/{round(1 / fraction)}':>8} {ours[0]:13,} {np.mean(ours[1]):12.1%} "
            f"{n_units:21} {other[0]:11,} {np.mean(other[1]):11.1%}"
        )
    picture = folder / "classify_with_shared_weights.png"
    draw(picture, network, test[SHOWN], hashed_rows, small_rows)
    print(f"{picture}, after {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
