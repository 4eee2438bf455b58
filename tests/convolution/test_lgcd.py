"""Locally greedy coordinate descent against written-out problems, certified optima, and the plain method."""

import numpy as np
import pytest
from convolution import acceptance
from convolution.problems import FORMS, Dense, conv_problem, form, solved
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseshare.convolution import lgcd, segments
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.lgcd import applies, solve
from sparseshare.convolution.maps import SparseMaps
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem

SOLVED = [(name, boundary) for name, boundary in FORMS if applies(form(name, boundary)) is None]


def check(problem, solution, tol):
    """What is reported is true; returns the written-out problem and the maps."""
    dense, maps = Dense(problem), solution.maps.dense()
    assert solution.converged and solution.gap <= tol * problem.energy
    assert maps.shape == problem.maps_shape and maps.dtype == problem.dtype
    np.testing.assert_allclose(dense.objective(maps), solution.objective, rtol=1e-10)
    assert np.all(np.diff(solution.maps.indices) > 0) and np.all(solution.maps.values != 0)
    return dense, maps


def accepted(name, dtype=np.float64):
    """An acceptance problem in the forms of the room, and what is known of it."""
    known = acceptance.problem(name)
    signal, atoms = known.X[0], known.atoms
    n_axes = 1 if name == "R10" else 2
    channels = signal.ndim > n_axes
    signal = np.moveaxis(signal, -1, 0) if channels else signal[None]
    atoms = np.moveaxis(atoms, -1, 1) if channels else atoms[:, None]
    geometry = Geometry(signal.shape[1:], atoms.shape[2:], known.options["boundary"])
    signal, atoms = (np.ascontiguousarray(array, dtype) for array in (signal, atoms))
    positive = known.options.get("positive", False)
    return ConvProblem(signal[None], Convolution(atoms, geometry), known.options["alpha"], positive=positive), known


def plain_lgcd(problem, tol):
    """The method in 1-D without any finesse, positions x atoms recomputed after each step."""
    atoms, signal = problem.atoms[:, 0], problem.signal[0, 0]
    (n_positions,), (length,) = problem.geometry.positions, problem.geometry.support
    norms2 = (atoms**2).sum(axis=1)
    z, residual = np.zeros((len(atoms), n_positions)), signal.copy()
    active, starts = True, range(0, n_positions, 2 * length - 1)
    while active:
        active = False
        for start in starts:
            part = slice(start, min(start + 2 * length - 1, n_positions))
            correlation = np.array([np.correlate(residual, atom, "valid")[part] for atom in atoms])
            target = correlation + norms2[:, None] * z[:, part]
            new = np.sign(target) * np.maximum(np.abs(target) - problem.alpha, 0) / norms2[:, None]
            step = new - z[:, part]
            atom, place = np.unravel_index(np.argmax(np.abs(step)), step.shape)
            if abs(step[atom, place]) > tol:
                z[atom, start + place] += step[atom, place]
                residual[start + place : start + place + length] -= step[atom, place] * atoms[atom]
                active = True
    return z


