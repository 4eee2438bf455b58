"""Losses: a mean over samples, and its gradient by the outputs of the network."""

import numpy as np


class SoftmaxCrossEntropy:
    """Mean over the samples of ``-weight[y] * log softmax(outputs)[y]``.

    Parameters
    ----------
    class_weights : ndarray of shape (n_classes,) or None, default=None
        None is 1 for every class.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.losses import SoftmaxCrossEntropy
    >>> loss, gradient = SoftmaxCrossEntropy()(np.zeros((1, 4)), np.array([2]))
    >>> round(loss, 4), gradient.tolist()
    (1.3863, [[0.25, 0.25, -0.75, 0.25]])
    """

    def __init__(self, class_weights=None):
        self.class_weights = class_weights

    def __call__(self, outputs, targets):
        """Loss and gradient.

        Parameters
        ----------
        outputs : ndarray of shape (n, n_classes)
        targets : int ndarray of shape (n,)
            Number of the class of every sample.

        Returns
        -------
        loss : float
        gradient : ndarray of shape (n, n_classes)
        """
        logarithms = log_softmax(outputs)
        rows = np.arange(len(targets))
        losses = -logarithms[rows, targets].astype(np.float64)
        gradient = np.exp(logarithms, out=logarithms)
        gradient[rows, targets] -= 1
        if self.class_weights is not None:
            weights = self.class_weights[targets]
            losses *= weights
            gradient *= weights[:, None].astype(gradient.dtype)
        gradient /= len(targets)
        return float(losses.mean()), gradient


class SquaredError:
    """Mean over the samples of ``0.5 * |outputs - y|^2``, summed over outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.losses import SquaredError
    >>> loss, gradient = SquaredError()(np.array([[1.0], [4.0]]), np.array([[1.0], [2.0]]))
    >>> loss, gradient.tolist()
    (1.0, [[0.0], [1.0]])
    """

    def __call__(self, outputs, targets):
        """Loss and gradient.

        Parameters
        ----------
        outputs, targets : ndarrays of shape (n, n_outputs)

        Returns
        -------
        loss : float
        gradient : ndarray of shape (n, n_outputs)
        """
        gradient = outputs - targets
        # A loss past what the dtype holds is reported as such, by whoever looks at it.
        with np.errstate(over="ignore", invalid="ignore"):
            loss = 0.5 * float((gradient.astype(np.float64) ** 2).sum()) / len(targets)
        gradient /= len(targets)
        return loss, gradient


def log_softmax(outputs):
    """Logarithm of softmax along the last axis, in a new array; outputs that are infinite give NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
