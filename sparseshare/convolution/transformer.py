"""What every estimator with shared atoms can do: maps of new signals, pooled rows, reconstruction, score, names."""

from functools import partial
from math import prod

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from sparseshare.devices import Movable, array_module, computing_on, on_gpu, to_device, to_host
from sparseshare.outputs import write_pieces
from sparseshare.validation import (
    check_bool,
    check_choice,
    check_input_features,
    check_number,
    is_flat,
)
from sparseshare.variance import explained

from .atoms import spatial_axes
from .encode import Tally, warn_about
from .encoder import ConvOptions, Encoder
from .layout import dense_maps, in_pieces, lay_out
from .pooling import POOLINGS, CellGrid, pooled_magnitudes
from .signals import check_atoms_and_signals, device_for
from .synthesis import signals_of


class ConvTransformer(TransformerMixin, Movable, BaseEstimator):
    """Signals to activation maps and back, for estimators that hold shared atoms.

    Subclasses have the parameters `alpha`, `alpha_relative`, `boundary`, `solver`, `positive_code`, `weights`, `joint`,
    `smoothness`, `n_nonzero_coefs`, `max_error`, `pooling`, `pool_grid`, `split_sign`, `sparse_output`, `image_shape`,
    `n_jobs` and `device`, say in `_coding_limits` how exact codes are, and call `_keep_shapes` in `fit`.
    """

    __metadata_request__transform = {"out": UNUSED}

    def transform(self, X, out=None):
        """Pooled activations, a row a signal, for pipelines.

        Parameters
        ----------
        X : signals as in `fit`
        out : array, default=None
            Where rows go as they are made: an array of their shape to whose rows can be written (memory map, zarr,
            HDF5).

        Returns
        -------
        array of shape (n_samples, n_cells * n_signs * n_components)
            Cell by cell, positive parts before negative ones with `split_sign`, else magnitudes;
            `get_feature_names_out` has the names. Times n_channels where each channel has codes of its own. float32 if
            the signals are float32, else float64. With `out` that array.

        Raises
        ------
        ValueError
            If `out` does not suit, and for signals as `fit` refuses them.
        BlockError
            A ValueError: a signal on disk cannot be read. Rows of those before it that have been written to `out` stay.
        OSError
            If `out` cannot be written to, because the disk is full for instance: rows before stay.

        Warns
        -----
        ConvergenceWarning
            If codes have not converged.
        UserWarning
            If `alpha` is so large that all codes are zero.
        """
        self._check_is_ready()
        encoder, signals = self._prepared(X)
        grid, n_signs = self._cells(signals.n_axes), self._n_signs
        cells = {shape: grid.on(encoder.positions(shape)) for shape in {signals.shape(i) for i in range(len(signals))}}
        n_codes = signals.n_channels if signals.separate else 1
        shape = len(signals), grid.n_cells * n_signs * len(encoder.atoms) * n_codes

        def pooled(number, solution):
            maps, own = solution.maps, cells[signals.shape(number)]
            return pooled_magnitudes(maps.indices, maps.values, maps.shape, own, n_signs).reshape(-1)

        if out is not None:
            return self._solve(
                encoder, signals, pooled, write=lambda rows: _write(rows, to_host, out, shape, "features")
            )
        with computing_on(encoder.device):
            rows = array_module(encoder.atoms).empty(shape, signals.dtype)

        def put(number, solution):
            rows[number] = pooled(number, solution)

        self._solve(encoder, signals, put)
        return to_device(rows, signals.home)

    def encode(self, X, mask=None, out=None):
        """Activation maps.

        Parameters
        ----------
        X : signals as in `fit`
        mask : bool array of X's shape, with or without channels, list of such, "nan" or None, default=None
            True where a sample is missing; "nan": where X is NaN. Missing samples do not count in the error. On disk
            it is read along with X.
        out : array, default=None
            Where dense maps of signals of one shape go as they are made, so that those of few signals are in memory:
            an array of their shape to whose rows can be written (memory map, zarr, HDF5).

        Returns
        -------
        array of shape (n_samples, n_components, *positions[, n_channels]), csr_array, or a list
            Signed codes, whatever `split_sign`. Channels only if each has codes of its own. With `sparse_output` a
            csr_array with a row a signal, these axes laid out in their order. Signals of different sizes give a list of
            maps (n_components, *positions[, n_channels]) or of csr_arrays of one row. With `out` that array.

        Raises
        ------
        ValueError
            If `out` does not suit, is given with `sparse_output` or for signals of different sizes, and for signals as
            `fit` refuses them.
        BlockError
            A ValueError: a signal on disk cannot be read. Maps of those before it that have been written to `out` stay.
        OSError
            If `out` cannot be written to, because the disk is full for instance: maps before stay.

        Warns
        -----
        ConvergenceWarning
            If codes have not converged.
        UserWarning
            If `alpha` is so large that all codes are zero.
        """
        self._check_is_ready()
        encoder, signals = self._prepared(X, mask)
        if out is not None:
            shape = self._shape_of_maps(encoder, signals)
            return self._solve(
                encoder, signals, lambda _, solution: solution.maps, sparse=False, home="cpu",
                write=lambda maps: _write(maps, partial(dense_maps, separate=signals.separate), out, shape, "maps"),
            )  # fmt: skip
        solutions = self._solve(encoder, signals, sparse=bool(self.sparse_output), home=signals.home)
        with computing_on(signals.home):
            return lay_out(solutions, signals, bool(self.sparse_output))

    def inverse_transform(self, X, shapes=None):
        """Signals that maps stand for: the sum of the maps' convolutions with their atoms.

        Parameters
        ----------
        X : maps as `encode` returns them
            On either device. Pooled rows of `transform` have lost where atoms lie, and are refused.
        shapes : tuple of ints or list of tuples, default=None
            Spatial shape of the signals, for codes in csr_arrays; of each for a list of these. None: `image_shape`, or
            the shape of the training signals.

        Returns
        -------
        array of shape (n_samples, *signal_shape[, n_channels]), or list of signals for a list
        """
        self._check_is_ready()
        self._check_parameters()
        if not isinstance(X, list | tuple):
            return self._synthesized(X, shapes)
        if len(X) == 0:
            raise ValueError("Found a list of 0 maps: at least one is needed")
        each = shapes if isinstance(shapes, list) else [shapes] * len(X)
        if len(each) != len(X):
            raise ValueError(f"shapes are of {len(each)} signals, but there are maps of {len(X)}")
        codes = [
            maps if hasattr(maps, "tocsr") else maps[None] if on_gpu(maps) else np.asarray(maps)[None] for maps in X
        ]  # fmt: skip
        return [self._synthesized(maps, shape)[0] for maps, shape in zip(codes, each, strict=True)]

    def score(self, X, y=None):
        """Share of the variance that the reconstruction explains, 1 - |X - X_hat|^2 / |X - mean(X)|^2.

        The mean is that of all samples of a channel. The smallest penalty always scores best: to choose a penalty,
        score something else that depends on the codes.

        Parameters
        ----------
        X : signals as in `fit`
        y : ignored

        Returns
        -------
        float
            1 is perfect. Where X is constant, 1 for a perfect reconstruction and 0 otherwise.
        """
        self._check_is_ready()
        encoder, signals = self._prepared(X)
        xp, shape = array_module(encoder.atoms), (len(signals), 3, signals.n_channels or 1)
        with computing_on(encoder.device):
            moments = xp.zeros(shape)  # sums, sums of squares, squared errors
        sizes = [prod(signals.shape(number)) for number in range(len(signals))]

        def measure(number, solution):
            signal, maps = signals[number], solution.maps
            left = (signal - encoder.operator(signals.shape(number)).synthesize(maps.dense())).astype(np.float64)
            signal, left = (array.reshape(moments.shape[2], -1) for array in (signal.astype(np.float64), left))
            moments[number] = xp.stack([signal.sum(axis=1), (signal**2).sum(axis=1), (left**2).sum(axis=1)])

        self._solve(encoder, signals, measure)
        sums, squares, errors = to_host(moments).sum(axis=0)
        error, variance = float(errors.sum()), float((squares - sums**2 / sum(sizes)).sum())
        return explained(error, 0.0 if variance <= 1e-12 * squares.sum() else variance)

    def get_feature_names_out(self, input_features=None):
        """Names of the features of `transform`: atom, sign, channel if each has codes, grid of cells, and cell.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Nothing else than the names that `fit` saw.

        Returns
        -------
        ndarray of str
            Such as "atom12+_2x2_0_1".
        """
        check_is_fitted(self, "components_")
        check_input_features(self, input_features)
        channels = [f"_channel{number}" for number in range(self.n_channels_)] if self._separate else [""]
        names = [
            f"atom{atom}{sign}{channel}_{cell}"
            for cell in self._cells(self.n_axes_).names()
            for sign in (("+", "-") if self._n_signs == 2 else ("",))
            for atom in range(len(self.components_))
            for channel in channels
        ]
        return np.array(names, dtype=object)

    @property
    def _n_signs(self):
        return 2 if self.split_sign and not self.positive_code else 1

    def _cells(self, n_axes):
        return CellGrid(self.pool_grid, self.pooling, n_axes, name="pool_grid")

    def _check_is_ready(self):
        check_is_fitted(self)

    def _atoms(self):
        """Atoms in the users' form."""
        return self.components_

    def _channels(self):
        """Whether the last axis of the atoms holds channels: a bool or "auto"."""
        return len(self.components_.shape) - 1 > self.n_axes_

    def _coding_limits(self):
        """How exact codes of new signals are: `tol` and `max_iter`."""
        return {"tol": self.tol, "max_iter": self.max_iter}

    def _options(self):
        """The coding problem; what the solver does not know is left out."""
        pursuit = self.solver == "omp"
        return ConvOptions(
            alpha=None if pursuit else self.alpha,
            alpha_relative=False if pursuit else self.alpha_relative,
            boundary=self.boundary,
            solver=self.solver,
            positive=self.positive_code,
            weights=None if pursuit else self.weights,
            joint=0.0 if pursuit else self.joint,
            smoothness=None if pursuit else self.smoothness,
            n_nonzero_coefs=self.n_nonzero_coefs if pursuit else None,
            max_error=self.max_error if pursuit else None,
            **self._coding_limits(),
        )

    def _check_parameters(self):
        """Refuse wrong values of the parameters that all estimators with shared atoms have."""
        of = type(self).__name__
        check_choice("pooling", self.pooling, POOLINGS, of=of)
        for name in ("alpha_relative", "positive_code", "split_sign", "sparse_output"):
            check_bool(name, getattr(self, name), of=of)
        check_number("n_jobs", self.n_jobs, integer=True, allow_none=True, of=of)
        self._options()

    def _check_columns(self, X, reset):
        """Names and number of the columns of a table."""
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        if not is_flat(X) or (isinstance(X, list | tuple) and hasattr(X[0], "ndim")):
            return
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        except ValueError as error:
            raise ValueError(f"{error} Signals of another length go in a list") from None

    def _keep_shapes(self, signals):
        """Remember what the training signals look like."""
        self.n_channels_, self.signal_shape_ = signals.n_channels, signals.same_shape
        self.n_axes_, self._separate = signals.n_axes, signals.separate

    @property
    def _fitted_shape(self):
        """Shape of the training signals with their channels, if they share one."""
        if getattr(self, "signal_shape_", None) is None:
            return None
        return self.signal_shape_ + (() if self.n_channels_ is None else (self.n_channels_,))

    def _device(self, X, *arrays):
        """Where to compute for signals or codes X, and arrays that belong to them."""
        return device_for(self.device, X, self._atoms(), *(array for array in arrays if on_gpu(array)))

    def _prepared(self, X, mask=None, reset=False):
        """What codes signals, and the checked signals."""
        self._check_parameters()
        device = self._device(X, mask, self.weights)
        if not reset:  # before image_shape is looked at: this says what fit saw
            self._check_columns(X, reset=False)
        atoms, signals = check_atoms_and_signals(
            self._atoms(),
            X,
            channels=self._channels(),
            mask=mask,
            image_shape=self.image_shape,
            fitted_shape=None if reset else self._fitted_shape,
            device=device,
        )
        self._cells(signals.n_axes)
        if reset:
            self._check_columns(X, reset=True)
        elif signals.separate and signals.n_channels != getattr(self, "n_channels_", signals.n_channels):
            raise ValueError(
                f"X has signals of {signals.n_channels} channel(s), {type(self).__name__} was fitted to "
                f"{self.n_channels_ or 'signals without channels'}"
            )
        return Encoder(atoms, self._options(), self.n_jobs), signals

    def _alpha(self, encoder, signals):
        """The penalty in absolute terms: of the training signals where it is relative."""
        return self.alpha_ if self.alpha_relative and self.solver != "omp" else encoder.alpha(signals, signals.masks)

    def _solve(self, encoder, signals, finish=None, *, sparse=True, home=None, write=None):
        """Codes that go to `home`, or stay where they are computed; of each signal's what `finish` makes of them.

        `write` is given these one after the other, and its result is returned.
        """
        encoder.check_memory(signals, signals.masks, sparse, in_turn=write is not None)
        alpha, tally = self._alpha(encoder, signals), Tally()

        def counted(number, solution):
            tally.add(solution)
            return solution if finish is None else finish(number, solution)

        options = dict(masks=signals.masks, sparse=sparse, home=home, finish=counted)
        if write is None:
            results = encoder.encode(signals, alpha, **options)
        else:
            results = write(encoder.encode_in_turn(signals, alpha, **options))
        warn_about(tally, encoder, signals, signals.masks, alpha, stacklevel=4)
        return results

    def _shape_of_maps(self, encoder, signals):
        """Of the dense maps of all signals together, if they can lie in one array."""
        if self.sparse_output:
            raise ValueError("out takes dense maps, and sparse_output=True asks for sparse ones: leave out one of them")
        if signals.same_shape is None:
            raise ValueError(
                "out takes maps of one shape, but X is a list of signals of different ones: encode those of each shape "
                "on their own"
            )
        n_codes = (signals.n_channels,) if signals.separate else ()
        return len(signals), len(encoder.atoms), *encoder.positions(signals.same_shape), *n_codes

    def _synthesized(self, codes, shape):
        """Signals of one shape from their codes."""
        atoms, device = self._atoms(), self._device(codes)
        if shape is None and hasattr(codes, "tocsr"):
            shape = self._shape_of_rows(atoms)
        return signals_of(
            codes, atoms, self.boundary, channels=self._channels(), shape=shape,
            separate=getattr(self, "_separate", False), n_jobs=self.n_jobs, device=device,
        )  # fmt: skip

    def _shape_of_rows(self, atoms):
        """Spatial shape of the signals that rows of codes are of, if they are like those of `fit`."""
        if self.image_shape is not None:
            n_axes, _ = spatial_axes(atoms.shape, None, self._channels(), image_shape=self.image_shape)
            return tuple(self.image_shape)[:n_axes]
        return getattr(self, "signal_shape_", None)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags


def _write(results, as_array, out, shape, what):
    return write_pieces(in_pieces(results, as_array), out, shape, what)
