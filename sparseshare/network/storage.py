"""Estimators in a file without pickle: arrays in an .npz, all else in a JSON header that builds known classes only."""

import json
from pathlib import Path

import numpy as np

from sparseshare.atomic import replaced_file
from sparseshare.devices import moved
from sparseshare.version import __version__

from . import attention, convolutional, layers, multilayer_layer, recurrent, sharing
from .estimators import DeepSparseClassifier, DeepSparseRegressor
from .layers import Layer
from .patterns import PATTERNS, Pattern
from .sharing import SharingRule
from .unrolled import LearnedSparseCoder

_FORMAT = 1
_ESTIMATORS = {cls.__name__: cls for cls in (DeepSparseClassifier, DeepSparseRegressor, LearnedSparseCoder)}
_PARTS = {
    name: thing
    for module in (attention, convolutional, layers, multilayer_layer, recurrent, sharing)
    for name, thing in vars(module).items()
    if isinstance(thing, type) and issubclass(thing, Layer | SharingRule) and thing not in (Layer, SharingRule)
}
# Fitted attributes beside the network: what there is of them.
_FITTED = (
    "classes_", "densities_", "loss_curve_", "validation_scores_", "n_iter_", "converged_", "n_features_in_",
    "feature_names_in_", "_class_weights", "_flat_targets", "_n_targets", "components_",
)  # fmt: skip


