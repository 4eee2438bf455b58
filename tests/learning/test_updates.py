"""The blocked atom sweep against one atom at a time; MOD against least squares."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.learning.statistics import partial_statistics
from sparseshare.learning.updates import optimal_directions, sweep_atoms
from sparseshare.optimization import AtomConstraint

CONSTRAINTS = [
    AtomConstraint(),
    AtomConstraint("sphere"),
    AtomConstraint(nonnegative=True),
    AtomConstraint(zero_mean=True),
    AtomConstraint(l1_budget=1.5),
]


def problem(rng, n_components=150, n_features=20, n_samples=800):
    W = np.where(rng.random((n_samples, n_components)) < 0.05, rng.standard_normal((n_samples, n_components)), 0)
    W[:, 11] = 0
    X = rng.standard_normal((n_samples, n_features))
    dictionary = rng.standard_normal((n_components, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    return X, W, dictionary


def plain_sweep(dictionary, A, B, constraint):
    """Algorithm 2 of Mairal et al. 2010, as it is printed."""
    dictionary = dictionary.copy()
    for k in range(len(dictionary)):
        if A[k, k] > 0:
            target = dictionary[k] + (B[k] - A[k] @ dictionary) / A[k, k]
            dictionary[k] = constraint.project(target[None])[0]
    return dictionary


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_blocked_sweep_equals_plain_sweep(constraint, rng, dtype):
    X, W, dictionary = problem(rng)
    statistics = partial_statistics(X, csr_array(W))
    dictionary = constraint.project(dictionary)
    expected = plain_sweep(dictionary, statistics.A, statistics.B, constraint)
    result = dictionary.astype(dtype)
    assert sweep_atoms(result, statistics, constraint) is result
    np.testing.assert_allclose(result, expected, atol=1e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_array_equal(result[11], dictionary[11].astype(dtype))


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_a_sweep_never_increases_the_error(constraint, rng):
    X, W, dictionary = problem(rng)
    statistics = partial_statistics(X, csr_array(W))
    dictionary = constraint.project(dictionary)
    errors = [((X - W @ dictionary) ** 2).sum()]
    for _ in range(5):
        sweep_atoms(dictionary, statistics, constraint)
        errors.append(((X - W @ dictionary) ** 2).sum())
    assert (np.diff(errors) <= 1e-9 * errors[0]).all() and constraint.contains(dictionary)


@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_the_scale_of_the_data_does_not_matter(scale, rng, dtype):
    X, W, dictionary = problem(rng)
    plain, scaled = dictionary.astype(dtype), dictionary.astype(dtype)
    sweep_atoms(plain, partial_statistics(X, csr_array(W)))
    X, W = (scale * X).astype(dtype), csr_array((scale * W).astype(dtype))
    sweep_atoms(scaled, partial_statistics(X, W))
    np.testing.assert_allclose(plain, scaled, atol=1e-5)


def test_no_codes_change_nothing(rng):
    X, W, dictionary = problem(rng)
    before = dictionary.copy()
    statistics = partial_statistics(X, csr_array(0 * W))
    sweep_atoms(dictionary, statistics)
    np.testing.assert_array_equal(optimal_directions(dictionary, statistics), 1)
    np.testing.assert_array_equal(dictionary, before)


def test_mod_is_least_squares_and_keeps_the_reconstruction(rng):
    X, W, dictionary = problem(rng, n_components=30)
    statistics = partial_statistics(X, csr_array(W))
    before = dictionary.copy()
    norms = optimal_directions(dictionary, statistics)
    used = np.arange(30) != 11
    best, *_ = np.linalg.lstsq(W[:, used], X, rcond=None)
    np.testing.assert_allclose((W * norms)[:, used] @ dictionary[used], W[:, used] @ best, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1)
    np.testing.assert_array_equal(dictionary[11], before[11])
    expected = ((X - (W * norms) @ dictionary) ** 2).sum()
    np.testing.assert_allclose(statistics.squared_error(dictionary), expected)


def test_mod_with_dependent_codes(rng):
    X, W, dictionary = problem(rng, n_components=30)
    W[:, 5] = W[:, 6]
    statistics = partial_statistics(X, csr_array(W))
    optimal_directions(dictionary, statistics)
    assert np.isfinite(dictionary).all()


def test_mod_honours_zero_mean_and_refuses_what_it_cannot(rng):
    X, W, dictionary = problem(rng, n_components=30)
    zero_mean = AtomConstraint("sphere", zero_mean=True)
    dictionary = zero_mean.project(dictionary)
    optimal_directions(dictionary, partial_statistics(X, csr_array(W)), zero_mean)
    assert zero_mean.contains(dictionary)
    for constraint in (AtomConstraint(nonnegative=True), AtomConstraint(l1_budget=2.0)):
        with pytest.raises(ValueError, match="mod"):
            optimal_directions(dictionary, partial_statistics(X, csr_array(W)), constraint)
