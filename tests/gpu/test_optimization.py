"""Penalties, projections, bounds and descent on device arrays, against the same on NumPy arrays."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sparseshare.optimization.constraints import AtomConstraint, row_norms
from sparseshare.optimization.duality import without
from sparseshare.optimization.lipschitz import largest_eigenvalue
from sparseshare.optimization.penalties import RoughnessPenalty, SparsePenalty
from sparseshare.optimization.proximal import METHODS, LeastSquares, proximal_gradient

DTYPES = [np.float32, np.float64]
SHAPE = (3, 4, 5)
WEIGHTS = {
    "none": lambda rng: None,
    "per atom": lambda rng: rng.uniform(0.5, 2, (4, 1)),
    "per position": lambda rng: rng.uniform(0.5, 2, (4, 5)),
    "infinite": lambda rng: np.where(rng.random((4, 5)) < 0.3, np.inf, rng.uniform(0.5, 2, (4, 5))),
    "free": lambda rng: np.where(rng.random((4, 5)) < 0.1, 0.0, 1.0),
}


def close(gpu, found, expected, dtype=np.float64):
    assert found.dtype == expected.dtype
    assert_allclose(
        gpu.get(found), expected, rtol=1e-12 if dtype == np.float64 else 2e-5, atol=1e-14 + 1e-6 * (dtype == np.float32)
    )


@pytest.mark.parametrize("joint", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_sparse_penalty(gpu, rng, joint, positive, weights):
    weights = WEIGHTS[weights](rng)
    here = SparsePenalty(0.7, weights, positive, joint)
    there = SparsePenalty(0.7, None if weights is None else gpu.asarray(weights), positive, joint)
    v = rng.standard_normal(SHAPE)
    codes = here.prox(v, 0.8)
    close(gpu, there.prox(gpu.asarray(v), 0.8), codes)
    out = gpu.asarray(v)
    assert there.prox(out, 0.8, out=out) is out
    assert there.value(gpu.asarray(codes)) == pytest.approx(here.value(codes), rel=1e-13)
    assert there.value(gpu.asarray(v)) == pytest.approx(here.value(v), rel=1e-13)
    close(gpu, there.admit(gpu.asarray(v)), here.admit(v.copy()))
    for negated in (False, True):
        assert there.largest_alpha(gpu.asarray(v), negated) == pytest.approx(here.largest_alpha(v, negated), rel=1e-12)


@pytest.mark.parametrize("wraps", [False, True])
def test_roughness_penalty(gpu, rng, wraps):
    smoothness = np.array([0.0, 2.0, 0.5, 0.0])
    here = RoughnessPenalty(smoothness, (5, 6), wraps)
    there = RoughnessPenalty(gpu.asarray(smoothness), (5, 6), wraps)
    maps, out = rng.standard_normal((2, 2, 4, 5, 6))
    assert there.value(gpu.asarray(maps)) == pytest.approx(here.value(maps), rel=1e-13)
    close(gpu, there.add_gradient(gpu.asarray(maps), gpu.asarray(out)), here.add_gradient(maps, out.copy()))
    assert there.dual_energy(gpu.asarray(maps), [1, 2]) == pytest.approx(here.dual_energy(maps, [1, 2]), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nonnegative": True},
        {"zero_mean": True},
        {"norm": "sphere"},
        {"norm": "sphere", "nonnegative": True},
        {"norm": "sphere", "zero_mean": True},
        {"l1_budget": 1.5},
        {"l1_budget": 1.5, "nonnegative": True},
    ],
    ids=str,
)
def test_projections(gpu, rng, dtype, options):
    atoms = (rng.standard_normal((9, 6)) * rng.uniform(0.1, 3, (9, 1))).astype(dtype)
    atoms[3], atoms[4] = 0, -1
    atoms[5] = 1
    constraint = AtomConstraint(**options)
    found, expected = constraint.project(gpu.asarray(atoms)), constraint.project(atoms)
    close(gpu, found, expected, dtype)
    assert constraint.contains(found, 1e-5) == constraint.contains(expected, 1e-5)
    assert not constraint.contains(5 * gpu.asarray(atoms))
    close(gpu, row_norms(gpu.asarray(atoms)), row_norms(atoms))


def test_a_sphere_of_one_feature_has_no_zero_mean(gpu):
    with pytest.raises(ValueError, match="at least 2 features"):
        AtomConstraint(norm="sphere", zero_mean=True).project(gpu.asarray(np.ones((2, 1))))


def test_the_rest_beside_directions(gpu, rng):
    directions, residual = rng.standard_normal((3, 2, 7)), rng.standard_normal((2, 7))
    directions[2] = directions[0] - directions[1]
    assert_allclose(
        gpu.get(without(gpu.asarray(directions), gpu.asarray(residual))), without(directions, residual), atol=1e-12
    )


def test_largest_eigenvalue(gpu, rng):
    atoms = rng.standard_normal((12, 5))
    gram = atoms @ atoms.T
    assert largest_eigenvalue(gpu.asarray(gram)) == largest_eigenvalue(gram)


def problem(gpu, rng, dtype, groups=1, n_atoms=70, n=20):
    """The same least-squares term on both devices."""
    atoms = rng.standard_normal((n_atoms, n)).astype(dtype)
    X = rng.standard_normal((groups, n)).astype(dtype)
    lipschitz = np.linalg.norm(atoms.astype(float), 2) ** 2 * 1.01
    there = gpu.asarray(atoms)
    return (
        LeastSquares(lambda z: z @ atoms, lambda r: r @ atoms.T, X, lipschitz),
        LeastSquares(lambda z: z @ there, lambda r: r @ there.T, gpu.asarray(X), lipschitz),
    )


PENALTIES = [(0.0, False, 1, None), (0.0, True, 3, "small"), (0.0, False, 2, "infinite"), (0.3, False, 3, "some"),
             (1.0, True, 2, None), (0.5, True, 2, "infinite")]  # fmt: skip


def penalties(gpu, rng, joint, positive, weighted):
    weights = None if weighted is None else rng.uniform(0.5, 2, 70)
    if weighted in ("small", "infinite"):
        weights[::17] = 1e-3 if weighted == "small" else np.inf
    there = None if weights is None else gpu.asarray(weights)
    return SparsePenalty(5.0, weights, positive, joint), SparsePenalty(5.0, there, positive, joint)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("joint", "positive", "groups", "weighted"), PENALTIES)
def test_descent_takes_the_same_steps(gpu, rng, dtype, joint, positive, groups, weighted):
    here, there = problem(gpu, rng, dtype, groups)
    penalty, same = penalties(gpu, rng, joint, positive, weighted)
    for method in ("ista", "fista"):
        expected = proximal_gradient(here, penalty, np.zeros((groups, 70), dtype), max_iter=7, method=method)
        found = proximal_gradient(there, same, gpu.asarray(np.zeros((groups, 70), dtype)), max_iter=7, method=method)
        assert found.n_iter == 7 and not found.converged
        tol = 1e-5 if dtype == np.float32 else 1e-10
        assert_allclose(gpu.get(found.codes), expected.codes, rtol=tol, atol=tol)
        assert found.objective == pytest.approx(expected.objective, rel=tol)
        assert found.gap == pytest.approx(expected.gap, rel=100 * tol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("joint", "positive", "groups", "weighted"), PENALTIES)
def test_descent_finds_its_step(gpu, rng, dtype, joint, positive, groups, weighted):
    here, there = problem(gpu, rng, dtype, groups)
    penalty, same = penalties(gpu, rng, joint, positive, weighted)
    options = {"gap": 1e-3, "max_iter": 200}
    expected = proximal_gradient(here, penalty, np.zeros((groups, 70), dtype), **options)
    found = proximal_gradient(there, same, gpu.asarray(np.zeros((groups, 70), dtype)), **options)
    assert found.converged and found.gap <= 1e-3
    assert found.n_iter <= 1.3 * expected.n_iter + 5
    assert found.codes.dtype == dtype
    codes = gpu.get(found.codes).astype(float)
    residual = gpu.get(there.target).astype(float) - here.forward(codes)
    assert 0.5 * (residual**2).sum() + penalty.value(codes) == pytest.approx(found.objective, rel=1e-5)
    assert abs(found.objective - expected.objective) <= 1e-3


@pytest.mark.parametrize("joint", [0.0, 0.4])
def test_descent_does_not_depend_on_the_order_of_threads(gpu, rng, joint):
    _, there = problem(gpu, rng, np.float64, 2, n_atoms=300)
    codes = []
    for order in ("forward", "reverse", "random"):
        with gpu.order(order):
            start = gpu.asarray(np.zeros((2, 300)))
            result = proximal_gradient(there, SparsePenalty(3.0, joint=joint), start, max_iter=4)
            codes.append((gpu.get(result.codes), result.objective, result.n_iter))
    for found in codes[1:]:
        np.testing.assert_array_equal(found[0], codes[0][0])
        assert found[1:] == codes[0][1:]


@pytest.mark.races
def test_no_two_threads_of_descent_meet(gpu, rng):
    _, there = problem(gpu, rng, np.float32, 2)
    with gpu.races():
        for joint in (0.0, 0.4):
            start = gpu.asarray(np.zeros((2, 70), np.float32))
            proximal_gradient(there, SparsePenalty(3.0, joint=joint), start, max_iter=2)


@pytest.mark.parametrize("method", METHODS)
def test_descent_leaves_an_optimum_alone(gpu, rng, method):
    _, there = problem(gpu, rng, np.float64)
    penalty = SparsePenalty(5.0)
    first = proximal_gradient(there, penalty, gpu.asarray(np.zeros((1, 70))), gap=1e-5, max_iter=300)
    assert first.converged
    again = proximal_gradient(there, penalty, first.codes.copy(), gap=2e-5, method=method)
    assert again.converged and again.n_iter == 0
    np.testing.assert_array_equal(gpu.get(again.codes), gpu.get(first.codes))


def test_descent_with_what_only_the_host_can_decide(gpu, rng):
    here, there = problem(gpu, rng, np.float64, 1, 30, 20)
    rough = RoughnessPenalty(np.array([0.3]), (30,), wraps=False)
    results = []
    for smooth, start in ((here, np.zeros((1, 1, 30))), (there, gpu.asarray(np.zeros((1, 1, 30))))):
        smooth = LeastSquares(
            lambda z, a=smooth: a.forward(z[:, 0]), lambda r, a=smooth: a.adjoint(r)[:, None], smooth.target,
            smooth.lipschitz + rough.lipschitz, rough,
        )  # fmt: skip
        results.append(proximal_gradient(smooth, SparsePenalty(0.5), start, gap=1e-4, max_iter=500))
    assert results[0].converged and results[1].converged
    assert results[1].objective == pytest.approx(results[0].objective, abs=2e-4)


def test_the_host_hardly_waits_for_descent(gpu, rng):
    if gpu.state is None:
        pytest.skip("only the fake counts")
    _, there = problem(gpu, rng, np.float32)
    trips = []
    for max_iter in (5, 30):
        gpu.state.trips.clear()
        proximal_gradient(there, SparsePenalty(1.0), gpu.asarray(np.zeros((1, 70), np.float32)), max_iter=max_iter)
        trips.append(sum(n for kind, n in gpu.state.trips.items() if kind != "get without blocking"))
    assert trips[0] == trips[1] <= 12