def save(estimator, path):
    """Write a fitted estimator to a file.

    Stored are constructor parameters, fitted attributes, and of the network values and patterns; what an optimizer
    remembers is not.

    Parameters
    ----------
    estimator : DeepSparseClassifier, DeepSparseRegressor or LearnedSparseCoder
        Fitted.
    path : str or path
        Usually ending with .npz.

    Raises
    ------
    ValueError
        For other estimators, and for parameters that no JSON can hold, such as a `RandomState` or a callable schedule.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sparseshare.network import DeepSparseClassifier, load, save
    >>> X, y = load_digits(return_X_y=True)
    >>> network = DeepSparseClassifier(max_iter=3, n_iter_no_change=None, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(network, f"{folder}/digits.npz")
    ...     same = load(f"{folder}/digits.npz")
    >>> bool((same.predict(X) == network.predict(X)).all())
    True
    """
    name = type(estimator).__name__
    if _ESTIMATORS.get(name) is not type(estimator) or not hasattr(estimator, "network_"):
        raise ValueError(f"save is for a fitted {' or '.join(_ESTIMATORS)}, got {estimator!r}")
    estimator = moved(estimator, "cpu")
    parameters = estimator.get_params(deep=False) | {"checkpoint": None}  # the file of a fit, not of what it has made
    arrays, network = {}, estimator.network_
    header = {
        "format": _FORMAT,
        "version": __version__,
        "estimator": name,
        "parameters": {key: _written(value, arrays, key) for key, value in parameters.items()},
        "fitted": {key: _written(getattr(estimator, key), arrays, key) for key in _FITTED if hasattr(estimator, key)},
        "dtype": network.dtype.name,
        "input_shape": list(estimator.input_shape_),
        "network": _written([network.densities, network.input_densities], arrays, "densities"),
        "weights": [
            _written([p.values, p.pattern, float(p.step), p.pending], arrays, "weights") for p in network.parameters
        ],
    }  # fmt: skip
    with replaced_file(path) as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def load(path):
    """Read an estimator that `save` has written. No code in the file is run.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    DeepSparseClassifier, DeepSparseRegressor or LearnedSparseCoder
        Fitted; it predicts what the one that was saved did.

    Raises
    ------
    ValueError
        If the file is none of these, or of a later format.

    Examples
    --------
    >>> import tempfile
    >>> from sparseshare.network import DeepSparseRegressor, load, save
    >>> network = DeepSparseRegressor(max_iter=1, n_iter_no_change=None).fit([[0.0], [1.0]], [0.0, 1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(network, f"{folder}/line.npz")
    ...     load(f"{folder}/line.npz").input_shape_
    (1,)
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        known = header["format"]
    except (OSError, ValueError, KeyError, TypeError) as reason:
        if not Path(path).exists():
            raise
        raise ValueError(f"{path} is no file that sparseshare.network.save has written: {reason}") from reason
    if known != _FORMAT:
        raise ValueError(
            f"{path} has format {known}, written by sparseshare {header.get('version')}; this version reads {_FORMAT}"
        )
    parameters = {key: _read(value, arrays) for key, value in header["parameters"].items()}
    estimator = _known(_ESTIMATORS, header["estimator"])(**parameters)
    for key, value in header["fitted"].items():
        if key not in _FITTED:
            raise ValueError(f"{path} holds the unknown attribute {key!r}")
        setattr(estimator, key, _read(value, arrays))
    network = estimator._new_network(tuple(header["input_shape"]), header["dtype"], np.random.RandomState(0))
    stored = [_read(entry, arrays) for entry in header["weights"]]
    if len(stored) != len(network.parameters):
        raise ValueError(f"{path} holds {len(stored)} parameters, its layers have {len(network.parameters)}")
    for parameter, (values, pattern, step, pending) in zip(network.parameters, stored, strict=True):
        shape = values.shape if pattern is None else pattern.shape
        if shape != parameter.shape or (pattern is not None and values.shape != (pattern.n_values,)):
            raise ValueError(f"{path} holds weights of shape {shape}, its layers have {parameter.shape}")
        parameter.set(values.astype(network.dtype, copy=False), pattern)
        parameter.step, parameter.pending = step, pending
    network.densities, network.input_densities = _read(header["network"], arrays)
    estimator.network_, estimator.input_shape_ = network, tuple(header["input_shape"])
    return estimator


def _written(value, arrays, name):
    """What JSON can hold, arrays laid aside."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float):
        return value
    if isinstance(value, np.ndarray):
        key = f"array{len(arrays)}"
        if value.dtype == object:
            if not all(isinstance(entry, str) for entry in value.flat):
                raise ValueError(f"{name} cannot be stored: an array of objects that are not strings")
            arrays[key] = value.astype(str)
            return {"array": key, "dtype": "object"}
        arrays[key] = value
        return {"array": key}
    if isinstance(value, list | tuple):
        entries = [_written(entry, arrays, name) for entry in value]
        return entries if isinstance(value, list) else {"tuple": entries}
    if isinstance(value, dict):
        pairs = [[_written(key, arrays, name), _written(entry, arrays, name)] for key, entry in value.items()]
        return {"dict": pairs}
    if isinstance(value, Pattern):
        state = {key: _written(entry, arrays, name) for key, entry in value.state().items()}
        return {"pattern": type(value).__name__, "state": state}
    if _PARTS.get(type(value).__name__) is type(value):
        state = value.get_params(deep=False).items()
        return {
            "part": type(value).__name__,
            "parameters": {key: _written(entry, arrays, key) for key, entry in state},
        }
    raise ValueError(f"The parameter {name!r} cannot be stored, for it holds {value!r}")


def _read(value, arrays):
    if isinstance(value, list):
        return [_read(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = arrays[value["array"]]
        return array.astype(object) if value.get("dtype") == "object" else array
    if "tuple" in value:
        return tuple(_read(entry, arrays) for entry in value["tuple"])
    if "dict" in value:
        return {_read(key, arrays): _read(entry, arrays) for key, entry in value["dict"]}
    if "pattern" in value:
        state = {key: _read(entry, arrays) for key, entry in value["state"].items()}
        return _known(PATTERNS, value["pattern"])(**state)
    parameters = {key: _read(entry, arrays) for key, entry in value["parameters"].items()}
    return _known(_PARTS, value["part"])(**parameters)


def _known(classes, name):
    if name not in classes:
        raise ValueError(f"The file asks for {name!r}, which is not one of {', '.join(sorted(classes))}")
    return classes[name]
