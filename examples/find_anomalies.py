"""Spots that do not belong to a texture, found by what a dictionary of the texture cannot say; some ten seconds.

    python examples/find_anomalies.py [folder]

prints how well spots of other textures are found on a brick wall, and writes find_anomalies.png into the folder, or
into the current one. The textures are scikit-image's; they come inside that package.

A dictionary learned on one half of the wall reconstructs patches of the other half from few atoms, and patches of grass
or gravel badly. All textures are brought to the same brightness and contrast, so that neither gives the spots away. It
only works that way round: a dictionary of grass reconstructs bricks, which are smoother, better than grass. The last
lines of the table say so.
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score, roc_curve

from sparseshare import MiniBatchDictionaryLearning, sparse_encode
from sparseshare.image import PatchExtractor, PatchGrid
from sparseshare.plotting import AtomsDisplay

SIDE = 10  # pixels of a patch
N_ATOMS = 128
N_NONZERO = 4
RADIUS = 34  # pixels of a spot
CENTRES = {"grass": (80, 70), "gravel": (170, 185)}
INK, QUIET, ACCENT = "#1f2a37", "#6b7280", "#d55e00"


def texture(name):
    """A picture of a surface, mean 0 and standard deviation 1."""
    image = getattr(data, name)().astype(np.float32)
    return (image - image.mean()) / image.std()


def with_spots(image, spots):
    """The image with round pieces of other textures, and where they are."""
    image, where = image.copy(), np.zeros(image.shape, bool)
    rows, columns = np.indices(image.shape)
    for (row, column), other in spots:
        spot = (rows - row) ** 2 + (columns - column) ** 2 < RADIUS**2
        image[spot] = other[: image.shape[0], : image.shape[1]][spot]
        where |= spot
    return image, where


def learn(image):
    """A dictionary of the patches of a texture, without their means."""
    X = PatchExtractor((SIDE, SIDE), stride=2).fit_transform(image[None])
    X -= X.mean(axis=1, keepdims=True)
    learner = MiniBatchDictionaryLearning(
        N_ATOMS, alpha=1.0, max_iter=3, tol=0, max_no_improvement=None, random_state=0
    ).fit(X)
    return learner.components_, X


def map_of(score, image):
    """The mean, at every pixel, of a score over the patches that cover it."""
    grid = PatchGrid(image.shape, SIDE)
    patches = grid.extract(image)
    scores = score(patches - patches.mean(axis=1, keepdims=True))
    return grid.overlap_add(np.repeat(scores[:, None], grid.n_features, axis=1))


def sparse_error(dictionary):
    """Mean squared error of patches made of a few atoms."""

    def score(X):
        codes = sparse_encode(X, dictionary, algorithm="omp", n_nonzero_coefs=N_NONZERO, sparse_output=True)
        return np.mean((X - codes @ dictionary) ** 2, axis=1)

    return score


def principal_error(X):
    """The same from the best fixed subspace of so many dimensions."""
    subspace = PCA(N_NONZERO).fit(X)
    return lambda X: np.mean((X - subspace.inverse_transform(subspace.transform(X))) ** 2, axis=1)


def plain(axes, title):
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw(path, wall, where, errors, dictionary, codes, curves):
    figure, (seen, found, atoms, roc) = plt.subplots(1, 4, figsize=(15.2, 4.3), layout="constrained")
    seen.imshow(wall, cmap="gray", vmin=-2.5, vmax=2.5)
    plain(seen, "Bricks with spots of grass and gravel")
    shown = found.imshow(errors, cmap="inferno", vmin=0, vmax=np.quantile(errors, 0.995))
    found.contour(where, levels=[0.5], colors="white", linewidths=1, linestyles="--")
    plain(found, f"Error of {N_NONZERO} atoms a patch")
    bar = figure.colorbar(shown, ax=found, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("mean squared error, variance of the wall = 1", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=QUIET)
    AtomsDisplay.from_codes(
        dictionary, codes, atom_shape=(SIDE, SIDE), max_atoms=64, n_columns=8, ax=atoms, title="Atoms used most"
    )
    for (name, scores), colour in zip(curves.items(), (ACCENT, "#0072b2", QUIET), strict=True):
        false, true, _ = roc_curve(where.ravel(), scores.ravel())
        area = roc_auc_score(where.ravel(), scores.ravel())
        roc.plot(100 * false, 100 * true, color=colour, linewidth=2, label=f"{name}, area {area:.3f}")
    roc.set(xlabel="bricks called a spot, % of pixels", ylabel="spots found, % of pixels", xlim=(0, 100), ylim=(0, 101))
    roc.set_title("Found against false alarms", loc="left", fontsize=11, color=INK)
    roc.set_box_aspect(1)
    roc.grid(True, color="#e5e7eb")
    roc.spines[["top", "right"]].set_visible(False)
    roc.tick_params(colors=QUIET)
    roc.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(folder):
    start = time.perf_counter()
    textures = {name: texture(name) for name in ("brick", "grass", "gravel")}
    half = textures["brick"][:, :240], textures["brick"][128:384, 256:]
    dictionary, X = learn(np.ascontiguousarray(half[0]))
    wall, where = with_spots(half[1], [(CENTRES[name], textures[name]) for name in CENTRES])
    print(f"{N_ATOMS} atoms learned from {len(X):,} patches of a brick wall", flush=True)

    scores = {
        "sparse error": sparse_error(dictionary),
        "PCA error": principal_error(X),
        "contrast": lambda X: np.mean(X**2, axis=1),
    }
    maps = {name: map_of(score, wall) for name, score in scores.items()}
    print(f"\n{'':30} {'ROC AUC':>8}")
    for name, one in maps.items():
        print(f"{f'bricks, {name}':30} {roc_auc_score(where.ravel(), one.ravel()):8.3f}", flush=True)
    for name in ("gravel", "grass"):
        inner = learn(np.ascontiguousarray(textures[name][:, :240]))[0]
        others = [(centre, textures["brick"]) for centre in CENTRES.values()]
        image, there = with_spots(textures[name][128:384, 256:], others)
        error = map_of(sparse_error(inner), image)
        print(f"{f'{name}, spots of brick':30} {roc_auc_score(there.ravel(), error.ravel()):8.3f}", flush=True)

    errors = maps["sparse error"]
    limit = np.quantile(map_of(sparse_error(dictionary), np.ascontiguousarray(half[0])), 0.99)
    print(
        f"\nabove the error of 99% of the pixels learned from: {(errors[where] > limit).mean():.1%} of the spots, "
        f"{(errors[~where] > limit).mean():.1%} of the other half of the wall"
    )
    codes = sparse_encode(X, dictionary, algorithm="omp", n_nonzero_coefs=N_NONZERO, sparse_output=True)
    picture = folder / "find_anomalies.png"
    draw(picture, wall, where, errors, dictionary, codes, maps)
    print(f"picture: {picture}, {time.perf_counter() - start:.1f} s in all")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
