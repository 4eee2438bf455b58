"""ADMM on convolutional problems of every form, against their written-out optimum and against the other solver."""

import numpy as np
import pytest
from convolution.problems import BOUNDARIES, FORMS, Dense, conv_problem, form, solved
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.convolution import admm, fista
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.maps import SparseMaps
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.kernels.dispatch import kernels_for


@pytest.mark.parametrize(("name", "boundary"), FORMS)
def test_it_reaches_the_optimum(name, boundary):
    problem, dense, least, _ = solved(name, boundary)
    solution = admm.solve(problem, tol=1e-8)
    assert solution.converged and 0 <= solution.gap <= 1e-8 * problem.energy
    assert_allclose(solution.objective, dense.objective(solution.maps), rtol=1e-12)
    assert -1e-12 * problem.energy <= solution.objective - least <= solution.gap + 1e-12 * problem.energy


@pytest.mark.parametrize("n_axes", [1, 3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("smoothness", [False, True])
def test_solvers_agree_along_other_axes(boundary, n_axes, smoothness):
    problem = conv_problem(boundary, n_axes, mask="binary", weights="positions", smoothness=smoothness)
    one, other = admm.solve(problem, tol=1e-7), fista.solve(problem, tol=1e-7)
    assert one.converged and other.converged
    assert abs(one.objective - other.objective) <= one.gap + other.gap
    assert_allclose(one.maps, other.maps, atol=1e-2)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", ["plain", "many at once", "colour atoms, many at once", "joint"])
def test_single_precision(name, boundary):
    problem, exact = form(name, boundary, dtype=np.float32), form(name, boundary)
    exact.alpha = problem.alpha
    solution = admm.solve(problem, tol=1e-5)
    assert solution.converged and solution.maps.dtype == np.float32
    assert Dense(problem).objective(solution.maps) - Dense(exact).solve()[0] <= 2e-5 * problem.energy


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_signal_and_atoms_does_not_matter(scale):
    problem = form("weights of atoms", "circular")
    n_iter = admm.solve(problem, tol=1e-7).n_iter
    for signal_scale, atom_scale in ((scale, 1.0), (1.0, scale)):
        other = ConvProblem(
            problem.signal * signal_scale,
            Convolution(problem.atoms * atom_scale, problem.geometry),
            problem.alpha * signal_scale * atom_scale,
            problem.weights,
        )
        solution = admm.solve(other, tol=1e-7)
        assert solution.converged and solution.n_iter == n_iter


@pytest.mark.parametrize("name", ["plain", "colour atoms, many at once", "several codes", "free smooth atom"])
def test_threads_do_not_show(rng, name, dtype, monkeypatch):
    monkeypatch.setattr(admm, "_CHUNK", 1)  # an atom at a time, so that there is something to share out
    problem = form(name, "valid", dtype=dtype, n_components=11)
    solutions = [admm.solve(problem, tol=1e-4, n_threads=n_threads) for n_threads in (1, 2, 3)]
    for solution in solutions[1:]:
        assert_array_equal(solution.maps, solutions[0].maps)


def test_warm_start(rng):
    problem, _, _, codes = solved("positive", "full")
    for start in (codes, SparseMaps.from_dense(codes)):
        solution = admm.solve(problem, start=start, tol=1e-9)
        assert solution.n_iter == 0 and solution.converged
        assert_array_equal(solution.maps, codes)
    bad = codes - 0.01
    assert admm.solve(problem, start=bad, tol=1e-8).converged
    assert (bad < 0).any()


def test_iterations_run_out():
    problem = solved("plain", "circular")[0]
    solution = admm.solve(problem, tol=1e-9, max_iter=3)
    assert solution.n_iter == 3 and not solution.converged and solution.gap > 1e-9 * problem.energy


def test_silence():
    problem = solved("plain", "circular")[0]
    silent = ConvProblem(np.zeros_like(problem.signal), problem.operator, 1.0)
    solution = admm.solve(silent)
    assert solution.converged and not solution.maps.any()


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_x_step_solves_its_system(rng, n_channels):
    problem = conv_problem("circular", n_channels=n_channels)
    state, dense = admm._Splitting(problem, None, 1), Dense(problem)
    state.y[:], state.u[:] = rng.standard_normal((2, *state.shape))
    state._follow_rho()
    v, signal = (state.y - state.u).ravel(), problem.signal.ravel()
    matrix = dense.matrix.T @ dense.matrix + state.rho * np.eye(len(v))
    expected = np.linalg.solve(matrix, dense.matrix.T @ signal + state.rho * v)
    q = state._divide((state.signal - state.total).reshape(1, n_channels, -1))
    back = problem.correlate(state._back(q.reshape(state.signal.shape)))
    assert_allclose(v + back.ravel(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("joint", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("positive", [False, True])
def test_threshold_step_is_its_definition(rng, joint, positive, dtype):
    problem = conv_problem("circular", 1, n_signals=2, positive=positive, joint=joint, weights="infinite", dtype=dtype)
    y, u, change = rng.standard_normal((3, *problem.maps_shape)).astype(dtype)
    relaxed = 1.8 * (y - u + change) - 0.8 * y
    kept = Dense(problem).prox((relaxed + u).astype(float), 0.5)
    multiplier = u + relaxed - kept
    sums, weights = np.ones(5), problem.weights.reshape(3, -1)
    expected = [np.sum(a.astype(float) ** 2) for a in (relaxed - kept, relaxed, kept, kept - y, multiplier)]
    step = kernels_for("cpu", "splitting").threshold_step
    step(y, u, change, 0, weights, 0.5 * problem.alpha, joint, 1.8, positive, sums)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for found, wanted in ((y, kept), (u, multiplier), (change, kept - multiplier)):
        assert_allclose(found, wanted, atol=tolerance * 10)
    assert_allclose(sums - 1, expected, rtol=tolerance * 10)


def test_a_recording_longer_than_a_chunk(rng):
    atoms = rng.standard_normal((6, 1, 50))
    signal = rng.standard_normal((1, 1, 40_000))
    problem = ConvProblem(signal, Convolution(atoms, Geometry((40_000,), (50,), "full")), 1.0)
    problem.alpha = 0.3 * problem.largest_alpha()
    one, other = admm.solve(problem, tol=1e-3, n_threads=2), fista.solve(problem, tol=1e-3)
    assert one.converged and abs(one.objective - other.objective) <= one.gap + other.gap
