"""Chains of dictionaries: arrays or layers of a network, checked to fit one another."""

import numpy as np

from sparseshare.devices import on_gpu, to_device, to_host
from sparseshare.validation import check_kind, check_number, check_resident, compute_dtype

from .convolutional import Conv
from .layers import Builder, Dense, check_layer
from .operators import Chain, ConvOperator, DenseOperator


def check_each(name, value, n_layers, low, high=None, *, of=None, **options):
    """A number for every layer: one for all of them, or a sequence of as many.

    Parameters
    ----------
    name : str
    value : float or sequence of float
    n_layers : int
    low, high, of, **options : as in `check_number`

    Returns
    -------
    list of float
    """
    if np.ndim(value) == 0:
        return [check_number(name, value, low, high, of=of, **options)] * n_layers
    values = list(value)
    if len(values) != n_layers:
        owner = f" of {of}" if of else ""
        raise ValueError(
            f"The '{name}' parameter{owner} must be one number or {n_layers}, one a layer, got {len(values)}: {value!r}"
        )
    return [check_number(f"{name}[{i}]", entry, low, high, of=of, **options) for i, entry in enumerate(values)]


def chain_of(X, dictionaries, stride, padding, device="cpu"):
    """Dictionaries as a chain of operators for signals.

    Parameters
    ----------
    X, dictionaries, stride, padding : as in `ml_ista`
    device : str, default="cpu"
        Where the weights are to be.

    Returns
    -------
    X : array of shape (n, *input_shape)
        As the first operator takes it, in the precision of the computation, where it was given.
    chain : Chain

    Raises
    ------
    ValueError
        For dictionaries that do not fit together; the message names both and their shapes.
    """
    if not isinstance(dictionaries, list | tuple) or not len(dictionaries):
        raise ValueError(
            "The 'dictionaries' parameter must be a list of one dictionary a layer, at least one, got "
            f"{type(dictionaries).__name__}"
        )
    X = X if on_gpu(X) else np.asarray(X)
    check_kind(X, "X")
    if X.ndim < 2 or not X.size:
        raise ValueError(f"X must have samples along its first axis and their entries along others, got {X.shape}")
    dtype = compute_dtype(X)
    atoms = [_atoms(dictionary, number, dtype) for number, dictionary in enumerate(dictionaries, 1)]
    if on_gpu(X):
        X = check_resident(X)
    else:
        X = np.ascontiguousarray(X, dtype)
        if not np.isfinite(X).all():
            raise ValueError("X contains NaN or infinity: every entry must be a finite number")
    if atoms[0].ndim == X.ndim + 1 and atoms[0].shape[-1] == 1:
        X = X[..., None]
    strides, paddings = (
        list(value) if isinstance(value, list) else [value] * len(atoms) for value in (stride, padding)
    )
    for name, values in (("stride", strides), ("padding", paddings)):
        if len(values) != len(atoms):
            raise ValueError(f"The '{name}' parameter, where it is a list, must have {len(atoms)} entries, one a layer")
    shape, operators = X.shape[1:], []
    for number, dictionary in enumerate(atoms):
        layer = Dense(len(dictionary))
        if dictionary.ndim > 2:
            layer = Conv(len(dictionary), dictionary.shape[1:-1], stride=strides[number], padding=paddings[number])
        reason = _misfit(dictionary, shape, layer)
        if reason:
            before = "samples of X"
            if number:
                before = f"codes of dictionary {number}, whose shape is {atoms[number - 1].shape}, and which"
            raise ValueError(
                f"dictionary {number + 1} of shape {dictionary.shape} does not chain with the {before} have the shape "
                f"{shape}: {reason}"
            )
        operators.append(operator_of(layer, shape, Builder(dtype, np.random.RandomState(0))))
        shape = operators[-1].output_shape
    weights = [
        to_device(operator.weights(dictionary, dtype), device)
        for operator, dictionary in zip(operators, atoms, strict=True)
    ]
    return X, Chain(operators, weights)


