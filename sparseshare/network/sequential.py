"""Sparse coding of signals that change slowly: a recurrent network of unrolled ISTA."""

import copy
from contextlib import closing

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from sparseshare.callbacks import CallbackSupportMixin, with_callbacks
from sparseshare.devices import (
    Movable,
    array_module,
    computing_on,
    device_of,
    memory_errors,
    on_gpu,
    resolve_device,
    rows_that_fit,
    to_device,
    to_host,
)
from sparseshare.outputs import write_pieces
from sparseshare.sources import Stack, stack_of
from sparseshare.staging import StagedRows
from sparseshare.threads import thread_count
from sparseshare.validation import check_bool, check_dictionary, check_kind, check_number, check_resident, compute_dtype
from sparseshare.variance import Variance, explained

from .batches import Batches, StoredTargets
from .inputs import check_there
from .layers import Dense
from .losses import SquaredError
from .model import Network
from .pieces import pieces_of, together
from .planning import check_training, plan_of, warn_unfinished
from .resumption import Resumption
from .sequential_steps import SequentialCoding
from .training import NetworkReports, train

_AT_ONCE = 2**22  # code entries that a transform works on at a time, of
_SEQUENCES = 512  # sequences at most
_BYTES_THERE = 1 << 26  # of sequences that a GPU works on together where not all of them, or their codes, are in memory