class TestSmallProblems:
    def test_most_forms_are_solved(self):
        assert len(SOLVED) == 14

    @pytest.mark.parametrize(("name", "boundary"), SOLVED)
    def test_objective_and_codes_are_those_of_the_matrix(self, name, boundary):
        problem, _, best, expected = solved(name, boundary)
        dense, maps = check(problem, solve(problem, tol=1e-12), 1e-12)
        assert dense.objective(maps) <= best * (1 + 1e-10)
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())

    @pytest.mark.parametrize("n_axes", [1, 3])
    @pytest.mark.parametrize("boundary", ["circular", "full"])
    @pytest.mark.parametrize("name", ["plain", "positive", "colour atoms", "weights of positions", "several codes"])
    def test_series_and_volumes(self, name, boundary, n_axes):
        problem, _, best, _ = solved(name, boundary, n_axes)
        dense, maps = check(problem, solve(problem, tol=1e-11), 1e-11)
        assert dense.objective(maps) <= best * (1 + 1e-9)

    @pytest.mark.parametrize("boundary", ["circular", "full"])
    @pytest.mark.parametrize("name", ["plain", "positive"])
    def test_dense_codes(self, name, boundary):
        problem = form(name, boundary, share=0.002)
        dense, maps = check(problem, solve(problem, tol=1e-9), 1e-9)
        assert np.count_nonzero(maps) > 0.05 * maps.size
        assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-6) + 1e-9 * problem.energy

    @settings(deadline=None, max_examples=40)
    @given(
        st.integers(1, 3),
        st.sampled_from(["circular", "full"]),
        st.booleans(),
        st.sampled_from([None, "atoms", "positions"]),
        st.integers(0, 2**20),
        st.integers(1, 19),
    )
    def test_any_shape(self, n_axes, boundary, positive, weights, seed, n_components):
        rng = np.random.default_rng(seed)
        support = tuple(rng.integers(1, (12, 5, 3)[n_axes - 1], n_axes))
        shape = tuple(length + rng.integers(0, (60, 12, 6)[n_axes - 1]) for length in support)
        geometry = Geometry(shape, support, boundary)
        operator = Convolution(rng.standard_normal((n_components, 1, *support)), geometry)
        signal = rng.standard_normal((1, 1, *shape))
        if weights is not None:
            positions = geometry.positions if weights == "positions" else (1,) * n_axes
            weights = rng.uniform(0.5, 2, (n_components, *positions))
        problem = ConvProblem(signal, operator, 1.0, weights=weights, positive=positive)
        problem.alpha = 0.3 * problem.largest_alpha()
        solution = solve(problem, tol=1e-8)
        maps = solution.maps.dense()
        assert solution.converged
        np.testing.assert_allclose(problem.objective(maps), solution.objective, rtol=1e-9)
        assert problem.gap(maps) <= 1.1e-8 * problem.energy

    @pytest.mark.parametrize("boundary", ["circular", "full"])
    def test_a_signal_as_long_as_its_atoms_wraps_onto_itself(self, boundary):
        rng = np.random.default_rng(0)
        for length in (5, 6, 8, 10):
            operator = Convolution(rng.standard_normal((3, 1, 5)), Geometry((length,), (5,), boundary))
            problem = ConvProblem(rng.standard_normal((1, 1, length)), operator, 0.3)
            dense, maps = check(problem, solve(problem, tol=1e-9), 1e-9)
            assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-8)

    def test_atoms_of_zeros_and_twins(self):
        rng = np.random.default_rng(1)
        atoms = rng.standard_normal((4, 1, 3, 3))
        atoms[1], atoms[2] = 0, atoms[0]
        operator = Convolution(atoms, Geometry((9, 8), (3, 3), "full"))
        problem = ConvProblem(rng.standard_normal((1, 1, 9, 8)), operator, 0.4)
        dense, maps = check(problem, solve(problem, tol=1e-9), 1e-9)
        assert not maps[0, 1].any()
        assert dense.objective(maps) <= dense.solve()[0] * (1 + 1e-8)
        operator = Convolution(np.zeros_like(atoms), Geometry((9, 8), (3, 3), "full"))
        assert len(solve(ConvProblem(problem.signal, operator, 0.4)).maps.values) == 0

    def test_it_is_the_plain_method(self):
        rng = np.random.default_rng(2)
        operator = Convolution(rng.standard_normal((4, 1, 7)), Geometry((150,), (7,), "full"))
        problem = ConvProblem(rng.standard_normal((1, 1, 150)), operator, 1.5)
        expected = plain_lgcd(problem, 1e-9)
        np.testing.assert_allclose(solve(problem, tol=1e-12).maps.dense()[0], expected, atol=1e-5)


