"""Kernels of locally greedy descent against sums written out, run by run."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sparseshare.convolution import lgcd
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.interactions import correlations
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.kernels.cpu import locally_greedy as kernels

SHAPES = [((70,), (5,)), ((9,), (7,)), ((19, 23), (3, 4)), ((8, 40), (1, 9)), ((30, 6), (4, 1)), ((6, 7, 9), (2, 3, 2))]


def coder(rng, shape, support, boundary="circular", n_components=5, dtype=np.float64, weights=None, positive=False):
    """A coder at zero, with atoms of norm 1 and penalties that a third of the entries exceed or so."""
    geometry = Geometry(shape, support, boundary)
    operator = Convolution(rng.standard_normal((n_components, 1, *support)).astype(dtype), geometry)
    signal = rng.standard_normal((1, 1, *shape)).astype(dtype)
    if weights is not None:
        weights = rng.uniform(0.5, 2, (n_components, *geometry.positions)).astype(dtype)
    problem = ConvProblem(signal, operator, 1.0, weights=weights, positive=positive)
    start = np.empty(0, np.int64), np.empty(0, dtype)
    return lgcd.Coder(problem, lgcd.Dictionary.of(problem), signal[0], start, 1)


def penalties(state):
    """Penalty of every entry."""
    return state.limit if state.varied else np.resize(state.limit, len(state.q))


def steps(state):
    """The exact step of every entry, from correlations computed anew."""
    q = correlations(state.residual(), state.dictionary.atoms, state.wraps).ravel()
    z, limit = np.zeros(len(q)), penalties(state)
    z[state.lists.index[state.lists.places()]] = state.lists.value[state.lists.places()]
    target = q + z
    kept = np.maximum(target, 0) if state.problem.positive else np.abs(target)
    return np.abs(np.sign(target) * np.maximum(kept - limit, 0) - z), q


@pytest.mark.parametrize("n", [1, 5, 8, 9, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("positive", [True, False])
def test_largest_ratio_of_a_run_of_any_length(rng, n, dtype, positive):
    q, limit = rng.standard_normal(n + 3).astype(dtype), rng.uniform(0.5, 2, n + 3).astype(dtype)
    for start in (0, 3):
        ratios = (q if positive else np.abs(q))[start : start + n] / limit[start : start + n]
        found = kernels.top_ratio(start, start + n, q, limit, True, positive, 1, 1000)
        assert_allclose(found, max(ratios.max(), 0), rtol=1e-6)


@pytest.mark.parametrize(("shape", "support"), SHAPES)
@pytest.mark.parametrize("boundary", ["circular", "full"])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("weights", [None, "positions"])
def test_descent_ends_where_no_step_is_above_the_bound(rng, shape, support, boundary, positive, weights):
    state = coder(rng, shape, support, boundary, weights=weights, positive=positive)
    state.descend(0.0, 0)
    assert state.updates.sum() == 0
    largest, _ = steps(state)
    bound = largest.max()
    assert_allclose(state.top.max(), np.where(largest > 0, largest, -np.inf).max())
    for _ in range(4):
        bound *= 0.3
        assert state.descend(bound, 10**6)
        largest, q = steps(state)
        assert largest.max() <= bound * (1 + 1e-9)
        assert_allclose(state.q, q, atol=1e-11)  # what has been kept up to date is what it should be
    place = state.lists.places()
    assert state.lists.value[place].all() and len(np.unique(state.lists.index[place])) == len(place)


def test_the_first_steps_are_the_largest_of_the_segment(rng):
    state = coder(rng, (13,), (7,), "full")
    assert len(state.segments) == 1
    expected, z = [], np.zeros(len(state.q))
    atoms, length = state.dictionary.atoms[:, 0], 7
    residual = state.signal[0].copy()
    limit = penalties(state)
    for _ in range(30):
        q = np.array([np.correlate(residual, atom, "valid") for atom in atoms]).T.ravel()
        step = np.sign(q + z) * np.maximum(np.abs(q + z) - limit, 0) - z
        best = np.argmax(np.abs(step))
        if abs(step[best]) <= 0.05:
            break
        expected.append(best)
        z[best] += step[best]
        position, atom = divmod(best, len(atoms))
        residual[position : position + length] -= step[best] * atoms[atom]
    state.descend(0.05, 10**6)
    assert state.updates.sum() == len(expected) > 3
    found = np.zeros_like(z)
    found[state.lists.index[state.lists.places()]] = state.lists.value[state.lists.places()]
    assert_allclose(found, z, atol=1e-12)


@pytest.mark.parametrize(("shape", "support"), SHAPES)
@pytest.mark.parametrize("boundary", ["circular", "full"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sweeps_settle_what_is_in_use(rng, shape, support, boundary, dtype):
    state = coder(rng, shape, support, boundary, dtype=dtype)
    state.descend(0.0, 0)
    state.descend(0.5 * state.top.max(), 10**6)
    used = set(state.lists.index[state.lists.places()])
    state.certify()
    before = state.objective
    for _ in range(50):
        state.settle(1e-6)
    state.certify()
    assert state.objective <= before + 1e-6
    place = state.lists.places()
    assert set(state.lists.index[place]) <= used
    largest, _ = steps(state)
    assert largest[state.lists.index[place]].max() <= 1e-5
