"""The one place where the version stands, and pickles that carry it."""

import warnings

from sklearn.exceptions import InconsistentVersionWarning

__version__ = "0.1.0"


class VersionedPickle:
    """Makes an estimator's pickles say which version of sparseshare wrote them; goes before `BaseEstimator`.

    Warns
    -----
    InconsistentVersionWarning
        When a pickle of another version is read.
    """

    def __getstate__(self):
        return {**super().__getstate__(), "_sparseshare_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        stored, current = state.pop("_sparseshare_version", "unknown"), __version__
        if stored != current:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__, current_sklearn_version=current, original_sklearn_version=stored
                ),
                stacklevel=2,
            )
        super().__setstate__(state)
