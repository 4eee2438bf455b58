"""Parameters against their definition: full = signs * values[index], and its adjoint for gradients."""

import pickle

import numpy as np
import pytest

from sparseshare.network.parameters import Parameter, initial
from sparseshare.network.patterns import Circulant, Hashed, Kept, Listed, Merged, Toeplitz


def patterns(rng):
    mask = rng.random((7, 5)) < 0.4
    listed = Listed(rng.integers(-1, 6, (7, 5)), 6, rng.choice([-1, 1], (7, 5)).astype(np.int8))
    hashed = Hashed((7, 5), 9, seed=3)
    return {
        "listed": listed,
        "hashed": hashed,
        "hashed without signs": Hashed((7, 5), 9, seed=3, signed=False),
        "circulant": Circulant((7, 5)),
        "toeplitz": Toeplitz((4, 3, 2), (2, 2), (1, 1), "same", 3),
        "kept": Kept.of(mask),
        "kept, four axes": Kept.of(rng.random((2, 3, 2, 4)) < 0.5),
        "merged": Merged(hashed, Listed(rng.integers(-1, 3, 9), 3)),
        "merged, with signs": Merged(Kept.of(mask), Hashed((int(mask.sum()),), 4, seed=1)),
    }


@pytest.fixture(params=list(patterns(np.random.default_rng(0))))
def parameter(request, rng, dtype):
    pattern = patterns(rng)[request.param]
    return Parameter(rng.standard_normal(pattern.n_values).astype(dtype), pattern)


def slow_full(parameter):
    index, signs = parameter.pattern.index(), parameter.pattern.signs()
    full = np.zeros(index.shape, parameter.values.dtype)
    for place in np.ndindex(index.shape):
        if index[place] >= 0:
            full[place] = parameter.values[index[place]] * (1 if signs is None else signs[place])
    return full


def test_full_is_signed_values_at_the_index(parameter):
    assert parameter.full().shape == parameter.pattern.shape == parameter.shape
    assert parameter.full().dtype == parameter.values.dtype
    np.testing.assert_array_equal(parameter.full(), slow_full(parameter))
    assert parameter.nonzeros() == np.count_nonzero(parameter.full())


def test_full_follows_values_that_have_changed(parameter):
    before = parameter.full().copy()
    parameter.values *= 2
    parameter.changed()
    np.testing.assert_array_equal(parameter.full(), 2 * before)


def test_gradients_are_the_adjoint(parameter, rng):
    """<gradient, full(v)> = <add_gradient(gradient), v>, since full is linear in v."""
    gradient = rng.standard_normal(parameter.shape).astype(parameter.values.dtype)
    parameter.add_gradient(gradient)
    assert parameter.gradient.dtype == parameter.values.dtype
    expected = float((gradient * slow_full(parameter)).sum())
    assert float(parameter.gradient @ parameter.values) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    parameter.add_gradient(gradient)
    assert float(parameter.gradient @ parameter.values) == pytest.approx(2 * expected, rel=1e-4, abs=1e-5)
    parameter.reset_gradient()
    assert not parameter.gradient.any()


def test_uses_count_weights(parameter):
    index = parameter.pattern.index()
    assert parameter.uses().tolist() == [(index == value).sum() for value in range(parameter.pattern.n_values)]


@pytest.mark.parametrize("n", [1, 3, 70, 200])
def test_products_without_the_whole_array(parameter, rng, n):
    if len(parameter.shape) != 2:
        pytest.skip("a product is with a matrix")
    rows = rng.standard_normal((n, parameter.shape[0])).astype(parameter.values.dtype)
    product = parameter.product(rows)
    assert product.dtype == rows.dtype
    np.testing.assert_allclose(product, rows @ slow_full(parameter), rtol=1e-4, atol=1e-5)
    if isinstance(parameter.pattern, Hashed | Kept):
        assert parameter._full is None and parameter._index is None


