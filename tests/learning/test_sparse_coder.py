"""SparseCoder with a dictionary is scikit-learn's; without one it learns."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.decomposition import SparseCoder as Theirs

from sparseshare.coding.encode import sparse_encode
from sparseshare.learning import SparseCoder


@pytest.fixture
def X(rng):
    return rng.standard_normal((30, 8))


@pytest.fixture
def dictionary(rng):
    atoms = rng.standard_normal((12, 8))
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "parameters",
    [
        dict(),
        dict(transform_n_nonzero_coefs=3),
        dict(transform_algorithm="lasso_lars"),
        dict(transform_algorithm="lasso_cd", transform_alpha=0.2, positive_code=True),
        dict(transform_algorithm="lars", transform_n_nonzero_coefs=4),
        dict(transform_algorithm="threshold", transform_alpha=0.3, split_sign=True),
    ],
    ids=str,
)
def test_with_a_dictionary_it_is_scikit_learns(parameters, X, dictionary):
    ours, theirs = SparseCoder(dictionary, **parameters), Theirs(dictionary, **parameters)
    codes = ours.transform(X)  # no fit needed
    np.testing.assert_allclose(codes, theirs.transform(X), atol=1e-4)
    np.testing.assert_allclose(ours.inverse_transform(codes), codes[:, :12] @ dictionary - codes[:, 12:24] @ dictionary
                               if parameters.get("split_sign") else codes @ dictionary)  # fmt: skip
    ours = SparseCoder(dictionary, n_components=3, **parameters).fit(X)  # n_components is for learning
    assert ours.n_features_in_ == 8 and ours.n_components_ == 12
    np.testing.assert_array_equal(ours.components_, dictionary)


def test_a_penalty_asks_for_the_lasso(X, dictionary):
    codes = SparseCoder(dictionary, alpha=0.3).transform(X)
    np.testing.assert_array_equal(codes, sparse_encode(X, dictionary, alpha=0.3))
    codes = SparseCoder(dictionary, alpha=0.3, transform_alpha=0.5).transform(X)
    np.testing.assert_array_equal(codes, sparse_encode(X, dictionary, alpha=0.5))


def test_dictionaries_of_any_kind(X, dictionary):
    expected = SparseCoder(dictionary).transform(X)
    np.testing.assert_array_equal(SparseCoder(dictionary.tolist()).transform(X), expected)
    np.testing.assert_array_equal(SparseCoder(np.asfortranarray(dictionary)).transform(X), expected)
    assert SparseCoder(dictionary).transform(X.astype(np.float32)).dtype == np.float32
    assert SparseCoder(dictionary.astype(np.float32)).transform(X).dtype == np.float64


def test_only_a_coder_without_dictionary_must_be_fitted(dictionary):
    assert not SparseCoder(dictionary).__sklearn_tags__().requires_fit
    assert SparseCoder().__sklearn_tags__().requires_fit
    assert not hasattr(SparseCoder(dictionary), "partial_fit")


def test_learns_by_fit_and_by_batches(X, rng):
    coder = SparseCoder(n_components=6, alpha=0.3, max_iter=3, random_state=0).fit(X)
    assert coder.components_.shape == (6, 8) and coder.n_components_ == 6
    assert coder.transform(csr_array(X)).shape == (30, 6)
    batches = SparseCoder(n_components=6, alpha=0.3, random_state=0)
    for _ in range(3):
        batches.partial_fit(X)
    assert batches.n_steps_ == 3 and batches.n_components_ == 6


def test_bad_input_is_refused(X, dictionary):
    for method in ("fit", "transform", "score"):
        with pytest.raises(ValueError, match="Dictionary and X have different numbers of features"):
            getattr(SparseCoder(dictionary), method)(X[:, :5])
    with pytest.raises(ValueError, match="dictionary contains NaN"):
        SparseCoder(np.full((2, 8), np.nan)).fit(X)
    with pytest.raises(ValueError, match="Positive constraint not supported for 'lars'"):
        SparseCoder(dictionary, transform_algorithm="lars", positive_code=True).transform(X)
