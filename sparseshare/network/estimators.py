"""DeepSparseClassifier and DeepSparseRegressor: deep networks of thresholds and shared weights as estimators."""

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from sparseshare.devices import array_module, device_of, on_gpu, to_device, to_host

from .inputs import network_dtype
from .learner import NetworkLearner
from .losses import SoftmaxCrossEntropy, SquaredError, log_softmax


class DeepSparseClassifier(ClassifierMixin, NetworkLearner):
    """A deep network of sparse activations and shared weights that tells classes apart.

    Minimises the mean of -log p(y), p the softmax of the outputs, plus penalties on the weights.

    Parameters
    ----------
    layers : list of layers or None, default=None
        Hidden layers, `Conv`, `MaxPool`, `Dense`, `LSTM` and so on; the output layer is added. None: for images two
        convolutions with poolings and a dense layer of 128 units (fewer for small ones), else the dense layer alone.
    activation : str, default="relu"
        "relu", "soft", "soft_nonnegative", "hard", "topk", "tanh" or "linear": of layers that have none of their own.
    threshold : float, "learned", "per_unit" or None, default=None
        Of layers that have neither a threshold nor a density of their own; 0.1 if there is no density either.
    density : float or None, default=None
        Share of non-zero activations that training moves the thresholds to, or that "topk" keeps.
    share : sharing rule or None, default=None
        For the weights of layers that have none of their own: `hashed(1 / 8)`, `clustered(32)`, ... Rules that fit any
        shape hold for the output layer, too.
    optimizer : {"adam", "momentum", "sgd"}, default="adam"
        Adam, classical momentum, or plain stochastic gradient descent.
    learning_rate : float, default=0.001
        Of "sgd" and "momentum" rather 0.1 or 0.01.
    momentum : float, default=0.9
        Of "momentum".
    schedule : {"constant", "step", "cosine", "adaptive"} or callable, default="constant"
        Of the learning rate: halved every 5 epochs; down to 0 along half a wave; divided by 5 instead of stopping,
        until it is below 1e-6; or a function of epoch (from 0) and max_iter that returns a factor.
    batch_size : int, default=128
        Samples a step.
    max_iter : int, default=200
        Most epochs, passes over all samples.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    alpha : float, default=0.0001
        l2 penalty on all weights, 0.5 * alpha * |W|^2 over the samples of a batch, as in `MLPClassifier`.
    l1 : float, default=0.0
        l1 penalty on all weights, l1 * |W|_1 over the samples of a batch.
    early_stopping : bool, default=False
        Hold out a part of the samples, stop when the score on it no longer improves, and keep the best weights.
    validation_fraction : float, default=0.1
        That part.
    n_iter_no_change : int or None, default=10
        Stop after this many epochs in which loss, or score on the held-out part, improved by less than `tol`. None:
        train for `max_iter` epochs.
    tol : float, default=0.0001
        Least improvement.
    image_shape : tuple of 2 or 3 ints or None, default=None
        Height, width and channels of images given as flat rows.
    random_state : int, RandomState or None, default=None
        For first weights, batches, dropout and the held-out part.
    warm_start : bool, default=False
        Let `fit` go on from the network there is, pruned and shared as it may be.
    verbose : bool or int, default=False
        Print a line an epoch.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        Where to compute: "auto" follows X; "cpu"; "cuda" or "cuda:N", to which NumPy arrays are sent, whole where they
        take no more than a quarter of the free memory, else piece by piece while those before are trained on. What is
        returned is where X is, and so is `network_`.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    network_ : Network
        The layers connected, with their weights.
    loss_curve_ : list of float
        Mean loss of every epoch, penalties included.
    validation_scores_ : list of float or None
        Accuracy on the held-out part after every epoch.
    densities_ : ndarray of shape (n_activations,)
        Share of non-zero activations behind each hidden layer that has some, on training samples.
    n_iter_ : int
        Epochs.
    converged_ : bool
        Whether training ended before `max_iter`, for lack of improvement.
    input_shape_ : tuple of int
        Of a sample, as the first layer takes it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        As in scikit-learn, if the samples were flat rows.

    Raises
    ------
    ValueError
        In `fit`, for layers that do not fit together (the message names both and their shapes), parameters and samples
        that are out of range, one class, and labels not seen before.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended the training; if the loss became NaN or infinite (the weights of the last good epoch are
        kept then) or ended far above its first value, with what to lower; if a layer has no activation but zeros.

    See Also
    --------
    DeepSparseRegressor : The same for numbers.
    sparseshare.network.parameter_report : What is stored and computed.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sparseshare.network import DeepSparseClassifier, Dense, hashed
    >>> X, y = load_digits(return_X_y=True)
    >>> network = DeepSparseClassifier(
    ...     [Dense(64, activation="hard", density=0.2), Dense(32, share=hashed(1 / 4))],
    ...     max_iter=30, n_iter_no_change=None, random_state=0,
    ... )
    >>> network.fit(X[:1000] / 16, y[:1000]).score(X[1000:] / 16, y[1000:]) > 0.85
    True
    """

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
        class_weight=None,
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
        super().__init__(
            layers,
            activation=activation,
            threshold=threshold,
            density=density,
            share=share,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            schedule=schedule,
            batch_size=batch_size,
            max_iter=max_iter,
            shuffle=shuffle,
            alpha=alpha,
            l1=l1,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            image_shape=image_shape,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            n_jobs=n_jobs,
            device=device,
            checkpoint=checkpoint,
        )
        self.class_weight = class_weight

    def partial_fit(self, X, y, classes=None):
        """Train for one pass over a batch of samples.

        Parameters
        ----------
        X : array-like as in `fit`
        y : array-like of shape (n,)
        classes : array-like of shape (n_classes,) or None, default=None
            All labels there will be; needed in the first call, unless a `fit` went before.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, classes)

    def predict(self, X):
        """The most probable class.

        Parameters
        ----------
        X : array-like as in `fit`

        Returns
        -------
        array of shape (n,)
            Of the host if the classes are no numbers.
        """
        best = self._outputs(X).argmax(axis=1)
        if on_gpu(best) and self.classes_.dtype.kind in "fiub":
            return to_device(self.classes_, device_of(best))[best]
        return self.classes_[to_host(best)]

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like as in `fit`

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`.
        """
        logarithms = self.predict_log_proba(X)
        return array_module(logarithms).exp(logarithms)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like as in `fit`

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        return log_softmax(self._outputs(X))

    def score(self, X, y, sample_weight=None):
        """Share of samples whose class is predicted.

        Parameters
        ----------
        X : array-like as in `fit`
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,) or None, default=None

        Returns
        -------
        float
        """
        from sklearn.metrics import accuracy_score  # only here: slow to import

        return accuracy_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight))

    def _check_targets(self, X, y, going_on, classes=None, batch=False):
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = column_or_1d(to_host(y), warn=True)
        check_consistent_length(X, y)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if going_on:
            known = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), known):
                raise ValueError(f"classes={classes!r} is not the same as in the call before: {known.tolist()}")
        elif classes is not None:
            known = np.unique(classes)
        elif batch:
            raise ValueError("classes must be passed on the first call to partial_fit")
        else:
            known = np.unique(y)
        unseen = np.setdiff1d(y, known)
        if len(unseen):
            raise ValueError(f"y has labels that are not among the classes {known.tolist()}: {unseen.tolist()}")
        if len(known) < 2:
            raise ValueError(f"y has one class, {known.tolist()}: a classifier needs at least 2 classes")
        if batch and isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' cannot be worked out from a batch: give partial_fit a dictionary of weights"
            )
        self.classes_, self._class_weights = known, None
        if self.class_weight is not None:
            self._class_weights = compute_class_weight(self.class_weight, classes=known, y=y)
        return np.searchsorted(known, y)

    def _n_outputs(self):
        return len(self.classes_)

    def _loss(self):
        return SoftmaxCrossEntropy(self._class_weights)

    def _score(self, outputs, targets):
        return np.mean(outputs.argmax(axis=1) == targets)

    def _split(self, targets, random_state):
        from sklearn.model_selection import train_test_split  # only here: slow to import

        return train_test_split(
            np.arange(len(targets)), test_size=self.validation_fraction, random_state=random_state, stratify=targets
        )

    def _fitted_targets(self):
        return {"classes_": self.classes_}


