"""What the estimators that train have in common: parameters of training, checked and made a plan."""

import warnings
from dataclasses import fields
from numbers import Integral

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sparseshare.checkpoints import check_checkpoint
from sparseshare.devices import resolve_device
from sparseshare.threads import thread_count
from sparseshare.validation import check_bool, check_choice, check_number

from .optimizers import OPTIMIZERS, SCHEDULES
from .training import Plan

_NUMBERS = {
    "learning_rate": {"low": 0, "open_low": True},
    "batch_size": {"low": 1, "integer": True},
    "n_iter_no_change": {"low": 1, "integer": True, "allow_none": True},
    "tol": {"low": 0},
    "momentum": {"low": 0, "high": 1},
    "validation_fraction": {"low": 0, "high": 1, "open_low": True},
}
_BELOW_1 = ("momentum", "validation_fraction")


def check_training(estimator, *, min_iter=1):
    """Check those parameters of training, threads and device that an estimator has.

    Parameters
    ----------
    estimator : estimator
    min_iter : int, default=1
        Least `max_iter`.

    Raises
    ------
    ValueError
        For the first that is out of range.
    """
    of, given = type(estimator).__name__, estimator.get_params(deep=False)
    if "optimizer" in given:
        check_choice("optimizer", given["optimizer"], tuple(OPTIMIZERS), of=of)
    for name, allowed in (_NUMBERS | {"max_iter": {"low": min_iter, "integer": True}}).items():
        if name in given:
            number = check_number(name, given[name], of=of, **allowed)
            if name in _BELOW_1 and number == 1:
                raise ValueError(f"The {name!r} parameter of {of} must be below 1, got 1.0")
    if "schedule" in given and not callable(given["schedule"]):
        check_choice("schedule", given["schedule"], SCHEDULES, of=of)
    for name in ("shuffle", "early_stopping", "warm_start"):
        if name in given:
            check_bool(name, given[name], of=of)
    if not isinstance(given["verbose"], bool | np.bool_ | Integral):
        raise ValueError(f"The 'verbose' parameter of {of} must be True, False or an integer, got {given['verbose']!r}")
    check_checkpoint(given.get("checkpoint"), of=of)
    thread_count(given["n_jobs"])
    resolve_device(given["device"])


def plan_of(estimator, loss, *, adam=None, **others):
    """Plan of training by the parameters of an estimator.

    Parameters
    ----------
    estimator : estimator
        Its parameters have been checked.
    loss : callable
        See `Plan`.
    adam : dict or None, default=None
        Options of the optimizer "adam".
    **others
        Fields of `Plan` that are no parameters of the estimator.

    Returns
    -------
    Plan
    """
    given = estimator.get_params(deep=False)
    options = {"momentum": {name: given[name] for name in ("momentum",) if name in given}, "adam": adam or {}}
    optimizer = OPTIMIZERS[given["optimizer"]](**options.get(given["optimizer"], {}))
    own = {field.name: given[field.name] for field in fields(Plan) if field.name in given}
    return Plan(**own | {"loss": loss, "optimizer": optimizer} | others)


def warn_unfinished(estimator, history, stacklevel):
    """Warn that training ended at `max_iter` unless so many epochs were meant.

    Parameters
    ----------
    estimator : estimator
    history : History
    stacklevel : int
        As of `warnings.warn`, from the caller.
    """
    planned = estimator.n_iter_no_change is None or estimator.schedule == "cosine"
    if history.stopped == "max_iter" and not planned:
        warnings.warn(
            f"The loss was still getting better after max_iter={estimator.max_iter} epochs: raise max_iter or "
            "learning_rate, or say with n_iter_no_change=None that so many epochs are meant",
            ConvergenceWarning,
            stacklevel=stacklevel + 1,
        )
