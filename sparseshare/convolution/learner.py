"""ConvDictionaryLearning: the estimator that learns atoms shared over all positions."""

import warnings
from math import prod

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from sparseshare.callbacks import CallbackSupportMixin, EpochReports, with_callbacks
from sparseshare.checkpoints import begin_checkpoints, check_checkpoint, random_bits, resumed_random_state
from sparseshare.devices import array_module, computing_on, moved, on_gpu, to_device, to_host
from sparseshare.fingerprints import sampled
from sparseshare.optimization.constraints import AtomConstraint
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_choice, check_number

from .alternation import Alternation, Batch
from .atoms import atoms_inside, check_atoms
from .encoder import SOLVERS, Encoder
from .initialization import METHODS, initial_atoms
from .shapes import atom_shapes
from .signals import check_conv_signals, check_support, device_for
from .transformer import ConvTransformer
from .updates import AtomForm

_STILL_FALLING = 1e-3  # relative decrease in the last turn from which it is worth saying that max_iter was too small
_LARGEST = 2**33  # bytes of statistics that a fit may take


class ConvDictionaryLearning(CallbackSupportMixin, ConvTransformer):
    """Learn atoms shared over all positions of signals, images or volumes.

    Minimises, over activation maps z_nk and atoms d_k, in turns,

        sum_n 0.5 |sum_k d_k * z_nk - x_n|^2 + alpha sum_k w_k |z_nk|_1    with every atom in the unit ball

    where * is the convolution. A turn codes the signals, starting from their last codes and not to the end, then moves
    the atoms to where the statistics phi and psi of the codes have their least error; neither half increases the
    objective. The size of the statistics depends on the atoms alone.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means as many as `atom_shape` or `dict_init` has, else 32.
    atom_shape : int, tuple of ints, list of shapes or dict of numbers by shape, default=(8, 8)
        Samples of an atom along every spatial axis of the signals, 1 to 3 of them. A list has one shape an atom,
        ``{(8, 8): 16, (12, 12): 8}`` numbers of atoms; smaller ones fill the leading corner of their array and are
        zero elsewhere.
    alpha : float, default=0.1
        Penalty on the absolute values of the maps, in units of the signals.
    alpha_relative : bool, default=False
        Take alpha as a fraction, at most 1, of the least penalty at which all codes of the training signals are zero
        for the first atoms; `partial_fit` asks the first batch.
    boundary : {"circular", "full", "valid"}, default="circular"
        Signals wrap around; or atoms lie wholly inside; or they may stick out at both ends.
    max_iter : int, default=100
        Most turns, or epochs of the method "online".
    tol : float, default=0.0001
        Stop when a turn, or an epoch, lowers the objective by at most this fraction of it. 0 makes `max_iter` of them.
    method : {"batch", "online"}, default="batch"
        "batch" keeps the sparse codes of all signals. "online" goes through them in batches and keeps only statistics,
        which forget.
    batch_size : int, default=16
        Signals in a batch of the method "online".
    shuffle : bool, default=True
        Draw the batches anew in every epoch.
    forgetting : float or None, default=None
        What the statistics so far count beside a further batch, 0 (not at all) to 1 (as much). None means in `fit`
        that an epoch replaces the one before, 1 - batch_size / n_samples, and 1 in `partial_fit`.
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
        The first atoms: random patches, spread ones, noise; what an array leaves is filled up with random patches.
    n_fixed : int, default=0
        The first atoms of the array `dict_init` that stay as they are: with `smoothness`, an impulse for what is
        smooth in a picture.
    replace_atoms : bool, default=True
        Give the places of atoms that nothing uses to the worst coded patches.
    channels : bool, default=True
        Whether atoms have the channels of the signals. False: every channel has maps of its own.
    transform_tol : float, default=0.0001
        Relative duality gap of the codes in `transform` and `encode`; `fit` does not solve more exactly.
    transform_max_iter : int or None, default=None
        Iterations a signal in `transform` and `encode`; None is the solver's own limit.
    pooling : {"max", "mean", "sum"}, default="max"
        What `transform` makes of the magnitudes in a cell. Sums grow with the size of the signal.
    pool_grid : int, tuple of ints or list of these, default=2
        Cells along every axis of the maps, or a list of such grids, a pyramid: ``[1, 2, 4]``.
    split_sign : bool, default=False
        Make `transform` pool positive and negative activations apart. Not with `positive_code`, where there are none.
    sparse_output : bool, default=False
        Make `encode` return csr_array; no dense maps of all signals are held.
    image_shape : tuple of ints or None, default=None
        Spatial shape, and channels if there are any, of signals given as flat rows. None: squares or cubes; for a 1-D
        `atom_shape`, rows are signals as they are.
    warm_start : bool, default=False
        Let `fit` go on from the atoms, and with the method "online" from the statistics, of the last fit.
    verbose : bool or int, default=False
        Print a line a turn.
    random_state : int, RandomState or None, default=None
        For the first atoms and the batches.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where the signals live, CuPy arrays on their GPU, and leaves the atoms there; "cpu", "cuda" and
        "cuda:N" say where.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes its state to every minute, or as often as a `sparseshare.checkpoints.Checkpoint` says.
        A fit that was killed goes on from it, with the same data and parameters, and ends with the same bits.

    Attributes
    ----------
    components_ : array of shape (n_components, *atom_shape[, n_channels])
        The atoms, float32 if the signals were.
    loss_curve_ : list of float
        Mean objective per signal, one value a turn or epoch and one a call of `partial_fit`. Of batches: before they
        moved the atoms.
    n_iter_ : int
        Turns, or epochs.
    n_steps_ : int
        Batches.
    converged_ : bool
        Whether `tol` ended the fit.
    alpha_ : float
        The penalty, not relative.
    channel_patterns_, support_patterns_ : ndarrays of shape (n_components, n_channels) and (n_components, *atom_shape)
        With `rank1`: the factors of the atoms.
    n_axes_ : int
        Spatial axes of atoms and signals.
    n_channels_ : int or None
        Channels of the signals; None if they have no such axis.
    signal_shape_ : tuple of ints or None
        Their spatial shape, if they share one.
    n_features_in_ : int
        If X was a table of rows.
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit` and `partial_fit`, for parameters and signals that are out of range; the message names them.
    MemoryError
        If the statistics of so many or so large atoms would take more than 8 GiB.

    See Also
    --------
    ConvSparseCoder : Atoms that are given.
    DictionaryLearning : Atoms as long as the signals.

    Notes
    -----
    Missing samples, and what atoms put outside the signal with boundary="valid", are completed by the present codes
    before they are counted into the statistics: each such update lowers the true objective, too, of which the values
    in `loss_curve_` are then bounds from above.

    The problem has local minima. The commonest is an atom that has settled shifted, part of it cut off: a larger
    `alpha`, a few more atoms or samples than needed, or another `random_state` help.

    References
    ----------
    T. Moreau, A. Gramfort, "DiCoDiLe: distributed convolutional dictionary learning", 2020.

    T. Dupré la Tour, T. Moreau, M. Jas, A. Gramfort, "Multivariate convolutional sparse coding for
    electromagnetic brain signals", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution import ConvDictionaryLearning
    >>> rng = np.random.default_rng(0)
    >>> atom = np.array([1.0, 2.0, 1.0, -1.0])
    >>> maps = rng.uniform(1, 2, (5, 97)) * (rng.random((5, 97)) < 0.03)
    >>> signals = np.stack([np.convolve(one, atom) for one in maps])
    >>> learner = ConvDictionaryLearning(1, 4, alpha=1, boundary="full", random_state=0).fit(signals)
    >>> cosine = abs(learner.components_[0] @ atom) / np.linalg.norm(atom)
    >>> bool(cosine > 0.99), learner.encode(signals).shape, learner.transform(signals).shape
    (True, (5, 1, 97), (5, 2))
    """

    def __init__(
        self,
        n_components=None,
        atom_shape=(8, 8),
        *,
        alpha=0.1,
        alpha_relative=False,
        boundary="circular",
        max_iter=100,
        tol=1e-4,
        method="batch",
        batch_size=16,
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
        self.max_iter = max_iter
        self.tol = tol
        self.method = method
        self.batch_size = batch_size
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
    def fit(self, X, y=None, mask=None):
        """Learn the atoms.

        Parameters
        ----------
        X : array of shape (n_samples, *signal_shape[, n_channels]) or (n_samples, n_features), or list of signals
            float32 is computed in float32, all else in float64. In a list, signals may have different sizes; rows are
            1-D signals, or flattened ones of more axes, see `image_shape`. Memory maps, zarr arrays and HDF5 data sets
            are read signal by signal.
        y : ignored
        mask : bool array of X's shape, with or without channels, list of such, "nan" or None, default=None
            True where a sample is missing; "nan": where X is NaN. Missing samples do not count in the error.

        Returns
        -------
        self

        Warns
        -----
        ConvergenceWarning
            If `max_iter` ended a fit whose objective was still falling by 0.1 % a turn.
        UserWarning
            If `alpha` is so large that all codes are zero.
        """
        self._check_learning_parameters()
        signals = self._training_signals(X, mask, reset=True)
        random_state = check_random_state(self.random_state)
        going_on = self.warm_start and hasattr(self, "components_")
        checkpoint, saved = self._begin_checkpoints(signals, going_on)
        form, atoms = self._start(signals, random_state, going_on)
        online = self.method == "online"
        memory = getattr(self, "_memory", None) if going_on and online else None
        self.alpha_ = self._penalty(atoms, signals)
        alternation = Alternation(
            atoms, form, self._options(), self.alpha_, self.replace_atoms, self.n_jobs, memory
        )  # fmt: skip
        progress = dict(losses=[], decrease=np.inf, converged=False, total=0.0, seen=0, finished=False)
        if saved is not None:
            progress = saved["progress"]
            alternation.restore(saved["alternation"])
            self.alpha_ = alternation.alpha
            random_state = resumed_random_state(random_state, progress["random_state"])
        finished = progress["finished"]

        def save():
            checkpoint.save(dict(progress=progress, alternation=alternation.state, finished=progress["finished"]))

        def save_if_due():
            if checkpoint.due():
                save()

        losses = self._iterate(alternation, signals, random_state, X, y, progress, save_if_due)
        self.loss_curve_, self.n_iter_ = losses, len(losses)
        self._keep(alternation, signals)
        if not finished:
            save()
        if not alternation.statistics.usage[form.n_fixed :].any() and alternation.statistics.energy > 0 and losses:
            warnings.warn(
                f"all codes are zero: alpha={self.alpha_:g} is too large for these signals; lower it, or give a "
                "fraction with alpha_relative=True",
                UserWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X, y=None, mask=None):
        """Learn from one more batch; the first call also makes the first atoms.

        Parameters
        ----------
        X : signals as in `fit`
            The batch, whatever `batch_size` says.
        y : ignored
        mask : as in `fit`

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        going_on = hasattr(self, "components_")
        signals = self._training_signals(X, mask, reset=not going_on)
        random_state = check_random_state(self.random_state)
        form, atoms = self._start(signals, random_state, going_on)
        if not going_on:
            self.alpha_ = self._penalty(atoms, signals)
            self.loss_curve_, self.n_iter_, self.converged_ = [], 0, False
        alternation = Alternation(
            atoms, form, self._options(), self.alpha_, self.replace_atoms, self.n_jobs, getattr(self, "_memory", None)
        )  # fmt: skip
        with single_threaded_blas, computing_on(signals.device):
            objective = alternation.learn(signals, 1.0 if self.forgetting is None else self.forgetting)
        self.loss_curve_.append(objective / len(signals))
        self._keep(alternation, signals)
        return self

    def _begin_checkpoints(self, signals, going_on):
        chosen, masks = sampled(len(signals)), signals.masks
        return begin_checkpoints(
            self,
            n_samples=str(len(signals)),
            X=[to_host(signals[number]) for number in chosen],
            mask=None if masks is None else [to_host(masks[number]) for number in chosen],
            components_=self.components_ if going_on else None,
        )

    def _iterate(self, alternation, signals, random_state, X, y, progress, save_if_due):
        """Turns on all signals, or epochs of batches drawn by `random_state`, until the objective stops falling."""
        losses, online = progress["losses"], self.method == "online"
        with single_threaded_blas, computing_on(signals.device), EpochReports(self, X, y) as reports:
            stop = reports.again(losses, self._given(alternation.atoms, signals)) or progress["finished"]
            while not stop and len(losses) < self.max_iter:
                reports.begin()
                progress["random_state"] = random_bits(random_state)
                if online:
                    objective = self._epoch(alternation, signals, random_state, progress, save_if_due)
                else:
                    objective = alternation.step(signals)
                losses.append(objective / len(signals))
                if len(losses) > 1:
                    progress["decrease"] = losses[-2] - losses[-1]
                    progress["converged"] = bool(self.tol > 0 and progress["decrease"] <= self.tol * losses[-2])
                stop = reports.end(losses[-1], self._given(alternation.atoms, signals)) or progress["converged"]
                progress.update(total=0.0, seen=0, random_state=random_bits(random_state))
                if not stop:
                    save_if_due()
        progress["finished"] = True
        self.converged_, decrease = progress["converged"], progress["decrease"]
        if self.tol > 0 and not self.converged_ and len(losses) == self.max_iter > 1:
            if decrease > _STILL_FALLING * losses[-1]:
                warnings.warn(
                    f"{type(self).__name__} stopped after max_iter={self.max_iter} iterations, the last of which still "
                    f"lowered the objective by {decrease / losses[-1]:.1%}: raise max_iter or tol",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        return losses

    def _epoch(self, alternation, signals, random_state, progress, save_if_due):
        """The rest of a pass over all signals in batches; the sum of the objectives of all batches."""
        if self.forgetting is None and self.batch_size >= len(signals):
            return alternation.step(signals)
        forgetting = 1 - self.batch_size / len(signals) if self.forgetting is None else self.forgetting
        order = random_state.permutation(len(signals)) if self.shuffle else np.arange(len(signals))
        for start in range(progress["seen"], len(signals), self.batch_size):
            batch = Batch(signals, np.sort(order[start : start + self.batch_size]))
            progress["total"] += alternation.learn(batch, forgetting)
            progress["seen"] = start + len(batch)
            if progress["seen"] < len(signals):
                save_if_due()
        return progress["total"]

    def _check_learning_parameters(self):
        of = type(self).__name__
        check_choice("solver", self.solver, [solver for solver in SOLVERS if solver != "omp"], of=of)
        check_choice("method", self.method, ("batch", "online"), of=of)
        check_number("n_components", self.n_components, 1, integer=True, allow_none=True, of=of)
        check_number("max_iter", self.max_iter, 1, integer=True, of=of)
        check_number("tol", self.tol, 0, of=of)
        check_number("batch_size", self.batch_size, 1, integer=True, of=of)
        check_number("forgetting", self.forgetting, 0, 1, allow_none=True, of=of)
        check_number("n_fixed", self.n_fixed, 0, integer=True, of=of)
        if not isinstance(self.verbose, bool | np.bool_):
            check_number("verbose", self.verbose, 0, integer=True, of=of)
        for name in ("rank1", "shuffle", "replace_atoms", "warm_start", "channels"):
            check_bool(name, getattr(self, name), of=of)
        check_checkpoint(self.checkpoint, of=of)
        self._check_parameters()

    def _training_signals(self, X, mask, reset):
        started = None if reset else vars(self).get("components_")
        device = device_for(self.device, X, started, *(array for array in (mask, self.weights) if on_gpu(array)))
        if not reset:
            self._check_columns(X, reset=False)
        _, support, _ = self._shapes()
        if not self.channels:
            n_channels = None
        else:
            n_channels = "any" if reset or self.n_channels_ is None else self.n_channels_
        signals = check_conv_signals(
            X, len(support), n_channels, mask=mask, image_shape=self.image_shape,
            fitted_shape=None if reset else self._fitted_shape, device=device,
        )  # fmt: skip
        self._cells(len(support))
        check_support(support, signals)
        if reset:
            self._check_columns(X, reset=True)
        elif signals.n_channels != self.n_channels_:
            raise ValueError(
                f"X has signals with {signals.n_channels or 'no'} channel(s), {type(self).__name__} was fitted to "
                f"{self.n_channels_ or 'no'} channel(s)"
            )
        if self.rank1 and (signals.n_channels is None or not self.channels):
            raise ValueError("rank1=True needs signals with channels, and channels=True")
        return signals

    def _shapes(self):
        """Number of atoms, the spatial axes of their array, and those of each if they differ."""
        given = None if isinstance(self.dict_init, str) else check_atoms(self.dict_init, name="dict_init")
        return atom_shapes(self.n_components, self.atom_shape, None if given is None else len(given))

    def _start(self, signals, random_state, going_on):
        """What atoms may be, and those to start from."""
        n_components, support, supports = self._shapes()
        constraint = AtomConstraint(self.atom_norm, self.positive_dict, self.zero_mean_dict)
        form = AtomForm(constraint, support, supports, self.rank1, self.n_fixed)
        n_channels = None if signals.separate else signals.n_channels
        size = 8 * n_components**2 * prod(2 * length - 1 for length in support) / 2
        if size > _LARGEST:
            raise MemoryError(
                f"the statistics of {n_components} atoms of shape {support} take {size / 2**30:.1f} GiB, more than "
                f"{_LARGEST / 2**30:.0f}: lower n_components or atom_shape"
            )
        expected = (n_components, *support, *(() if n_channels is None else (n_channels,)))
        if going_on:
            if self.components_.shape != expected:
                raise ValueError(
                    f"going on from components_ of shape {self.components_.shape}, but the parameters and X ask for "
                    f"{expected}: fit a clone, or with warm_start=False"
                )
            return form, to_device(atoms_inside(self.components_, n_channels, signals.dtype), signals.device)
        method, given = self.dict_init, None
        if not isinstance(method, str):
            method, given = "data", check_atoms(method, name="dict_init")[:n_components]
            if given.shape[1:] != expected[1:]:
                raise ValueError(f"dict_init must have the shape (n_atoms, *{expected[1:]}), got {given.shape}")
            given = atoms_inside(given, n_channels, signals.dtype)
        if self.n_fixed > (0 if given is None else len(given)):
            raise ValueError(
                f"n_fixed={self.n_fixed} of the atoms of dict_init are to stay, but it is "
                f"{repr(method) if given is None else f'an array of {len(given)}'}"
            )
        check_choice("dict_init", method, METHODS)
        return form, initial_atoms(signals, form, n_components, method, random_state, given)

    def _penalty(self, atoms, signals):
        return float(Encoder(atoms, self._options(), self.n_jobs).alpha(signals, signals.masks))

    def _keep(self, alternation, signals):
        """What a fit leaves behind."""
        self._keep_shapes(signals)
        self.components_ = self._given(alternation.atoms, signals)
        self.n_steps_ = alternation.n_steps
        self._memory = moved(alternation.memory, signals.home)
        if self.rank1:
            factors = alternation.form.factors(alternation.atoms)
            self.channel_patterns_, self.support_patterns_ = (to_device(factor, signals.home) for factor in factors)

    def _given(self, atoms, signals):
        """Atoms in the users' form, where the signals live."""
        atoms = to_device(atoms, signals.home)
        if signals.separate or signals.n_channels is None:
            return atoms[:, 0].copy()
        xp = array_module(atoms)
        return xp.ascontiguousarray(xp.moveaxis(atoms, 1, -1))

    def _coding_limits(self):
        return {"tol": self.transform_tol, "max_iter": self.transform_max_iter}
