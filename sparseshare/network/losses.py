"""Losses: a mean over samples, and its gradient by the outputs of the network.

On a GPU the value of a loss stays there: an array that adds up to it.
"""

from sparseshare.devices import device_of, to_device
from sparseshare.kernels.dispatch import kernels_for


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
        outputs : array of shape (n, n_classes)
        targets : int64 array of shape (n,)
            Number of the class of every sample.

        Returns
        -------
        loss : float, or on a GPU an array that adds up to it
        gradient : array of shape (n, n_classes)
        """
        device = device_of(outputs)
        self.class_weights = to_device(self.class_weights, device)
        return kernels_for(device, "losses").cross_entropy(outputs, targets, self.class_weights)


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
        outputs, targets : arrays of shape (n, n_outputs)

        Returns
        -------
        loss : float, or on a GPU an array that adds up to it
        gradient : array of shape (n, n_outputs)
        """
        return kernels_for(device_of(outputs), "losses").squared_error(outputs, targets)


def log_softmax(outputs):
    """Logarithm of softmax along the last axis, in a new array; outputs that are infinite give NaN."""
    return kernels_for(device_of(outputs), "losses").log_softmax(outputs)


def value_of(loss):
    """A loss as a float: what is on a GPU comes to the host, which waits for it."""
    return float(loss if device_of(loss) == "cpu" else loss.sum())
