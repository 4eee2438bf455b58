"""LearnedSparseCoder: a network of a few steps that learns to give the codes of the lasso."""

import copy
from contextlib import closing

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from sparseshare.buffering import read_ahead
from sparseshare.callbacks import CallbackSupportMixin, with_callbacks
from sparseshare.coding.problem import Problem
from sparseshare.devices import (
    Movable,
    computing_on,
    device_of,
    memory_errors,
    on_gpu,
    resolve_device,
    to_device,
    to_host,
)
from sparseshare.outputs import write_pieces
from sparseshare.sources import Source, Stack, as_source, check_source, rows_a_block, rows_of, stack_of
from sparseshare.threads import thread_count
from sparseshare.validation import (
    check_bool,
    check_choice,
    check_dictionary,
    check_number,
    check_resident,
    check_signals,
    compute_dtype,
)

from .batches import Batches
from .inputs import check_there
from .model import Network
from .pieces import together
from .planning import check_training, plan_of
from .resumption import Resumption
from .training import NetworkReports, train
from .unrolled_errors import error_curve
from .unrolled_steps import WEIGHTS, UnrolledISTA
from .unrolled_training import loss_of, scorer, split

LOSSES = ("objective", "codes")
_DECAY = 0.99  # of Adam's second moments: with more memory one steep batch throws the weights of many steps far off