class TestAcceptance:
    @pytest.mark.parametrize("name", ["R1", "R2", "R5", "R10"])
    def test_the_certified_optimum_is_reached(self, name):
        problem, known = accepted(name)
        solution = solve(problem, tol=1e-9)
        assert solution.converged
        assert abs(solution.objective - known.optimum) <= known.gap + solution.gap + 1e-9 * known.optimum
        assert len(solution.maps.values) == known.n_nonzeros

    def test_a_rough_tolerance_gives_alphacscs_accuracy(self):
        problem, known = accepted("R10")
        assert solve(problem, tol=1e-3).objective <= 118.394172

    @pytest.mark.parametrize("name", ["R1", "R10"])
    def test_float32(self, name):
        problem, known = accepted(name, np.float32)
        solution = solve(problem, tol=1e-5)
        assert solution.converged and solution.maps.values.dtype == np.float32
        assert solution.objective == pytest.approx(known.optimum, rel=1e-4)
        double, _ = accepted(name)
        maps = solution.maps.dense().astype(float)
        assert double.objective(maps) == pytest.approx(solution.objective, rel=1e-6)
        assert double.gap(maps) == pytest.approx(solution.gap, rel=0.1)

    def test_float32_ends_at_its_own_rounding(self):
        problem, known = accepted("R1", np.float32)
        solution = solve(problem, tol=1e-13)
        assert solution.converged
        assert solution.objective == pytest.approx(known.optimum, rel=1e-6)


class TestStarts:
    def test_at_the_largest_penalty_codes_are_zero_at_once(self):
        problem = conv_problem()
        problem.alpha = problem.largest_alpha() * 1.0001
        solution = solve(problem)
        assert solution.n_iter == 0 and solution.gap <= 1e-12 and len(solution.maps.values) == 0
        assert solution.objective == pytest.approx(problem.energy)

    def test_a_signal_of_zeros(self):
        problem = conv_problem()
        problem.signal[:] = 0
        solution = solve(problem)
        assert solution.converged and solution.objective == 0 and len(solution.maps.values) == 0

    @pytest.mark.parametrize("name", ["plain", "positive", "several codes", "weights of positions"])
    def test_the_solution_is_a_fixed_point(self, name):
        problem = form(name, "circular")
        first = solve(problem, tol=1e-10)
        for start in (first.maps, first.maps.dense()):
            again = solve(problem, start=start, tol=1.001e-10)
            assert again.n_iter == 0
            np.testing.assert_allclose(again.maps.dense(), first.maps.dense(), atol=1e-14)

    @pytest.mark.parametrize("name", ["plain", "positive", "kept out", "several codes"])
    def test_any_start_ends_at_the_same_codes(self, name):
        problem = form(name, "full")
        start = np.random.default_rng(2).standard_normal(problem.maps_shape)
        expected = solve(problem, tol=1e-12).maps.dense()
        found = solve(problem, start=start, tol=1e-12).maps.dense()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    def test_a_near_start_is_worth_it(self):
        problem, known = accepted("R10")
        near = solve(problem, tol=1e-4).maps
        dictionary = lgcd.Dictionary.of(problem)
        taken = []
        for start in (None, near):
            coder = lgcd.Coder(problem, dictionary, problem.signal[0], lgcd._entries(start, 0, problem), 1)
            coder.run(1e-5, 100)
            taken.append(coder.updates.sum())
        assert taken[1] < 0.1 * taken[0]

    def test_too_few_rounds_are_reported(self):
        problem = conv_problem(share=0.01)
        solution = solve(problem, max_iter=1, tol=1e-12)
        assert solution.n_iter == 1 and not solution.converged and solution.gap > 1e-12 * problem.energy
        best = solve(problem, tol=1e-12).objective
        assert best <= solution.objective <= best + solution.gap


