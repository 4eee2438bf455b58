"""The compiled block of the atom sweep against the projections of `optimization`."""

import numpy as np
import pytest

from sparseshare.kernels.cpu import atoms
from sparseshare.optimization import AtomConstraint

CONSTRAINTS = [
    AtomConstraint(),
    AtomConstraint(nonnegative=True),
    AtomConstraint(zero_mean=True),
    AtomConstraint("sphere"),
    AtomConstraint("sphere", nonnegative=True),
    AtomConstraint("sphere", zero_mean=True),
    AtomConstraint(l1_budget=0.7),
    AtomConstraint(l1_budget=1.5),
    AtomConstraint(l1_budget=1.5, nonnegative=True),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_a_step_without_coupling_is_the_projection(constraint, rng, dtype):
    """With ratios of the identity, every atom simply becomes the projection of atom plus step."""
    dictionary = rng.standard_normal((40, 9)).astype(dtype) * rng.choice([0.1, 1, 30], size=(40, 1)).astype(dtype)
    dictionary[:3] = np.sign(dictionary[:3])
    dictionary[3] = -np.abs(dictionary[3])
    dictionary[4] = 0
    steps = np.zeros_like(dictionary)
    steps[5:] = rng.standard_normal((35, 9))
    expected = constraint.project(dictionary + steps)
    form = constraint.norm == "sphere", constraint.nonnegative, constraint.zero_mean, constraint.l1_budget or 0.0
    atoms.sweep_block(0, np.eye(40, dtype=dtype), steps, *form, dictionary)
    np.testing.assert_allclose(dictionary, expected, atol=2e-6 if dtype == np.float32 else 1e-12)


def test_rows_of_zeros_leave_atoms_alone(rng, dtype):
    dictionary = rng.standard_normal((6, 4)).astype(dtype)
    before = dictionary.copy()
    atoms.sweep_block(0, np.zeros((6, 6), dtype), np.ones((6, 4), dtype), False, False, False, 0.0, dictionary)
    np.testing.assert_array_equal(dictionary, before)


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_ratios_do_not_know_the_scale_of_the_data(scale, rng, dtype):
    codes = rng.standard_normal((20, 5))
    A, B = scale * codes.T @ codes, scale * rng.standard_normal((5, 3))
    A[2] = A[:, 2] = 0
    ratios, targets = np.empty((3, 5), dtype), np.empty((3, 3), dtype)
    atoms.normalise_rows(A, B, 1, 4, 1e-9 * A.max(), ratios, targets)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(A[1:4] / A.diagonal()[1:4, None]), np.nan_to_num(B[1:4] / A.diagonal()[1:4, None])
    expected[1][1] = 0
    np.testing.assert_allclose(ratios, expected[0], rtol=1e-6)
    np.testing.assert_allclose(targets, expected[1], rtol=1e-6)
