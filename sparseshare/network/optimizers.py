"""Optimizers and schedules of learning rates. What an optimizer remembers lives in `Parameter.state`."""

from math import cos, pi, sqrt

import numpy as np

from sparseshare.kernels.dispatch import kernels_for

SCHEDULES = ("constant", "step", "cosine", "adaptive")
_EVERY, _FACTOR = 5, 0.5  # "step"


class SGD:
    """Plain gradient descent: values -= rate * step * gradient.

    `Parameter.step` keeps values that gather the gradients of many weights from moving too far.
    """

    def update(self, parameter, rate):
        """Move a parameter along its gradient.

        Parameters
        ----------
        parameter : Parameter
        rate : float
        """
        values = parameter.values.reshape(-1)
        kernels = kernels_for("cpu", "optimizer_steps")
        kernels.sgd_step(values, parameter.gradient.reshape(-1), values.dtype.type(rate * parameter.step))
        parameter.project()


class Momentum:
    """Gradient descent with classical momentum (Sutskever et al. 2013, equations 1 and 2).

    Nesterov's would bear less than half the learning rate before it diverges.

    Parameters
    ----------
    momentum : float, default=0.9
    """

    def __init__(self, momentum=0.9):
        self.momentum = momentum

    def update(self, parameter, rate):
        """See `SGD`."""
        state, values = parameter.state, parameter.values.reshape(-1)
        if "velocity" not in state:
            state["velocity"] = np.zeros_like(values)
        scalar = values.dtype.type
        kernels_for("cpu", "optimizer_steps").momentum_step(
            values,
            parameter.gradient.reshape(-1),
            state["velocity"],
            scalar(rate * parameter.step),
            scalar(self.momentum),
        )
        parameter.project()


class Adam:
    """Steps of a size that does not depend on that of the gradient.

    Parameters
    ----------
    decay1, decay2 : float, default=0.9 and 0.999
    epsilon : float, default=1e-8

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    def __init__(self, decay1=0.9, decay2=0.999, epsilon=1e-8):
        self.decay1, self.decay2, self.epsilon = decay1, decay2, epsilon

    def update(self, parameter, rate):
        """See `SGD`."""
        state, values = parameter.state, parameter.values.reshape(-1)
        if "steps" not in state:
            state.update(steps=0, first=np.zeros_like(values), second=np.zeros_like(values))
        state["steps"] += 1
        correction1, correction2 = (1 - decay ** state["steps"] for decay in (self.decay1, self.decay2))
        scalar = values.dtype.type
        kernels_for("cpu", "optimizer_steps").adam_step(
            values,
            parameter.gradient.reshape(-1),
            state["first"],
            state["second"],
            scalar(rate * sqrt(correction2) / correction1),
            scalar(self.decay1),
            scalar(self.decay2),
            scalar(self.epsilon * sqrt(correction2)),
        )
        parameter.project()


OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adam": Adam}


def scheduled_rate(schedule, learning_rate, epoch, max_iter):
    """Learning rate of an epoch.

    Parameters
    ----------
    schedule : {"constant", "step", "cosine", "adaptive"} or callable
        "step" halves the rate every 5 epochs, "cosine" brings it to 0 along half a wave by `max_iter`; a callable gets
        epoch and max_iter and returns a factor. "adaptive" is constant here: training divides the rate where it stalls.
    learning_rate : float
    epoch : int
        From 0.
    max_iter : int

    Returns
    -------
    float

    Examples
    --------
    >>> from sparseshare.network.optimizers import scheduled_rate
    >>> [scheduled_rate("step", 0.1, epoch, 15) for epoch in (0, 4, 5, 10)]
    [0.1, 0.1, 0.05, 0.025]
    """
    if schedule == "step":
        return learning_rate * _FACTOR ** (epoch // _EVERY)
    if schedule == "cosine":
        return learning_rate * 0.5 * (1 + cos(pi * epoch / max_iter))
    if callable(schedule):
        return learning_rate * float(schedule(epoch, max_iter))
    return learning_rate
