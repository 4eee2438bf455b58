"""Proximal gradient on plain matrices, against the optimum and against the other methods."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from reference import lasso, lasso_objective
from sparseshare.optimization.penalties import RoughnessPenalty, SparsePenalty
from sparseshare.optimization.proximal import METHODS, LeastSquares, proximal_gradient

every_method = pytest.mark.parametrize("method", METHODS)


class Counted:
    """A linear operator that counts its uses."""

    def __init__(self, matrix):
        self.matrix, self.forwards, self.adjoints = matrix, 0, 0

    def forward(self, z):
        self.forwards += 1
        return z @ self.matrix

    def adjoint(self, r):
        self.adjoints += 1
        return r @ self.matrix.T

    def smooth(self, target, quadratic=None):
        lipschitz = np.linalg.norm(self.matrix, 2) ** 2 + (0 if quadratic is None else quadratic.lipschitz)
        return LeastSquares(self.forward, self.adjoint, target, lipschitz, quadratic)


@pytest.fixture
def atoms(rng, dtype):
    return rng.standard_normal((30, 15)).astype(dtype)


@every_method
@pytest.mark.parametrize("positive", [False, True])
def test_the_lasso(rng, atoms, dtype, method, positive):
    X = rng.standard_normal((4, 15)).astype(dtype)
    expected = sum(
        lasso_objective(x, atoms.astype(float), lasso(x, atoms.astype(float), 2.0, positive), 2.0)
        for x in X.astype(float)
    )
    penalty = SparsePenalty(2.0, positive=positive)
    tol = 1e-4 if dtype == np.float32 else 1e-10
    result = proximal_gradient(
        Counted(atoms).smooth(X), penalty, np.zeros((4, 30), dtype), gap=tol, max_iter=5000, method=method
    )
    assert result.converged and result.gap <= tol
    assert result.codes.dtype == dtype
    assert -1e-5 * (dtype == np.float32) - 1e-12 <= result.objective - expected <= tol * 1.1
    if dtype == np.float64:
        assert_allclose(
            result.objective, sum(lasso_objective(x, atoms, w, 2.0) for x, w in zip(X, result.codes, strict=True))
        )


@every_method
def test_an_iteration_takes_one_product_each_way(rng, atoms, method):
    operator = Counted(atoms)
    smooth, penalty = operator.smooth(rng.standard_normal((1, 15)).astype(atoms.dtype)), SparsePenalty(0.5)
    result = proximal_gradient(smooth, penalty, np.zeros((1, 30), atoms.dtype), gap=0, max_iter=60, method=method)
    assert result.n_iter == 60 and not result.converged
    spare = 60 * 0.25 + 3 if method == "backtracking" else 2  # steps that did not hold
    assert operator.forwards <= 60 + spare
    assert operator.adjoints <= 60 + spare


@every_method
def test_the_optimum_is_left_alone(rng, method):
    atoms, X = rng.standard_normal((30, 15)), rng.standard_normal((2, 15))
    smooth, penalty = Counted(atoms).smooth(X), SparsePenalty(1.0)
    codes = proximal_gradient(smooth, penalty, np.zeros((2, 30)), gap=1e-12, max_iter=20000, method=method).codes
    again = proximal_gradient(smooth, penalty, codes.copy(), gap=1.1e-12, method=method)
    assert again.converged and again.n_iter == 0
    assert_array_equal(again.codes, codes)


@every_method
def test_groups_and_roughness(rng, method):
    atoms, X = rng.standard_normal((8, 6)), rng.standard_normal((3, 2, 6))
    matrix = np.kron(np.eye(2), atoms)  # codes (3, 2, 8), images (3, 12)
    roughness = RoughnessPenalty(np.array([0.0, 0.7]), (8,), wraps=False)
    smooth = LeastSquares(
        lambda z: z.reshape(3, 16) @ matrix,
        lambda r: (r @ matrix.T).reshape(3, 2, 8),
        X.reshape(3, 12),
        np.linalg.norm(matrix, 2) ** 2 + roughness.lipschitz,
        roughness,
    )
    penalty = SparsePenalty(0.5, joint=0.5)
    result = proximal_gradient(smooth, penalty, np.zeros((3, 2, 8)), gap=1e-10, max_iter=20000, method=method)
    assert result.converged and result.codes.any()
    slope = smooth.gradient(result.codes, X.reshape(3, 12) - smooth.forward(result.codes))
    assert_allclose(penalty.prox(result.codes - slope), result.codes, atol=1e-4)


def test_momentum_and_backtracking_save_iterations(rng):
    atoms, X = rng.standard_normal((60, 40)), rng.standard_normal((1, 40))
    smooth, penalty = Counted(atoms).smooth(X), SparsePenalty(1.0)
    count = {
        method: proximal_gradient(smooth, penalty, np.zeros((1, 60)), gap=1e-8, max_iter=50_000, method=method).n_iter
        for method in METHODS
    }
    assert count["backtracking"] < count["fista"] < count["ista"]


@every_method
def test_nothing_to_explain(method):
    atoms = np.ones((3, 2))
    result = proximal_gradient(
        Counted(atoms).smooth(np.zeros((1, 2))), SparsePenalty(1.0), np.zeros((1, 3)), method=method
    )
    assert result.converged and result.n_iter == 0 and result.objective == 0


@every_method
def test_atoms_of_zeros(method):
    smooth = Counted(np.zeros((3, 2))).smooth(np.ones((1, 2)))
    result = proximal_gradient(smooth, SparsePenalty(1.0), np.ones((1, 3)), gap=1e-12, method=method)
    assert result.converged and not result.codes.any()
