"""The working-set solver against problems written out with one big matrix, and problems whose optimum is known."""

import numpy as np
import pytest
from convolution import acceptance
from convolution.problems import FORMS, Dense, conv_problem, form, solved

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.maps import SparseMaps
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.convolution.working_set import applies, solve

SOLVED = [(name, boundary) for name, boundary in FORMS if applies(form(name, boundary)) is None]


def check(problem, solution, tol=1e-9):
    """What is reported is true, and the optimality conditions hold."""
    dense, maps = Dense(problem), solution.maps.dense()
    assert solution.converged and solution.gap <= tol * problem.energy
    assert maps.shape == problem.maps_shape and maps.dtype == problem.dtype
    np.testing.assert_allclose(dense.objective(maps), solution.objective, rtol=1e-10)
    scale = np.abs(dense.gradient(np.zeros_like(maps))).max()
    assert dense.breach(maps) <= 1e-3 * scale
    assert np.all(np.diff(solution.maps.indices) > 0) and np.all(solution.maps.values != 0)
    return dense, maps


class TestSmallProblems:
    def test_most_forms_are_solved(self):
        assert len(SOLVED) >= 39

    @pytest.mark.parametrize(("name", "boundary"), SOLVED)
    def test_objective_and_codes_are_those_of_the_matrix(self, name, boundary):
        problem, _, best, expected = solved(name, boundary)
        dense, maps = check(problem, solve(problem, tol=1e-12), 1e-12)
        assert dense.objective(maps) <= best * (1 + 1e-10)
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())

    @pytest.mark.parametrize("n_axes", [1, 3])
    @pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
    @pytest.mark.parametrize("name", ["plain", "colour atoms, masked", "joint", "weights of positions"])
    def test_series_and_volumes(self, name, boundary, n_axes):
        problem, _, best, _ = solved(name, boundary, n_axes)
        dense, maps = check(problem, solve(problem, tol=1e-11), 1e-11)
        assert dense.objective(maps) <= best * (1 + 1e-9)

    @pytest.mark.parametrize("name", ["plain", "positive", "joint", "weighted residual"])
    def test_dense_codes(self, name):
        problem = form(name, "circular", share=0.002)
        dense, maps = check(problem, solve(problem))
        assert np.count_nonzero(maps) > 0.05 * maps.size
        assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-6) + 1e-9 * problem.energy

    def test_a_signal_as_long_as_its_atoms_wraps_onto_itself(self):
        rng = np.random.default_rng(0)
        for length in (5, 6, 8):
            operator = Convolution(rng.standard_normal((3, 1, 5)), Geometry((length,), (5,), "circular"))
            problem = ConvProblem(rng.standard_normal((1, 1, length)), operator, 0.3)
            dense, maps = check(problem, solve(problem))
            assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-8)

    def test_atoms_of_zeros_and_twins(self):
        rng = np.random.default_rng(1)
        atoms = rng.standard_normal((4, 1, 3, 3))
        atoms[1], atoms[2] = 0, atoms[0]
        problem = ConvProblem(
            rng.standard_normal((1, 1, 9, 8)), Convolution(atoms, Geometry((9, 8), (3, 3), "full")), 0.4
        )
        dense, maps = check(problem, solve(problem))
        assert not maps[0, 1].any()
        assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-8)


class TestStarts:
    def test_at_the_largest_penalty_codes_are_zero_at_once(self):
        problem = conv_problem()
        problem.alpha = problem.largest_alpha() * 1.0001
        solution = solve(problem)
        assert solution.n_iter == 0 and solution.gap <= 1e-12 and len(solution.maps.values) == 0
        assert solution.objective == pytest.approx(problem.energy)

    @pytest.mark.parametrize("name", ["plain", "joint", "positive"])
    def test_the_solution_is_a_fixed_point(self, name):
        problem = form(name, "circular")
        first = solve(problem, tol=1e-10)
        again = solve(problem, start=first.maps, tol=1e-10)
        assert again.n_iter == 0
        np.testing.assert_array_equal(again.maps.dense(), first.maps.dense())
        dense = solve(problem, start=first.maps.dense(), tol=1e-10)
        np.testing.assert_array_equal(dense.maps.dense(), first.maps.dense())

    @pytest.mark.parametrize("name", ["plain", "joint, positive", "mask", "kept out"])
    def test_any_start_ends_at_the_same_codes(self, name):
        problem = form(name, "valid")
        start = np.random.default_rng(2).standard_normal(problem.maps_shape)
        expected = solve(problem, tol=1e-12).maps.dense()
        found = solve(problem, start=start, tol=1e-12).maps.dense()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    def test_too_few_rounds_are_reported(self):
        problem = conv_problem(share=0.01)
        solution = solve(problem, max_iter=1, tol=1e-12)
        assert solution.n_iter == 1 and not solution.converged and solution.gap > 1e-12 * problem.energy
        best = solve(problem, tol=1e-12).objective
        assert best <= solution.objective <= best + solution.gap


