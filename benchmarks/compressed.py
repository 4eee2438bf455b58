"""A network of 784-1024-1024-10 units, dense or with an eighth of the weights, the same one in every process."""

import numpy as np

from sparseshare.network import Dense, Network, hashed, prune

UNITS, N_IN, N_OUT, DENSITY = 1024, 784, 10, 1 / 8
KINDS = {
    "pruned": "pruned to 1/8",
    "hashed runs": "hashed to 1/8, runs of 64",
    "hashed": "hashed to 1/8, weight by weight",
}


def network(kind, threads):
    """A network with first weights.

    Parameters
    ----------
    kind : {"dense", "pruned", "hashed runs", "hashed"}
    threads : int

    Returns
    -------
    Network
    """
    share = {"hashed": hashed(DENSITY), "hashed runs": hashed(DENSITY, run=64)}.get(kind)
    layers = [Dense(UNITS, share=share), Dense(UNITS, share=share), Dense(N_OUT, activation="linear", share=share)]
    made = Network(layers, (N_IN,), np.float32, np.random.RandomState(0), n_threads=threads)
    if kind == "pruned":
        made = prune(made, DENSITY)
    made.release()
    return made


def spelled(kind):
    """Weights and biases of all layers, as dense arrays.

    Parameters
    ----------
    kind : as for `network`

    Returns
    -------
    dict of str to ndarray
        "W0", "b0", "W1", ...
    """
    arrays = {}
    for number, node in enumerate(network(kind, 1).nodes):
        arrays |= {f"W{number}": node.weights.full(), f"b{number}": node.bias.full()}
    return arrays


def exact_outputs(X, kind):
    """The outputs of a network, in float64.

    Parameters
    ----------
    X : ndarray of shape (n, 784)
    kind : as for `network`

    Returns
    -------
    ndarray of shape (n, 10)
    """
    arrays, X = spelled(kind), X.astype(np.float64)
    for number in range(3):
        X = X @ arrays[f"W{number}"] + arrays[f"b{number}"]
        if number < 2:
            X = np.maximum(X, 0)
    return X
