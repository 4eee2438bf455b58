"""The kernels of the working set on matrices and blocks small enough to be solved plainly."""

import numpy as np
import pytest

from sparseshare.kernels.cpu.working_set import best_of_blocks, minimise


def descend(G, q, lasso, group, positive, n_iter=50_000):
    """Plain proximal gradient for one matrix a signal, G (B, n, n), q (B, n), until it moves nothing."""
    length = 1 / max(np.linalg.norm(one, 2) for one in G)
    z = np.zeros_like(q)
    for _ in range(n_iter):
        before = z
        z = z - length * (np.einsum("bij,bj->bi", G, z) - q)
        z = np.maximum(z, 0) if positive else z
        z = np.sign(z) * np.maximum(np.abs(z) - length * lasso, 0)
        norms = np.linalg.norm(z, axis=0)
        z *= np.maximum(1 - length * group / np.maximum(norms, 1e-300), 0)
        if np.abs(z - before).max() <= 1e-15:
            break
    return z


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("width", "joint"), [(1, 0.0), (3, 0.3), (3, 1.0)])
def test_the_minimum_is_that_of_plain_descent(width, joint, positive, rng):
    n, threshold = 30, rng.uniform(1, 3, 30)
    A = rng.standard_normal((width, 40, n)) * rng.uniform(0.5, 2, (width, 1, 1))
    A[:, :, 1] = A[:, :, 0] + 0.05 * A[:, :, 2]  # coherent
    G = np.einsum("bki,bkj->bij", A, A)
    q = np.einsum("bki,bk->bi", A, rng.standard_normal((width, 40)))
    starts = np.arange(n + 1) * (n - 1)
    neighbours = np.array([j for i in range(n) for j in range(n) if j != i], np.int32)
    overlaps = np.stack([one[~np.eye(n, dtype=bool)] for one in G])
    curvature = np.stack([np.diag(one) for one in G])
    lasso, group = (1 - joint) * threshold, joint * threshold
    correlation, values = q.copy(), np.zeros_like(q)
    moved, sweeps = minimise(
        starts, neighbours, overlaps, curvature, lasso, group, positive, 1e-10, 200, correlation, values
    )
    assert moved <= 1e-10 and sweeps <= 600
    np.testing.assert_allclose(correlation, q - np.einsum("bij,bj->bi", G, values), atol=1e-9)
    np.testing.assert_allclose(values, descend(G, q, lasso, group, positive), atol=1e-7)


@pytest.mark.parametrize("positive", [False, True])
def test_the_best_of_every_block(positive, rng, dtype):
    correlations = rng.standard_normal((1, 4, 6, 5, 3)).astype(dtype)
    thresholds, gains = rng.uniform(0.5, 1.5, (4, 6, 5, 3)), rng.uniform(1, 2, 3)
    block, first = np.array([2, 3, 2]), np.zeros(3, np.int64)
    places, atoms, scores = np.empty(12, np.int64), np.empty(12, np.int64), np.empty(12)
    largest, worst = best_of_blocks(
        correlations, thresholds, 0.0, gains, positive, block, first, 0.0, places, atoms, scores
    )
    excess = np.maximum((correlations if positive else np.abs(correlations))[0] - thresholds, 0)
    assert largest == pytest.approx(excess.max()) and worst == pytest.approx((excess / thresholds).max())
    for m, (a, b, c) in enumerate(np.ndindex(2, 2, 3)):
        box = (slice(2 * a, 2 * a + 2), slice(3 * b, 3 * b + 3), slice(2 * c, 2 * c + 2))
        assert scores[m] == pytest.approx((excess**2 * gains)[box].max())
        if scores[m] > 0:
            position = np.unravel_index(places[m], (4, 6, 5))
            assert (excess**2 * gains)[(*position, atoms[m])] == pytest.approx(scores[m])
