"""Atoms shared over positions, learned from the blocks of a Dask array."""

import warnings
from functools import reduce

import numpy as np
from sklearn.utils import check_random_state

from sparseshare.callbacks import EpochReports, with_callbacks
from sparseshare.convolution import ConvDictionaryLearning
from sparseshare.convolution.alternation import Alternation
from sparseshare.convolution.encoder import Encoder
from sparseshare.convolution.signals import ConvSignals, check_conv_signals
from sparseshare.devices import moved, resolve_device, to_device
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import is_dask

from .blocks import ArrayBlocks, RemoteSignals, check_dask_array, current_client
from .encoding import encode_dask
from .learner import ClusterLearner, refuse_beside_dask


class DaskConvDictionaryLearning(ClusterLearner, ConvDictionaryLearning):
    """Learn atoms shared over all positions from the blocks of a Dask array, on the workers of a cluster.

    `ConvDictionaryLearning` with method="online" and blocks in the place of signals: workers code blocks and send back
    the statistics phi and psi, whose size depends on the atoms alone; the atoms are updated here. A block whose worker
    dies is done again elsewhere.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means as many as `atom_shape` or `dict_init` has, else 32.
    atom_shape : int, tuple of ints, list of shapes or dict of numbers by shape, default=(8, 8)
        As in `ConvDictionaryLearning`.
    alpha : float, default=0.1
        Penalty on the absolute values of the maps, in units of the signals.
    alpha_relative : bool, default=False
        Take alpha as a fraction, at most 1, of the least penalty at which all codes of the training signals are zero
        for the first atoms, for which all blocks are read once more.
    boundary : {"circular", "full", "valid"}, default="circular"
        Signals wrap around; or atoms lie wholly inside; or they may stick out at both ends.
    mode : {"synchronous", "asynchronous"}, default="synchronous"
        "synchronous": one update a round of `blocks_per_update` blocks, all coded with the same atoms. The result is
        that of `ConvDictionaryLearning` with batches of that many signals, to rounding, and does not depend on the
        workers, to the last bit. (Where a batch holds all signals, with forgetting=0 there: its None keeps their codes
        from epoch to epoch, which nobody keeps here.) "asynchronous": one update a block, as soon as it is coded; the
        result depends on who comes first.
    blocks_per_update : int or None, default=None
        Blocks in a round. None means 8. Fewer than there are threads in the cluster leave some idle.
    max_in_flight : int or None, default=None
        With "asynchronous": tasks that are begun and not yet learned from. None is two a thread of the cluster.
    max_staleness : int or None, default=None
        With "asynchronous": updates that the atoms may have seen since those that a block was coded with. None is twice
        `max_in_flight`.
    max_iter : int, default=100
        Most epochs, passes over all blocks.
    tol : float, default=0.0001
        Stop when an epoch lowers the objective by at most this fraction of it. 0 makes `max_iter` of them.
    shuffle : bool, default=True
        Draw the order of the blocks anew in every epoch; signals stay in their blocks.
    forgetting : float or None, default=None
        What the statistics so far count beside a further batch, 0 (not at all) to 1 (as much). None means in `fit`
        that an epoch replaces the one before, and 1 in `partial_fit`.
    solver : {"auto", "lgcd", "working_set", "fista", "admm"}, default="auto"
        Of the codes, as in `conv_sparse_encode`.
    positive_code : bool, default=False
        No negative activations.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    zero_mean_dict : bool, default=False
        Atoms whose entries sum to 0.
    atom_norm : {"ball", "sphere"}, default="ball"
        Norm of an atom, its channels together, at most 1, or equal to 1.
    rank1 : bool, default=False
        Atoms that are a pattern over the channels times a pattern over the support, each of the norm above.
    weights : array of shape (n_components,), default=None
        Factors w of alpha; 0 leaves an atom without penalty.
    joint : float, default=0.0
        Where each channel has maps of its own: the part of the penalty, 0 to 1, that is an l2 norm over the channels.
    smoothness : array of shape (n_components,), default=None
        Penalty on the squared gradient of each map.
    dict_init : {"data", "k-means++", "gaussian"} or array of shape (n_atoms, *atom_shape[, n_channels]), default="data"
        The first atoms: random patches, spread ones, noise. Signals that patches come from are fetched one by one.
    n_fixed : int, default=0
        The first atoms of the array `dict_init` that stay as they are.
    replace_atoms : bool, default=True
        Give the places of atoms that nothing uses to the worst coded patches; blocks are coded once more for these.
    channels : bool, default=True
        Whether atoms have the channels of the signals. False: every channel has maps of its own.
    transform_tol : float, default=0.0001
        Relative duality gap of the codes in `transform` and `encode`; `fit` does not solve more exactly.
    transform_max_iter : int or None, default=None
        Iterations a signal in `transform` and `encode`; None is the solver's own limit.
    pooling : {"max", "mean", "sum"}, default="max"
        What `transform` makes of the magnitudes in a cell.
    pool_grid : int, tuple of ints or list of these, default=2
        Cells along every axis of the maps, or a list of such grids, a pyramid: ``[1, 2, 4]``.
    split_sign : bool, default=False
        Make `transform` pool positive and negative activations apart.
    sparse_output : bool, default=False
        Make `encode` return csr_array, or a Dask array with such blocks.
    image_shape : tuple of ints or None, default=None
        Spatial shape, and channels if there are any, of signals given as flat rows.
    warm_start : bool, default=False
        Let `fit` go on from the atoms and the statistics of the last fit.
    verbose : bool or int, default=False
        Print a line an epoch.
    random_state : int, RandomState or None, default=None
        For the first atoms and the order of the blocks.
    n_jobs : int or None, default=None
        Threads of a task. None is one: Dask runs a task on every thread of a worker. Results do not depend on it.
    device : str, default="auto"
        Where workers code: "auto" follows the blocks; "cuda" sends them to the worker's GPU; "cpu".
    checkpoint : str, path, Checkpoint or None, default=None
        File of this machine that `fit` writes its state to every minute, or as often as a
        `sparseshare.checkpoints.Checkpoint` says. A fit whose client was killed goes on from it, with the same data and
        parameters, on any cluster; "synchronous" ends with the same bits.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, *atom_shape[, n_channels])
        The atoms, float32 if the signals were.
    loss_curve_ : list of float
        Mean objective per signal, one value an epoch and one a call of `partial_fit`, before the atoms moved.
    n_iter_ : int
        Epochs.
    n_steps_ : int
        Updates.
    converged_ : bool
        Whether `tol` ended the fit.
    alpha_ : float
        The penalty, not relative.
    n_axes_, n_channels_, signal_shape_ : int, int or None, tuple of ints
        What the signals were like.

    Raises
    ------
    TypeError
        In `fit` and `partial_fit`, if X is no Dask array.
    ValueError
        For parameters and data that are out of range; the message names the parameter, or the block and its rows.
    RuntimeError
        Without a Dask client, and for a block that could not be read, whose number is told.

    See Also
    --------
    ConvDictionaryLearning : On one machine.
    DaskMiniBatchDictionaryLearning : Atoms as long as the signals; on dead workers and clients.

    References
    ----------
    T. Moreau, A. Gramfort, "DiCoDiLe: distributed convolutional dictionary learning", 2020: statistics that add up.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from distributed import Client
    >>> from sparseshare.distributed import DaskConvDictionaryLearning
    >>> signals = da.from_array(np.random.default_rng(0).standard_normal((12, 60)), chunks=(3, 60))
    >>> with Client(processes=False, dashboard_address=":0"):
    ...     learner = DaskConvDictionaryLearning(2, 5, alpha=1.0, max_iter=2, tol=0, random_state=0).fit(signals)
    >>> learner.components_.shape, learner.encode(signals).shape
    ((2, 5), (12, 2, 60))
    """

    method, batch_size = "online", 1  # parameters of the estimator for arrays that are none here

    def __init__(
        self,
        n_components=None,
        atom_shape=(8, 8),
        *,
        alpha=0.1,
        alpha_relative=False,
        boundary="circular",
        mode="synchronous",
        blocks_per_update=None,
        max_in_flight=None,
        max_staleness=None,
        max_iter=100,
        tol=1e-4,
        shuffle=True,
        forgetting=None,
        solver="auto",
        positive_code=False,
        positive_dict=False,
        zero_mean_dict=False,
        atom_norm="ball",
        rank1=False,
        weights=None,
        joint=0.0,
        smoothness=None,
        dict_init="data",
        n_fixed=0,
        replace_atoms=True,
        channels=True,
        transform_tol=1e-4,
        transform_max_iter=None,
        pooling="max",
        pool_grid=2,
        split_sign=False,
        sparse_output=False,
        image_shape=None,
        warm_start=False,
        verbose=False,
        random_state=None,
        n_jobs=None,
        device="auto",
        checkpoint=None,
    ):
        self.n_components = n_components
        self.atom_shape = atom_shape
        self.alpha = alpha
        self.alpha_relative = alpha_relative
        self.boundary = boundary
        self.mode = mode
        self.blocks_per_update = blocks_per_update
        self.max_in_flight = max_in_flight
        self.max_staleness = max_staleness
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.forgetting = forgetting
        self.solver = solver
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.zero_mean_dict = zero_mean_dict
        self.atom_norm = atom_norm
        self.rank1 = rank1
        self.weights = weights
        self.joint = joint
        self.smoothness = smoothness
        self.dict_init = dict_init
        self.n_fixed = n_fixed
        self.replace_atoms = replace_atoms
        self.channels = channels
        self.transform_tol = transform_tol
        self.transform_max_iter = transform_max_iter
        self.pooling = pooling
        self.pool_grid = pool_grid
        self.split_sign = split_sign
        self.sparse_output = sparse_output
        self.image_shape = image_shape
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the atoms.

        Parameters
        ----------
        X : dask.array.Array of shape (n_samples, *signal_shape[, n_channels]) or (n_samples, n_features)
            Signals without missing samples.
        y : ignored

        Returns
        -------
        self

        Warns
        -----
        UserWarning
            If `alpha` is so large that all codes are zero.
        """
        self._check_learning_parameters()
        blocks, signals = self._remote_signals(X, reset=True)
        random_state = check_random_state(self.random_state)
        going_on = self.warm_start and hasattr(self, "components_")
        checkpoint, saved = self._begin_checkpoints(blocks)
        memory = vars(self).get("_memory") if going_on else None
        update = self._update(blocks, signals, random_state, going_on, memory, saved)
        self.converged_ = False
        with single_threaded_blas, EpochReports(self, X, y) as reports:
            self.loss_curve_ = self._learn_from_blocks(
                lambda order: self._steps(update, blocks, order),
                blocks, reports, random_state, checkpoint, saved, lambda: self._given(update.atoms, signals),
                lambda: dict(alternation=update.state, converged=self.converged_), self._has_converged,
            )  # fmt: skip
        if saved is not None and saved["finished"]:
            self.converged_ = saved["converged"]
        self.n_iter_ = len(self.loss_curve_)
        self._keep(update, signals)
        if not update.statistics.usage[update.form.n_fixed :].any() and update.statistics.energy > 0:
            warnings.warn(
                f"all codes are zero: alpha={self.alpha_:g} is too large for these signals; lower it, or give a "
                "fraction with alpha_relative=True",
                UserWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X, y=None):
        """One update from all blocks of X; the first call also makes the first atoms.

        Parameters
        ----------
        X : dask.array.Array as in `fit`
            The batch, whatever `blocks_per_update` and `mode` say.
        y : ignored

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        going_on = hasattr(self, "components_")
        blocks, signals = self._remote_signals(X, reset=not going_on)
        random_state = check_random_state(self.random_state)
        update = self._update(blocks, signals, random_state, going_on, vars(self).get("_memory"))
        if not going_on:
            self.loss_curve_, self.n_iter_, self.converged_ = [], 0, False
        numbers, given = range(len(blocks)), self._arguments(update, blocks)
        with single_threaded_blas:
            summary = blocks.merged(_merged, numbers, _statistics_of_block, *given)
            objective = self._learn_from(update, blocks, numbers, given, summary, 1.0)
        self.loss_curve_.append(objective / len(signals))
        self._keep(update, signals)
        return self

    def encode(self, X, mask=None, out=None):
        """Activation maps, as without Dask; a Dask array for a Dask array, see `encode_dask`.

        Parameters
        ----------
        X : signals as in `fit`, or arrays
        mask, out : as of `ConvDictionaryLearning.encode`
            For what is no Dask array.

        Returns
        -------
        dask.array.Array or array of shape (n_samples, n_components, *positions[, n_channels])
        """
        if not is_dask(X):
            return super().encode(X, mask, out)
        refuse_beside_dask(mask=mask, out=out)
        self._check_is_ready()
        return encode_dask(X, self._serial(), "encode")

    def _check_learning_parameters(self):
        super()._check_learning_parameters()
        self._check_cluster_parameters()

    def _remote_signals(self, X, reset):
        """Blocks, and signals that are fetched when they are asked for."""
        X = check_dask_array(X, (2, 3, 4, 5), of=type(self).__name__)
        blocks = ArrayBlocks(X, current_client())
        # All that is asked of signals but their numbers is answered by one of zeros.
        zeros = np.zeros((1, *X.shape[1:]), X.dtype)
        template = _on_host(self)._training_signals(zeros, None, reset)
        if reset:
            self._check_columns(zeros, reset=True)
        shape = template.arrays.shape[1:]
        return blocks, ConvSignals(
            RemoteSignals(blocks, shape), template.n_axes, template.n_channels, separate=not self.channels,
            flat=template.flat, device="cpu",
        )  # fmt: skip

    def _update(self, blocks, signals, random_state, going_on, memory, saved=None):
        form, atoms = self._start(signals, random_state, going_on)
        if saved is not None:
            self.alpha_ = saved["alternation"]["alpha"]
        elif not going_on or "alpha_" not in vars(self) or memory is None:
            self.alpha_ = float(self.alpha)
            if self.alpha_relative:
                shared = blocks.share((atoms, self._options()))
                work = _largest_alpha_of_block, shared, *self._form_of_signals(), self._threads, self.device
                self.alpha_ *= blocks.merged(max, range(len(blocks)), *work)
        update = Alternation(atoms, form, self._options(), self.alpha_, self.replace_atoms, None, memory)
        if saved is not None:
            update.restore(saved["alternation"])
        return update

    def _form_of_signals(self):
        """Spatial axes, and what flat rows stand for."""
        _, support, _ = self._shapes()
        return len(support), self.channels, self.image_shape

    def _arguments(self, update, blocks):
        """What a task is given beside its block."""
        shared = blocks.share((update.atoms, update.form, update.options, update.alpha))
        return shared, *self._form_of_signals(), self._threads, self.device

    def _steps(self, update, blocks, order):
        size = self._blocks_in_a_batch(blocks) * int(blocks.sizes.max())
        forgetting = max(0.0, 1 - size / blocks.shape[0]) if self.forgetting is None else self.forgetting
        batches = self._batches(blocks, order, _merged, _statistics_of_block, lambda: self._arguments(update, blocks))
        for numbers, given, summary in batches:
            objective = self._learn_from(update, blocks, numbers, given, summary, forgetting)
            yield len(numbers), int(blocks.sizes[numbers].sum()), objective, False

    def _learn_from(self, update, blocks, numbers, given, summary, forgetting):
        statistics, objective = summary

        def worst_coded(count):
            return blocks.merged(_merged_worst, numbers, _worst_of_block, *given, blocks.share(update.atoms), count)

        update.learn_from(statistics, forgetting, worst_coded)
        return objective

    def _has_converged(self, losses):
        if self.tol > 0 and len(losses) > 1:
            self.converged_ = bool(losses[-2] - losses[-1] <= self.tol * losses[-2])
        return self.converged_

    def _serial(self):
        """The same atoms in the estimator for arrays, for the tasks that code with it."""
        names = ConvDictionaryLearning._get_param_names()
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        serial = ConvDictionaryLearning(**parameters)
        left_out = (*self.get_params(deep=False), "_memory", "loss_curve_", "_skl_callbacks")
        vars(serial).update({name: value for name, value in vars(self).items() if name not in left_out})
        return serial

    def _n_means(self, X):
        return self.n_channels_ or 1


