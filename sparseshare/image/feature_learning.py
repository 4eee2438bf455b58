"""What an image encoder learns from random patches: contrast, whitening, dictionary."""

from sklearn.base import clone
from sklearn.utils import check_random_state

from sparseshare.devices import moved, to_device, to_host
from sparseshare.validation import check_axes, check_dictionary

from .quantization import VectorQuantizer, signals_as_atoms
from .whitening import ContrastNormalization, ZCAWhitening

LEARNERS = ("gain_shape", "kmeans", "random")


def learn(
    images,
    *,
    n_components,
    patch_shape,
    stride,
    dictionary,
    contrast_epsilon,
    whitening,
    whitening_epsilon,
    n_patches,
    max_iter,
    random_state,
    n_jobs=None,
    verbose=False,
    batch=False,
    before=None,
    device="cpu",
):
    """What an encoder learns from random patches.

    Parameters
    ----------
    images : Images
    n_components, patch_shape, stride, dictionary, contrast_epsilon, whitening, whitening_epsilon, n_patches, max_iter,
    random_state, n_jobs, verbose : as in `SparseImageEncoder`
    batch : bool, default=False
        One step, to be followed by others.
    before : dict or None, default=None
        What the last step returned.
    device : str, default="cpu"
        Where to compute, as `resolve_device` returns it.

    Returns
    -------
    dict
        components, whitening, epsilon, losses, learner, and sums and counts of vector quantisation. Arrays live where
        they were computed.
    """
    before = moved(before, device)
    random_state = check_random_state(random_state)
    grids = images.grids(check_axes("patch_shape", patch_shape, 2), check_axes("stride", stride, 2))
    span = images.check_finite()
    patches = to_device(images.random_patches(grids, n_patches, random_state), device)
    if before is None:
        epsilon = images.epsilon(*span) if contrast_epsilon == "auto" else contrast_epsilon
    else:
        epsilon = before["epsilon"]
    if epsilon is not None:
        patches = ContrastNormalization(epsilon).set_output(transform="default").transform(patches)
    if before is not None:
        whitening = before["whitening"]
    elif whitening is not None:
        whitening = ZCAWhitening(whitening_epsilon) if isinstance(whitening, str) else clone(whitening)
        whitening.fit(_where_it_computes(patches, whitening), None)
    signals = patches
    if whitening is not None:
        matrix, mean = (
            to_device(array.astype(patches.dtype), device) for array in (whitening.whitening_, whitening.mean_)
        )
        signals = (patches - mean) @ matrix

    learned = dict(whitening=whitening, epsilon=epsilon, losses=[], learner=None, sums=None, counts=None)
    if hasattr(dictionary, "fit"):
        learner = clone(dictionary) if before is None else before["learner"]
        if not batch:
            learner.fit(_where_it_computes(signals, learner), None)  # a FrozenEstimator asks for two arguments
        elif hasattr(learner, "partial_fit"):
            learner.partial_fit(_where_it_computes(signals, learner))
        else:
            raise ValueError(f"partial_fit needs a 'dictionary' that has it, {type(learner).__name__} has not")
        if not hasattr(learner, "components_"):
            raise ValueError(f"the 'dictionary' parameter: {type(learner).__name__} learned no components_")
        losses = list(getattr(learner, "loss_curve_", []))
        return learned | dict(learner=learner, components=check_dictionary(to_host(learner.components_)), losses=losses)
    if not isinstance(dictionary, str):
        components = check_dictionary(to_host(dictionary), signals.dtype)
        if components.shape[1] != signals.shape[1]:
            raise ValueError(
                f"the 'dictionary' parameter has atoms of {components.shape[1]} entries, patches have "
                f"{signals.shape[1]}"
            )
        return learned | dict(components=components)
    if before is None:
        components = signals_as_atoms(signals, n_components, random_state, dictionary != "kmeans")
    else:
        components = before["components"]
    if dictionary == "random":
        return learned | dict(components=components)
    start = {} if before is None else dict(sums=before["sums"], counts=before["counts"])
    quantizer = VectorQuantizer(components.astype(signals.dtype), dictionary == "gain_shape", **start)
    if batch:
        losses = [] if before is None else before["losses"]
        losses = [*losses, quantizer.add(signals, n_jobs)]
        quantizer.update()
    else:
        losses = quantizer.fit(signals, max_iter, random_state, n_jobs, verbose)
    return learned | dict(components=quantizer.atoms, losses=losses, sums=quantizer.sums, counts=quantizer.counts)


def _where_it_computes(rows, estimator):
    """Rows for an estimator: in the host's memory if it takes no others."""
    return rows if getattr(estimator, "device", "cpu") != "cpu" else to_host(rows)
