"""Optimizers and schedules of learning rates. What an optimizer remembers lives in `Parameter.state`."""

from math import cos, pi, sqrt

from sparseshare.devices import array_module
from sparseshare.kernels.dispatch import kernels_for

SCHEDULES = ("constant", "step", "cosine", "adaptive")
_EVERY, _FACTOR = 5, 0.5  # "step"


class _Optimizer:
    """What all have in common; subclasses have `_move(parameter, rate)`, and `_fused(parameters, rate)` for a GPU."""

    def __init__(self):
        self._tables = {}  # of `fused_step`

    def update(self, parameter, rate):
        """Move a parameter along its gradient.

        Parameters
        ----------
        parameter : Parameter
        rate : float
        """
        self.step([parameter], rate)

    def step(self, parameters, rate, l1=0.0, l2=0.0, penalised=()):
        """Move parameters along their gradients.

        Parameters
        ----------
        parameters : list of Parameter
            All on one device; on a GPU they move in one launch.
        rate : float
        l1, l2 : float, default=0.0
            Penalties, see `Parameter.penalty`, whose gradients are added first.
        penalised : sequence of Parameter, default=()
            Those that have penalties.
        """
        if parameters and parameters[0].device != "cpu":
            names = {id(parameter) for parameter in penalised}
            for group in self._groups(parameters):
                entries = [self._entry(parameter, id(parameter) in names) for parameter in group]
                kernels = kernels_for(group[0].device, "optimizer_steps")
                kernels.fused_step(self.kind, entries, self._tables, **self._options(group[0], rate), l1=l1, l2=l2)
            for parameter in parameters:
                parameter.changed()
            return
        for parameter in penalised:
            parameter.add_penalty_gradient(l1, l2)
        for parameter in parameters:
            self._move(parameter, rate)
            parameter.project()

    def _groups(self, parameters):
        """Parameters that one launch can move."""
        return [parameters]

    def _entry(self, parameter, penalised):
        """What `fused_step` takes."""
        first, second = self._state(parameter)
        penalised = penalised and parameter.values.size > 0
        uses = parameter.uses() if penalised and parameter.shared else None
        return (
            parameter.values, parameter.gradient_parts(), first, second, uses, parameter.nonnegative, penalised,
            parameter.step, parameter.l1, parameter.l2,
        )  # fmt: skip

    def _state(self, parameter):
        return None, None


class SGD(_Optimizer):
    """Plain gradient descent: values -= rate * step * gradient.

    `Parameter.step` keeps values that gather the gradients of many weights from moving too far.
    """

    kind = 0

    def _options(self, parameter, rate):
        return {"rate": rate}

    def _move(self, parameter, rate):
        values = parameter.values.reshape(-1)
        kernels = kernels_for("cpu", "optimizer_steps")
        kernels.sgd_step(values, parameter.gradient.reshape(-1), values.dtype.type(rate * parameter.step))


class Momentum(_Optimizer):
    """Gradient descent with classical momentum (Sutskever et al. 2013, equations 1 and 2).

    Nesterov's would bear less than half the learning rate before it diverges.

    Parameters
    ----------
    momentum : float, default=0.9
    """

    kind = 1

    def __init__(self, momentum=0.9):
        super().__init__()
        self.momentum = momentum

    def _options(self, parameter, rate):
        return {"rate": rate, "decay1": self.momentum}

    def _state(self, parameter):
        state = parameter.state
        if "velocity" not in state:
            state["velocity"] = array_module(parameter.values).zeros_like(parameter.values.reshape(-1))
        return state["velocity"], None

    def _move(self, parameter, rate):
        velocity, values = self._state(parameter)[0], parameter.values.reshape(-1)
        scalar = values.dtype.type
        kernels_for("cpu", "optimizer_steps").momentum_step(
            values, parameter.gradient.reshape(-1), velocity, scalar(rate * parameter.step), scalar(self.momentum)
        )


class Adam(_Optimizer):
    """Steps of a size that does not depend on that of the gradient.

    Parameters
    ----------
    decay1, decay2 : float, default=0.9 and 0.999
    epsilon : float, default=1e-8

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    kind = 2

    def __init__(self, decay1=0.9, decay2=0.999, epsilon=1e-8):
        super().__init__()
        self.decay1, self.decay2, self.epsilon = decay1, decay2, epsilon

    def _groups(self, parameters):
        """Those that have made equally many steps: the corrections are theirs."""
        groups = {}
        for parameter in parameters:
            groups.setdefault(parameter.state.get("steps", 0), []).append(parameter)
        return list(groups.values())

    def _options(self, parameter, rate):
        correction1, correction2 = (1 - decay ** parameter.state["steps"] for decay in (self.decay1, self.decay2))
        return {
            "rate": rate * sqrt(correction2) / correction1,
            "decay1": self.decay1,
            "decay2": self.decay2,
            "epsilon": self.epsilon * sqrt(correction2),
        }

    def _state(self, parameter):
        """Decaying means of the gradient and of its square, at the next step."""
        state = parameter.state
        if "steps" not in state:
            zeros, values = array_module(parameter.values).zeros_like, parameter.values.reshape(-1)
            state.update(steps=0, first=zeros(values), second=zeros(values))
        state["steps"] += 1
        return state["first"], state["second"]

    def _move(self, parameter, rate):
        first, second = self._state(parameter)
        values, options = parameter.values.reshape(-1), self._options(parameter, rate)
        scalars = map(values.dtype.type, (options[name] for name in ("rate", "decay1", "decay2", "epsilon")))
        kernels = kernels_for("cpu", "optimizer_steps")
        kernels.adam_step(values, parameter.gradient.reshape(-1), first, second, *scalars)


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