class TestThreads:
    @pytest.mark.parametrize("boundary", ["circular", "full"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("shape", "support"), [((4000,), (6,)), ((150, 90), (5, 4)), ((40, 12, 11), (3, 2, 2))])
    def test_codes_are_the_same_to_the_last_bit(self, monkeypatch, boundary, dtype, shape, support):
        monkeypatch.setattr(segments, "_STRIPE", 2048)
        rng = np.random.default_rng(3)
        atoms = rng.standard_normal((9, 1, *support)).astype(dtype)
        signal = rng.standard_normal((1, 1, *shape)).astype(dtype)
        found = []
        for n_threads in (1, 2, 3):
            problem = ConvProblem(signal, Convolution(atoms, Geometry(shape, support, boundary)), 1.0)
            problem.alpha = 0.4 * problem.largest_alpha()
            coder = lgcd.Coder(problem, lgcd.Dictionary.of(problem), signal[0], lgcd._entries(None, 0, problem), 1)
            assert len(coder.updates) > 2
            found.append(solve(problem, tol=1e-4, n_threads=n_threads))
        for other in found[1:]:
            np.testing.assert_array_equal(other.maps.indices, found[0].maps.indices)
            np.testing.assert_array_equal(other.maps.values, found[0].maps.values)
            assert other.objective == found[0].objective and other.gap == found[0].gap


class TestSegments:
    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 3), st.booleans(), st.integers(0, 2**20), st.sampled_from([1, 50, 5000]))
    def test_stripes_of_a_colour_are_out_of_reach(self, n_axes, wraps, seed, n_components):
        rng = np.random.default_rng(seed)
        support = tuple(rng.integers(1, 7, n_axes))
        positions = tuple(rng.integers(length, 60) for length in support)
        width = 8 * -(-int(support[-1]) // 8) + 1
        cut = segments.Segments(positions, support, wraps, n_components, width)
        grid = np.arange(np.prod(positions))
        home = cut.of(grid)
        along = np.stack(cut.axes(grid), axis=1)
        low, high = cut.bounds[:, ::2], cut.bounds[:, 1::2]
        assert ((along >= low[home]) & (along < high[home])).all()
        assert sorted(cut.members) == list(range(len(cut))) and sorted(np.concatenate(cut.colours)) == list(
            range(len(cut.starts) - 1)
        )
        stripe = np.empty(len(cut), int)
        for i in range(len(cut.starts) - 1):
            stripe[cut.members[cut.starts[i] : cut.starts[i + 1]]] = i
        axis = int(np.argmax(cut.counts))
        n = int(cut.shape[axis])
        spans = [np.unique(along[stripe[home] == i][:, axis]) for i in range(len(cut.starts) - 1)]
        reach = max(2 * int(cut.support[axis]) - 2, width if axis == 2 else 0)
        for colour in cut.colours:
            for a, b in zip(colour[:-1], colour[1:], strict=True):
                assert spans[b][0] - spans[a][-1] > reach
            if wraps and len(colour) > 1:
                assert spans[colour[0]][0] + n - spans[colour[-1]][-1] > reach

    def test_lists_grow_and_keep_what_they_hold(self):
        rng = np.random.default_rng(4)
        home = rng.integers(0, 5, 60)
        index, value = rng.permutation(1000)[:60], rng.standard_normal(60)
        lists = segments.Lists(home, 5, index, value, np.abs(value))
        kept = dict(zip(index, value, strict=True))
        for change in (lists.grow, lists.drop_zeros):
            change()
            place = lists.places()
            assert dict(zip(lists.index[place], lists.value[place], strict=True)) == kept
            np.testing.assert_array_equal(lists.bar[place], np.abs(lists.value[place]))
        lists.value[lists.places()[::2]] = 0
        lists.drop_zeros()
        assert len(lists.places()) == 30 and lists.value[lists.places()].all() and not lists.full()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"mask": "binary"}, "masks"),
            ({"n_signals": 2, "joint": 0.5}, "joint penalties"),
            ({"smoothness": True}, "smoothness"),
            ({"boundary": "valid"}, "boundary='valid'"),
            ({"weights": "free"}, "weights of 0"),
        ],
    )
    def test_what_it_cannot_do(self, options, what):
        with pytest.raises(ValueError, match=f"solver='lgcd' cannot do {what}"):
            solve(conv_problem(**options))

    def test_interactions_that_are_too_large(self, monkeypatch):
        monkeypatch.setattr(lgcd, "_LARGEST", 100)
        with pytest.raises(ValueError, match="so many or so large atoms: their interactions would take"):
            solve(conv_problem())

    def test_sparse_starts_of_several_signals(self):
        problem = conv_problem(n_signals=2)
        maps = SparseMaps.from_dense(np.random.default_rng(5).standard_normal(problem.maps_shape))
        entries, values = lgcd._entries(maps, 1, problem)
        dense = np.zeros((problem.geometry.n_positions, 3))
        dense.ravel()[entries] = values
        np.testing.assert_array_equal(dense.T.reshape(problem.maps_shape[1:]), maps.dense()[1])
