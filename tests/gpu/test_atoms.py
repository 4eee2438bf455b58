"""Atom sweeps and atom steps of K-SVD on a GPU against those of the CPU, in every order of threads."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.devices import to_device
from sparseshare.kernels.cpu import ksvd as on_cpu
from sparseshare.learning.statistics import order_by_atom, partial_statistics
from sparseshare.learning.updates import optimal_directions, sweep_atoms
from sparseshare.optimization import AtomConstraint

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]
CONSTRAINTS = [
    AtomConstraint(),
    AtomConstraint("sphere"),
    AtomConstraint(nonnegative=True),
    AtomConstraint("sphere", nonnegative=True),
    AtomConstraint(zero_mean=True),
    AtomConstraint("sphere", zero_mean=True),
    AtomConstraint(l1_budget=1.5),
    AtomConstraint(l1_budget=2.5, nonnegative=True),
]


def problem(n_atoms, n_features, n_samples=150, seed=0):
    """Signals, codes of which one atom has none, and atoms of unit norm."""
    rng = np.random.default_rng(seed)
    W = np.where(rng.random((n_samples, n_atoms)) < 0.1, rng.standard_normal((n_samples, n_atoms)), 0)
    W[:, n_atoms // 2] = 0
    dictionary = rng.standard_normal((n_atoms, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    return rng.standard_normal((n_samples, n_features)), W, dictionary


def on(gpu, codes):
    return to_device(codes, f"cuda:{gpu.xp.cuda.Device().id}")


def statistics_of(gpu, X, W):
    codes = csr_array(W)
    return partial_statistics(X, codes), partial_statistics(gpu.asarray(X), on(gpu, codes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_a_sweep(gpu, constraint, dtype):
    X, W, dictionary = problem(40, 33)
    dictionary = constraint.project(dictionary).astype(dtype)
    here, there = statistics_of(gpu, X, W)
    expected = sweep_atoms(dictionary.copy(), here, constraint)
    found = []
    for order in ORDERS:
        atoms = gpu.asarray(dictionary)
        with gpu.order(order, seed=2):
            assert sweep_atoms(atoms, there, constraint) is atoms
        found.append(gpu.get(atoms))
    np.testing.assert_allclose(found[0], expected, atol=2e-5 if dtype == np.float32 else 1e-11)
    np.testing.assert_array_equal(found[0][20], dictionary[20])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert constraint.contains(found[0], 1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (65, 1), (70, 257)])
def test_sizes(gpu, shape):
    X, W, dictionary = problem(*shape)
    W[:, 0] = 1
    here, there = statistics_of(gpu, X, W)
    expected, atoms = sweep_atoms(dictionary.copy(), here), gpu.asarray(dictionary)
    np.testing.assert_allclose(gpu.get(sweep_atoms(atoms, there)), expected, atol=1e-11)


def test_atoms_too_long_for_shared_memory(gpu, monkeypatch):
    from sparseshare.kernels.gpu import atoms as kernels

    X, W, dictionary = problem(40, 33)
    here, there = statistics_of(gpu, X, W)
    expected = sweep_atoms(dictionary.copy(), here)
    for room in (16 * (16 + 33) * 8, 100):
        monkeypatch.setattr(kernels, "_SHARED", room)
        np.testing.assert_allclose(gpu.get(sweep_atoms(gpu.asarray(dictionary), there)), expected, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_the_scale_of_the_data_does_not_matter(gpu, scale, dtype):
    X, W, dictionary = problem(20, 9)
    expected = sweep_atoms(dictionary.astype(dtype), partial_statistics(X, csr_array(W)))
    scaled = csr_array((scale * W).astype(dtype))
    there = partial_statistics(gpu.asarray((scale * X).astype(dtype)), on(gpu, scaled))
    found = sweep_atoms(gpu.asarray(dictionary.astype(dtype)), there)
    np.testing.assert_allclose(gpu.get(found), expected, atol=1e-5)


def test_atoms_that_a_constraint_leaves_nothing_of(gpu):
    """What is all negative, or constant, has no nearest point of its own on the sphere."""
    A, X = np.eye(2), np.array([[-1.0, -0.5, -2.0], [-3.0, -3.0, -3.0]])
    for constraint in (AtomConstraint("sphere", nonnegative=True), AtomConstraint("sphere", zero_mean=True)):
        here, there = statistics_of(gpu, X, A)
        dictionary = constraint.project(np.array([[1.0, 0.0, 0.2], [0.3, 1.0, 0.1]]))
        expected = sweep_atoms(dictionary.copy(), here, constraint)
        np.testing.assert_allclose(
            gpu.get(sweep_atoms(gpu.asarray(dictionary), there, constraint)), expected, atol=1e-12
        )


@pytest.mark.parametrize("ties", [2, 3, 5])
def test_a_budget_on_entries_that_are_all_alike(gpu, ties):
    constraint = AtomConstraint(l1_budget=1.2)
    X = np.zeros((1, 5))
    X[0, :ties] = 3.0
    _, there = statistics_of(gpu, X, np.ones((1, 1)))
    atom = gpu.get(sweep_atoms(gpu.asarray(np.eye(5)[:1].copy()), there, constraint))
    assert np.ptp(atom[0, :ties]) <= 1e-12 and atom[0, 0] > 0.1
    assert np.linalg.norm(atom) <= 1 + 1e-12


def test_no_codes_change_nothing(gpu):
    X, W, dictionary = problem(12, 5)
    _, there = statistics_of(gpu, X, 0 * W)
    atoms = gpu.asarray(dictionary)
    sweep_atoms(atoms, there)
    np.testing.assert_array_equal(gpu.get(optimal_directions(atoms, there)), 1)
    np.testing.assert_array_equal(gpu.get(atoms), dictionary)


@pytest.mark.parametrize("zero_mean", [False, True])
def test_optimal_directions(gpu, zero_mean):
    X, W, dictionary = problem(30, 20)
    constraint = AtomConstraint("sphere", zero_mean=zero_mean)
    here, there = statistics_of(gpu, X, W)
    atoms = gpu.asarray(dictionary)
    expected = optimal_directions(dictionary, here, constraint)
    np.testing.assert_allclose(gpu.get(optimal_directions(atoms, there, constraint)), expected, rtol=1e-9)
    np.testing.assert_allclose(gpu.get(atoms), dictionary, atol=1e-9)
    np.testing.assert_allclose(gpu.get(there.B), here.B, atol=1e-8)


def coded(n_atoms, n_features, dtype, n_samples=60, seed=0):
    """Codes by atom, the residual and the atoms."""
    X, W, dictionary = problem(n_atoms, n_features, n_samples, seed)
    codes = csr_array(W.astype(dtype))
    starts, signals, positions = order_by_atom(codes)
    dictionary = dictionary.astype(dtype)
    return starts, signals, codes.data[positions], X.astype(dtype) - codes @ dictionary, dictionary


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exact", [False, True], ids=["approximate", "exact"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 17), (12, 3)])
def test_atom_steps_of_ksvd(gpu, shape, exact, dtype):
    from sparseshare.kernels.gpu import ksvd as kernels

    arrays = coded(*shape, dtype)
    expected = [array.copy() for array in arrays]
    step, more = ("exact_steps", (1e-12, 300)) if exact else ("approximate_steps", ())
    getattr(on_cpu, step)(*expected, *more)
    found = []
    for order in ORDERS:
        there = [gpu.asarray(array) for array in arrays]
        with gpu.order(order, seed=3):
            getattr(kernels, step)(*there, *more)
        found.append([gpu.get(array) for array in there])
    for one, other in zip(found[0], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 if exact else 2e-4 if dtype == np.float32 else 1e-12)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)
    errors = [float((arrays[3] ** 2).sum()) for arrays in (expected, found[0])]
    np.testing.assert_allclose(errors[1], errors[0], rtol=1e-5 if dtype == np.float32 else 1e-10)


@pytest.mark.races
def test_directions_from_several_blocks(gpu, monkeypatch):
    from sparseshare.kernels.gpu import ksvd as kernels

    monkeypatch.setattr(kernels, "_WARPS", 1)
    arrays = coded(3, 130, np.float64, n_samples=260)
    expected, there = [array.copy() for array in arrays], [gpu.asarray(array) for array in arrays]
    on_cpu.approximate_steps(*expected)
    kernels.approximate_steps(*there)
    np.testing.assert_allclose(gpu.get(there[4]), expected[4], atol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-2])
def test_two_leading_directions_of_almost_equal_weight(gpu, gap):
    from sparseshare.kernels.gpu import ksvd as kernels

    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    E = np.diag([1.0 + gap, 1.0, 0.3, 0.2, 0.1, 0.1]) @ basis
    start = np.array([0, len(E)])
    dictionary = basis[1:2] + 0.2 * basis[:1]
    dictionary /= np.linalg.norm(dictionary)
    there = [gpu.asarray(a) for a in (start, np.arange(6, dtype=np.int32), np.zeros(6), E, dictionary)]
    kernels.exact_steps(*there, 1e-7, 20)
    np.testing.assert_allclose((gpu.get(there[3]) ** 2).sum(), (E**2).sum() - (1 + gap) ** 2, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_residuals(gpu, scale):
    from sparseshare.kernels.gpu import ksvd as kernels

    arrays = coded(6, 5, np.float64)
    for step, more in (("exact_steps", (1e-7, 300)), ("approximate_steps", ())):
        plain = [gpu.asarray(array) for array in arrays]
        scaled = [gpu.asarray(array * scale if k in (2, 3) else array) for k, array in enumerate(arrays)]
        getattr(kernels, step)(*plain, *more)
        getattr(kernels, step)(*scaled, *more)
        np.testing.assert_allclose(gpu.get(scaled[4]), gpu.get(plain[4]), atol=1e-6)


@pytest.mark.races
def test_no_two_threads_meet_without_a_barrier(gpu):
    from sparseshare.kernels.gpu import ksvd as kernels

    X, W, dictionary = problem(20, 5, 60)
    here, there = statistics_of(gpu, X, W)
    with gpu.races():
        for constraint in (AtomConstraint(l1_budget=1.2), AtomConstraint("sphere", zero_mean=True)):
            found = sweep_atoms(gpu.asarray(dictionary), there, constraint)
            np.testing.assert_allclose(gpu.get(found), sweep_atoms(dictionary.copy(), here, constraint), atol=1e-11)
        kernels.approximate_steps(*map(gpu.asarray, coded(3, 5, np.float64, 40)))
        kernels.exact_steps(*map(gpu.asarray, coded(3, 5, np.float64, 40)), 1e-7, 3)