class LearnedSparseCoder(
    CallbackSupportMixin, Movable, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Sparse codes in a few steps that are learned: LISTA and its relatives.

    The codes to be given are those of the lasso, which minimise F(z) = 0.5 |x - z D|^2 + alpha |z|_1. The network
    takes `n_steps` steps z <- soft(x W + z S, theta) from z = 0. It begins as ISTA, with W = D'/L, S = I - D D'/L and
    theta = alpha / L for all atoms, L the largest eigenvalue of D D'; `fit` then moves these weights so that so few
    steps come as near to the codes as possible for signals like those of `fit`.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features)
        D, an atom a row, of any norm.
    alpha : float, default=1.0
        Penalty of the lasso.
    n_steps : int, default=8
        Every step costs a product of the signals with n_features x n_components weights (with "tied" and "analytic"
        only the first does) and one of the codes, whose zeros are skipped, with n_components x n_components weights.
    weights : {"coupled", "untied", "tied", "analytic"}, default="coupled"
        What is learned beside a threshold for every atom. "tied": W and S, the same in all steps, a recurrent network.
        "untied": W and S of every step. "coupled": W of every step, while S = I - D W. "analytic": a length of every
        step, W being that length times weights that minimise the coherence with the dictionary.
    positive : bool, default=False
        Codes >= 0.
    accelerate : bool, default=False
        Take every step from z + beta (z - the codes a step earlier), with a beta for every step that is learned too. It
        begins as FISTA then.
    n_sweeps : int, default=0
        After the steps `transform` goes at most so often over the atoms that they leave, by coordinate descent on F; it
        stops where a pass changes no correlation by more than alpha / 1000. That never raises F and costs little, for
        the atoms are few. Training knows nothing of it.
    loss : {"objective", "codes"}, default="objective"
        What training minimises: F itself, or the squared distance to the exact codes. These are computed once and kept
        as a dense array; those of signals on disk in every epoch anew, batch by batch.
    discount : float, default=0.0
        Training minimises a mean of this loss over all steps, in which a step has `discount` times the weight of the
        next one. 0 takes the last step alone; with 0.7 or so the codes after every step are of use, see `error_curve`.
    optimizer : {"adam", "momentum", "sgd"}, default="adam"
        Adam (with the decay 0.99 of its second moments), classical momentum, or plain stochastic gradient descent.
    learning_rate : float, default=0.03
        Weights are stored in units in which it suits "adam", whatever the norms of atoms and signals.
    momentum : float, default=0.9
        Of "momentum".
    schedule : {"constant", "step", "cosine", "adaptive"} or callable, default="cosine"
        Of the learning rate: halved every 5 epochs; down to 0 along half a wave; divided by 5 instead of stopping,
        until it is below 1e-6; or a function of epoch (from 0) and max_iter that returns a factor.
    batch_size : int, default=128
        Signals a step of training.
    max_iter : int, default=20
        Most epochs, passes over all signals; 0 leaves ISTA.
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    early_stopping : bool, default=False
        Hold out a part of the signals, stop when the loss on it no longer falls, and keep the best weights.
    validation_fraction : float, default=0.1
        That part.
    n_iter_no_change : int or None, default=None
        Stop after this many epochs in which the loss, or that of the held-out part, fell by less than `tol`. None:
        train for `max_iter` epochs.
    tol : float, default=1e-05
        Least improvement of the loss.
    sparse_output : bool, default=False
        Make `transform` return a csr_array.
    random_state : int, RandomState or None, default=None
        For batches and the held-out part.
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
        The dictionary.
    network_ : Network
        Of one layer, whose node has `step_weights(step)`.
    loss_curve_ : list of float
        Mean loss of every epoch, over what codes of zeros have: it is 1 for them.
    validation_scores_ : list of float or None
        The negative of it on the held-out part.
    n_iter_ : int
        Epochs.
    converged_ : bool
        Whether training ended before `max_iter`, for lack of improvement.
    input_shape_ : tuple
        (n_features,).
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit`, for parameters and signals that are out of range or do not suit the dictionary.

    Warns
    -----
    ConvergenceWarning
        If the loss became NaN or infinite: the weights of the last good epoch are kept then.

    See Also
    --------
    sparseshare.SparseCoder : The exact codes.
    sparseshare.network.SequentialSparseCoder : Codes of sequences by a recurrent network.

    Notes
    -----
    There is no certificate: how far the codes of other signals are from exact ones, `error_curve` tells. Signals unlike
    those of `fit` get codes that may be far off.

    Of few steps the best use is to find the atoms, from which `n_sweeps` go on: for 8 x 8 patches and 256 atoms (9
    non-zeros) four accelerated steps, trained on 50,000 patches for 8 epochs, ended with an objective 1.4 % above the
    least on other patches, and 0.15 % above it after five sweeps, where 50 iterations of FISTA have 0.26 %. Where codes
    are as sparse as that, exact ones by `SparseCoder` take no longer.

    References
    ----------
    K. Gregor, Y. LeCun, "Learning fast approximations of sparse coding", ICML 2010, section 3.2. X. Chen, J. Liu,
    Z. Wang, W. Yin, "Theoretical linear convergence of unfolded ISTA and its practical weights and thresholds", NeurIPS
    2018, equation 15 ("coupled"). J. Liu, X. Chen, Z. Wang, W. Yin, "ALISTA: analytic weights are as good as learned
    weights in LISTA", ICLR 2019 ("analytic"). X. Chen, J. Liu, Z. Wang, W. Yin, "Hyperparameter tuning is all you need
    for LISTA", NeurIPS 2021 (momentum in the steps).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import LearnedSparseCoder
    >>> rng = np.random.default_rng(0)
    >>> D = rng.standard_normal((16, 8))
    >>> D /= np.linalg.norm(D, axis=1, keepdims=True)
    >>> X = rng.standard_normal((1000, 8))
    >>> coder = LearnedSparseCoder(D, alpha=0.3, n_steps=4, random_state=0).fit(X)
    >>> new = rng.standard_normal((200, 8))
    >>> coder.transform(new).shape
    (200, 16)
    >>> gaps = coder.error_curve(new)["objective_gap"]
    >>> bool(gaps["learned"][3] < gaps["fista"][3] < gaps["ista"][3])
    True
    """

    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        dictionary,
        *,
        alpha=1.0,
        n_steps=8,
        weights="coupled",
        positive=False,
        accelerate=False,
        n_sweeps=0,
        loss="objective",
        discount=0.0,
        optimizer="adam",
        learning_rate=0.03,
        momentum=0.9,
        schedule="cosine",
        batch_size=128,
        max_iter=20,
        shuffle=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=None,
        tol=1e-5,
        sparse_output=False,
        random_state=None,
        verbose=False,
        n_jobs=None,
        device="auto",
        checkpoint=None,
    ):
        self.dictionary = dictionary
        self.alpha = alpha
        self.n_steps = n_steps
        self.weights = weights
        self.positive = positive
        self.accelerate = accelerate
        self.n_sweeps = n_sweeps
        self.loss = loss
        self.discount = discount
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.sparse_output = sparse_output
        self.random_state = random_state
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Train the steps on signals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            float32 is computed in float32, all else in float64. Of memory maps, zarr arrays and HDF5 data sets a batch
            is read when its turn comes.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        X = stack_of(X)
        X = self._check_stored(X) if isinstance(X, Stack) else self._check_signals(X, reset=True)
        device = self._device(X, fitted=False)
        with computing_on(device), memory_errors(device, "training unrolled steps"):
            return self._fit(X, y, device)

    def _fit(self, X, y, device):
        resumption = Resumption(self, X=X)
        random_state, dtype = resumption.random_state, compute_dtype(X)
        self.components_ = check_dictionary(to_host(self.dictionary), dtype)
        self.input_shape_ = (X.shape[1],)
        self.network_ = self._new_network(self.input_shape_, dtype).to_device(device)
        signals = Batches(X, self.input_shape_, dtype, device)
        loss, targets = loss_of(self, X, signals)
        read, score = signals, None
        if self.early_stopping:
            rows, held = split(len(X), self.validation_fraction, random_state)
            score = scorer(loss, signals, held, targets)
            read = signals.among(rows)
            targets = read if targets is signals else targets[to_device(rows, device_of(targets))]
        with NetworkReports(self, X, y) as reports:
            history = train(
                self.network_,
                read,
                targets,
                plan_of(self, loss, adam={"decay2": _DECAY}),
                random_state,
                score=score,
                reports=reports,
                attributes=self._fitted_so_far,
                resumption=resumption,
            )
        self.loss_curve_ = history.loss_curve
        self.validation_scores_ = history.validation_scores if self.early_stopping else None
        self.n_iter_ = history.n_iter
        self.converged_ = history.stopped in ("converged", "callback")
        for parameter in self.network_.parameters:
            parameter.state = {}
        self.network_.release()
        self.network_ = self.network_.to_device(device_of(X))
        self.components_ = to_device(self.components_, device_of(X))
        return self

    def transform(self, X, out=None):
        """Codes of signals.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            Memory maps, zarr arrays, HDF5 data sets, and iterables of blocks (arrays or sparse arrays of some rows
            each) are read block by block.
        out : array of shape (n_samples, n_components) or None, default=None
            Where codes go block by block, so that they are never in memory together: anything to whose rows can be
            written (memory map, zarr, HDF5).

        Returns
        -------
        ndarray or csr_array of shape (n_samples, n_components)
            Of the precision of the signals of `fit`. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a block of signals holds NaN, has another width or cannot be read. The message names it and
            its rows; codes of the blocks before it that have been written to `out` stay there.
        """
        X = self._check_new(X)
        if out is not None:
            return write_pieces(self._code_blocks(as_source(X)), out, (X.shape[0], self._n_features_out))
        if not isinstance(X, Source):
            return self._codes(X, sparse=self.sparse_output)
        return together(self._code_blocks(X, self.sparse_output), X.shape[0])

    def inverse_transform(self, X):
        """Signals that codes stand for, codes @ dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_components)
            Codes as `transform` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        self._device(X)
        if on_gpu(X):
            codes, dtype = check_signals(X, name="codes")
            codes = codes.astype(dtype, copy=False)
        else:
            codes = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
        if codes.shape[1] != len(self.components_):
            raise ValueError(
                f"X must hold codes of n_components={len(self.components_)} entries, its shape is {codes.shape}"
            )
        return codes @ self.components_.astype(codes.dtype, copy=False)

    def error_curve(self, X):
        """How far codes are from exact ones after 1, 2, ..., `n_steps` steps, beside ISTA and FISTA.

        With ``discount=0`` all steps but the last have been trained for what comes after them, not for the best codes
        at once. The `n_sweeps` follow on the last step that is taken, whichever it is.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As of `transform`; best signals that `fit` has not seen.

        Returns
        -------
        dict
            "steps": ndarray of int, 1 to n_steps. "code_error": sum |z - z*|^2 over sum |z*|^2. "objective_gap": sum
            F(z) - F(z*) over sum F(z*). Each of these two is a dict of ndarrays "learned", "ista" and "fista" of
            shape (n_steps,), z* being the exact codes.
        """
        X = self._check_new(X)
        device = self._device(X)
        with computing_on(device), closing(self._dense_blocks(as_source(X))) as blocks:
            return error_curve(self, (rows.astype(np.float64) for _, _, rows in blocks), device)

    def _new_network(self, shape, dtype, random_state=0):
        """The steps of ISTA."""
        layer = UnrolledISTA(
            self.components_,
            float(self.alpha),
            n_steps=self.n_steps,
            weights=self.weights,
            positive=self.positive,
            every_step=self.discount > 0,
            accelerate=self.accelerate,
        )
        return Network([layer], shape, dtype, random_state, n_threads=thread_count(self.n_jobs))

    def _dense_blocks(self, source):
        """Signals block by block, as `write_pieces` takes them; blocks are of whole tiles of `unrolled_codes`."""
        n_rows = rows_a_block(source.shape[1] + self._n_features_out, compute_dtype(source))
        blocks = source.blocks(n_rows)
        with closing(read_ahead(blocks) if source.in_threads else blocks) as blocks:
            for number, first, rows in blocks:
                yield number, first, rows.toarray() if hasattr(rows, "toarray") else rows

    def _code_blocks(self, source, sparse=False):
        """Codes of these blocks."""
        with closing(self._dense_blocks(source)) as blocks:
            for number, first, rows in blocks:
                yield number, first, self._codes(rows, sparse=sparse)

    def _codes(self, X, n_steps=None, sparse=False):
        network = self.network_.to_device(self._device(X))
        network.set_threads(thread_count(self.n_jobs))
        return network.nodes[0].codes(X.astype(network.dtype, copy=False), n_steps, sparse, self.n_sweeps)

    def _problem(self, dtype, tol, algorithm="lasso_lars", max_iter=1000):
        return Problem(
            to_host(self.components_).astype(dtype, copy=False),
            algorithm=algorithm,
            alpha=float(self.alpha),
            positive=self.positive,
            tol=tol,
            max_iter=max_iter,
            owner=type(self).__name__,
        )

    def _fitted_so_far(self):
        network = copy.deepcopy(self.network_)
        names = ("components_", "input_shape_", "n_features_in_")
        return {"network_": network, **{name: getattr(self, name) for name in names}}

    def _device(self, X, fitted=True):
        """Where to compute for signals X."""
        return resolve_device(self.device, X, vars(self).get("components_") if fitted else None)

    def _check_stored(self, X):
        """Signals on disk that `fit` is given."""
        if X.ndim > 2:
            raise ValueError(f"Found array with dim {X.ndim}: X must be 2-D, a row a signal; got shape {X.shape}")
        check_there(X)
        validate_data(self, X, skip_check_array=True)
        self._check_dictionary(X)
        return X

    def _check_new(self, X):
        """Signals for a fitted coder: a source if they are to be read block by block."""
        check_is_fitted(self)
        X = rows_of(X)
        if not isinstance(X, Source):
            return self._check_signals(X, reset=False)
        self._device(X)
        X, _ = check_source(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        return X

    def _check_signals(self, X, reset):
        self._device(X, fitted=not reset)
        if on_gpu(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = check_resident(check_signals(X)[0])
        else:
            X = validate_data(self, X, reset=reset, dtype="numeric")
            X = np.ascontiguousarray(X, compute_dtype(X))
        if reset:
            self._check_dictionary(X)
        return X

    def _check_dictionary(self, X):
        dictionary = check_dictionary(to_host(self.dictionary))
        if dictionary.shape[1] != X.shape[1]:
            raise ValueError(
                f"Dictionary and X have different numbers of features: the dictionary has {dictionary.shape[1]}, "
                f"X.shape is {X.shape}"
            )

    def _check_parameters(self):
        of = type(self).__name__
        check_number("alpha", self.alpha, 0, of=of)
        check_number("n_steps", self.n_steps, 1, integer=True, of=of)
        check_choice("weights", self.weights, WEIGHTS, of=of)
        check_number("n_sweeps", self.n_sweeps, 0, integer=True, of=of)
        check_choice("loss", self.loss, LOSSES, of=of)
        check_number("discount", self.discount, 0, 1, of=of)
        for name in ("positive", "accelerate", "sparse_output"):
            check_bool(name, getattr(self, name), of=of)
        check_training(self, min_iter=0)

    @property
    def _n_features_out(self):
        return len(self.components_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
