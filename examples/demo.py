"""Dictionary of photographs, codes of an image, and a penalty chosen for a classifier; about a minute on two cores.

    python examples/demo.py [folder]

prints a table and writes demo.png into the folder, or into the current one. All arrays are float32, so that every
kernel is compiled for one dtype only; the compiled code stays on disk, and a second run skips that step.
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MultipleLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sparseshare import MiniBatchDictionaryLearning, SparseCoder, sparse_encode, sparse_encode_path
from sparseshare.datasets import load_photographs, photo_patches
from sparseshare.image import PatchGrid
from sparseshare.metrics import peak_signal_noise_ratio

SIDE = 8  # pixels
STEP = 4  # pixels from a patch to the next
PENALTY = 0.1  # of grey values from 0 to 1
PENALTIES = PENALTY * 2 ** np.linspace(2, -2.5, 10)
DIGIT_PENALTIES = np.geomspace(0.03, 3, 7)
INK, ACCENT, QUIET = "#1f2a37", "#c2410c", "#6b7280"


class Table:
    """Rows of what was done, what came out and how long it took, printed as they come."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        print(f"{'what':40} {'figure':42} {'seconds':>7}\n{'-' * 91}", flush=True)

    def row(self, what, figure):
        now = time.perf_counter()
        print(f"{what:40} {figure:42} {now - self.last:7.1f}", flush=True)
        self.last = now

    def end(self):
        self.last = self.start
        self.row("all", "")


def patches_of(image):
    """Patches on a grid as rows, without their means, the means, and the grid."""
    grid = PatchGrid(image.shape, SIDE, STEP)
    patches = grid.extract(image)
    means = patches.mean(axis=1, keepdims=True)
    return patches - means, means, grid


def compile_kernels(table):
    """Call on few signals what the demo calls on many."""
    print("compiling, once a machine ...", flush=True)
    X = photo_patches(600, random_state=0, dtype=np.float32)
    learner = MiniBatchDictionaryLearning(256, alpha=PENALTY, max_iter=1).fit(X)
    learner.score(X)
    learner.transform(X)
    sparse_encode_path(X, learner.components_, [0.2, 0.1], sparse_output=True)
    table.row("kernels compiled", "kept on disk for the next run")


def learn(table):
    """A dictionary of 256 patches, the atoms used most first."""
    X = photo_patches(50_000, (SIDE, SIDE), normalized=False, random_state=0, dtype=np.float32)
    learner = MiniBatchDictionaryLearning(
        256, alpha=PENALTY, max_iter=4, batch_size=512, tol=0, max_no_improvement=None, sparse_output=True, verbose=1,
        random_state=0,
    ).fit(X)  # fmt: skip
    use = np.bincount(learner.transform(X).indices, minlength=256)
    table.row(f"256 atoms learned from {len(X):,} patches", f"explain {learner.score(X):.1%} of the variance")
    return learner.components_[np.argsort(-use)]


def encode_image(image, dictionary, table):
    """Every patch on the grid coded and put back."""
    patches, means, grid = patches_of(image)
    codes = sparse_encode(patches, dictionary, alpha=PENALTY, sparse_output=True)
    result = grid.overlap_add(codes @ dictionary + means)
    count, quality = codes.nnz / len(patches), peak_signal_noise_ratio(image, result)
    table.row(f"image coded, {len(patches):,} patches", f"{count:.1f} of 256 non-zero, {quality:.1f} dB")
    return result, count, quality


def sparsity_path(image, dictionary, table):
    """Non-zeros a patch, and decibels, at every penalty."""
    patches, means, grid = patches_of(image)
    path = sparse_encode_path(patches, dictionary, PENALTIES, sparse_output=True)
    counts = [codes.nnz / len(patches) for codes in path]
    quality = [peak_signal_noise_ratio(image, grid.overlap_add(codes @ dictionary + means)) for codes in path]
    ends = f"{counts[0]:.1f} to {counts[-1]:.1f} non-zero, {quality[0]:.1f} to {quality[-1]:.1f} dB"
    table.row(f"the same at {len(PENALTIES)} penalties, in one pass", ends)
    return counts, quality


