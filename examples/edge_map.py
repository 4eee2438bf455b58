"""The vertical edges of a photograph as a convolution, a sparse matrix and a dense one; a few seconds.

    python examples/edge_map.py [folder]

prints what each of the three stores and computes, and writes edge_map.png into the folder, or into the current one.

Every pixel minus its neighbour on the left: a linear map of 280 x 320 pixels to 280 x 319 edges. By this example
Goodfellow, Bengio and Courville ("Deep Learning", 2016, figure 9.6) explain why sharing weights pays. Here it is a
layer `Conv` of two weights, whose `parameter_report` gives the numbers of the book; a SciPy matrix, two entries a row;
and, for a piece of the photograph, as the whole would take 32 gigabytes, a `Dense` layer with the sharing rule
`toeplitz`, which is the same convolution again.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import diags_array, eye_array, kron

from sparseshare.datasets import load_photographs
from sparseshare.network import Conv, Dense, Network, parameter_report, toeplitz

HEIGHT, WIDTH = 280, 320
TOP, LEFT = 100, 60  # of the part that is taken of the photograph
PIECE = (28, 32)  # what a dense matrix is made for
INK, QUIET, ACCENT = "#1f2a37", "#9ca3af", "#c2410c"


def with_weights(network):
    """The network, its two shared weights set to: minus the pixel on the left, plus the pixel itself."""
    weights = network.nodes[0].parameters["weights"]
    weights.values[...] = np.reshape([-1, 1], weights.values.shape)
    weights.changed()
    return network


def convolution(height, width):
    layer = Conv(1, (1, 2), bias=False, activation="linear")
    return with_weights(Network([layer], (height, width, 1), np.float32))


def dense(height, width):
    """The same as a dense layer on flat images, its weights shared as a convolution shares them."""
    rule = toeplitz((height, width, 1), kernel=(1, 2))
    layer = Dense(height * (width - 1), bias=False, activation="linear", share=rule)
    return with_weights(Network([layer], (height * width,), np.float32))


def sparse_matrix(height, width):
    """Two entries for each edge, in the row of that edge."""
    line = diags_array([-1, 1], offsets=[0, 1], shape=(width - 1, width), dtype=np.float32)
    return kron(eye_array(height, dtype=np.float32), line, format="csr")


def draw(path, image, edges, stored):
    """The photograph, its edges, and how many numbers each form stores."""
    figure = plt.figure(figsize=(12, 3.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.05))
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    left.set_title(f"{HEIGHT} x {WIDTH} pixels", loc="left", fontsize=11, color=INK)
    bound = np.quantile(np.abs(edges), 0.99)
    middle.imshow(edges, cmap="gray", vmin=-bound, vmax=bound)
    middle.set_title(f"{HEIGHT} x {WIDTH - 1} vertical edges", loc="left", fontsize=11, color=INK)
    for axes in (left, middle):
        axes.set_axis_off()
    names = list(stored)[::-1]
    numbers = [stored[name] for name in names]
    right.barh(names, numbers, color=[ACCENT if n == min(numbers) else QUIET for n in numbers], height=0.55, left=1)
    for row, number in enumerate(numbers):
        right.annotate(f"{number:,}", (number, row), (5, 0), textcoords="offset points", va="center", color=INK)
    right.set(xscale="log", xlim=(1, 3e13), xticks=[1, 1e3, 1e6, 1e9])
    right.set_title("Weights", loc="left", fontsize=11, color=INK)
    right.spines[["top", "right", "left"]].set_visible(False)
    right.tick_params(colors="#6b7280", left=False)
    right.tick_params(axis="y", labelcolor=INK)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(folder):
    image = load_photographs(np.float32)[0][TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    network, matrix = convolution(HEIGHT, WIDTH), sparse_matrix(HEIGHT, WIDTH)
    batch, flat = image[None, :, :, None], image.ravel()
    edges = network.output(batch)[0, :, :, 0]
    by_matrix = (matrix @ flat).reshape(edges.shape)
    by_hand = image[:, 1:] - image[:, :-1]

    report = parameter_report(network)
    row = report.layers[0]
    print(report)
    print(
        f"\n{row.operations:,} operations and {row.stored} weights as a convolution; {row.nonzeros:,} non-zeros as a "
        f"sparse matrix;\n{row.dense:,} entries and {row.dense_operations:,} operations as a dense one, "
        f"{4 * row.dense / 1e9:.0f} gigabytes"
    )

    # The dense form, where it fits: a piece of the photograph and all three again.
    piece = image[100 : 100 + PIECE[0], 100 : 100 + PIECE[1]]
    small, full, listed = convolution(*PIECE), dense(*PIECE), sparse_matrix(*PIECE)
    by_convolution = small.output(piece[None, :, :, None]).ravel()
    weights = full.nodes[0].parameters["weights"].full()
    differences = {
        f"{HEIGHT} x {WIDTH}, convolution and sparse matrix": by_matrix - edges,
        f"{HEIGHT} x {WIDTH}, convolution and subtraction": by_hand - edges,
        f"{PIECE[0]} x {PIECE[1]}, convolution and sparse matrix": listed @ piece.ravel() - by_convolution,
        f"{PIECE[0]} x {PIECE[1]}, convolution and dense matrix": full.output(piece.reshape(1, -1)) - by_convolution,
    }
    print("\nlargest differences between what they compute")
    for name, difference in differences.items():
        print(f"  {name:45} {np.abs(difference).max():.1g}")
    assert max(np.abs(difference).max() for difference in differences.values()) < 1e-6
    assert np.array_equal(weights.T, listed.toarray())
    assert matrix.nnz == row.nonzeros and row.dense == matrix.shape[0] * matrix.shape[1]
    stored = {"convolution": row.stored, "sparse matrix": matrix.nnz, "dense matrix": row.dense}
    draw(folder / "edge_map.png", image, edges, stored)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