@pytest.mark.parametrize("shape", [(300, 130), (129, 70), (5, 1), (1, 9)])
def test_large_products_without_the_whole_array(shape, rng, dtype):
    for pattern in (Hashed(shape, 17, seed=0), Kept.of(rng.random(shape) < 0.2), Kept.of(np.zeros(shape, bool))):
        parameter = Parameter(rng.standard_normal(pattern.n_values).astype(dtype), pattern)
        rows = rng.standard_normal((131, shape[0])).astype(dtype)
        product = parameter.product(rows[:, ::-1])
        np.testing.assert_allclose(product, rows[:, ::-1] @ slow_full(parameter), rtol=1e-4, atol=1e-4)


def test_penalty_and_its_gradient(parameter, rng):
    parameter.l1, parameter.l2 = 0.3, 0.7
    full = parameter.full().astype(np.float64)
    assert parameter.penalty() == pytest.approx(0.3 * np.abs(full).sum() + 0.35 * (full**2).sum(), rel=1e-5)
    both = 0.4 * np.abs(full).sum() + 0.8 * (full**2).sum()
    assert parameter.penalty(l1=0.1, l2=0.9) == pytest.approx(both, rel=1e-5)
    if parameter.values.dtype == np.float64:
        parameter.add_penalty_gradient(l1=0.1)
        step = 1e-6
        for number in range(parameter.values.size):
            differences = []
            for sign in (1, -1):
                parameter.values[number] += sign * step
                differences.append(parameter.penalty(l1=0.1))
                parameter.values[number] -= sign * step
            slope = (differences[0] - differences[1]) / (2 * step)
            assert parameter.gradient[number] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_project_keeps_values_nonnegative():
    parameter = Parameter(np.array([1.0, -2.0]), index=np.array([0, 1, 1]), nonnegative=True)
    assert parameter.full().tolist() == [1, -2, -2]
    parameter.project()
    assert parameter.full().tolist() == [1, 0, 0]


def test_pickles_leave_out_what_can_be_made_again(parameter):
    full = parameter.full().copy()
    parameter.add_gradient(np.ones(parameter.shape, full.dtype))
    copy = pickle.loads(pickle.dumps(parameter))
    assert copy._full is None and copy._gradient is None and copy._index is None
    np.testing.assert_array_equal(copy.full(), full)


def test_hashes_spread_evenly():
    pattern = Hashed((400, 500), 1000, seed=0)
    counts = np.bincount(pattern.index().ravel(), minlength=1000)
    assert 0.8 < counts.var() / 200 < 1.25  # 200 a value, Poisson
    assert abs(pattern.signs().mean()) < 0.01
    other = Hashed((400, 500), 1000, seed=1)
    assert (pattern.index() == other.index()).mean() < 0.005
    first = np.corrcoef(pattern.index()[:, :-1].ravel(), pattern.index()[:, 1:].ravel())[0, 1]
    assert abs(first) < 0.01
    assert abs(np.corrcoef(pattern.index().ravel(), pattern.signs().ravel())[0, 1]) < 0.01


def test_patterns_cost_little():
    shape = (256, 128)
    assert Hashed(shape, 100, seed=0).nbytes == Circulant(shape).nbytes == 0
    assert Kept.of(np.ones(shape, bool)).nbytes == 256 * 128 / 8 + 8 * 129
    assert Listed(np.zeros(shape, int), 100).nbytes == 256 * 128
    assert Listed(np.zeros(shape, int), 1000).nbytes == 2 * 256 * 128


@pytest.mark.parametrize("kind", ["glorot", "he", "uniform"])
def test_first_weights_have_the_variance_of_the_paper(kind, dtype):
    weights = initial(kind, (300, 200), np.random.RandomState(0), dtype)
    assert weights.dtype == dtype and abs(weights.mean()) < 3 * weights.std() / np.sqrt(weights.size)
    variance = {"glorot": 2 / 500, "he": 2 / 300, "uniform": 0.05**2 / 3}[kind]
    assert weights.var() == pytest.approx(variance, rel=0.02)
    wide = initial(kind, (300, 200), np.random.RandomState(0), dtype, fan_in=30, fan_out=20)
    assert wide.var() == pytest.approx({"glorot": 2 / 50, "he": 2 / 30, "uniform": 0.05**2 / 3}[kind], rel=0.02)


def test_first_weights_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="'init' parameter must be 'glorot', 'he' or 'uniform', got 'zeros'"):
        initial("zeros", (2, 2), np.random.RandomState(0), np.float64)
