"""What an unrolled sparse coder is trained to make small: its objective, or the distance to exact codes.

On a GPU the value of a loss stays there, as an array of one entry.
"""

import numpy as np

from sparseshare.devices import array_module, device_of, to_device

from .blocks import product


class StepLoss:
    """A loss of the codes after every step: the mean over them with weights that fall from the last one backwards.

    Parameters
    ----------
    loss : callable
        Of the codes after one step.
    discount : float
        Weight of a step over that of the next one.
    """

    def __init__(self, loss, discount):
        self.loss, self.discount = loss, discount

    def __call__(self, outputs, targets):
        """Loss, and its gradient by the codes.

        Parameters
        ----------
        outputs : ndarray of shape (n, n_steps, n_components)
            Or (n, n_components): of the last step alone, as outside of training.
        targets : ndarray of shape (n, ...)

        Returns
        -------
        loss : float
        gradient : ndarray of the shape of outputs
        """
        if outputs.ndim == 2:
            return self.loss(outputs, targets)
        n, n_steps, n_components = outputs.shape
        weights = float(self.discount) ** np.arange(n_steps)[::-1]
        weights /= weights.sum()
        xp = array_module(outputs)
        gradient, total = xp.empty((n_steps, n, n_components), outputs.dtype), 0.0
        for t, weight in enumerate(weights.tolist()):
            loss, slope = self.loss(xp.ascontiguousarray(outputs[:, t]), targets)
            xp.multiply(slope, slope.dtype.type(weight), out=gradient[t])
            total += weight * loss
        return total, gradient.transpose(1, 0, 2)


class CodeError:
    """Mean over the signals of |z - z*|^2, over that of codes of zeros.

    Parameters
    ----------
    scale : float
        Mean of |z*|^2.
    """

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, outputs, targets):
        """Loss, and its gradient by the codes.

        Parameters
        ----------
        outputs, targets : ndarrays of shape (n, n_components)

        Returns
        -------
        loss : float
        gradient : ndarray of shape (n, n_components)
        """
        gradient = outputs - targets
        weight = 1 / (len(outputs) * self.scale)
        loss = weight * _square(gradient)
        gradient *= gradient.dtype.type(2 * weight)
        return loss, gradient


class LossOfCodes:
    """A loss whose targets are codes of the signals that it is given: they are computed whenever they are needed.

    Parameters
    ----------
    loss : callable
        Of codes, and the codes that they are to come near to.
    encode : callable
        Makes codes of signals.
    """

    def __init__(self, loss, encode):
        self.loss, self.encode = loss, encode

    def __call__(self, outputs, targets):
        """Loss, and its gradient by the codes.

        Parameters
        ----------
        outputs : ndarray of shape (n, n_components), or as `loss` takes them
        targets : ndarray of shape (n, n_features)
            The signals.

        Returns
        -------
        loss : float
        gradient : ndarray of the shape of outputs
        """
        return self.loss(outputs, self.encode(targets))


class LassoObjective:
    """Mean over the signals of 0.5 |x - z D|^2 + alpha |z|_1, over that of codes of zeros.

    Parameters
    ----------
    dictionary : ndarray of shape (n_components, n_features)
    alpha : float
    scale : float
        Mean of 0.5 |x|^2.
    n_threads : int, default=1
    """

    def __init__(self, dictionary, alpha, scale, n_threads=1):
        self.dictionary, self.alpha, self.scale, self.n_threads = dictionary, alpha, scale, n_threads

    def __call__(self, outputs, targets):
        """Loss, and its gradient by the codes.

        Parameters
        ----------
        outputs : ndarray of shape (n, n_components)
        targets : ndarray of shape (n, n_features)
            The signals.

        Returns
        -------
        loss : float
        gradient : ndarray of shape (n, n_components)
        """
        self.dictionary = to_device(self.dictionary, device_of(outputs))
        residuals = product(outputs, self.dictionary, self.n_threads)
        residuals -= targets
        loss = 0.5 * _square(residuals) + self.alpha * _value(abs(outputs).sum(dtype=np.float64))
        gradient = product(residuals, self.dictionary.T, self.n_threads)
        scalar, weight = gradient.dtype.type, 1 / (len(outputs) * self.scale)
        gradient += array_module(outputs).sign(outputs) * scalar(self.alpha)
        gradient *= scalar(weight)
        return weight * loss, gradient


def objective(X, codes, dictionary, alpha):
    """Sum over the signals of 0.5 |x - z D|^2 + alpha |z|_1."""
    residuals = X - codes @ dictionary
    return 0.5 * float((residuals**2).sum()) + alpha * float(abs(codes).sum())


def mean_square(pieces):
    """Mean over the rows of some pieces of their squared norm."""
    total = n_rows = 0
    for rows in pieces:
        total, n_rows = total + float(_square(rows)), n_rows + len(rows)
    return total / n_rows


def _square(rows):
    """Squared norm in float64."""
    if device_of(rows) != "cpu":
        return array_module(rows).square(rows, dtype=np.float64).sum()
    return float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))


def _value(total):
    """A sum as a float, or where it is on a GPU."""
    return float(total) if device_of(total) == "cpu" else total
