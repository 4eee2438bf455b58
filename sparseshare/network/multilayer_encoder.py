"""DeepSparseEncoder: dictionaries of several layers learned without labels, and the codes of signals in them."""

from contextlib import closing
from functools import partial
from math import prod

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import check_array
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from sparseshare.callbacks import CallbackSupportMixin, with_callbacks
from sparseshare.devices import (
    Movable,
    computing_on,
    device_of,
    memory_errors,
    module_of,
    moved,
    on_gpu,
    resolve_device,
    to_device,
    to_host,
)
from sparseshare.outputs import write_pieces
from sparseshare.threads import single_threaded_blas, thread_count
from sparseshare.validation import check_bool, check_choice, check_number, check_resident, check_signals
from sparseshare.variance import Variance, explained

from .batches import Batches
from .blocks import in_blocks
from .chains import check_each, connected, linear_layers
from .convolutional import Conv
from .estimators import DeepSparseClassifier
from .inputs import check_samples, network_dtype
from .layers import Builder, Dense
from .multilayer import code, codes_of, deepest_codes, scaled, spread, unrolled
from .multilayer_layer import MultilayerCoding
from .multilayer_learning import DictionaryLearner, first_weights
from .multilayer_training import learn_dictionaries
from .operators import Chain
from .pieces import pieces_of
from .planning import check_training
from .resumption import Resumption
from .training import NetworkReports

_ALGORITHMS = ("ml_fista", "ml_ista", "threshold")
_DRAWN_FROM = 256  # samples that the first atoms are pieces of


