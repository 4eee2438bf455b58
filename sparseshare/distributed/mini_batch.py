"""Dictionary learning from the blocks of a Dask array."""

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from sparseshare.callbacks import EpochReports, with_callbacks
from sparseshare.devices import to_host
from sparseshare.learning import MiniBatchDictionaryLearning
from sparseshare.learning.learner import DictionaryLearner
from sparseshare.learning.stream import SmoothedLoss
from sparseshare.learning.summaries import SummaryUpdate, merged, summarize
from sparseshare.learning.transformer import coding_options
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_choice, check_number, compute_dtype

from .blocks import ArrayBlocks, RemoteSignals, check_dask_array, current_client
from .learner import ClusterLearner


class DaskMiniBatchDictionaryLearning(ClusterLearner, DictionaryLearner):
    """Learn a dictionary from the blocks of a Dask array, on the workers of a cluster.

    `MiniBatchDictionaryLearning` with blocks in the place of rows: workers code blocks and send back sums of
    n_components * (n_components + n_features) numbers, whatever the size of a block; the dictionary is updated here.
    A block whose worker dies is done again elsewhere.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None means n_features, or the length of `dict_init`.
    alpha : float, default=1
        Penalty on |code|_1.
    mode : {"synchronous", "asynchronous"}, default="synchronous"
        "synchronous": one update a round of `blocks_per_update` blocks, all coded with the same dictionary. The result
        is that of `MiniBatchDictionaryLearning` with batches of that many rows, to rounding, and does not depend on the
        workers, to the last bit. "asynchronous": one update a block, as soon as it is coded; nobody waits, and the
        result depends on who comes first.
    blocks_per_update : int or None, default=None
        Blocks in a round. None means 8. Fewer than there are threads in the cluster leave some idle.
    max_in_flight : int or None, default=None
        With "asynchronous": tasks that are begun and not yet learned from. None is two a thread of the cluster.
    max_staleness : int or None, default=None
        With "asynchronous": updates that the dictionary may have seen since the one that a block was coded with. None
        is twice `max_in_flight`.
    max_iter : int, default=1000
        Most epochs, passes over all blocks.
    fit_algorithm : str, default="lars"
        As in `MiniBatchDictionaryLearning`.
    n_jobs : int or None, default=None
        Threads of a task. None is one: Dask runs a task on every thread of a worker. For workers of one thread with
        several cores each, say how many. Results do not depend on it.
    shuffle : bool, default=True
        Draw the order of the blocks anew in every epoch; rows stay in their blocks.
    dict_init : "data", "k-means++" or array of shape (n_atoms, n_features), default=None
        The first dictionary. None is "data", random signals, for which some rows of many blocks are read.
    transform_algorithm : str or None, default=None
        As in `sparse_encode`. None solves in `transform` the problem that was fitted.
    transform_n_nonzero_coefs : int or None, default=None
        What `transform` uses in the place of `n_nonzero_coefs`.
    transform_alpha : float or None, default=None
        What `transform` uses in the place of `alpha`.
    verbose : bool or int, default=False
        Print a line an epoch.
    split_sign : bool, default=False
        Make `transform` return positive and negative parts side by side.
    random_state : int, RandomState or None, default=None
        For the first dictionary and the order of the blocks.
    positive_code : bool, default=False
        No negative entries in the codes.
    positive_dict : bool, default=False
        No negative entries in the atoms.
    transform_max_iter : int, default=1000
        Most iterations for a code, in `fit` and in `transform`.
    callback : callable or None, default=None
        Called after every update of `fit` with a dict: i, dictionary, batch_cost. For progress bars and early stopping
        see `set_callbacks`.
    tol : float, default=0.001
        Stop when an update moves the dictionary by at most this, as a Frobenius norm divided by n_components. 0 turns
        that off.
    max_no_improvement : int or None, default=10
        Stop after this many updates without a new minimum of the smoothed loss. None turns that off.
    n_nonzero_coefs : int or None, default=None
        Non-zeros of a code while fitting with "omp", "ols", "mp", "iht".
    max_error : float or None, default=None
        Bound on the squared residual of a signal while fitting.
    transform_max_error : float or None, default=None
        What `transform` uses in the place of `max_error`.
    l1_ratio : float, default=1.0
        Below 1, an elastic net: alpha * (l1_ratio * |w|_1 + 0.5 * (1 - l1_ratio) * |w|^2).
    transform_tol : float, default=1e-06
        Relative duality gap of the codes, in `fit` and in `transform`.
    dict_update : {"bcd", "mod"}, default="bcd"
        Block coordinate descent over the atoms, or the method of optimal directions (for pursuits).
    atom_norm : {"ball", "sphere"}, default="ball"
        Norm of an atom at most 1, or equal to 1.
    zero_mean_dict : bool, default=False
        Atoms whose entries sum to 0.
    atom_l1_budget : float or None, default=None
        Bound on the l1 norm of an atom: sparse atoms.
    replace_atoms : bool, default=True
        Give the places of atoms that have gone unused for 10 * n_components signals, and of one of two nearly
        equal atoms, to badly coded signals.
    warm_start : bool, default=False
        Let `fit` go on from the dictionary and the statistics of the last fit or `partial_fit`.
    sparse_output : bool, default=False
        Make `transform` return csr_array, or a Dask array with such blocks.
    device : str, default="auto"
        Where workers code: "auto" follows the blocks; "cuda" sends them to the worker's GPU; "cpu".
    checkpoint : str, path, Checkpoint or None, default=None
        File of this machine that `fit` writes its state to every minute, or as often as a
        `sparseshare.checkpoints.Checkpoint` says. A fit whose client was killed goes on from it, with the same data and
        parameters, on any cluster; "synchronous" ends with the same bits.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The dictionary, float32 if X was.
    loss_curve_ : list of float
        Mean objective per signal, one value an epoch and one a call of `partial_fit`; each signal counted with the
        dictionary that it met.
    n_iter_ : int
        Epochs begun.
    n_steps_ : int
        Updates.
    converged_ : bool
        Whether `tol` or `max_no_improvement` ended the fit.
    n_features_in_ : int

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
    MiniBatchDictionaryLearning : On one machine, from memory, files or a stream.
    encode_dask : Codes of Dask arrays by any estimator.

    Notes
    -----
    Blocks are computed anew in every epoch, so what they are made of is read again; ``X = X.persist()`` keeps them in
    the workers' memory where there is room. What is to survive a worker must come from a file or a function: data that
    were scattered from here are lost with the worker that holds them.

    A dead worker costs its blocks only. What the fit has learned is here, with the client, whose death `checkpoint` is
    against.

    References
    ----------
    J. Mairal, F. Bach, J. Ponce, G. Sapiro, Online learning for matrix factorization and sparse coding, JMLR 2010:
    section 3.2, statistics that add up.

    Q. Ho et al., More effective distributed ML via a stale synchronous parallel parameter server, NIPS 2013.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from distributed import Client
    >>> from sparseshare.distributed import DaskMiniBatchDictionaryLearning
    >>> X = da.from_array(np.random.default_rng(0).standard_normal((300, 6)), chunks=(50, 6))
    >>> with Client(processes=False, dashboard_address=":0"):
    ...     learner = DaskMiniBatchDictionaryLearning(8, alpha=0.5, max_iter=3, random_state=0).fit(X)
    >>> learner.components_.shape, learner.transform(X).shape
    ((8, 6), (300, 8))
    """

    def __init__(
        self,
        n_components=None,
        *,
        alpha=1,
        mode="synchronous",
        blocks_per_update=None,
        max_in_flight=None,
        max_staleness=None,
        max_iter=1_000,
        fit_algorithm="lars",
        n_jobs=None,
        shuffle=True,
        dict_init=None,
        transform_algorithm=None,
        transform_n_nonzero_coefs=None,
        transform_alpha=None,
        verbose=False,
        split_sign=False,
        random_state=None,
        positive_code=False,
        positive_dict=False,
        transform_max_iter=1000,
        callback=None,
        tol=1e-3,
        max_no_improvement=10,
        n_nonzero_coefs=None,
        max_error=None,
        transform_max_error=None,
        l1_ratio=1.0,
        transform_tol=1e-6,
        dict_update="bcd",
        atom_norm="ball",
        zero_mean_dict=False,
        atom_l1_budget=None,
        replace_atoms=True,
        warm_start=False,
        sparse_output=False,
        device="auto",
        checkpoint=None,
    ):
        self.n_components = n_components
        self.alpha = alpha
        self.mode = mode
        self.blocks_per_update = blocks_per_update
        self.max_in_flight = max_in_flight
        self.max_staleness = max_staleness
        self.max_iter = max_iter
        self.fit_algorithm = fit_algorithm
        self.n_jobs = n_jobs
        self.shuffle = shuffle
        self.dict_init = dict_init
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.verbose = verbose
        self.split_sign = split_sign
        self.random_state = random_state
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.transform_max_iter = transform_max_iter
        self.callback = callback
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.n_nonzero_coefs = n_nonzero_coefs
        self.max_error = max_error
        self.transform_max_error = transform_max_error
        self.l1_ratio = l1_ratio
        self.transform_tol = transform_tol
        self.dict_update = dict_update
        self.atom_norm = atom_norm
        self.zero_mean_dict = zero_mean_dict
        self.atom_l1_budget = atom_l1_budget
        self.replace_atoms = replace_atoms
        self.warm_start = warm_start
        self.sparse_output = sparse_output
        self.device = device
        self.checkpoint = checkpoint

    @with_callbacks
    def fit(self, X, y=None):
        """Learn the dictionary.

        Parameters
        ----------
        X : dask.array.Array of shape (n_samples, n_features)
            Blocks dense or CSR.
        y : ignored

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        resuming = self.warm_start and hasattr(self, "components_")
        blocks = self._blocks(X, reset=True)
        checkpoint, saved = self._begin_checkpoints(blocks)
        random_state = check_random_state(self.random_state)
        with single_threaded_blas, EpochReports(self, X, y) as reports:
            update = self._update(blocks, resuming, random_state, saved)
            stopping = SmoothedLoss(self.tol, self.max_no_improvement, blocks.shape[0])
            first_step = update.n_steps
            if saved is not None:
                vars(stopping).update(saved["stopping"])
                first_step = saved["first_step"]
            self.loss_curve_ = self._learn_from_blocks(
                lambda order: self._steps(update, blocks, stopping, order, first_step),
                blocks, reports, random_state, checkpoint, saved, update.dictionary.copy,
                lambda: dict(
                    dictionary=update.dictionary, memory=update.memory, stopping=vars(stopping), first_step=first_step
                ),
            )  # fmt: skip
        self._keep(update)
        self.n_iter_, self.converged_ = len(self.loss_curve_), stopping.converged
        return self

    def partial_fit(self, X, y=None):
        """One update from all blocks of X; the first call also makes the first dictionary.

        Parameters
        ----------
        X : dask.array.Array of shape (n_samples, n_features)
            The batch, whatever `blocks_per_update` and `mode` say.
        y : ignored

        Returns
        -------
        self
        """
        self._check_learning_parameters()
        going_on = hasattr(self, "components_")
        blocks = self._blocks(X, reset=not going_on)
        with single_threaded_blas:
            update = self._update(blocks, going_on, check_random_state(self.random_state))
            given = self._arguments(update, blocks)
            summary = blocks.merged(merged, range(len(blocks)), _summary_of_block, *given)
            loss, _ = update.learn_from(summary, blocks.rows)
        if not going_on:
            self.loss_curve_, self.n_iter_, self.converged_ = [], 0, False
        self.loss_curve_.append(loss)
        self._keep(update)
        return self

    def _check_learning_parameters(self):
        super()._check_learning_parameters()
        self._check_cluster_parameters()
        of = type(self).__name__
        check_number("max_no_improvement", self.max_no_improvement, 0, integer=True, allow_none=True, of=of)
        check_bool("shuffle", self.shuffle, of=of)
        if self.dict_init is None or isinstance(self.dict_init, str):
            check_choice("dict_init", self.dict_init, (None, "data", "k-means++"), of=of)

    def _blocks(self, X, reset):
        X = check_dask_array(X, (2,), of=type(self).__name__)
        validate_data(self, X, reset=reset, skip_check_array=True)
        return ArrayBlocks(X, current_client())

    def _update(self, blocks, resuming, random_state, saved=None):
        """The dictionary that learning goes on from, or a first one, and what is remembered with it."""
        constraint, memory, dtype = self._constraint(), None, compute_dtype(blocks.dtype)
        if saved is not None:
            dictionary, memory = saved["dictionary"], saved["memory"]
        elif resuming:
            dictionary, memory = to_host(self.components_).astype(dtype), self._memory
            wanted = len(dictionary) if self.n_components is None else self.n_components, blocks.shape[1]
            if dictionary.shape != wanted:
                raise ValueError(
                    f"going on from components_ of shape {dictionary.shape}, but the parameters and X ask for "
                    f"{wanted}: fit a clone, or with warm_start=False"
                )
            if memory["n_steps"] == 0:  # from a fit of no epochs, which hands back what it was given
                dictionary = constraint.project(dictionary)
        else:
            dictionary = self._first_dictionary(RemoteSignals(blocks), constraint, dtype, "cpu", random_state)
        options = coding_options(**self._fitting_problem())
        return SummaryUpdate(dictionary, options, constraint, self.dict_update, self.replace_atoms, None, memory)

    def _arguments(self, update, blocks):
        """What a task is given beside its block."""
        return blocks.share(update.dictionary.copy()), update.options, self._threads, self.device

    def _steps(self, update, blocks, stopping, order, first_step):
        batches = self._batches(blocks, order, merged, _summary_of_block, lambda: self._arguments(update, blocks))
        for numbers, _, summary in batches:
            size = summary.n_samples
            loss, change = update.learn_from(summary, blocks.rows)
            stop = stopping.has_converged(update.n_steps - first_step, size, loss, change)
            if self.callback is not None and not stop:
                self.callback(dict(i=update.n_steps - 1, dictionary=update.dictionary, batch_cost=loss))
            yield len(numbers), size, loss * size, stop

    def _keep(self, update):
        self.components_ = update.dictionary
        self._memory = update.memory
        self.n_steps_ = update.n_steps

    def _serial(self):
        """The same dictionary in the estimator for arrays, for the tasks that code with it."""
        names = MiniBatchDictionaryLearning._get_param_names()
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        serial = MiniBatchDictionaryLearning(**(parameters | dict(callback=None)))
        serial.components_, serial.n_features_in_ = self.components_, self.n_features_in_
        return serial

    def _n_means(self, X):
        return X.shape[1]


def _summary_of_block(block, first_row, dictionary, options, n_jobs, device):
    dictionary = np.require(dictionary, requirements="CW")  # what comes over the network is read-only
    return summarize(block, dictionary, options, first_row=first_row, n_jobs=n_jobs, device=device)