class SequentialSparseCoder(CallbackSupportMixin, Movable, TransformerMixin, BaseEstimator):
    """Sparse codes of sequences, in which every code knows the one before.

    A step of a sequence has the code h_t that minimises

        0.5 |x_t - h_t D|^2 + alpha |h_t|_1 + 0.5 smoothness |h_t D - h_{t-1} D F|^2

    with what came before fixed: the signal is to be near x_t and near what is expected after the last step. `n_iter`
    steps of ISTA begin at the last code, which for slowly changing signals is nearly right. They are a recurrent
    network with soft thresholds, and `learn` trains its weights by backpropagation through time.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features)
        D, an atom a row.
    alpha : float, default=0.1
        Penalty on the codes.
    smoothness : float, default=0.1
        How strongly a signal is held to what is expected after the one before. 0 leaves only the start of the
        iterations.
    n_iter : int, default=5
        Iterations a time step.
    transition : array-like of shape (n_features, n_features) or None, default=None
        F: ``x_{t-1} @ F`` is what is expected at t. None expects no change.
    positive : bool, default=False
        Codes >= 0.
    learn : bool, default=False
        Train weights, thresholds and the way back to signals so that reconstructions come near the targets of `fit`.
    optimizer : {"adam", "momentum", "sgd"}, default="adam"
        This and what follows is for training only.
    learning_rate : float, default=0.0001
        Small, for every weight is applied `n_iter` times a time step: with hundreds of atoms 0.001 makes the
        iterations blow up, with ten it is well.
    schedule : {"constant", "step", "cosine", "adaptive"} or callable, default="constant"
        As in `DeepSparseClassifier`.
    batch_size : int, default=32
        Sequences a step.
    max_iter : int, default=100
        Most epochs.
    n_iter_no_change : int or None, default=10
        Stop after this many epochs in which the loss fell by less than `tol`. None: train for `max_iter` epochs.
    tol : float, default=0.0001
        Least improvement of the loss.
    random_state : int, RandomState or None, default=None
        For batches.
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
    components_ : ndarray of shape (n_components, n_features)
        The way back from codes to signals: the dictionary, or what training has made of it.
    network_ : Network
        The iterations and the way back, with their weights.
    loss_curve_ : list of float
        Of every epoch: the mean over sequences of 0.5 * |reconstruction - target|^2.
    n_iter_ : int
        Epochs.
    converged_ : bool
        Whether training ended before `max_iter`, for lack of improvement; True without training.
    n_features_in_ : int

    Raises
    ------
    ValueError
        In `fit`, for parameters and arrays that are out of range or do not go together.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended the training, or the loss became NaN or infinite: the weights of the last good epoch are
        kept then.

    See Also
    --------
    sparseshare.sparse_encode : Codes of signals that do not know each other.
    sparseshare.network.Recurrent : A recurrent layer for classification.

    Notes
    -----
    With what is expected written as p, the objective of a step is that of a lasso for the signal
    (x + smoothness p) / (1 + smoothness) and the penalty alpha / (1 + smoothness). The iterations begin one gradient
    step for |h D - p|^2 after the last code: without a transition at the last code, for an orthonormal dictionary at
    h_{t-1} D F D', as in the papers.

    References
    ----------
    S. Wisdom, T. Powers, J. Pitton, L. Atlas, "Interpretable recurrent neural networks using sequential sparse
    recovery", 2016 (arXiv:1611.07252): the algorithm SISTA and its network; "Building recurrent networks by unfolding
    iterative thresholding for sequential sparse recovery", ICASSP 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import SequentialSparseCoder
    >>> rng = np.random.default_rng(0)
    >>> D = rng.standard_normal((8, 5))
    >>> slow = np.abs(rng.standard_normal((20, 1, 8))) * (1 + 0.1 * np.sin(np.arange(30) / 5))[:, None]
    >>> X = slow @ D + 0.3 * rng.standard_normal((20, 30, 5))
    >>> coder = SequentialSparseCoder(D, alpha=0.1, smoothness=1.0, n_iter=10).fit(X)
    >>> codes = coder.transform(X)
    >>> codes.shape
    (20, 30, 8)
    >>> def error(coder):
    ...     return np.mean((coder.inverse_transform(coder.transform(X)) - slow @ D) ** 2)
    >>> learned = SequentialSparseCoder(
    ...     D, alpha=0.1, smoothness=1.0, n_iter=3, learn=True, learning_rate=1e-3, max_iter=20,
    ...     n_iter_no_change=None, random_state=0,
    ... ).fit(X, slow @ D)
    >>> bool(error(learned) < error(coder) < np.mean((X - slow @ D) ** 2))
    True
    """

    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        dictionary,
        *,
        alpha=0.1,
        smoothness=0.1,
        n_iter=5,
        transition=None,
        positive=False,
        learn=False,
        optimizer="adam",
        learning_rate=1e-4,
        schedule="constant",
        batch_size=32,
        max_iter=100,
        n_iter_no_change=10,
        tol=1e-4,
        random_state=None,
        verbose=False,
        n_jobs=None,
        device="auto",
        checkpoint=None,
    ):
        self.dictionary = dictionary
        self.alpha = alpha
        self.smoothness = smoothness
        self.n_iter = n_iter
        self.transition = transition
        self.positive = positive
        self.learn = learn
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Set up the network for the sequences at hand, and train it if `learn`.

        Parameters
        ----------
        X : array-like of shape (n, time, n_features)
            Sequences; float32 is computed in float32, all else in float64. Of memory maps, zarr arrays and HDF5 data
            sets a batch is read when its turn comes.
        y : array-like of shape (n, time, n_features) or None, default=None
            What reconstructions are to come near in training, such as the sequences without their noise; on disk, too.
            None, and labels of shape (n,), as a pipeline passes them: X itself.

        Returns
        -------
        self
        """
        self._check_parameters()
        device = resolve_device(self.device, X, None if y is None or _ndim(y) == 1 else y)
        with computing_on(device), memory_errors(device, "training on sequences"):
            return self._fit(X, y, device)

    def _fit(self, X, y, device):
        X = self._check_sequences(X, reset=True)
        targets = self._check_targets(X, y)
        check_random_state(self.random_state)
        dictionary = check_dictionary(to_host(self.dictionary), np.float64)
        if dictionary.shape[1] != X.shape[2]:
            raise ValueError(
                f"Dictionary and X have different numbers of features: the dictionary has {dictionary.shape[1]}, "
                f"X.shape is {X.shape}"
            )
        transition = self._check_transition(dictionary.shape[1])
        coding = SequentialCoding(
            dictionary, float(self.alpha), float(self.smoothness), int(self.n_iter), transition, bool(self.positive)
        )
        back = Dense(dictionary.shape[1], activation="linear", bias=False)
        self.network_ = Network([coding, back], (1, dictionary.shape[1]), compute_dtype(X))
        weights = self.network_.nodes[1].weights
        weights.values[...] = dictionary
        weights.changed()
        self.network_ = self.network_.to_device(device)
        self.network_.set_threads(thread_count(self.n_jobs))
        self.loss_curve_, self.n_iter_, self.converged_ = [], 0, True
        if self.learn:
            self._train(X, y, targets, device)
        self.network_.release()
        self.network_ = self.network_.to_device(device_of(X))
        self.components_ = self.network_.nodes[1].weights.values
        return self

    def transform(self, X, out=None):
        """Codes of sequences.

        Parameters
        ----------
        X : array-like of shape (n, time, n_features)
            Of any number of time steps. Memory maps, zarr arrays and HDF5 data sets are read part by part.
        out : array of shape (n, time, n_components) or None, default=None
            Where codes go, those of 512 sequences at a time, so that they are never in memory together: anything to
            whose rows can be written (memory map, zarr, HDF5).

        Returns
        -------
        ndarray of shape (n, time, n_components)
            With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a part on disk holds NaN or cannot be read. The message names its rows; codes of the sequences
            before it that have been written to `out` stay there.
        """
        check_is_fitted(self)
        X = self._check_sequences(X, reset=False, finite=False)
        if out is None:
            return together(self._code_pieces(X, whole=not isinstance(X, Stack)), len(X))
        return write_pieces(self._code_pieces(X), out, (*X.shape[:2], len(self.components_)))

    def inverse_transform(self, codes):
        """Sequences of codes, ``codes @ components_``.

        Parameters
        ----------
        codes : array-like of shape (n, time, n_components)

        Returns
        -------
        ndarray of shape (n, time, n_features)
        """
        check_is_fitted(self)
        self._device(codes)
        if on_gpu(codes):
            codes = check_resident(codes, "codes")
        else:
            codes = check_array(
                codes, dtype=[np.float64, np.float32], ensure_2d=False, allow_nd=True, input_name="codes"
            )
        if codes.ndim != 3 or codes.shape[2] != len(self.components_):
            raise ValueError(
                f"codes must have the shape (n, time, n_components) with n_components={len(self.components_)}, got "
                f"{codes.shape}"
            )
        return codes @ self.components_.astype(codes.dtype, copy=False)

    def score(self, X, y=None):
        """Share of the variance that the reconstruction explains, 1 - |y - y_hat|^2 / |y - mean(y)|^2.

        Parameters
        ----------
        X : array-like of shape (n, time, n_features)
            As in `transform`.
        y : array-like as in `fit`
            What the reconstruction of X is compared with.

        Returns
        -------
        float
            1 is perfect. Where y is constant, 1 for a perfect reconstruction and 0 otherwise.
        """
        check_is_fitted(self)
        X = self._check_sequences(X, reset=False, finite=False)
        targets = self._check_targets(X, y)
        error, variance = 0.0, Variance()
        with closing(self._code_pieces(X)) as pieces:
            for _, first, codes in pieces:
                wanted = targets[first : first + len(codes)].astype(np.float64)
                error += float(((self.inverse_transform(codes) - wanted) ** 2).sum())
                variance.add(wanted.reshape(-1, wanted.shape[2]))
        return explained(error, variance.total)

    def _code_pieces(self, X, whole=False):
        """Codes of some sequences after the other, as `write_pieces` takes them; `whole`: of all, if a GPU makes them.

        The CPU takes few sequences at a time and few steps of them, but enough for products of matrices.
        """
        device, (n, n_steps), n_components = self._device(X), X.shape[:2], len(self.components_)
        network = self.network_.to_device(device)
        network.set_threads(thread_count(self.n_jobs))
        if device != "cpu":
            a_sequence = n_steps * (X.shape[2] + n_components) * network.dtype.itemsize
            for number, first, part in pieces_of(X, _slices(n, n if whole else max(1, _BYTES_THERE // a_sequence))):
                yield number, first, self._codes_on_device(part, network, device)
            return
        some = _slices(n_steps, max(1, _AT_ONCE // (_SEQUENCES * n_components)))
        keys = [(rows, steps) for rows in _slices(n, _SEQUENCES) for steps in some]
        with closing(pieces_of(X, keys)) as parts:
            for number, first, part in parts:
                steps = keys[number][1]
                if steps.start == 0:
                    codes, last = np.empty((len(part), n_steps, n_components), network.dtype), None
                codes[:, steps], _ = network.nodes[0].forward(part.astype(network.dtype, copy=False), last=last)
                last = np.ascontiguousarray(codes[:, steps][:, -1])
                if steps.stop == n_steps:
                    yield first // _SEQUENCES, first, codes

    def _codes_on_device(self, X, network, device):
        """As many sequences at a time as fit: every step is one product for all of them."""
        (n, n_steps, n_features), dtype = X.shape, network.dtype
        codes = array_module(X).empty((n, n_steps, len(self.components_)), dtype)
        with computing_on(device):
            a_step = 2 * n_features + 3 * len(self.components_)
            n_rows = rows_that_fit(device, n_steps * a_step * dtype.itemsize)
            pieces = StagedRows(X.reshape(n, -1), dtype, device, n_rows)
            for rows, block in pieces:
                found, _ = network.nodes[0].forward(block.reshape(-1, n_steps, n_features))
                pieces.prefetch()
                codes[rows] = to_device(found, device_of(X))
        return codes

    def _device(self, X):
        """Where to compute for sequences or codes X."""
        return resolve_device(self.device, X, self.components_)

    def _train(self, X, y, targets, device):
        resumption = Resumption(self, X=X, y=None if targets is X else targets)
        plan = plan_of(self, SquaredError())
        read = Batches(X, X.shape[1:], compute_dtype(X), device)
        targets = read if targets is X else targets
        with NetworkReports(self, X, y) as reports:
            history = train(
                self.network_,
                read,
                targets,
                plan,
                resumption.random_state,
                reports=reports,
                attributes=self._fitted_so_far,
                resumption=resumption,
            )
        self.loss_curve_, self.n_iter_ = history.loss_curve, history.n_iter
        self.converged_ = history.stopped in ("converged", "callback")
        for parameter in self.network_.parameters:
            parameter.state = {}
        warn_unfinished(self, history, stacklevel=4)

    def _fitted_so_far(self):
        network = copy.deepcopy(self.network_)
        components, n_features = network.nodes[1].weights.values, self.n_features_in_
        return {"network_": network, "components_": components, "n_features_in_": n_features, "n_iter_": 1}

    def _check_parameters(self):
        of = type(self).__name__
        check_number("alpha", self.alpha, 0, of=of)
        check_number("smoothness", self.smoothness, 0, of=of)
        check_number("n_iter", self.n_iter, 1, integer=True, of=of)
        check_bool("positive", self.positive, of=of)
        check_bool("learn", self.learn, of=of)
        check_training(self)

    def _check_sequences(self, X, reset, finite=True):
        X = stack_of(X)
        if on_gpu(X):
            X = check_resident(X)
        elif not isinstance(X, Stack):
            X = check_array(X, dtype="numeric", ensure_2d=False, allow_nd=True, estimator=self, input_name="X")
        check_kind(X, "X")
        if X.ndim != 3:
            raise ValueError(
                f"Expected 3D array, got {X.ndim}D array instead: X must hold sequences, (n, time, features), and its "
                f"shape is {X.shape}. One sequence x is x[None]"
            )
        for axis, what in enumerate(("sample", "time step", "feature")):
            if X.shape[axis] == 0:
                raise ValueError(f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required.")
        if isinstance(X, Stack):
            check_there(X, finite)
        if reset:
            self.n_features_in_ = X.shape[2]
        elif X.shape[2] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[2]} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        return X if isinstance(X, Stack) else array_module(X).ascontiguousarray(X, compute_dtype(X))

    def _check_targets(self, X, y):
        if y is None or _ndim(y) == 1:
            return X
        y = stack_of(y, "y")
        if on_gpu(y):
            y = check_resident(y, "y")
        elif not isinstance(y, Stack):
            y = check_array(y, dtype="numeric", ensure_2d=False, allow_nd=True, input_name="y")
        check_kind(y, "y")
        if y.shape != X.shape:
            raise ValueError(f"y must hold a target for every entry of X: X has the shape {X.shape}, y {y.shape}")
        if isinstance(y, Stack):
            check_there(y, one="target")
            return StoredTargets(y, compute_dtype(X))
        return array_module(X).ascontiguousarray(to_device(y, device_of(X)), compute_dtype(X))

    def _check_transition(self, n_features):
        if self.transition is None:
            return None
        transition = check_array(to_host(self.transition), dtype=np.float64, input_name="transition")
        if transition.shape != (n_features, n_features):
            raise ValueError(
                f"The 'transition' parameter of {type(self).__name__} must have the shape ({n_features}, "
                f"{n_features}), from features to features, got {transition.shape}"
            )
        return transition

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _slices(n, step):
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _ndim(array):
    """Number of axes of an array, of a GPU too, or of nested lists."""
    return array.ndim if hasattr(array, "ndim") else np.ndim(array)
