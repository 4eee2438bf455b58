"""Training that was killed goes on: what a checkpoint of a network holds, and how it comes back.

The network itself is built again as it was in the beginning, by the same random numbers; then its values, patterns and
what the optimizer remembers are put in their places.
"""

from sklearn.utils import check_random_state

from sparseshare.checkpoints import begin_checkpoints, random_bits, resumed_random_state
from sparseshare.devices import to_device

from .patterns import PATTERNS, Pattern


class Resumption:
    """The checkpoints of a fit, and the state that it goes on from.

    Parameters
    ----------
    estimator : estimator
        With the parameters `checkpoint` and `random_state`.
    network : Network or None
        What a warm start goes on from.
    **data : arrays or None
        What is learned from.

    Attributes
    ----------
    random_state : RandomState
        As it was when the fit began that is gone on with.
    saved : dict or None
        What `save` was given last.
    """

    def __init__(self, estimator, network=None, **data):
        weights = None if network is None else [parameter.values for parameter in network.parameters]
        self.checkpoint, state = begin_checkpoints(estimator, **data, network_=weights)
        self.random_state = check_random_state(estimator.random_state)
        self.saved = None
        if state is not None:
            self.random_state = resumed_random_state(self.random_state, state["start"])
            self.saved = state["training"]
        self._start = random_bits(self.random_state)

    def due(self):
        """Whether it is time for a checkpoint."""
        return self.checkpoint.due()

    def save(self, state):
        """Write one; `state["finished"]` says whether it is the last."""
        self.checkpoint.save(dict(start=self._start, training=state, finished=state["finished"]))


def packed_network(network, **kept):
    """Weights, and what optimizers remember, as arrays and numbers.

    Parameters
    ----------
    network : Network
    **kept : states of it or None
        From `Network.state`.

    Returns
    -------
    dict
        For `restore_network`.
    """
    parameters = [
        dict(
            values=parameter.values,
            pattern=_packed(parameter.pattern),
            state=parameter.state,
            step=float(parameter.step),
            pending=parameter.pending is not None,
        )
        for parameter in network.parameters
    ]  # fmt: skip
    return dict(parameters=parameters, **{name: _packed_state(network, state) for name, state in kept.items()})


def restore_network(network, packed):
    """Give a network that was built in the same way the weights and the memory of the one that was packed.

    Parameters
    ----------
    network : Network
        Changed in place.
    packed : dict
        From `packed_network`.

    Returns
    -------
    dict
        The states that were kept, by name.
    """
    device = network.device
    for parameter, entry in zip(network.parameters, packed["parameters"], strict=True):
        parameter.set(to_device(entry["values"], device), _unpacked(entry["pattern"]))
        parameter.state = {name: _there(value, device) for name, value in entry["state"].items()}
        parameter.step = entry["step"]
        if not entry["pending"]:
            parameter.pending = None
    return {name: _unpacked_state(network, state) for name, state in packed.items() if name != "parameters"}


def _there(value, device):
    return to_device(value, device) if hasattr(value, "dtype") and value.ndim else value


def _packed_state(network, state):
    """Most patterns are still those of the network, and are again when they come back."""
    if state is None:
        return None
    return [
        dict(values=values, pattern=None if pattern is parameter.pattern else [_packed(pattern)])
        for parameter, (values, pattern) in zip(network.parameters, state, strict=True)
    ]


def _unpacked_state(network, state):
    if state is None:
        return None
    return [
        (
            to_device(entry["values"], parameter.device),
            parameter.pattern if entry["pattern"] is None else _unpacked(entry["pattern"][0]),
        )
        for parameter, entry in zip(network.parameters, state, strict=True)
    ]


def _packed(pattern):
    if pattern is None:
        return None
    arguments = {
        name: _packed(value) if isinstance(value, Pattern) else value for name, value in pattern.state().items()
    }
    return dict(pattern=type(pattern).__name__, arguments=arguments)


def _unpacked(packed):
    if packed is None:
        return None
    arguments = {
        name: _unpacked(value) if isinstance(value, dict) else value for name, value in packed["arguments"].items()
    }
    return PATTERNS[packed["pattern"]](**arguments)