def search_penalty(table):
    """Accuracy on digits over the penalty, the dictionary learned anew for every fold and penalty."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    pixels = cross_val_score(LinearSVC(), X, y, cv=3).mean()
    table.row("digits classified by their pixels", f"{pixels:.1%} right")
    pipeline = make_pipeline(SparseCoder(n_components=256, max_iter=3, random_state=0), LinearSVC())
    search = GridSearchCV(pipeline, {"sparsecoder__alpha": DIGIT_PENALTIES}, cv=3, refit=False).fit(X, y)
    accuracy = search.cv_results_["mean_test_score"]
    best = f"{accuracy.max():.1%} right at penalty {DIGIT_PENALTIES[accuracy.argmax()]:.2g}"
    table.row(f"by codes, {len(DIGIT_PENALTIES)} penalties x 3 folds", best)
    return accuracy, pixels


def mosaic(atoms):
    """Atoms side by side, each scaled to its own largest value, between lines of NaN."""
    side = int(np.sqrt(len(atoms)))
    tiles = np.full((side, side, SIDE + 1, SIDE + 1), np.nan, np.float32)
    tiles[:, :, :-1, :-1] = (atoms / np.abs(atoms).max(axis=1, keepdims=True)).reshape(side, side, SIDE, SIDE)
    return tiles.swapaxes(1, 2).reshape(side * (SIDE + 1), -1)[:-1, :-1]


def ring(axes, x, y, text=""):
    """Mark a point of a curve."""
    axes.plot(x, y, "o", color=ACCENT, markersize=11, fillstyle="none", markeredgewidth=2)
    axes.annotate(text, (x, y), (12, -10), textcoords="offset points", color=ACCENT)


def draw(path, image, coded, dictionary, curve, search):
    """All results in one picture."""
    result, count, quality = coded
    counts, qualities = curve
    accuracy, pixels = search
    plt.rcParams.update({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "text.color": INK, "axes.edgecolor": QUIET,
        "axes.labelcolor": INK, "xtick.color": QUIET, "ytick.color": QUIET, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e7eb", "axes.axisbelow": True,
    })  # fmt: skip
    figure = plt.figure(figsize=(12, 7.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.17, 1))

    photograph, reconstruction = upper.subplots(1, 2)
    photograph.imshow(image, cmap="gray", vmin=0, vmax=1)
    photograph.set_title("Photograph")
    reconstruction.imshow(result, cmap="gray", vmin=0, vmax=1)
    reconstruction.set_title(f"The same from {count:.1f} atoms a patch: {quality:.1f} dB")

    atoms, sparsity, digits = lower.subplots(1, 3, width_ratios=(0.82, 1, 1))
    atoms.imshow(mosaic(dictionary), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    atoms.set_title("Learned atoms, most used first")
    atoms.set_anchor("NW")
    for axes in (photograph, reconstruction, atoms):
        axes.set_axis_off()

    sparsity.plot(counts, qualities, "o-", color=INK, markersize=4)
    ring(sparsity, count, quality, "shown above")
    for place, name in ((0, f"penalty {PENALTIES[0]:.2g}"), (-1, f"{PENALTIES[-1]:.2g}")):
        sparsity.annotate(name, (counts[place], qualities[place]), (8, -4), textcoords="offset points", color=QUIET)
    sparsity.set(title="Sparsity against error", xlabel="non-zeros a patch of 64 pixels", ylabel="PSNR, dB")
    sparsity.yaxis.set_major_locator(MultipleLocator(5))
    sparsity.margins(x=0.12)
    sparsity.set_xlim(left=0)

    digits.semilogx(DIGIT_PENALTIES, 100 * accuracy, "o-", color=INK, markersize=4)
    ring(digits, DIGIT_PENALTIES[accuracy.argmax()], 100 * accuracy.max())
    digits.axhline(100 * pixels, color=QUIET, linestyle="--", linewidth=1)
    digits.annotate("from pixels", (DIGIT_PENALTIES[0], 100 * pixels), (0, 5), textcoords="offset points", color=QUIET)
    digits.set(title="Digits: penalty by grid search", xlabel="penalty", ylabel="right in cross-validation, %")
    digits.xaxis.set_major_formatter("{x:g}")
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})


def main(folder):
    table = Table()
    compile_kernels(table)
    image = load_photographs(np.float32)[0, :424]  # both sides multiples of the step
    dictionary = learn(table)
    coded = encode_image(image, dictionary, table)
    curve = sparsity_path(image, dictionary, table)
    search = search_penalty(table)
    picture = folder / "demo.png"
    draw(picture, image, coded, dictionary, curve, search)
    table.row("picture", str(picture))
    table.end()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
