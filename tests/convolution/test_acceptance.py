"""Every solver reaches the certified optima, and what it reports of its codes is true."""

import numpy as np
import pytest
from convolution.acceptance import NAMES, highpass, photograph, problem, recording, stored
from convolution.certificate import PlainProblem

from sparseshare.convolution import conv_sparse_encode

SOLVERS = ("auto", "lgcd", "working_set", "fista", "admm")
CANNOT = {"lgcd": {"mask", "joint", "smoothness", "valid"}, "working_set": {"smoothness"}}
LONG = {"R2", "R5", "R10", "joint"}
# Other forms take these solvers the same way, here and in their own tests: positive codes and l2 norms "together",
# atoms with channels and long recordings "channels" and R10, each in a tenth of the time.
LEFT_OUT = {("R2", "admm"), ("R5", "fista"), ("R5", "admm"), ("R10", "admm"), ("joint", "fista")}
CASES = [
    pytest.param(name, solver, marks=pytest.mark.slow if name in LONG and solver in ("fista", "admm") else ())
    for name in NAMES
    for solver in SOLVERS
    if not CANNOT.get(solver, set()) & {*problem(name).options, problem(name).options["boundary"]}
    and (name, solver) not in LEFT_OUT
]
EXCESS = 1e-6  # over the optimum, relative


def plain(name):
    """The judge of a problem."""
    options = dict(problem(name).options)
    if "mask" in options:
        options["mask"] = options["mask"][0]
    return PlainProblem(problem(name).X[0], problem(name).atoms, **options)


def solved(name, solver, tol, **options):
    """Codes as the judge wants them, and what is reported of them."""
    held_to = problem(name)
    codes, info = conv_sparse_encode(
        held_to.X, held_to.atoms, **held_to.options, solver=solver, tol=tol, return_info=True, **options
    )
    return codes, info


@pytest.mark.parametrize("name, solver", CASES)
def test_optimum_is_reached_and_reported(name, solver):
    held_to, judge = problem(name), plain(name)
    single = held_to.X.dtype == np.float32
    tol = (10 if single else 1) * EXCESS * held_to.optimum / judge.energy  # float32 cannot certify what it reaches
    codes, info = solved(name, solver, tol)
    assert codes.dtype == held_to.X.dtype
    maps = judge.inside(codes[0])
    objective = judge.objective(maps)
    assert -2 * held_to.gap <= objective - held_to.optimum <= EXCESS * held_to.optimum
    assert info["converged"].all()
    assert info["objective"][0] == pytest.approx(objective, rel=1e-6 if single else 1e-9)
    reported = info["gap"][0] * judge.energy
    rounding = (1e-6 if single else 1e-12) * judge.energy
    assert objective - held_to.optimum <= reported + rounding
    assert reported <= tol * judge.energy + rounding


@pytest.mark.parametrize(
    "name, solver",
    [case for case in CASES if case.values[1] in ("lgcd", "working_set") and problem(case.values[0]).n_nonzeros],
)
def test_codes_not_0_are_those_of_the_optimum(name, solver):
    codes, _ = solved(name, solver, 1e-9)
    assert np.count_nonzero(codes) == problem(name).n_nonzeros


@pytest.mark.parametrize("solver", ["lgcd", "working_set", "fista"])
def test_codes_do_not_depend_on_threads(solver):
    one, _ = solved("R2", solver, 1e-3, n_jobs=1)
    two, _ = solved("R2", solver, 1e-3, n_jobs=2)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("name", ["channels", "volume"])
def test_quick_optima_are_found_again(name):
    judge = plain(name)
    maps, gap = judge.fista(tol=1e-8, max_iter=5000)
    assert gap <= 1e-8
    assert judge.objective(maps) == pytest.approx(problem(name).optimum, abs=2e-8)


def test_stored_data_have_their_control_values():
    image = highpass(photograph())
    atoms = stored("atoms_8x8x32").astype(float)
    spectra = np.fft.fft2(atoms, image.shape)
    correlations = np.fft.ifft2(spectra.conj() * np.fft.fft2(image)).real
    assert np.sum(image**2) == pytest.approx(1.218736987, abs=1e-9)
    assert np.abs(correlations).max() == pytest.approx(0.3536572, abs=1e-7)
    assert np.max(np.sum(np.abs(spectra) ** 2, axis=0)) == pytest.approx(145.041254996, abs=1e-8)
    assert np.sum(highpass(photograph(gray=False)) ** 2) == pytest.approx(4.668880817, abs=1e-9)
    norms = np.linalg.norm(atoms.reshape(32, -1), axis=1)
    assert (norms.min(), norms.max()) == pytest.approx((0.133, 1.0004), abs=1e-3)


def test_recording_has_its_control_values():
    signal, atoms, alpha = recording()
    np.testing.assert_allclose(signal[:3], [0.02982887, 0.02281444, 0.05731601], atol=1e-8)
    assert np.sum(signal**2) == pytest.approx(612.322592868, abs=1e-8)
    assert alpha == pytest.approx(0.1573143721, abs=1e-10)
    assert atoms.shape == (25, 64)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
def test_judge_agrees_with_the_definition(boundary):
    """Entry by entry: atom k at position p puts its entry l at sample p + l, less L - 1 for "valid"."""
    rng = np.random.default_rng(0)
    x, atoms = rng.standard_normal(9), rng.standard_normal((2, 4))
    judge = PlainProblem(x, atoms, 0.5, boundary, smoothness=[0.0, 2.0], weights=[1.0, 3.0])
    maps = rng.standard_normal((2, *judge.positions))
    made = np.zeros(9)
    for k, p, entry in np.ndindex(*maps.shape, 4):
        place = p + entry - (3 if boundary == "valid" else 0)
        place = place % 9 if boundary == "circular" else place
        if 0 <= place < 9:
            made[place] += maps[k, p] * atoms[k, entry]
    steps = np.diff(np.append(maps[1], maps[1, 0]) if boundary == "circular" else maps[1])
    expected = 0.5 * np.sum((x - made) ** 2) + 0.5 * np.abs(maps) @ np.ones(maps.shape[1]) @ [1.0, 3.0]
    assert judge.objective(maps[None]) == pytest.approx(expected + np.sum(steps**2))
    other = rng.standard_normal((1, 2, *judge.positions))
    change = 1e-6 * other
    slope = (judge.fit(maps[None] + change) - judge.fit(maps[None] - change)) / 2
    assert np.sum(judge.gradient(maps[None]) * change) == pytest.approx(slope, rel=1e-6)
