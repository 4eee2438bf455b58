"""Projections are feasible, idempotent and nearest; combinations without a closed form are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from sparseshare.optimization import AtomConstraint, project_on_unit_ball, row_norms

CONVEX = [
    AtomConstraint(),
    AtomConstraint(nonnegative=True),
    AtomConstraint(zero_mean=True),
    AtomConstraint(l1_budget=0.5),
    AtomConstraint(l1_budget=1.0),
    AtomConstraint(l1_budget=1.7),
    AtomConstraint(l1_budget=1.7, nonnegative=True),
]
SPHERES = [
    AtomConstraint("sphere"),
    AtomConstraint("sphere", nonnegative=True),
    AtomConstraint("sphere", zero_mean=True),
]


def atoms_of_many_kinds(rng, n_features):
    rows = rng.standard_normal((60, n_features)) * rng.choice([1e-3, 0.3, 3, 1e4], size=(60, 1))
    rows[:8] = np.sign(rows[:8])  # magnitudes all alike
    rows[8] = 0
    rows[9] = -np.abs(rows[9])
    return rows


@pytest.mark.parametrize("constraint", CONVEX + SPHERES, ids=repr)
@pytest.mark.parametrize("n_features", [2, 3, 20])
def test_projections_are_feasible_and_idempotent(constraint, n_features, rng, dtype):
    rows = atoms_of_many_kinds(rng, n_features).astype(dtype)
    given_rows = rows.copy()
    projected = constraint.project(rows)
    tol = 1e-5 if dtype == np.float32 else 1e-12
    assert projected.dtype == dtype and constraint.contains(projected, tol)
    np.testing.assert_array_equal(rows, given_rows)
    np.testing.assert_allclose(constraint.project(projected), projected, atol=tol)


@pytest.mark.parametrize("constraint", CONVEX, ids=repr)
@pytest.mark.parametrize("n_features", [2, 3, 20])
def test_convex_projections_fulfil_the_variational_inequality(constraint, n_features, rng):
    """p is the nearest point of a convex set to v exactly if (v - p).(f - p) <= 0 for every f of the set."""
    rows = atoms_of_many_kinds(rng, n_features)
    projected = constraint.project(rows)
    others = constraint.project(3 * rng.standard_normal((300, n_features)))
    angles = np.einsum("ij,ikj->ik", rows - projected, others[None] - projected[:, None])
    assert (angles.max(axis=1) <= 1e-9 * np.maximum(np.abs(rows).max(axis=1), 1)).all()


@pytest.mark.parametrize("constraint", SPHERES, ids=repr)
def test_no_point_of_the_sphere_is_nearer(constraint, rng):
    rows = atoms_of_many_kinds(rng, 3)
    distances = row_norms(rows - constraint.project(rows))
    others = constraint.project(rng.standard_normal((20_000, 3)))
    nearest = np.sqrt(((rows[:, None] - others[None]) ** 2).sum(axis=2)).min(axis=1)
    assert (distances <= nearest + 1e-9 * np.maximum(row_norms(rows), 1)).all()


@pytest.mark.parametrize("budget", [1.2, 1.6, 2.0])
def test_l1_budget_agrees_with_a_general_solver(budget, rng):
    constraint = AtomConstraint(l1_budget=budget)
    for row in rng.standard_normal((5, 6)) * 2:
        # Positive and negative parts make the budget a smooth constraint.
        result = minimize(
            lambda z, row=row: 0.5 * ((z[:6] - z[6:] - row) ** 2).sum(),
            np.full(12, 0.05),
            jac=lambda z, row=row: np.concatenate([z[:6] - z[6:] - row, row - z[:6] + z[6:]]),
            bounds=[(0, None)] * 12,
            constraints=[
                {"type": "ineq", "fun": lambda z: budget - z.sum()},
                {"type": "ineq", "fun": lambda z: 1 - ((z[:6] - z[6:]) ** 2).sum()},
            ],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        found, theirs = constraint.project(row[None])[0], result.x[:6] - result.x[6:]
        theirs /= max(1, np.linalg.norm(theirs), np.abs(theirs).sum() / budget)  # it ends slightly outside
        assert ((found - row) ** 2).sum() <= ((theirs - row) ** 2).sum() + 1e-12
        np.testing.assert_allclose(found, theirs, atol=1e-3)


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=8), st.sampled_from(CONVEX + SPHERES))
def test_every_finite_row_has_a_projection(row, constraint):
    projected = constraint.project(np.array([row]))
    assert constraint.contains(projected, 1e-6)


def test_unit_ball_keeps_short_rows_as_they_are(rng):
    rows = 0.1 * rng.standard_normal((4, 5))
    np.testing.assert_array_equal(project_on_unit_ball(rows), rows)


def test_norms_at_the_ends_of_the_range():
    np.testing.assert_allclose(row_norms([[3e-200, 4e-200], [3e200, 4e200], [0, 0]]), [5e-200, 5e200, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(norm="cube"), "atom_norm"),
        (dict(nonnegative=1), "positive_dict"),
        (dict(zero_mean="yes"), "zero_mean_dict"),
        (dict(l1_budget=0), "atom_l1_budget"),
        (dict(l1_budget=-1.0), "atom_l1_budget"),
        (dict(zero_mean=True, nonnegative=True), "exclude each other"),
        (dict(l1_budget=2.0, zero_mean=True), "zero_mean_dict"),
        (dict(l1_budget=2.0, norm="sphere"), "sphere"),
    ],
)
def test_impossible_sets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AtomConstraint(**arguments)


def test_one_feature_has_no_unit_atom_of_zero_mean():
    with pytest.raises(ValueError, match="at least 2 features"):
        AtomConstraint("sphere", zero_mean=True).project(np.ones((1, 1)))


def test_contains_sees_every_violation():
    assert not AtomConstraint().contains([[1.1, 0]])
    assert not AtomConstraint("sphere").contains([[0.9, 0]])
    assert not AtomConstraint(nonnegative=True).contains([[-0.1, 0.5]])
    assert not AtomConstraint(zero_mean=True).contains([[0.1, 0.5]])
    assert not AtomConstraint(l1_budget=0.5).contains([[0.4, 0.4]])
