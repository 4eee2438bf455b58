"""Losses and their gradients. Plain NumPy: a batch's outputs are few, next to what made them."""

import numpy as np


def log_softmax(outputs):
    """Logarithm of softmax along the last axis, in a new array; outputs that are infinite give NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def cross_entropy(outputs, targets, class_weights):
    """Mean over the samples of ``-weight[y] * log softmax(outputs)[y]``, and its gradient by the outputs.

    Parameters
    ----------
    outputs : (n, n_classes) array
    targets : (n,) int array
    class_weights : (n_classes,) array or None

    Returns
    -------
    loss : float
    gradient : (n, n_classes) array
    """
    logarithms = log_softmax(outputs)
    rows = np.arange(len(targets))
    losses = -logarithms[rows, targets].astype(np.float64)
    gradient = np.exp(logarithms, out=logarithms)
    gradient[rows, targets] -= 1
    if class_weights is not None:
        weights = class_weights[targets]
        losses *= weights
        gradient *= weights[:, None].astype(gradient.dtype)
    gradient /= len(targets)
    return float(losses.mean()), gradient


def squared_error(outputs, targets):
    """Mean over the samples of ``0.5 * |outputs - y|^2``, and its gradient.

    Parameters
    ----------
    outputs, targets : (n, ...) arrays

    Returns
    -------
    loss : float
    gradient : array of the shape of outputs
    """
    gradient = outputs - targets
    # A loss past what the dtype holds is reported as such, by whoever looks at it.
    with np.errstate(over="ignore", invalid="ignore"):
        loss = 0.5 * float((gradient.astype(np.float64) ** 2).sum()) / len(targets)
    gradient /= len(targets)
    return loss, gradient