class DeepSparseRegressor(RegressorMixin, NetworkLearner):
    """A deep network of sparse activations and shared weights that predicts numbers.

    Minimises the mean of 0.5 * |outputs - y|^2, summed over outputs, plus penalties on the weights. Bring y to a scale
    near 1.

    Parameters
    ----------
    layers : list of layers or None, default=None
        Hidden layers, `Conv`, `MaxPool`, `Dense`, `LSTM` and so on; the output layer is added. None: for images two
        convolutions with poolings and a dense layer of 128 units (fewer for small ones), else the dense layer alone.
    activation : str, default="relu"
        "relu", "soft", "soft_nonnegative", "hard", "topk", "tanh" or "linear": of layers that have none of their own.
    threshold : float, "learned", "per_unit" or None, default=None
        Of layers that have neither a threshold nor a density of their own; 0.1 if there is no density either.
    density : float or None, default=None
        Share of non-zero activations that training moves the thresholds to, or that "topk" keeps.
    share : sharing rule or None, default=None
        For the weights of layers that have none of their own: `hashed(1 / 8)`, `clustered(32)`, ... Rules that fit any
        shape hold for the output layer, too.
    optimizer : {"adam", "momentum", "sgd"}, default="adam"
        Adam, classical momentum, or plain stochastic gradient descent.
    learning_rate : float, default=0.001
        Of "sgd" and "momentum" rather 0.1 or 0.01.
    momentum : float, default=0.9
        Of "momentum".
    schedule : {"constant", "step", "cosine", "adaptive"} or callable, default="constant"
        Of the learning rate: halved every 5 epochs; down to 0 along half a wave; divided by 5 instead of stopping,
        until it is below 1e-6; or a function of epoch (from 0) and max_iter that returns a factor.
    batch_size : int, default=128
        Samples a step.
    max_iter : int, default=200
        Most epochs, passes over all samples.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    alpha : float, default=0.0001
        l2 penalty on all weights, 0.5 * alpha * |W|^2 over the samples of a batch, as in `MLPClassifier`.
    l1 : float, default=0.0
        l1 penalty on all weights, l1 * |W|_1 over the samples of a batch.
    early_stopping : bool, default=False
        Hold out a part of the samples, stop when the score on it no longer improves, and keep the best weights.
    validation_fraction : float, default=0.1
        That part.
    n_iter_no_change : int or None, default=10
        Stop after this many epochs in which loss, or score on the held-out part, improved by less than `tol`. None:
        train for `max_iter` epochs.
    tol : float, default=0.0001
        Least improvement.
    image_shape : tuple of 2 or 3 ints or None, default=None
        Height, width and channels of images given as flat rows.
    random_state : int, RandomState or None, default=None
        For first weights, batches, dropout and the held-out part.
    warm_start : bool, default=False
        Let `fit` go on from the network there is, pruned and shared as it may be.
    verbose : bool or int, default=False
        Print a line an epoch.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        Where to compute: "auto" follows X; "cpu"; "cuda" or "cuda:N", to which NumPy arrays are sent, whole where they
        take no more than a quarter of the free memory, else piece by piece while those before are trained on. What is
        returned is where X is, and so is `network_`.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    network_ : Network
        The layers connected, with their weights.
    loss_curve_ : list of float
        Mean loss of every epoch, penalties included.
    validation_scores_ : list of float or None
        R^2 on the held-out part after every epoch.
    densities_ : ndarray of shape (n_activations,)
        Share of non-zero activations behind each hidden layer that has some, on training samples.
    n_iter_ : int
        Epochs.
    converged_ : bool
        Whether training ended before `max_iter`, for lack of improvement.
    input_shape_ : tuple of int
        Of a sample, as the first layer takes it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        As in scikit-learn, if the samples were flat rows.

    Raises
    ------
    ValueError
        In `fit`, for layers that do not fit together (the message names both and their shapes), parameters and samples
        that are out of range.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended the training; if the loss became NaN or infinite (the weights of the last good epoch are
        kept then) or ended far above its first value, with what to lower; if a layer has no activation but zeros.

    See Also
    --------
    DeepSparseClassifier : The same for classes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import DeepSparseRegressor, Dense
    >>> X = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    >>> y = np.abs(X).sum(axis=1)
    >>> network = DeepSparseRegressor([Dense(32)], learning_rate=0.01, max_iter=100, tol=1e-5, random_state=0)
    >>> network.fit(X, y).score(X, y) > 0.98
    True
    """

    def partial_fit(self, X, y):
        """Train for one pass over a batch of samples.

        Parameters
        ----------
        X : array-like as in `fit`
        y : array-like of shape (n,) or (n, n_outputs)

        Returns
        -------
        self
        """
        return self._partial_fit(X, y)

    def predict(self, X):
        """The outputs of the network.

        Parameters
        ----------
        X : array-like as in `fit`

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs)
            As y was in `fit`.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if self._flat_targets else outputs

    def score(self, X, y, sample_weight=None):
        """Share of the variance of y that the predictions explain, R^2.

        Parameters
        ----------
        X : array-like as in `fit`
        y : array-like of shape (n,) or (n, n_outputs)
        sample_weight : array-like of shape (n,) or None, default=None

        Returns
        -------
        float
        """
        from sklearn.metrics import r2_score  # only here: slow to import

        return r2_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight))

    def _check_targets(self, X, y, going_on, classes=None, batch=False):
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = check_array(to_host(y), ensure_2d=False, dtype=np.float64, input_name="y")
        check_consistent_length(X, y)
        flat = y.ndim == 1 or y.shape[1] == 1
        if y.ndim == 2 and flat:
            y = column_or_1d(y, warn=True)
        if y.ndim > 2:
            raise ValueError(f"y must have the shape (n_samples,) or (n_samples, n_outputs), got {y.shape}")
        y = y.reshape(len(y), -1)
        if going_on and y.shape[1] != self._n_targets:
            raise ValueError(f"y has {y.shape[1]} outputs, the network that goes on has {self._n_targets}")
        self._flat_targets, self._n_targets = flat, y.shape[1]
        return y.astype(self.network_.dtype if going_on else network_dtype(X))

    def _n_outputs(self):
        return self._n_targets

    def _loss(self):
        return SquaredError()

    def _score(self, outputs, targets):
        from sklearn.metrics import r2_score  # only here: slow to import

        return r2_score(targets, outputs)

    def _split(self, targets, random_state):
        from sklearn.model_selection import train_test_split  # only here: slow to import

        return train_test_split(np.arange(len(targets)), test_size=self.validation_fraction, random_state=random_state)

    def _fitted_targets(self):
        return {"_flat_targets": self._flat_targets, "_n_targets": self._n_targets}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