class TestPrecisionAndThreads:
    @pytest.mark.parametrize("name", ["plain", "joint", "mask", "colour atoms"])
    def test_float32(self, name):
        exact, single = form(name, "circular"), form(name, "circular", dtype=np.float32)
        exact.alpha = single.alpha
        best = solve(exact, tol=1e-12).objective
        solution = solve(single, tol=1e-12)
        assert solution.converged and solution.maps.values.dtype == np.float32
        assert solution.objective == pytest.approx(best, rel=1e-5)
        assert Dense(single).objective(solution.maps.dense()) == pytest.approx(best, rel=1e-5)

    @pytest.mark.parametrize("name", ["plain", "several codes", "joint"])
    def test_threads_do_not_change_a_bit(self, name, monkeypatch):
        monkeypatch.setattr("sparseshare.convolution.working_set._PIECE", 64)
        problem = form(name, "circular")
        one, many = solve(problem), solve(problem, n_threads=3)
        np.testing.assert_array_equal(one.maps.values, many.maps.values)
        np.testing.assert_array_equal(one.maps.indices, many.maps.indices)

    @pytest.mark.parametrize("name", ["plain", "joint", "several codes", "weights of positions"])
    @pytest.mark.parametrize("n_axes", [1, 2, 3])
    def test_pieces_make_one_whole(self, name, n_axes, monkeypatch):
        problem = form(name, "valid", n_axes)
        whole = solve(problem, tol=1e-12)
        monkeypatch.setattr("sparseshare.convolution.working_set._PIECE", 16)
        pieces = solve(problem, tol=1e-12)
        np.testing.assert_allclose(pieces.maps.dense(), whole.maps.dense(), atol=1e-9)


def accepted(name, dtype=np.float64):
    """An acceptance problem in the forms of this room, and its optimum."""
    known = acceptance.problem(name)
    x, atoms, options = known.X[0], known.atoms, dict(known.options)
    colour = x.ndim == atoms.ndim - 1 and atoms.shape[-1] == x.shape[-1] == 3
    signal = np.moveaxis(x, -1, 0)[None] if colour else x[None, None]
    atoms = np.moveaxis(atoms, -1, 1) if colour else atoms[:, None]
    geometry = Geometry(signal.shape[2:], atoms.shape[2:], options.pop("boundary"))
    operator = Convolution(np.ascontiguousarray(atoms, dtype), geometry)
    return ConvProblem(np.ascontiguousarray(signal, dtype), operator, options.pop("alpha"), **options), known


class TestAcceptance:
    @pytest.mark.parametrize("name", ["R1", "R2", "R5", "R10"])
    def test_the_known_optimum(self, name):
        problem, known = accepted(name)
        solution = solve(problem, tol=1e-9)
        assert solution.converged and solution.n_iter <= 15
        assert abs(solution.objective - known.optimum) <= 1e-9 * problem.energy + 1e-7 * known.optimum
        assert len(solution.maps.values) == known.n_nonzeros
        maps = solution.maps.dense()
        assert problem.objective(maps) == pytest.approx(solution.objective, rel=1e-12)
        assert problem.gap(maps) <= 2e-9 * problem.energy

    def test_float32_to_its_rounding(self):
        problem, known = accepted("R1", np.float32)
        solution = solve(problem, tol=1e-9)
        assert solution.converged and solution.n_iter <= 20
        assert solution.objective == pytest.approx(known.optimum, rel=1e-6)


class TestManyNonZeros:
    @pytest.mark.parametrize("options", [{}, {"positive": True}, {"joint": 0.5}])
    @pytest.mark.parametrize("boundary", ["circular", "valid"])
    def test_working_sets_too_large_for_one_gram_matrix(self, boundary, options, monkeypatch):
        rng = np.random.default_rng(0)
        operator = Convolution(rng.standard_normal((3, 1, 3, 4)), Geometry((20, 18), (3, 4), boundary))
        mask = (rng.random((2, 1, 20, 18)) < 0.8).astype(float)
        problem = ConvProblem(rng.standard_normal((2, 1, 20, 18)), operator, 1.0, mask=mask, **options)
        whole = solve(problem, tol=1e-10)
        monkeypatch.setattr("sparseshare.convolution.working_set._PAIRS", (0.0, 1000))
        pieces = solve(problem, tol=1e-10)
        assert pieces.converged and len(pieces.maps.values) > 150
        assert pieces.objective == pytest.approx(whole.objective, rel=1e-9)
        np.testing.assert_allclose(pieces.maps.dense(), whole.maps.dense(), atol=1e-3)


class TestRefusals:
    def test_what_makes_maps_dense_is_refused(self):
        for name, word in (("smooth", "smoothness"), ("free smooth atom", "smoothness")):
            problem = form(name, "circular")
            assert word in applies(problem)
            with pytest.raises(ValueError, match=word):
                solve(problem)
        problem = conv_problem(weights="free")
        with pytest.raises(ValueError, match="weights of 0"):
            solve(problem)

    def test_no_smoothness_is_none(self):
        problem = form("smooth", "circular")
        problem.smoothness = np.zeros_like(problem.smoothness)
        assert applies(problem) is None


def test_sparse_starts_are_kept_sparse():
    problem = conv_problem()
    empty = SparseMaps(np.empty(0, np.int64), np.empty(0), problem.maps_shape)
    np.testing.assert_array_equal(solve(problem, start=empty).maps.values, solve(problem).maps.values)
