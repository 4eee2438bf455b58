"""What the estimators that train a network share: checks, fitting, predictions in batches."""

import copy
import warnings
from contextlib import closing
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from sparseshare.callbacks import CallbackSupportMixin, with_callbacks
from sparseshare.devices import (
    Movable,
    computing_on,
    device_of,
    memory_errors,
    resolve_device,
    rows_that_fit,
    to_host,
)
from sparseshare.outputs import write_pieces
from sparseshare.threads import thread_count
from sparseshare.validation import check_choice, check_number

from .batches import Batches
from .inputs import check_samples, default_layers, network_dtype
from .layers import Dense, Flatten
from .model import Network
from .pieces import together
from .planning import check_training, plan_of, warn_unfinished
from .report import parameter_report
from .resumption import Resumption
from .sharing import SharingRule, one_line
from .thresholds import ACTIVATIONS
from .training import NetworkReports, train

_AT_ONCE, _AT_ONCE_THERE = 1000, 8192  # samples that predictions take at a time at most, on the CPU and on a GPU
_BYTES = 1 << 28  # that they and what becomes of them take on the CPU, large as they may be
_MEASURED = 2000  # samples that densities are measured on


class NetworkLearner(CallbackSupportMixin, Movable, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An estimator with a network; subclasses know targets, loss and outputs.

    They have `_check_targets(X, y, going_on, classes)`, `_n_outputs()`, `_loss()`, `_score(outputs, targets)`,
    `_split(targets, random_state)` and `_fitted_targets()`.
    """

    _stays_on_host = (
        "layers", "share", "threshold", "class_weight", "classes_", "feature_names_in_", "densities_", "_class_weights"
    )  # fmt: skip

    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        layers=None,
        *,
        activation="relu",
        threshold=None,
        density=None,
        share=None,
        optimizer="adam",
        learning_rate=1e-3,
        momentum=0.9,
        schedule="constant",
        batch_size=128,
        max_iter=200,
        shuffle=True,
        alpha=1e-4,
        l1=0.0,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        image_shape=None,
        random_state=None,
        warm_start=False,
        verbose=False,
        n_jobs=None,
        device="auto",
        checkpoint=None,
    ):
        self.layers = layers
        self.activation = activation
        self.threshold = threshold
        self.density = density
        self.share = share
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.alpha = alpha
        self.l1 = l1
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.image_shape = image_shape
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width[, channels]) or (n, time, features)
            Rows, images or sequences; float32 is computed in float32, all else in float64. Rows are images with
            `image_shape`. Arrays of three axes are images if the first layer that moves over positions is a
            convolution or pooling of two axes, or if there are no `layers`; else sequences. CuPy arrays are trained on
            where they are; of memory maps, zarr arrays and HDF5 data sets a batch is read when its turn comes.
        y : array-like of shape (n,) or, for regression, (n, n_outputs)

        Returns
        -------
        self
        """
        self._check_parameters()
        device = resolve_device(self.device, X)
        with computing_on(device), memory_errors(device, "training a network"):
            X, shape = check_samples(self, X, reset=True)
            going_on = self.warm_start and hasattr(self, "network_")
            targets = self._check_targets(X, y, going_on)
            resumption = Resumption(self, self.network_ if going_on else None, X=X, y=targets)
            random_state = resumption.random_state
            self._build(X, shape, random_state, going_on, device)
            read, score = Batches(X, shape, self.network_.dtype, device), None
            rows = np.arange(len(X))
            if self.early_stopping:
                rows, held = self._split(targets, random_state)
                score = self._scorer(read, held, targets)
            with NetworkReports(self, X, y) as reports:
                history = train(
                    self.network_,
                    read.among(rows) if self.early_stopping else read,
                    targets[rows],
                    self._plan(),
                    random_state,
                    score=score,
                    reports=reports,
                    attributes=lambda: self._fitted_so_far(device_of(X)),
                    resumption=resumption,
                )
            kept = going_on and hasattr(self, "loss_curve_")
            self.loss_curve_ = (self.loss_curve_ if kept else []) + history.loss_curve
            self.validation_scores_ = history.validation_scores if self.early_stopping else None
            self.n_iter_ = max(history.n_iter, 1)
            self.converged_ = history.stopped in ("converged", "callback")
            self._finish(read, len(X))
            self._warn_of_dead_layers()
            if not self.warm_start:
                for parameter in self.network_.parameters:
                    parameter.state = {}
            self.network_ = self.network_.to_device(device_of(X))
            warn_unfinished(self, history, stacklevel=3)
            return self

    def _partial_fit(self, X, y, classes=None):
        self._check_parameters()
        device = resolve_device(self.device, X)
        with computing_on(device), memory_errors(device, "training a network"):
            going_on = hasattr(self, "network_")
            if self.early_stopping:
                raise ValueError("partial_fit has no validation part: early_stopping must be False")
            X, shape = check_samples(self, X, reset=not going_on)
            targets = self._check_targets(X, y, going_on, classes, batch=True)
            random_state = check_random_state(self.random_state)
            if going_on and isinstance(self.random_state, Integral):  # not the same order in every call
                random_state = np.random.RandomState((int(self.random_state) + self.n_iter_) % 2**32)
            self._build(X, shape, random_state, going_on, device)
            read = Batches(X, shape, self.network_.dtype, device)
            plan = self._plan()
            plan.max_iter, plan.n_iter_no_change = 1, None
            if plan.schedule in ("step", "cosine"):
                plan.schedule = "constant"
            history = train(self.network_, read, targets, plan, random_state)
            self.loss_curve_ = (self.loss_curve_ if going_on else []) + history.loss_curve
            self.n_iter_ = (self.n_iter_ if going_on else 0) + 1
            self._finish(read, len(X))
            self.network_ = self.network_.to_device(device_of(X))
            return self

    def transform(self, X, out=None):
        """Codes of the last hidden layer.

        Parameters
        ----------
        X : array-like as in `fit`
            Memory maps, zarr arrays and HDF5 data sets are read part by part.
        out : array of shape (n, n_codes) or None, default=None
            Where codes go part by part, so that they are never in memory together: anything to whose rows can be
            written (memory map, zarr, HDF5).

        Returns
        -------
        ndarray of shape (n, n_codes)
            Laid out flat, if the layer has positions. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a part on disk holds NaN or cannot be read. The message names its rows; codes of the parts
            before it that have been written to `out` stay there.
        """
        return self._outputs(X, codes=True, out=out)

    def _check_parameters(self):
        of = type(self).__name__
        if self.layers is not None and not isinstance(self.layers, list | tuple):
            raise ValueError(f"The 'layers' parameter of {of} must be a list of layers or None, got {self.layers!r}")
        check_choice("activation", self.activation, ACTIVATIONS, of=of)
        if isinstance(self.threshold, str) or np.ndim(self.threshold) == 0:
            if not isinstance(self.threshold, str) or self.threshold not in ("learned", "per_unit"):
                check_number("threshold", self.threshold, 0, allow_none=True, of=of)
        check_number("density", self.density, 0, 1, open_low=True, allow_none=True, of=of)
        if self.share is not None and not isinstance(self.share, SharingRule):
            raise ValueError(
                f"The 'share' parameter of {of} must be a sharing rule of sparseshare.network or None, got "
                f"{self.share!r}"
            )
        for name in ("alpha", "l1"):
            check_number(name, getattr(self, name), 0, of=of)
        check_training(self)

    def _build(self, X, shape, random_state, going_on, device):
        """The network, unless the one there is goes on, where it is trained. First weights are drawn on the host."""
        if going_on:
            if shape != self.input_shape_:
                raise ValueError(
                    f"X has samples of shape {shape}, the network that goes on was fitted to {self.input_shape_}"
                )
            there = [one_line(node.layer) for node in self.network_.nodes[:-2]]
            wanted = [one_line(layer) for layer in self._hidden_layers(shape)]
            if wanted != there:
                raise ValueError(
                    f"The 'layers' are now [{', '.join(wanted)}], those of the network that goes on are "
                    f"[{', '.join(there)}]: for others, fit with warm_start=False"
                )
            self.network_.set_threads(thread_count(self.n_jobs))
        else:
            self.network_, self.input_shape_ = self._new_network(shape, network_dtype(X), random_state), shape
        self.network_ = self.network_.to_device(device)

    def _new_network(self, shape, dtype, random_state):
        """Hidden layers and the output layer, connected, with first weights."""
        everywhere = self.share if getattr(self.share, "fits_all", False) else None
        output = Dense(self._n_outputs(), activation="linear", share=everywhere)
        return Network(
            [*self._hidden_layers(shape), Flatten(), output],
            shape,
            dtype,
            random_state,
            activation=self.activation,
            threshold=self.threshold,
            density=self.density,
            n_threads=thread_count(self.n_jobs),
        )

    def _hidden_layers(self, shape):
        return [self._with_share(layer) for layer in (default_layers(shape) if self.layers is None else self.layers)]

    def _with_share(self, layer):
        if self.share is None or getattr(layer, "share", self) is not None:
            return layer
        layer = copy.copy(layer)
        layer.share = self.share
        return layer

    def _plan(self):
        return plan_of(self, self._loss(), l2=self.alpha)

    def _scorer(self, read, held, targets):
        batches = [held[part] for part in _parts(len(held), self.network_)]

        def score(network):
            outputs = np.concatenate([to_host(network.output(read(rows))) for rows in batches])
            return self._score(outputs, targets[held])

        return score

    def _fitted_so_far(self, home):
        network = copy.deepcopy(self.network_).to_device(home)
        return {"network_": network, "input_shape_": self.input_shape_, "n_iter_": 1, **self._fitted_targets()}

    def _finish(self, read, n_samples):
        """Measure densities, and keep no more than the network stores."""
        chosen = np.linspace(0, n_samples - 1, min(n_samples, _MEASURED)).astype(int)
        self.network_.measure_densities(read(chosen[part]) for part in _parts(len(chosen), self.network_))
        hidden = np.array(self.network_.densities[:-1])
        self.densities_ = hidden[~np.isnan(hidden)]
        self.network_.release()

    def _warn_of_dead_layers(self):
        """Behind a layer without any activation nothing depends on the samples, and no gradient comes back."""
        for number, (node, density) in enumerate(zip(self.network_.nodes, self.network_.densities, strict=True)):
            if density == 0 and node is not self.network_.nodes[-1]:
                warnings.warn(
                    f"All activations behind layer {number}, {one_line(node.layer)}, are zero, so that the outputs are "
                    "the same for all samples: lower the threshold, give a density in its place, or lower penalties "
                    "or learning_rate",
                    ConvergenceWarning,
                    stacklevel=4,
                )
                return

    def _outputs(self, X, codes=False, out=None):
        """Outputs, or codes of the last hidden layer; written to `out` if there is one."""
        check_is_fitted(self)
        device = resolve_device(self.device, X, *(parameter.values for parameter in self.network_.parameters[:1]))
        with computing_on(device), memory_errors(device, "the outputs of a network"):
            X, shape = check_samples(self, X, reset=False, finite=False)
            self.network_.set_threads(thread_count(self.n_jobs))
            network = self.network_.to_device(device)
            read = Batches(X, shape, network.dtype, device, once=True)
            parts = _output_parts(network, read, len(network.nodes) - 1 if codes else None, device_of(X))
            if out is None:
                return together(parts, len(X))
            return write_pieces(parts, out, (len(X), self._n_features_out))

    @property
    def _n_features_out(self):
        return self.network_.nodes[-1].weights.shape[0]

    def parameter_report(self):
        """What the network stores and computes, see `sparseshare.network.parameter_report`.

        Returns
        -------
        ParameterReport
        """
        check_is_fitted(self)
        return parameter_report(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags


def _output_parts(network, read, n_layers, home):
    """Numbers of a part and of its first sample, and the outputs of `n_layers` for it."""
    with closing(read.in_order(_parts(len(read), network))) as parts:
        for number, first, samples in parts:
            outputs = network.output(samples, n_layers)
            yield number, first, to_host(outputs) if home == "cpu" else outputs


def _parts(n_samples, network):
    """Slices of samples that are predicted together."""
    device = network.device
    if device == "cpu":
        step = max(1, min(_AT_ONCE, _BYTES // network.bytes_a_sample()))
    else:
        step = rows_that_fit(device, network.bytes_a_sample(), most=_AT_ONCE_THERE)
    return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]
