"""Where shared atoms start: patches of the signals, noise, or an array."""

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.utils import check_random_state

from sparseshare.devices import to_device, to_host
from sparseshare.optimization.constraints import row_norms
from sparseshare.validation import check_choice

METHODS = ("data", "k-means++", "gaussian")
_SHORTEST = 1e-6  # of a unit patch: what a projection leaves below this is rounding
_LEAST_CANDIDATES = 1000  # patches that seeds are chosen among
_ATTEMPTS = 20  # draws of patches before noise takes the places that are left


def initial_atoms(signals, form, n_components, dict_init="data", random_state=None, given=None):
    """Atoms to start from.

    Parameters
    ----------
    signals : sequence of ndarrays of shape (J, n_channels, *signal_shape), with `masks`
        No smaller than the atoms.
    form : AtomForm
    n_components : int
    dict_init : {"data", "k-means++", "gaussian"}, default="data"

        - "data": random patches that are not constant zero;
        - "k-means++": patches drawn with a probability proportional to the squared error that the best of the atoms
          drawn so far leaves (Arthur and Vassilvitskii 2007, with lines through the origin in the place of points);
        - "gaussian": white noise.
    random_state : int, RandomState or None, default=None
    given : ndarray of shape (at most n_components, n_channels, *support) or None, default=None
        Atoms that come first; `dict_init` fills up what they leave.

    Returns
    -------
    array of shape (n_components, n_channels, *support), new
        As they may be; all but the given ones of unit norm where the constraint lets them. On the signals' device; they
        are made on the host, so that they are the same for every device.

    Raises
    ------
    ValueError
    """
    check_choice("dict_init", dict_init, METHODS)
    random_state = check_random_state(random_state)
    first = signals[0]
    shape = (first.shape[1], *form.support)
    atoms = np.empty((n_components, *shape), first.dtype)
    missing = np.ones(n_components, dtype=bool)
    if given is not None:
        atoms[: len(given)] = to_host(given)
        missing[: len(given)] = False
    if dict_init == "k-means++":
        patches = _patches(signals, form.support, max(10 * n_components, _LEAST_CANDIDATES), random_state)
        _fill(atoms, missing, _seeds(patches, int(missing.sum()), random_state), form)
    attempts = 0 if dict_init == "gaussian" else _ATTEMPTS
    for _ in range(attempts):
        if not missing.any():
            break
        _fill(atoms, missing, _patches(signals, form.support, int(missing.sum()), random_state), form)
    for _ in range(_ATTEMPTS):
        if not missing.any():
            break
        _fill(atoms, missing, random_state.standard_normal((int(missing.sum()), *shape)), form)
    if missing.any():
        raise ValueError(f"no atoms of shape {form.support} fulfil the constraints on the atoms")
    return to_device(form.project(atoms), getattr(signals, "device", "cpu"))


def feasible(patches, members, form):
    """Patches as the atoms number `members`: of unit norm, as they may be; and which of them are not zero then."""
    flat = patches.reshape(len(patches), -1)
    lengths = row_norms(flat)
    unit = flat / np.where(lengths > 0, lengths, 1)[:, None]
    own = form.of(members)
    atoms = own.project(unit.reshape(patches.shape).astype(patches.dtype, copy=False))
    norms = row_norms(atoms.reshape(len(atoms), -1))
    good = (lengths > 0) & (norms > _SHORTEST)
    scaled = atoms / np.where(good, norms, 1).reshape(-1, *[1] * (atoms.ndim - 1))
    return scaled.astype(patches.dtype, copy=False), good


def _fill(atoms, missing, patches, form):
    """Put patches into the places that are missing, as far as they are good for atoms."""
    places = np.flatnonzero(missing)[: len(patches)]
    if len(places):
        found, good = feasible(patches[: len(places)], places, form)
        atoms[places[good]] = found[good]
        missing[places[good]] = False


def _patches(signals, support, count, random_state):
    """Random patches of random signals, shape (count, n_channels, *support)."""
    chosen = np.sort(random_state.randint(len(signals), size=count))
    parts = []
    for number in np.unique(chosen).tolist():
        signal = completed(signals, number)
        limits = [n - length + 1 for n, length in zip(signal.shape[2:], support, strict=True)]
        for _ in range(int((chosen == number).sum())):
            code = random_state.randint(len(signal))
            corner = [random_state.randint(limit) for limit in limits]
            window = tuple(slice(at, at + length) for at, length in zip(corner, support, strict=True))
            parts.append(to_host(signal[(code, slice(None), *window)]))
    patches = np.stack(parts)
    return patches[random_state.permutation(count)]


def completed(signals, number):
    """A signal whose missing samples are means of those around."""
    signal = signals[number]
    masks = getattr(signals, "masks", None)
    if masks is None:
        return signal
    observed = to_host(masks[number])
    if observed.all():
        return signal
    signal = to_host(signal)
    axes = tuple(range(2, signal.ndim))
    known = gaussian_filter(observed.astype(np.float64), 1, axes=axes)
    means = gaussian_filter((observed * signal).astype(np.float64), 1, axes=axes) / np.where(known > 0, known, 1)
    return np.where(observed > 0, signal, means).astype(signal.dtype)


def _seeds(patches, count, random_state):
    """Patches by k-means++, for lines through the origin."""
    flat = patches.reshape(len(patches), -1).astype(np.float64)
    lengths = row_norms(flat)
    unit = flat / np.where(lengths > 0, lengths, 1)[:, None]
    scale = lengths.max(initial=0)
    energy = (lengths / scale) ** 2 if scale > 0 else lengths
    error, chosen = energy.copy(), []
    while len(chosen) < count:
        error[chosen] = 0
        cumulative = error.cumsum()
        if cumulative[-1] <= 1e-12 * energy.sum():
            break
        pick = int(np.searchsorted(cumulative, random_state.uniform() * cumulative[-1], side="right"))
        chosen.append(min(pick, len(unit) - 1))
        error = np.minimum(error, np.maximum(energy * (1 - (unit @ unit[chosen[-1]]) ** 2), 0))
    return patches[chosen]
