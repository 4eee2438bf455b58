"""The penalty of sparse codes chosen from noisy data alone, by pixels that the codes have not seen; half a minute.

    python examples/choose_penalty.py [folder]

prints the error of every penalty and writes choose_penalty.png into the folder, or into the current one.

A photograph has noise, and in one part of it a quarter of the pixels are lost. What penalty fills them in best? Patches
of the undamaged part are coded at penalties that differ by a factor of 300. On pixels that the codes were made from,
the smallest penalty is best: it reproduces the noise. On pixels that were hidden from the codes there is a best penalty
in between. The lost pixels, which only the photograph without noise and loss can judge, agree.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sparseshare import MiniBatchDictionaryLearning, sparse_encode_path
from sparseshare.datasets import load_photographs
from sparseshare.image import PatchGrid
from sparseshare.metrics import peak_signal_noise_ratio
from sparseshare.model_selection import SparseCoderCV
from sparseshare.plotting import SparsityPathDisplay

SIDE = 8  # pixels of a patch
SIGMA = 0.08  # of grey values from 0 to 1
PENALTIES = np.geomspace(1.5, 0.005, 16)
N_HIDDEN = 4  # a fold hides one pixel of so many, and as many are lost
ROOF, REST = np.s_[150:310, 180:420], np.s_[:, 420:]
INK, ACCENT, QUIET, BLUE = "#1f2a37", "#d55e00", "#6b7280", "#0072b2"


def patches_of(image, stride, lost=None):
    """The grid, patches as rows without their means, the means, and where pixels of the patches are lost."""
    grid = PatchGrid(image.shape, (SIDE, SIDE), stride)
    patches = grid.extract(image)
    missing = np.zeros(patches.shape, bool) if lost is None else grid.extract(lost.astype(np.float32)) > 0
    means = patches.mean(axis=1, keepdims=True, where=~missing)
    return grid, patches - means, means, missing


def learn(image):
    """A dictionary of the patches of a photograph, atoms of unit norm."""
    X = patches_of(image, 3)[1]
    learner = MiniBatchDictionaryLearning(128, alpha=0.2, max_iter=4, batch_size=512, tol=0, random_state=0).fit(X)
    return learner.components_ / np.linalg.norm(learner.components_, axis=1, keepdims=True)


def filled_in(noisy, lost, clean, D, alphas):
    """At every penalty the image, and the mean squared error of its patches on the lost pixels."""
    grid, X, means, missing = patches_of(noisy, 2, lost)
    truth = grid.extract(clean) - means
    observed = alphas * np.sqrt(1 - 1 / N_HIDDEN)  # fewer pixels, less noise in the correlation with an atom
    images, errors = [], []
    for codes in sparse_encode_path(X, D, observed, mask=missing, sparse_output=True):
        rows = codes @ D
        images.append(grid.overlap_add(rows + means))
        errors.append(np.mean((rows - truth)[missing] ** 2))
    return images, np.array(errors)


def style(axes):
    """Quiet axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=QUIET)
    axes.grid(color="#e5e7eb")
    axes.set_axisbelow(True)


def draw_errors(axes, coder, errors):
    """Errors over the penalties: on pixels seen, on pixels held out, and against the patches without noise."""
    style(axes)
    alphas, best = coder.alphas_, coder.best_index_
    axes.loglog(
        alphas, coder.seen_mse_, "s--", color=QUIET, markersize=4, label="noisy pixels that the codes have seen"
    )
    axes.errorbar(
        alphas, coder.mean_mse_, coder.standard_error_, fmt="o-", color=INK, markersize=4, capsize=2.5,
        label="noisy pixels held out, with standard error",
    )  # fmt: skip
    axes.plot(alphas, errors, "^:", color=BLUE, markersize=4, label="lost pixels, against the clean photograph")
    for curve in (coder.mean_mse_, errors):
        axes.plot(alphas[best], curve[best], "o", color=ACCENT, markersize=12, fillstyle="none", markeredgewidth=2)
    axes.set(xlabel="penalty", ylabel="mean squared error of patches", title="Held-out pixels tell picture from noise")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")


def draw(path, clean, noisy, lost, images, errors, coder):
    """All in one picture."""
    plt.rcParams.update({"axes.titlesize": 11, "axes.titlelocation": "left", "text.color": INK, "axes.labelcolor": INK})
    figure = plt.figure(figsize=(12.5, 10.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.32))
    left, right = upper.subplots(1, 2)
    draw_errors(left, coder, errors)
    SparsityPathDisplay.from_cv(coder, ax=right, title="The same over the number of atoms in a code")
    best, last = coder.best_index_, len(coder.alphas_) - 1
    panels = lower.subplots(2, 3)
    damaged = np.where(lost, 1, noisy)
    shown = [("photograph", clean), ("noisy, a quarter of the pixels lost", damaged)]
    for name, place in (("chosen", best), ("smallest", last), ("largest", 0)):
        shown.append(
            (
                f"{name} penalty {coder.alphas_[place]:.3g}: {peak_signal_noise_ratio(clean, images[place]):.1f} dB",
                images[place],
            )
        )
    shown.append(("error of the chosen one, times two", 0.5 + 2 * (images[best] - clean)))
    for axes, (title, image) in zip(panels.flat, shown, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, color=ACCENT if "chosen penalty" in title else INK)
        axes.set_axis_off()
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(folder):
    china, flower = load_photographs(np.float32)
    rng = np.random.default_rng(0)
    photograph = china + rng.normal(0, SIGMA, china.shape).astype(np.float32)
    clean, noisy = china[ROOF], photograph[ROOF]
    lost = rng.random(noisy.shape) < 1 / N_HIDDEN
    D = learn(flower)

    X = patches_of(photograph[REST], 3)[1]
    coder = SparseCoderCV(D, alphas=PENALTIES, cv=N_HIDDEN, max_samples=1000, random_state=0, verbose=True).fit(X)

    images, errors = filled_in(noisy, lost, clean, D, coder.alphas_)
    chosen, best = coder.best_index_, int(np.argmin(errors))
    for name, place in (("chosen by held-out pixels", chosen), ("best for the lost pixels", best)):
        print(f"{name:26} penalty {coder.alphas_[place]:.3g}, error of lost pixels {errors[place]:.6f}")
    for name, place in (("smallest", -1), ("chosen", chosen), ("largest", 0)):
        print(f"{name:8} penalty: filled in to {peak_signal_noise_ratio(clean, images[place]):.2f} dB")
    picture = folder / "choose_penalty.png"
    draw(picture, clean, noisy, lost, images, errors, coder)
    print(f"picture {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
