"""scikit-learn's checks of estimators on those that choose a penalty."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks
from test_estimator_checks import LEFT_OUT, WIDTHS, name_of

from sparseshare.learning import MiniBatchDictionaryLearning
from sparseshare.model_selection import DictionaryLearningCV, SparseCoderCV

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),  # the data of the checks are tiny
    # Some checks fit with a DataFrame and transform an array on purpose.
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:X has feature names:UserWarning"),
]
LEARNER = DictionaryLearningCV(
    4, [1.0, 0.1], learner=MiniBatchDictionaryLearning(max_iter=3, batch_size=10), cv=2, random_state=0
)


def coder(width):
    dictionary = np.random.default_rng(0).standard_normal((5, width))
    return SparseCoderCV(dictionary, alphas=[1.0, 0.1], cv=2, random_state=0)


@parametrize_with_checks([LEARNER])
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", [check for _, check in estimator_checks_generator(coder(3))], ids=name_of)
def test_common_checks_with_a_given_dictionary(check):
    check(coder(WIDTHS.get(name_of(check), 3)))


@pytest.mark.parametrize("name", [name for name in LEFT_OUT if "partial_fit" not in name])
@pytest.mark.parametrize("kind", ["learner", "coder"])
def test_checks_that_the_suite_leaves_out(kind, name):
    estimator = clone(LEARNER) if kind == "learner" else coder(WIDTHS.get(name, 3))
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


@pytest.mark.parametrize("estimator", [LEARNER, coder(6)], ids=lambda estimator: type(estimator).__name__)
def test_parameters_survive_clone_and_fit(estimator, rng):
    parameters = estimator.get_params()
    copy = clone(estimator).fit(rng.standard_normal((30, 6)))
    assert copy.get_params().keys() == parameters.keys()
    for name, value in copy.get_params(deep=False).items():
        if name != "learner":
            np.testing.assert_array_equal(value, parameters[name])
    assert repr(copy) == repr(clone(estimator))
