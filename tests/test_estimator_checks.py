"""Every estimator passes scikit-learn's checks, the ones its suite leaves out, and refuses wrong parameters by name."""

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from sparseshare import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder
from sparseshare.convolution import ConvDictionaryLearning, ConvSparseCoder
from sparseshare.network import DeepSparseClassifier, DeepSparseEncoder, DeepSparseRegressor, Dense
from sparseshare.network.unrolled import LearnedSparseCoder

LEARNERS = [
    SparseCoder(n_components=4, max_iter=20, random_state=0),
    DictionaryLearning(n_components=4, max_iter=20, random_state=0),
    MiniBatchDictionaryLearning(n_components=4, max_iter=5, batch_size=10, random_state=0),
    KSVD(n_components=4, max_iter=5, random_state=0),
]
# Atoms shared over positions suit rows of any length that holds them. What is checked does not ask for exact codes.
SHARED = [
    ConvSparseCoder(np.random.default_rng(0).standard_normal((3, 2)), alpha=1e-3, tol=1e-2),
    ConvDictionaryLearning(3, 2, alpha=0.5, max_iter=2, transform_tol=1e-2, random_state=0),
]
NETWORKS = [  # too small for threads
    DeepSparseClassifier([Dense(32)], learning_rate=0.01, max_iter=50, random_state=0, n_jobs=1),
    DeepSparseRegressor([Dense(32)], learning_rate=0.01, max_iter=50, random_state=0, n_jobs=1),
    DeepSparseEncoder([8, 4], n_iter=5, max_iter=3, random_state=0),
]
# The checks that the suite does not run on transformers of other packages.
LEFT_OUT = [
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_dataframe_column_names_consistency",
    "check_inplace_ensure_writeable",
    "check_estimators_partial_fit_n_features",
]
# A dictionary fixes the number of features, and every check brings data of its own: 3 columns if not listed here.
WIDTHS = {
    "check_fit2d_1feature": 1,
    "check_estimators_fit_returns_self": 2,
    "check_estimators_overwrite_params": 2,
    "check_fit_check_is_fitted": 2,
    "check_fit_idempotent": 2,
    "check_n_features_in": 2,
    "check_readonly_memmap_input": 2,
    "check_n_features_in_after_fitting": 4,
    "check_positive_only_tag_during_fit": 4,
    "check_estimators_dtypes": 5,
    "check_global_output_transform_pandas": 5,
    "check_global_set_output_transform_polars": 5,
    "check_set_output_transform": 5,
    "check_set_output_transform_pandas": 5,
    "check_set_output_transform_polars": 5,
    "check_transformers_unfitted_stateless": 5,
    "check_dataframe_column_names_consistency": 8,
    "check_dtype_object": 10,
    "check_fit2d_1sample": 10,
}
# Wrong values; a parameter that is not here gets an object that nothing can be made of.
WRONG = {
    "algorithm": ["ista"],
    "alpha": [-1, np.nan, "a"],
    "atoms_alpha": [-1, np.nan],
    "batch_size": [0, 1.5],
    "density": [0, 1.5],
    "device": ["gpu"],
    "l1": [-1, np.nan],
    "l1_ratio": [-0.1, 1.1],
    "learning_rate": [0, -1, np.inf],
    "max_iter": [-1, 2.5, "many"],
    "max_no_improvement": [-1, 0.5],
    "momentum": [-1, 1],
    "n_components": [0, -1, 2.5],
    "n_iter": [0, 1.5],
    "n_iter_no_change": [0, 1.5],
    "n_jobs": [1.5, "all"],
    "n_nonzero_coefs": [0, 1.5],
    "step": [0, 1.5],
    "threshold": [-1, "some"],
    "tol": [-1, np.nan],
    "transform_alpha": [-1, np.nan],
    "transform_max_iter": [0, 2.5],
    "transform_n_nonzero_coefs": [0, 1.5],
    "validation_fraction": [0, 1, -0.5],
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),  # the data of the checks are tiny
    # Some checks fit with a DataFrame and transform an array on purpose.
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:X has feature names:UserWarning"),
]


def name_of(check):
    return getattr(check, "func", check).__name__


def with_dictionary(width, learned=False):
    dictionary = np.random.default_rng(0).standard_normal((5, width))
    if learned:
        return LearnedSparseCoder(dictionary, alpha=0.1, n_steps=2, max_iter=2, random_state=0)
    return SparseCoder(dictionary=dictionary, transform_algorithm="lasso_lars", transform_alpha=0.1)


@pytest.fixture
def signals(rng):
    return rng.standard_normal((30, 6))


@parametrize_with_checks([*LEARNERS, *SHARED, *NETWORKS])
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("learned", "check"),
    [
        (learned, check)
        for learned in (False, True)
        for _, check in estimator_checks_generator(with_dictionary(3, learned))
    ],
    ids=lambda value: ("given", "learned")[value] if isinstance(value, bool) else name_of(value),
)
def test_common_checks_with_a_given_dictionary(learned, check):
    check(with_dictionary(WIDTHS.get(name_of(check), 3), learned))


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize(
    "estimator",
    [*LEARNERS, *SHARED, *NETWORKS, "with_dictionary", "learned"],
    ids=lambda e: e if isinstance(e, str) else type(e).__name__,
)
def test_checks_that_the_suite_leaves_out(estimator, name):
    if isinstance(estimator, str):
        estimator = with_dictionary(WIDTHS.get(name, 3), estimator == "learned")
    if "partial_fit" in name and not hasattr(estimator, "partial_fit"):
        pytest.skip("has no partial_fit")
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (estimator, name)
        for estimator in [*LEARNERS, *NETWORKS]
        for name in estimator.get_params(deep=False)
        if name != "random_state"
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_parameters_are_named_in_fit(estimator, name, signals):
    for wrong in [*WRONG.get(name, []), object()]:
        estimator = clone(estimator).set_params(**{name: wrong})  # neither __init__ nor set_params complains
        with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b") as caught:
            estimator.fit(signals, np.arange(len(signals)) % 3)
        if name in WRONG and not isinstance(wrong, str):
            assert re.search(re.escape(repr(wrong)[:20]), str(caught.value)), (
                f"what was given is not told: {caught.value}"
            )


@pytest.mark.parametrize("estimator", [*LEARNERS, *NETWORKS], ids=lambda estimator: type(estimator).__name__)
def test_random_state_is_checked_by_scikit_learn(estimator, signals):
    with pytest.raises(ValueError, match="cannot be used to seed"):
        clone(estimator).set_params(random_state="a").fit(signals, np.arange(len(signals)) % 3)


@pytest.mark.parametrize("estimator", LEARNERS, ids=lambda estimator: type(estimator).__name__)
def test_parameters_survive_clone_and_fit(estimator, signals):
    parameters = estimator.get_params()
    copy = clone(estimator)
    assert copy.get_params() == type(estimator)(**parameters).get_params() == parameters
    assert copy.set_params(**parameters).fit(signals).get_params() == parameters
