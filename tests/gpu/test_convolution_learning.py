"""Statistics of codes of shared atoms, updates of the atoms and the learner on a GPU, against the CPU."""

# Kernels: conv_statistics, conv_pooling.

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.convolution import ConvDictionaryLearning
from sparseshare.convolution.device_operator import DeviceConvolution
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.maps import SparseMaps
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.statistics import ConvStatistics, complete
from sparseshare.convolution.updates import AtomForm, AtomObjective, update_atoms
from sparseshare.optimization import AtomConstraint

SHAPES = [((31,), (4,)), ((13, 17), (3, 2)), ((5, 4, 6), (2, 1, 3))]
pytestmark = [pytest.mark.filterwarnings("ignore:.*stopped after"), pytest.mark.filterwarnings("ignore:all codes are")]


def coded(shape, support, boundary, dtype=np.float64, density=0.1, n_signals=2, n_channels=1):
    """A signal, sparse maps one of which is empty, and atoms."""
    rng = np.random.default_rng(0)
    geometry = Geometry(shape, support, boundary)
    maps = rng.standard_normal((n_signals, 5, *geometry.positions)) * (rng.random((5, *geometry.positions)) < density)
    maps[:, 2] = 0
    signal = rng.standard_normal((n_signals, n_channels, *shape))
    atoms = rng.standard_normal((5, n_channels, *support))
    return tuple(array.astype(dtype) for array in (signal, maps, atoms)), geometry


def statistics_of(signal, maps, support, boundary, xp=np, **options):
    statistics = ConvStatistics.zeros(maps.shape[1], signal.shape[1], support, xp)
    statistics.add(signal, maps, boundary, **options)
    return statistics.settle()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.03, 0.5], ids=["pairs", "transforms"])
@pytest.mark.parametrize("boundary", ["circular", "full"])
@pytest.mark.parametrize(("shape", "support"), SHAPES)
def test_statistics(gpu, shape, support, boundary, density, dtype):
    (signal, maps, _), _ = coded(shape, support, boundary, dtype, density)
    expected = statistics_of(signal, maps, support, boundary, weight=1.5, constant=2.0)
    found = []
    for order in ("forward", "reverse", "random"):
        with gpu.order(order):
            sparse = SparseMaps.from_dense(gpu.asarray(maps))
            found.append(
                statistics_of(gpu.asarray(signal), sparse, support, boundary, gpu.xp, weight=1.5, constant=2.0)
            )
    one = found[0]
    for other in found[1:]:
        assert_array_equal(gpu.get(one.half), gpu.get(other.half))
        assert_array_equal(gpu.get(one.psi), gpu.get(other.psi))
    assert one.half.dtype == one.psi.dtype == np.float64
    assert_allclose(gpu.get(one.half), expected.half, atol=1e-11)
    assert_allclose(gpu.get(one.psi), expected.psi, atol=1e-11)
    assert_array_equal(gpu.get(one.usage), expected.usage)
    assert one.energy == pytest.approx(expected.energy, rel=1e-6 if dtype == np.float32 else 1e-13)
    assert_allclose(gpu.get(one.phi), expected.phi, atol=1e-11)


@pytest.mark.parametrize(("boundary", "masked"), [("valid", False), ("valid", True), ("circular", True)])
def test_completion(gpu, boundary, masked):
    (signal, maps, atoms), geometry = coded((13, 17), (3, 2), boundary)
    mask = (np.random.default_rng(1).random(signal.shape) < 0.7).astype(float) if masked else None
    expected = complete(signal, maps, Convolution(atoms, geometry), mask)
    operator = DeviceConvolution(gpu.asarray(atoms), geometry)
    found = complete(gpu.asarray(signal), gpu.asarray(maps), operator, None if mask is None else gpu.asarray(mask))
    assert_allclose(gpu.get(found[0]), expected[0], atol=1e-12)
    assert found[1] == expected[1] and found[2:] == pytest.approx(expected[2:])


FORMS = {
    "ball": {},
    "sphere, zero mean": {"constraint": AtomConstraint("sphere", zero_mean=True)},
    "positive, fixed": {"constraint": AtomConstraint(nonnegative=True), "n_fixed": 2},
    "supports": {"supports": ((3, 2), (2, 2), (3, 1), (1, 1), (3, 2))},
    "rank 1": {"rank1": True},
    "rank 1, positive": {"rank1": True, "constraint": AtomConstraint(nonnegative=True)},
}