def _atoms(dictionary, number, dtype):
    atoms = np.asarray(to_host(dictionary))
    check_kind(atoms, f"dictionary {number}")
    if atoms.ndim not in (2, 3, 4) or not atoms.size:
        raise ValueError(
            f"dictionary {number} must have the shape (n_atoms, n_features), (n_atoms, length, n_channels) or "
            f"(n_atoms, height, width, n_channels), got {atoms.shape}"
        )
    with np.errstate(over="ignore"):
        atoms = atoms.astype(dtype)
    if not np.isfinite(atoms).all():
        raise ValueError(f"dictionary {number} contains NaN or infinity; every entry must be a finite number")
    return atoms


def _misfit(dictionary, shape, layer):
    if dictionary.shape[-1] != shape[-1]:
        return f"its atoms have {dictionary.shape[-1]} entries or channels, not {shape[-1]}"
    if dictionary.ndim == 2:
        return ""
    if dictionary.ndim != len(shape) + 1:
        return f"its atoms have {dictionary.ndim - 2} axes of positions, not {len(shape) - 1}"
    if layer.padding == "valid" and any(k > n for k, n in zip(dictionary.shape[1:], shape, strict=True)):
        return "its atoms are larger"
    return ""


def linear_layers(layers, owner, sharing=True):
    """The layers as specifications of weights.

    Parameters
    ----------
    layers : list of Dense, Conv or int
    owner : str
        For messages.
    sharing : bool, default=True
        Whether they may share weights and have penalties.

    Returns
    -------
    list of Dense and Conv

    Raises
    ------
    ValueError
        For what is not linear.
    """
    if not isinstance(layers, list | tuple) or not len(layers):
        raise ValueError(
            f"The 'layers' parameter of {owner} must be a list of Dense, Conv and numbers of atoms, at least one, got "
            f"{layers!r}"
        )
    checked = []
    unused = ["activation", "threshold", "density"] + ([] if sharing else ["share", "nonnegative", "l1", "l2"])
    for layer in layers:
        if not isinstance(layer, Dense | Conv):
            layer = Dense(check_number("layers", layer, 1, integer=True, of=owner))
        plain = Dense(1)
        for name in unused:
            if getattr(layer, name) != getattr(plain, name):
                raise ValueError(f"{layer!r} among the layers of {owner} has a {name!r}, which has no meaning here")
        check_layer(layer)
        checked.append(layer)
    return checked


def connected(layers, input_shape, builder, owner):
    """Operators of layers one after the other.

    Parameters
    ----------
    layers : list of Dense and Conv
    input_shape : tuple of int
    builder : Builder
    owner : str
        For messages.

    Returns
    -------
    list of Operator

    Raises
    ------
    ValueError
        For layers that do not fit together; the message names both and their shapes.
    """
    operators, shape = [], tuple(input_shape)
    for number, layer in enumerate(layers):
        try:
            operators.append(operator_of(layer, shape, builder))
        except ValueError as reason:
            before = f"layer {number - 1}, {layers[number - 1]!r}, whose codes have" if number else "signals of"
            raise ValueError(
                f"layer {number} of {owner}, {layer!r}, after {before} the shape {shape}: {reason}"
            ) from reason
        shape = operators[-1].output_shape
    return operators


def operator_of(layer, input_shape, builder):
    """The operator of a layer, `Dense` or `Conv`, without its bias and activation.

    Parameters
    ----------
    layer : Dense or Conv
    input_shape : tuple of int
    builder : Builder

    Returns
    -------
    Operator
        `node.weights` are the weights it was given.
    """
    node = type(layer)(**layer.get_params(deep=False) | {"activation": "linear", "bias": False}).connect(
        input_shape, builder
    )
    return (ConvOperator if isinstance(layer, Conv) else DenseOperator)(node, input_shape)
