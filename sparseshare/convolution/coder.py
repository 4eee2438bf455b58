"""ConvSparseCoder: the estimator for activation maps of atoms that are given."""

from .atoms import check_atoms
from .transformer import ConvTransformer


class ConvSparseCoder(ConvTransformer):
    """Activation maps of signals, images or volumes for given atoms shared over all positions.

    Maps z_k, one an atom d_k, minimise

        0.5 |sum_k d_k * z_k - x|^2 + alpha sum_k w_k |z_k|_1

    where * is the convolution. `fit` only checks and remembers shapes; `transform` and `encode` need no `fit` unless
    `alpha_relative` is set.

    Parameters
    ----------
    atoms : array of shape (n_components, *atom_shape[, n_channels])
        Of any norm, with 1 to 3 spatial axes. With channels, a map activates an atom in all channels at once; without,
        on signals that have channels, every channel has maps of its own.
    alpha : float, default=0.1
        Penalty.
    alpha_relative : bool, default=False
        Take alpha as a fraction, at most 1, of the least penalty at which all codes of the training signals are zero.
    boundary : {"circular", "full", "valid"}, default="circular"
        Signals wrap around; or atoms lie wholly inside; or they may stick out at both ends.
    solver : {"auto", "lgcd", "working_set", "fista", "admm", "omp"}, default="auto"
        As in `conv_sparse_encode`. With "omp" a number of activations or an error stands in the place of alpha.
    positive_code : bool, default=False
        No negative activations.
    weights : array of shape (n_components,) or (n_components, *positions), default=None
        Factors w of alpha; 0 leaves an atom without penalty.
    joint : float, default=0.0
        Where each channel has maps of its own: the part of the penalty, 0 to 1, that is an l2 norm over the channels.
    smoothness : array of shape (n_components,), default=None
        Penalty on the squared gradient of each map.
    n_nonzero_coefs : int or None, default=None
        With "omp": activations a signal.
    max_error : float or None, default=None
        With "omp": squared norm of the residual at which to stop.
    tol : float, default=0.0001
        Relative duality gap at which a solver stops.
    max_iter : int or None, default=None
        Iterations a signal; None is the solver's own limit.
    pooling : {"max", "mean", "sum"}, default="max"
        What `transform` makes of the magnitudes in a cell. Sums grow with the size of the signal.
    pool_grid : int, tuple of ints or list of these, default=2
        Cells along every axis of the maps, or a list of such grids, a pyramid: ``[1, 2, 4]``.
    split_sign : bool, default=False
        Make `transform` pool positive and negative activations apart. Not with `positive_code`, where there are none.
    sparse_output : bool, default=False
        Make `encode` return csr_array; no dense maps of all signals are held.
    image_shape : tuple of ints or None, default=None
        Spatial shape, and channels if there are any, of signals given as flat rows. None: those of `fit`, else squares
        or cubes; for atoms of shape (n_components, time), rows are signals as they are.
    channels : bool or "auto", default="auto"
        Whether the last axis of the atoms holds channels. "auto": it does if it is as long as the last axis of the
        signals and these have no further axis. (10, 64, 12) may be atoms of 64 samples in 12 channels or images of
        64 x 12 pixels: say False for images as narrow as that.
    n_jobs : int or None, default=None
        Threads; None takes all. Results do not depend on it.
    device : str, default="auto"
        "auto" computes where signals and atoms live, CuPy arrays on their GPU; "cpu", "cuda" and "cuda:N" say where.

    Attributes
    ----------
    components_ : array of shape (n_components, *atom_shape[, n_channels])
        The atoms.
    n_components_ : int
        Number of atoms.
    n_axes_ : int
        Spatial axes of atoms and signals.
    n_channels_ : int or None
        Channels of the signals seen in `fit`; None if they have no such axis.
    signal_shape_ : tuple of ints or None
        Their spatial shape, if they share one.
    alpha_ : float or None
        The penalty, not relative; None with "omp".
    n_iter_ : int
        Always 1.
    n_features_in_ : int
        If X was a table of rows.
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        For atoms, signals and parameters that do not fit together or are out of range; the message names them.

    See Also
    --------
    SparseCoder : Atoms as long as the signals.

    References
    ----------
    B. Wohlberg, "Efficient algorithms for convolutional sparse representations", IEEE Trans. Image Processing 2016,
    equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution import ConvSparseCoder
    >>> atoms = np.array([[1.0, 2.0, 1.0], [1.0, 0.0, -1.0]])
    >>> signals = np.zeros((1, 12))
    >>> signals[0, 2:5] += 3 * atoms[0]
    >>> coder = ConvSparseCoder(atoms, alpha=0.3).fit(signals)
    >>> coder.encode(signals).round(2)[0, 0, :4]
    array([0.  , 0.  , 2.95, 0.  ])
    >>> coder.transform(signals).round(2)
    array([[2.95, 0.  , 0.  , 0.  ]])
    >>> coder.get_feature_names_out().tolist()
    ['atom0_2_0', 'atom1_2_0', 'atom0_2_1', 'atom1_2_1']
    >>> coder.inverse_transform(coder.encode(signals)).shape
    (1, 12)
    """

    def __init__(
        self,
        atoms,
        *,
        alpha=0.1,
        alpha_relative=False,
        boundary="circular",
        solver="auto",
        positive_code=False,
        weights=None,
        joint=0.0,
        smoothness=None,
        n_nonzero_coefs=None,
        max_error=None,
        tol=1e-4,
        max_iter=None,
        pooling="max",
        pool_grid=2,
        split_sign=False,
        sparse_output=False,
        image_shape=None,
        channels="auto",
        n_jobs=None,
        device="auto",
    ):
        self.atoms = atoms
        self.alpha = alpha
        self.alpha_relative = alpha_relative
        self.boundary = boundary
        self.solver = solver
        self.positive_code = positive_code
        self.weights = weights
        self.joint = joint
        self.smoothness = smoothness
        self.n_nonzero_coefs = n_nonzero_coefs
        self.max_error = max_error
        self.tol = tol
        self.max_iter = max_iter
        self.pooling = pooling
        self.pool_grid = pool_grid
        self.split_sign = split_sign
        self.sparse_output = sparse_output
        self.image_shape = image_shape
        self.channels = channels
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X, y=None):
        """Check that the atoms suit the signals, and remember the shapes of both.

        Parameters
        ----------
        X : array of shape (n_samples, *signal_shape[, n_channels]) or (n_samples, n_features), or list of signals
            float32 is computed in float32, all else in float64. In a list, signals may have different sizes; rows are
            1-D signals, or flattened ones of more axes, see `image_shape`. Memory maps, zarr arrays and HDF5 data sets
            are read signal by signal.
        y : ignored

        Returns
        -------
        self
        """
        encoder, signals = self._prepared(X, reset=True)
        encoder.options.problem(signals[0], encoder.operator(signals.shape(0)), 1.0)  # weights and smoothness fit
        self.components_ = check_atoms(self.atoms)
        self.n_components_ = len(self.components_)
        self._keep_shapes(signals)
        self.alpha_ = None if self.solver == "omp" else encoder.alpha(signals)
        self.n_iter_ = 1
        return self

    def _check_is_ready(self):
        if self.alpha_relative:
            super()._check_is_ready()

    def _atoms(self):
        return check_atoms(self.atoms)

    def _channels(self):
        return self.channels

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = bool(self.alpha_relative)
        return tags