@pytest.mark.parametrize("name", FORMS)
def test_updates(gpu, name):
    (signal, maps, atoms), _ = coded((13, 17), (3, 2), "circular", n_signals=1, n_channels=3)
    form = AtomForm(**{"constraint": AtomConstraint(), "support": (3, 2), **FORMS[name]})
    atoms = form.project(atoms)
    expected = AtomObjective(statistics_of(signal, maps, (3, 2), "circular"))
    found = AtomObjective(
        statistics_of(gpu.asarray(signal), SparseMaps.from_dense(gpu.asarray(maps)), (3, 2), "circular", gpu.xp)
    )
    assert_allclose(gpu.get(found.curvatures), expected.curvatures, atol=1e-10)
    assert_allclose(gpu.get(found.gradient(gpu.asarray(atoms))), expected.gradient(atoms), atol=1e-10)
    moved = update_atoms(gpu.asarray(atoms), found, form)
    assert_allclose(gpu.get(moved), update_atoms(atoms, expected, form), atol=1e-8)


def pictures(n=3, shape=(10, 12), seed=0):
    """Signals made of few activations of three atoms."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(shape, (3, 3))
    atoms = rng.standard_normal((3, 1, 3, 3))
    maps = rng.uniform(1, 2, (n, 3, *shape)) * (rng.random((n, 3, *shape)) < 0.04)
    return Convolution(atoms, geometry).synthesize(maps)[:, 0] + 0.01 * rng.standard_normal((n, *shape))


LEARNING = {
    "batch": {},
    "online": {"method": "online", "batch_size": 2},
    "relative, valid": {"alpha_relative": True, "alpha": 0.4, "boundary": "valid"},
}


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("cupy_in", [False, True])
def test_learning(gpu, name, cupy_in):
    X = pictures()
    options = {"alpha": 0.8, "max_iter": 2, "random_state": 0, "transform_max_iter": 3, **LEARNING[name]}
    twin = ConvDictionaryLearning(4, (3, 3), solver="fista", **options).fit(X)
    learner = ConvDictionaryLearning(4, (3, 3), device="auto" if cupy_in else "cuda", **options)
    learner.fit(gpu.asarray(X) if cupy_in else X)
    assert isinstance(learner.components_, gpu.xp.ndarray if cupy_in else np.ndarray)
    assert_allclose(gpu.get(learner.components_), twin.components_, atol=1e-6)
    assert_allclose(learner.loss_curve_, twin.loss_curve_, rtol=1e-8)
    assert learner.alpha_ == pytest.approx(twin.alpha_) and isinstance(learner.loss_curve_[0], float)


def test_partial_fit_and_moving(gpu):
    X = pictures(4)
    options = {"alpha": 0.8, "random_state": 0, "solver": "fista", "transform_max_iter": 3}
    twin = ConvDictionaryLearning(4, (3, 3), **options).partial_fit(X[:2]).partial_fit(X[2:])
    learner = ConvDictionaryLearning(4, (3, 3), **options).partial_fit(gpu.asarray(X[:2]))
    learner = pickle.loads(pickle.dumps(learner))
    assert isinstance(learner.components_, np.ndarray)
    learner.to_device("cuda").partial_fit(gpu.asarray(X[2:]))
    assert isinstance(learner.components_, gpu.xp.ndarray)
    assert_allclose(gpu.get(learner.components_), twin.components_, atol=1e-6)
    learner.to_device("cpu")
    assert isinstance(learner.components_, np.ndarray)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        learner.partial_fit(gpu.asarray(X[2:]))


def test_channels_missing_samples_and_rank1(gpu):
    X = np.stack([pictures(2, seed=seed) for seed in (1, 2)], axis=-1)
    X[0, 2:4, 3:5] = np.nan
    options = {"alpha": 0.8, "max_iter": 2, "random_state": 0, "rank1": True, "transform_max_iter": 3}
    twin = ConvDictionaryLearning(2, (3, 3), solver="fista", **options).fit(X, mask="nan")
    learner = ConvDictionaryLearning(2, (3, 3), **options).fit(gpu.asarray(X), mask="nan")
    # With channels the largest curvature is another bound, at which steps may be cut off.
    assert_allclose(learner.loss_curve_, twin.loss_curve_, rtol=1e-4)
    assert_allclose(gpu.get(learner.components_), twin.components_, atol=1e-3)
    assert_allclose(gpu.get(learner.channel_patterns_), twin.channel_patterns_, atol=1e-3)


def test_dead_atoms_are_replaced(gpu):
    X = pictures(2)
    first = np.concatenate([pictures(1)[0, None, :3, :3], np.full((1, 3, 3), 1e-9)])
    options = {"alpha": 0.8, "max_iter": 2, "dict_init": first, "transform_max_iter": 3}
    twin = ConvDictionaryLearning(2, (3, 3), solver="fista", **options).fit(X)
    learner = ConvDictionaryLearning(2, (3, 3), device="cuda", **options).fit(X)
    assert np.linalg.norm(twin.components_[1]) > 0.1
    assert_allclose(learner.components_, twin.components_, atol=1e-6)


def test_solver_is_refused(gpu):
    with pytest.raises(ValueError, match="solver='lgcd' does not run on a GPU"):
        ConvDictionaryLearning(2, (3, 3), solver="lgcd", device="cuda").fit(pictures(1))
