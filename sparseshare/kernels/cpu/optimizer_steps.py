"""Steps of optimizers, one pass over all that they read and write."""

from math import sqrt

from .jit import kernel


@kernel
def sgd_step(values, gradient, rate):
    """Gradient descent: values -= rate * gradient; 1-D arrays of one float type."""
    for i in range(len(values)):
        values[i] -= rate * gradient[i]


@kernel
def momentum_step(values, gradient, velocity, rate, decay):
    """velocity = decay * velocity - rate * gradient, values += velocity (Polyak 1964)."""
    for i in range(len(values)):
        moved = decay * velocity[i] - rate * gradient[i]
        velocity[i] = moved
        values[i] += moved


@kernel
def adam_step(values, gradient, first, second, rate, decay1, decay2, epsilon):
    """Adam with the bias corrections in `rate` and `epsilon` (Kingma and Ba 2015, end of section 2).

    Parameters
    ----------
    values, gradient : (n,) arrays of one float type
    first, second : (n,) arrays, decaying means of the gradient and of its square
    rate, decay1, decay2, epsilon : floats of their type
    """
    one = values.dtype.type(1)
    for i in range(len(values)):
        g = gradient[i]
        m = decay1 * first[i] + (one - decay1) * g
        v = decay2 * second[i] + (one - decay2) * g * g
        first[i] = m
        second[i] = v
        values[i] -= rate * m / (sqrt(v) + epsilon)
