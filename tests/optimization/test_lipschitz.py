"""The bound on the largest eigenvalue: never below it, not far above."""

import numpy as np
import pytest

from sparseshare.optimization.lipschitz import largest_eigenvalue


def grams():
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((60, 20))
    twins = np.vstack([atoms, atoms])
    orthogonal = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    crowded = orthogonal * np.linspace(0.99, 1.0, 40)[:, None]  # eigenvalues too close for power iterations
    return {
        "wide": atoms @ atoms.T,
        "duplicates": twins @ twins.T,
        "crowded": crowded.T @ crowded,
        "orthonormal": np.eye(30),
        "one atom": np.array([[3.0]]),
        "padded": np.pad(atoms @ atoms.T, (0, 4)),
        "ones": np.ones((50, 50)),
    }


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("name", grams())
def test_it_bounds_the_eigenvalue_closely(name, scale, dtype):
    gram = (grams()[name] * scale).astype(dtype)
    exact = np.linalg.eigvalsh(gram.astype(float))[-1]
    bound = largest_eigenvalue(gram)
    assert isinstance(bound, float)
    assert exact <= bound <= 1.05 * exact


def test_no_atoms_no_slope():
    assert largest_eigenvalue(np.zeros((5, 5))) == 0.0


def test_last_bits_of_the_matrix_do_not_matter():
    gram = grams()["wide"]
    assert largest_eigenvalue(gram) == largest_eigenvalue(gram * (1 + 1e-15))