class DeepSparseEncoder(
    CallbackSupportMixin, Movable, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Multi-layer sparse coding: a dictionary a layer, learned without labels, each of the codes of the one before.

    Minimises, over dictionaries D_i with atoms of norm 1, the mean over the signals x of

        min over g_L of 0.5 |x - D_1 ... D_L g_L|^2 + sum_i alpha_i |g_i|_1    with g_{i-1} = D_i g_i

    Every step codes a batch by ML-FISTA, then moves all dictionaries along their gradients.

    Parameters
    ----------
    layers : list of Conv, Dense and int, or None, default=None
        Sizes of the dictionaries: a number of atoms (or `Dense`) for one of all features, `Conv` for atoms shared over
        positions, of which number, kernel, stride and padding are used. None: two layers.
    alpha : float or sequence of float, default=0.1
        Penalty of all layers, or of each.
    algorithm : {"ml_fista", "ml_ista", "threshold"}, default="ml_fista"
        For the codes. "threshold" is `layered_thresholding` with thresholds alpha in one pass; dictionaries are then
        learned by "ml_fista".
    n_iter : int, default=20
        Iterations for a code.
    step : float or sequence of float, default=1.0
        Step sizes as parts of 1 / |D_i|^2, of all layers or of each; smaller ones in all but the last come nearer to
        the minimum, in more iterations.
    positive : bool, default=False
        Codes >= 0 in every layer.
    atoms_alpha : float or sequence of float, default=0.0
        Above 0 for sparse atoms in all layers but the first: after every step, entries are soft-thresholded by this
        times the learning rate. In a sequence the first number is for the second layer.
    learning_rate : float, default=0.01
        Of Adam. It is halved after every epoch that does not lower the objective.
    batch_size : int, default=128
        Signals a step.
    max_iter : int, default=50
        Most epochs, passes over all signals.
    n_iter_no_change : int or None, default=3
        Stop after so many epochs in which the objective did not fall. None: learn for `max_iter` epochs.
    tol : float, default=0.001
        To fall is to get lower than before by this part.
    image_shape : tuple of 2 or 3 ints or None, default=None
        Height, width and channels of images given as flat rows.
    random_state : int, RandomState or None, default=None
        For the first dictionaries and the batches.
    verbose : bool or int, default=False
        Print a line an epoch.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where X lives: NumPy's on the CPU, CuPy's on its GPU, and so are codes and attributes. "cuda"
        and "cuda:N" send NumPy's to a GPU; what comes out are NumPy arrays.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    dictionaries_ : list of ndarray of shape (n_atoms, n_features) or (n_atoms, *kernel, n_channels)
        One a layer, float32 if X was.
    loss_curve_ : list of float
        Mean objective of the signals, one an epoch; each signal counted with the dictionaries that it met.
    densities_ : ndarray of shape (n_layers,)
        Share of non-zeros in the codes of every layer, in the last epoch.
    n_iter_ : int
        Epochs.
    converged_ : bool
        Whether learning ended because the objective no longer fell, or a callback asked for it.
    input_shape_ : tuple of int
        Of a signal, as the first layer takes it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        As in scikit-learn, if the signals were flat rows.

    Raises
    ------
    ValueError
        In `fit`, for layers that do not fit together (the message names both and their shapes), parameters and signals
        that are out of range.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended the learning while the objective was falling by more than 1 % an epoch, or it became NaN or
        infinite: the dictionaries of the last good epoch are kept then.

    See Also
    --------
    ml_fista : Codes for dictionaries that are there.
    MultilayerCoding : The same as a layer, trained with labels.

    Notes
    -----
    Intermediate codes are thresholded, and near to what the deeper ones synthesise; `inverse_transform` and the
    objective use the deepest ones alone. An atom that no signal uses stays as it is.

    References
    ----------
    J. Sulam, A. Aberdam, A. Beck, M. Elad, "On multi-layer basis pursuit, efficient algorithms and convolutional neural
    networks", IEEE TPAMI 2019; J. Sulam, V. Papyan, Y. Romano, M. Elad, "Multi-layer convolutional sparse modeling:
    pursuit and dictionary learning", IEEE TSP 2018, for sparse atoms.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sparseshare.network import Conv, DeepSparseEncoder
    >>> X = load_digits().data[:300] / 16
    >>> encoder = DeepSparseEncoder([32, 16], alpha=[0.01, 0.1], max_iter=10, n_iter_no_change=None, random_state=0)
    >>> encoder.fit_transform(X).shape
    (300, 16)
    >>> encoder.loss_curve_[-1] < encoder.loss_curve_[0]
    True
    >>> shared = DeepSparseEncoder([Conv(8, 3), Conv(16, 4)], image_shape=(8, 8), max_iter=2, n_iter_no_change=None)
    >>> [codes.shape for codes in shared.fit(X).encode(X)]
    [(300, 6, 6, 8), (300, 3, 3, 16)]
    """

    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        layers=None,
        *,
        alpha=0.1,
        algorithm="ml_fista",
        n_iter=20,
        step=1.0,
        positive=False,
        atoms_alpha=0.0,
        learning_rate=0.01,
        batch_size=128,
        max_iter=50,
        n_iter_no_change=3,
        tol=1e-3,
        image_shape=None,
        random_state=None,
        verbose=False,
        n_jobs=None,
        device="auto",
        checkpoint=None,
    ):
        self.layers = layers
        self.alpha = alpha
        self.algorithm = algorithm
        self.n_iter = n_iter
        self.step = step
        self.positive = positive
        self.atoms_alpha = atoms_alpha
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.image_shape = image_shape
        self.random_state = random_state
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the dictionaries.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width[, channels]) or (n, time, channels)
            Rows, images or sequences; rows are images with `image_shape`. Arrays of three axes are images if the first
            `Conv` has two axes, or if there are no `layers`. Of memory maps, zarr arrays and HDF5 data sets a batch is
            read when its turn comes.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        device = resolve_device(self.device, X)
        with computing_on(device), memory_errors(device, "learning dictionaries of several layers"):
            return self._fit(X, y, device)

    def _fit(self, X, y, device):
        X, self.input_shape_ = check_samples(self, X, reset=True)
        self._sample_shape = X.shape[1:]
        layers = _default_layers(self.input_shape_) if self.layers is None else self.layers
        self._layers = [clone(layer) for layer in linear_layers(layers, type(self).__name__, sharing=False)]
        operators = self._operators()
        alpha, _, atoms_alpha = self._per_layer(len(operators))
        dtype, home = network_dtype(X), device_of(X)
        resumption, read = Resumption(self, X=X), Batches(X, self.input_shape_, dtype, device)
        if resumption.saved is None:
            drawn = np.sort(resumption.random_state.permutation(len(X))[:_DRAWN_FROM])
            with single_threaded_blas:
                weights = first_weights(operators, read(drawn), alpha, self.positive, resumption.random_state)
            memory = None
        else:
            weights, memory = moved(resumption.saved["weights"], device), resumption.saved["memory"]
        learner = DictionaryLearner(
            operators, weights, alpha, atoms_alpha, partial(self._unrolled, n_layers=len(operators)), memory
        )
        with NetworkReports(self, X, y) as reports:
            progress = learn_dictionaries(
                self, learner, read, len(X), resumption, reports, partial(self._so_far, learner, home)
            )
        self.dictionaries_ = moved(learner.dictionaries(), home)
        self.loss_curve_, self.n_iter_ = progress.losses, max(len(progress.losses), 1)
        self.converged_, self.densities_ = progress.stopped == "converged", learner.densities
        return self

    def transform(self, X, out=None):
        """Codes of the deepest layer.

        Parameters
        ----------
        X : array-like as in `fit`
            Memory maps, zarr arrays and HDF5 data sets are read piece by piece.
        out : array of shape (n, n_codes) or None, default=None
            Where codes go piece by piece, so that they are never in memory together: anything to whose rows can be
            written (memory map, zarr, HDF5).

        Returns
        -------
        ndarray of shape (n, n_codes)
            Laid out flat, if the layer has positions; float32 if X is float32, else float64. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a piece on disk holds NaN or cannot be read. The message names its rows; codes of the pieces
            before it that have been written to `out` stay there.
        """
        X, chain, infer, n_threads = self._coding(X)
        if out is None:
            return codes_of(X, chain, infer, n_threads, only_deepest=True)[-1].reshape(len(X), -1)
        shape = len(X), prod(chain.operators[-1].output_shape)
        return write_pieces(deepest_codes(X, chain, infer, n_threads), out, shape)

    def encode(self, X):
        """Codes of all layers.

        Parameters
        ----------
        X : array-like as in `fit`
            As in `transform`.

        Returns
        -------
        list of ndarray of shape (n, n_atoms) or (n, *positions, n_atoms)
        """
        return codes_of(*self._coding(X))

    def inverse_transform(self, X):
        """Signals that codes of the deepest layer stand for.

        Parameters
        ----------
        X : array-like of shape (n, n_codes)
            As `transform` returns them.

        Returns
        -------
        ndarray of shape (n, n_features), or that of the signals in `fit`
        """
        check_is_fitted(self)
        device = self._device(X)
        codes = check_resident(check_signals(X)[0]) if on_gpu(X) else check_array(X, dtype=[np.float64, np.float32])
        chain = self._chain(codes.dtype, device)
        if codes.shape[1] != self._n_features_out:
            raise ValueError(f"X must have {self._n_features_out} columns, one a code, got the shape {codes.shape}")
        return self._synthesised(codes.reshape(-1, *chain.operators[-1].output_shape), chain)

    def score(self, X, y=None):
        """Share of the variance that the reconstruction explains, 1 - |X - X_hat|^2 / |X - mean(X)|^2.

        Parameters
        ----------
        X : array-like as in `fit`
            As in `transform`.
        y : ignored

        Returns
        -------
        float
            1 is perfect. Where X is constant, 1 for a perfect reconstruction and 0 otherwise.
        """
        X, chain, infer, n_threads = self._coding(X)
        home, step = device_of(X), chain.step(len(X))

        def rebuild(x, chain):
            return [chain.estimates(infer(x, chain)[-1])[0]]

        error, variance = 0.0, Variance()
        with computing_on(chain.device), closing(pieces_of(X, chain.pieces(len(X)))) as pieces:
            for _, _, samples in pieces:
                rebuilt = module_of(home).empty((len(samples), *self.input_shape_), chain.dtype)
                code(samples, chain, rebuild, n_threads, [rebuilt], step)
                flat = samples.reshape(len(samples), -1).astype(np.float64)
                error += float(((flat - rebuilt.reshape(flat.shape)) ** 2).sum())
                variance.add(flat)
        return explained(error, variance.total)

    def to_classifier(self, n_steps=0, **parameters):
        """A classifier that starts from these dictionaries: its first layer unrolls ML-ISTA, to be trained with labels.

        Before it is trained, its codes are those of `ml_ista` with the penalties of this encoder in n_steps + 1
        iterations; or, if `algorithm` is "threshold" and n_steps 0, those of `transform`.

        Parameters
        ----------
        n_steps : int, default=0
            Of ML-ISTA, after a pass of layered thresholding.
        **parameters : parameters of `DeepSparseClassifier`
            With `layers`, layers that follow.

        Returns
        -------
        DeepSparseClassifier
            Not fitted yet.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sparseshare.network import DeepSparseEncoder
        >>> X, y = load_digits(return_X_y=True)
        >>> encoder = DeepSparseEncoder([64, 32], alpha=0.05, positive=True, max_iter=8, random_state=0)
        >>> epochs = dict(max_iter=40, n_iter_no_change=None)
        >>> classifier = encoder.fit(X[:1000] / 16).to_classifier(n_steps=2, random_state=0, **epochs)
        >>> classifier.fit(X[:1000] / 16, y[:1000]).score(X[1000:] / 16, y[1000:]) > 0.85
        True
        """
        check_is_fitted(self)
        chain = self._chain(np.float64, "cpu")
        thresholds, steps = self._settings(chain)
        coding = MultilayerCoding(
            [clone(layer) for layer in self._layers],
            n_steps=n_steps,
            positive=self.positive,
            threshold=thresholds,
            dictionaries=[np.array(to_host(dictionary)) for dictionary in self.dictionaries_],
            step_sizes=steps,
        )
        parameters = {"image_shape": self.image_shape, "n_jobs": self.n_jobs} | parameters
        return DeepSparseClassifier([coding, *parameters.pop("layers", [])], **parameters)

    def _check_parameters(self):
        of = type(self).__name__
        check_choice("algorithm", self.algorithm, _ALGORITHMS, of=of)
        check_number("n_iter", self.n_iter, 1, integer=True, of=of)
        check_bool("positive", self.positive, of=of)
        check_training(self)
        n_layers = 2 if self.layers is None else len(linear_layers(self.layers, of, sharing=False))
        self._per_layer(n_layers)

    def _per_layer(self, n_layers):
        of = type(self).__name__
        alpha = check_each("alpha", self.alpha, n_layers, 0, of=of)
        step = check_each("step", self.step, n_layers, 0, 1, open_low=True, of=of)
        deeper = self.atoms_alpha
        return alpha, step, [0.0, *check_each("atoms_alpha", deeper, n_layers - 1, 0, of=of)]

    def _operators(self):
        builder = Builder(np.float64, np.random.RandomState(0))
        return connected(self._layers, self.input_shape_, builder, type(self).__name__)

    def _device(self, X):
        """Where to compute for samples X."""
        return resolve_device(self.device, X, *self.dictionaries_)

    def _chain(self, dtype, device):
        operators = self._operators()
        weights = [
            operator.weights(to_host(a), dtype) for operator, a in zip(operators, self.dictionaries_, strict=True)
        ]
        return Chain(operators, [to_device(array, device) for array in weights])

    def _settings(self, chain, learning=False):
        alpha, step, _ = self._per_layer(len(chain.operators))
        if self.algorithm == "threshold" and not learning:
            return alpha, [1.0] * len(alpha)
        return scaled(chain, alpha, step)

    def _unrolled(self, chain, n_layers, learning=True):
        """The function that codes some samples."""
        thresholds, steps = self._settings(chain, learning)
        one_pass = self.algorithm == "threshold" and not learning
        return partial(
            unrolled,
            thresholds=spread(chain, thresholds),
            steps=steps,
            n_iter=1 if one_pass else self.n_iter,
            positive=bool(self.positive),
            accelerated=self.algorithm != "ml_ista",
        )

    def _so_far(self, learner, home, n_iter):
        return {
            "dictionaries_": moved(learner.dictionaries(), home),
            "input_shape_": self.input_shape_,
            "_layers": self._layers,
            "_sample_shape": self._sample_shape,
            "n_iter_": n_iter,
        }

    def _coding(self, X):
        """Samples as they came, the dictionaries where to compute, what codes some samples, and how many threads do."""
        check_is_fitted(self)
        self._check_parameters()
        device = self._device(X)
        X, _ = check_samples(self, X, reset=False, finite=False)
        chain = self._chain(network_dtype(X), device)
        infer = self._unrolled(chain, len(chain.operators), learning=False)
        return X, chain, infer, thread_count(self.n_jobs)

    def _synthesised(self, codes, chain):
        home, blocks = device_of(codes), chain.blocks(len(codes))
        rebuilt = module_of(home).empty((len(codes), *self.input_shape_), codes.dtype)

        def work(i, worker):
            estimates = chain.estimates(to_device(codes[blocks[i]], chain.device))
            rebuilt[blocks[i]] = to_device(estimates[0], home)

        with computing_on(chain.device):
            in_blocks(work, blocks, thread_count(self.n_jobs), chain.device)
        return rebuilt.reshape(-1, *self._sample_shape)

    @property
    def _n_features_out(self):
        return prod(self._operators()[-1].output_shape)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags


def _default_layers(shape):
    """Two layers for signals of a shape."""
    if len(shape) < 3 or min(shape[:2]) < 5:
        return [Dense(32), Dense(64)]
    if min(shape[:2]) < 16:
        return [Conv(16, 3), Conv(32, 3)]
    return [Conv(16, 6, stride=2), Conv(32, 5)]