def _on_host(estimator):
    """The estimator as it is where there is no GPU: workers may have one, it is not asked for here."""
    host = ConvDictionaryLearning.__new__(type(estimator))
    vars(host).update(vars(estimator) | dict(device="cpu"))
    return host


def _signals_of(block, atoms, n_axes, with_channels, image_shape, device):
    """Signals of a block in the form of the room, where `device` says, and atoms there."""
    device = resolve_device(device, block)
    n_channels = None
    if with_channels and (np.ndim(block) > n_axes + 1 or (image_shape is not None and len(image_shape) > n_axes)):
        n_channels = "any"
    signals = check_conv_signals(block, n_axes, n_channels, image_shape=image_shape, device=device)
    # What comes over the network is read-only.
    return signals, to_device(np.require(atoms, requirements="CW"), device)


def _alternation(block, shared, n_axes, with_channels, image_shape, n_jobs, device):
    atoms, form, options, alpha = shared
    signals, atoms = _signals_of(block, atoms, n_axes, with_channels, image_shape, device)
    return signals, Alternation(atoms, form, options, alpha, False, n_jobs)


def _statistics_of_block(block, first_row, *task):
    signals, alternation = _alternation(block, *task)
    with single_threaded_blas:
        _, statistics, objective = alternation.summarized(signals)
    return moved(statistics, "cpu"), float(objective)


def _worst_of_block(block, first_row, *task):
    """Codes for the atoms before the update, and what the atoms after it make badly of them."""
    *task, atoms, count = task
    signals, alternation = _alternation(block, *task)
    with single_threaded_blas:
        maps = alternation.summarized(signals)[0]
        alternation.atoms = to_device(np.require(atoms, requirements="CW"), signals.device)
        return alternation.worst_coded(signals, maps, count)


def _largest_alpha_of_block(block, first_row, shared, n_axes, with_channels, image_shape, n_jobs, device):
    signals, atoms = _signals_of(block, shared[0], n_axes, with_channels, image_shape, device)
    return float(Encoder(atoms, shared[1], n_jobs).largest_alpha(signals))


def _merged(*summaries):
    """Statistics and objectives, added up one after the other."""
    return reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), summaries)


def _merged_worst(*found):
    return reduce(lambda a, b: a.merge(b), found)
