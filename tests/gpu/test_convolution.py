"""Convolution, its adjoint and codes of problems on a GPU, against those of the CPU."""

import itertools

import numpy as np
import pytest
from convolution.problems import BOUNDARIES, OPTIONS, form
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.convolution import fista
from sparseshare.convolution.device_operator import DeviceConvolution
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.convolution.rounds import solve_many

ORDERS = ("forward", "reverse", "random")
# Odd sizes, axes shorter and longer than a tile of the kernels, single rows.
SHAPES = [((1,), (1,)), ((257,), (33,)), ((33, 37), (3, 5)), ((1, 40), (1, 3)), ((5, 4, 6), (2, 2, 3))]


def operators(gpu, shape, support, boundary, n_channels, dtype, n_components=5):
    """An operator of the CPU and its twins by transforms and direct, maps and a signal."""
    rng = np.random.default_rng(0)
    geometry = Geometry(shape, support, boundary)
    atoms = rng.standard_normal((n_components, n_channels, *support)).astype(dtype)
    maps = rng.standard_normal((2, n_components, *geometry.positions)).astype(dtype)
    signal = rng.standard_normal((2, n_channels, *shape)).astype(dtype)
    twins = [DeviceConvolution(gpu.asarray(atoms), geometry, direct) for direct in (False, True)]
    return Convolution(atoms, geometry), twins, maps, signal


def on_device(gpu, problem, direct=False):
    """The same problem with its arrays on the device."""
    arrays = {
        name: None if getattr(problem, name) is None else gpu.asarray(getattr(problem, name))
        for name in ("weights", "mask")
    }
    operator = DeviceConvolution(gpu.asarray(problem.atoms), problem.geometry, direct)
    return ConvProblem(
        gpu.asarray(problem.signal), operator, problem.alpha, positive=problem.positive, joint=problem.joint,
        smoothness=problem.smoothness, **arrays,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "support"), SHAPES)
def test_operators_agree(gpu, shape, support, boundary, n_channels, dtype):
    twin, devices, maps, signal = operators(gpu, shape, support, boundary, n_channels, dtype)
    image, slope = twin.synthesize(maps), twin.correlate(signal)
    atol = 2e-5 if dtype == np.float32 else 1e-12
    for operator in devices:
        made, found = operator.synthesize(gpu.asarray(maps)), operator.correlate(gpu.asarray(signal))
        assert made.dtype == found.dtype == dtype and made.shape == signal.shape and found.shape == maps.shape
        assert_allclose(gpu.get(made), image, atol=atol)
        assert_allclose(gpu.get(found), slope, atol=atol)
        left, right = np.vdot(gpu.get(made), signal), np.vdot(maps, gpu.get(found))
        assert_allclose(left, right, atol=100 * atol)
        assert twin.lipschitz * (1 - 1e-5) <= operator.lipschitz <= n_channels * twin.lipschitz * (1 + 1e-5)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("direct", [False, True])
def test_order_of_threads_does_not_show(gpu, boundary, direct):
    _, devices, maps, signal = operators(gpu, (33, 37), (5, 4), boundary, 3, np.float32)
    found = []
    for order in ORDERS:
        with gpu.order(order):
            operator = devices[direct]
            made = operator.synthesize(gpu.asarray(maps)), operator.correlate(gpu.asarray(signal))
            found.append([gpu.get(array) for array in made])
    for other in found[1:]:
        assert_array_equal(found[0][0], other[0])
        assert_array_equal(found[0][1], other[1])


def solve_on(gpu, problem, direct=False, **options):
    (solution,) = [one for _, one in solve_many(lambda _: on_device(gpu, problem, direct), 1, **options)]
    return solution


SMOOTH = ("smooth", "free smooth atom", "colour atoms, many at once", "many at once")
PLAIN = [name for name in OPTIONS if name not in SMOOTH]


@pytest.mark.parametrize(("name", "boundary"), [*zip(PLAIN, itertools.cycle(BOUNDARIES), strict=False)])
def test_rounds_reach_the_optimum(gpu, name, boundary):
    problem = form(name, boundary, share=0.5)
    twin = fista.solve(problem, tol=1e-6)
    solution = solve_on(gpu, problem, direct=boundary != "full", tol=1e-6)
    assert solution.converged and 0 <= solution.gap <= 1e-6
    maps = gpu.get(solution.maps)
    assert_allclose(problem.objective(maps), solution.objective, rtol=1e-12)
    assert_allclose(solution.objective, twin.objective, rtol=1e-10)
    assert solution.n_iter == pytest.approx(twin.n_iter, abs=1)
