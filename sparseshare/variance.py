"""How much of the variance of signals a reconstruction explains, from signals that come piece by piece."""


class Variance:
    """Sum of the squared distances of rows from the mean of all of them.

    Chan, Golub and LeVeque 1979, equation (2.1): no differences of large numbers.

    Attributes
    ----------
    total : float

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.variance import Variance
    >>> variance = Variance()
    >>> variance.add(np.array([[1.0], [2.0]]))
    >>> variance.add(np.array([[6.0]]))
    >>> variance.total
    14.0
    """

    def __init__(self):
        self.total, self._n, self._mean = 0.0, 0, 0.0

    def add(self, rows):
        """Take note of some more.

        Parameters
        ----------
        rows : float64 array of shape (n, n_features)
        """
        mean, n = rows.mean(axis=0), len(rows)
        apart = mean - self._mean
        self.total += float(((rows - mean) ** 2).sum())
        if self._n:
            self.total += float((apart**2).sum()) * (self._n * n / (self._n + n))
        self._n += n
        self._mean = self._mean + apart * (n / self._n)


def explained(error, variance):
    """Share of the variance that is explained, as every `score` has it.

    Parameters
    ----------
    error : float
        Squared distance of the reconstruction from the signals.
    variance : float
        Squared distance of the signals from their mean.

    Returns
    -------
    float
        1 - error / variance; where the signals are constant, 1 for a perfect reconstruction and 0 otherwise.
    """
    if variance == 0:
        return 1.0 if error == 0 else 0.0
    return 1 - error / variance
