"""ActivationsDisplay: codes as an image, how much atoms are used, and where they are found in an image."""

import numpy as np

from sparseshare.validation import check_number

from .codes import as_pictures, atoms_of, check_codes, codes_of, dense_coder, n_axes_of, on_host, reaching, use_of
from .reconstruction import channels_apart, natural_limits, show
from .style import (
    ACCENT,
    COLOURS,
    FAINT,
    INK,
    QUIET,
    SIGNED,
    add_colorbar,
    for_curves,
    for_images,
    grid_of,
    panels,
    pyplot,
    share,
)

_CELLS = 160  # of a picture of codes along each side: more than that and single codes are lost
_SPOTS = 48  # of a map with few activations, so that each is large enough to be seen
_FEW = 0.06  # share of places


class ActivationsDisplay:
    """Codes of many signals, or activation maps of one image or one signal.

    Make one with `from_estimator` or `from_codes`.

    Parameters
    ----------
    codes : csr_array of shape (n_signals, n_atoms) or ndarray of shape (n, n_atoms, height, width)
        Of height 1: maps of a signal.
    image : ndarray of shape (height, width[, n_channels]) or (time[, n_channels]), default=None
        What the maps are laid over, or drawn below.
    index : int, default=0
        Which of n sets of maps to draw.

    Attributes
    ----------
    use_ : ndarray of shape (n_atoms,)
        Share of signals, or of places of an image, where the code is not zero.
    order_ : ndarray of int
        Numbers of the atoms drawn, the most used first.
    images_ : list of matplotlib AxesImage
        The codes, or one for each map.
    lines_ : list of matplotlib LineCollection
        For maps of a signal, one for each: a line an activation.
    axes_ : ndarray of matplotlib Axes
        Of codes: codes, use, non-zeros. Of maps: the image if there is one, then a map each. Of maps of a signal: the
        signal if there is one, then the activations.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from sparseshare.plotting import ActivationsDisplay
    >>> codes = np.maximum(np.random.default_rng(0).standard_normal((200, 40)) - 1.5, 0)
    >>> display = ActivationsDisplay.from_codes(codes)
    >>> [axes.get_xlabel() for axes in display.axes_]
    ['atom, most used first', 'atom, most used first', 'non-zeros a signal']
    """

    def __init__(self, codes, *, image=None, index=0):
        self.codes = on_host(codes)
        self.image = on_host(image)
        self.index = index

    @classmethod
    def from_estimator(cls, estimator, X, *, index=0, ax=None, **options):
        """Draw the codes that an estimator gives.

        Parameters
        ----------
        estimator : fitted transformer
            One with `encode` gives maps, if X holds images. Of atoms shared over positions, activations are drawn at
            the middle of the atom.
        X : array-like of shape (n_samples, n_features), or images (n, height, width[, n_channels])
            For atoms shared over positions, signals as in their `fit`.
        index : int, default=0
            Which image to draw maps of.
        ax : array of matplotlib Axes or one Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        ActivationsDisplay
        """
        estimator, X = on_host(estimator), on_host(X)
        if n_axes_of(estimator) is not None:
            return cls._of_shared_atoms(estimator, X, index).plot(ax=ax, **options)
        try:
            n_atoms = len(atoms_of(estimator))
        except ValueError:
            n_atoms = None  # any codes can be drawn
        image = None
        if hasattr(estimator, "encode") and not isinstance(X, list) and np.ndim(X) > 2:
            index = check_number("index", index, 0, len(X) - 1, integer=True, of=cls.__name__)
            X = np.asarray(X)[index : index + 1]
            image = X[0]
        codes = codes_of(estimator, X)
        image = image if codes.ndim == 4 else None
        n_atoms = n_atoms if codes.shape[1] == 2 * (n_atoms or 0) else None
        return cls.from_codes(codes, image=image, n_atoms=n_atoms, ax=ax, **options)

    @classmethod
    def _of_shared_atoms(cls, estimator, X, index):
        X = X if isinstance(X, list) and hasattr(X[0], "ndim") else np.asarray(X)
        X = X[None] if np.ndim(X[0]) == 0 else X
        index = check_number("index", index, 0, len(X) - 1, integer=True, of=cls.__name__)
        coder, one = dense_coder(estimator), reaching(estimator, X[index : index + 1])
        maps = coder.encode(one)
        signal = np.reshape(one[0], np.shape(coder.inverse_transform(maps)[0]))
        pictures = as_pictures(np.asarray(maps[0])[None], coder.n_axes_)
        if coder.boundary == "circular":  # where a position is that of an atom's first entry
            support = coder.components_.shape[1 : 1 + coder.n_axes_]
            shift = [(length - 1) // 2 for length in support]
            pictures = np.roll(pictures, shift, axis=tuple(range(-coder.n_axes_, 0)))
        return cls(check_codes(pictures, len(coder.components_)), image=signal)

    @classmethod
    def from_codes(cls, codes, *, image=None, n_atoms=None, index=0, ax=None, **options):
        """Draw codes or maps.

        Parameters
        ----------
        codes : array-like or sparse array of shape (n_signals, n_atoms), or maps ([n, ]n_atoms, height, width)
        image : array-like of shape (height, width[, n_channels]), default=None
            What maps are laid over.
        n_atoms : int, default=None
            Half the number of columns, if these are positive parts, then negative parts.
        index : int, default=0
            Which of n sets of maps to draw.
        ax : array of matplotlib Axes or one Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        ActivationsDisplay

        Raises
        ------
        ValueError
            If shapes do not fit, or there is an image and no maps.
        """
        codes, image = check_codes(codes, n_atoms), on_host(image)
        if codes.ndim == 2 and image is not None:
            raise ValueError(f"an image goes with maps (n_atoms, height, width), got codes of shape {codes.shape}")
        if image is not None:
            image = np.asarray(image)
            if image.ndim not in (2, 3) or image.dtype.kind not in "fiub":
                raise ValueError(f"image must have the shape (height, width[, n_channels]), got {image.shape}")
        index = check_number("index", index, 0, codes.shape[0] - 1, integer=True, of=cls.__name__)
        return cls(codes, image=image, index=index).plot(ax=ax, **options)

    def plot(self, ax=None, *, max_maps=11, title=None):
        """Draw.

        Parameters
        ----------
        ax : array of matplotlib Axes or one Axes, default=None
            None makes a figure; one Axes gives its place to all panels.
        max_maps : int, default=11
            Maps to draw at most.
        title : str, default=None
            Of the first panel.

        Returns
        -------
        ActivationsDisplay
        """
        check_number("max_maps", max_maps, 1, integer=True, of="ActivationsDisplay")
        pyplot()
        if self.codes.ndim == 2:
            self._draw_codes(ax, title)
        elif self.codes.shape[2] == 1:
            self._draw_events(ax, max_maps, title)
        else:
            self._draw_maps(ax, max_maps, title)
        return self

    def _draw_codes(self, ax, title):
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        self.lines_ = []
        n_signals, n_atoms = self.codes.shape
        self.use_ = use_of(self.codes)
        self.order_ = np.argsort(-self.use_, kind="stable")
        self.figure_, axes = panels(ax, 1, 3, (12, 3.7), display="ActivationsDisplay", width_ratios=(1.25, 1, 1))
        self.axes_ = axes.ravel()
        values = self.codes.data
        picture = largest_cells(self.codes[:, self.order_], _CELLS)
        limit = float(np.quantile(np.abs(values), 0.99)) if len(values) else 1.0
        image = self.axes_[0].imshow(
            picture, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest",
            extent=(0, n_atoms, n_signals, 0),
        )  # fmt: skip
        self.images_ = [image]
        density = share(len(values) / (n_signals * n_atoms))
        for_curves(
            self.axes_[0], f"Codes, {density} non-zero" if title is None else title, "atom, most used first", "signal"
        )
        self.axes_[0].grid(False)
        self.axes_[0].spines[:].set_visible(False)
        add_colorbar(image, self.axes_[0], "code").ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))

        never = int(np.count_nonzero(self.use_ == 0))
        unused = f", {never:,} of {n_atoms:,} never" if never else f" of {n_atoms:,} atoms"
        for_curves(self.axes_[1], f"Use{unused}", "atom, most used first", "signals that use it")
        self.axes_[1].stairs(self.use_[self.order_], fill=True, color=COLOURS[0], alpha=0.85)
        self.axes_[1].set_xlim(0, n_atoms)
        self.axes_[1].set_ylim(0, max(1.06 * self.use_.max(), 1e-3))
        decimals = 0 if self.use_.max() >= 0.05 else 1
        self.axes_[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=" %"))

        counts = np.diff(self.codes.indptr)
        low, high = int(counts.min()), int(counts.max())
        step = max(1, -(-(high - low + 1) // 40))
        edges = np.arange(low, high + step + 1, step) - 0.5
        for_curves(self.axes_[2], "Non-zeros", "non-zeros a signal", "signals")
        self.axes_[2].hist(counts, bins=edges, color=COLOURS[0], alpha=0.85, rwidth=0.9)
        self.axes_[2].axvline(counts.mean(), color=ACCENT, linewidth=1.6)
        self.axes_[2].annotate(
            f"mean {counts.mean():.3g}", (counts.mean(), 0.97), (5, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=ACCENT, va="top", fontsize=9,
        )  # fmt: skip
        self.axes_[2].xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    def _draw_maps(self, ax, max_maps, title):
        from matplotlib.colors import FuncNorm

        maps = self.codes[self.index]
        self.use_ = use_of(maps[None])
        self.order_ = np.argsort(-self.use_, kind="stable")[:max_maps]
        has_image = self.image is not None
        height, width = maps.shape[1:]
        n_panels = len(self.order_) + has_image
        n_rows, n_columns = grid_of(n_panels, width / height)
        side = min(2.3, 11 / n_columns)
        size = side * n_columns, (side * height / width + 0.3) * n_rows + 0.2
        self.figure_, axes = panels(ax, n_rows, n_columns, size, display="ActivationsDisplay")
        for spare in axes.ravel()[n_panels:]:
            spare.set_axis_off()
        self.axes_ = axes.ravel()[:n_panels]
        extent = frame = (-0.5, width - 0.5, height - 0.5, -0.5)
        if has_image:
            extent, frame = placed(maps.shape[1:], np.shape(self.image)[:2])
        if has_image:
            picture = np.asarray(self.image)
            show(self.axes_[0], picture, natural_limits(picture))
            for_images(self.axes_[0], "Image" if title is None else title)
        values = np.abs(maps[self.order_])
        limit = float(np.quantile(values[values > 0], 0.99)) if values.any() else 1.0
        self.images_, self.lines_ = [], []
        for axes, number in zip(self.axes_[has_image:], self.order_, strict=True):
            if has_image:
                below = np.asarray(self.image, np.float64)
                below = below.mean(axis=2) if below.ndim == 3 else below
                axes.imshow(below, cmap="gray", alpha=0.35, extent=frame)
            cells = largest_cells(maps[number], _SPOTS if self.use_[number] <= _FEW else _CELLS)
            self.images_.append(
                axes.imshow(
                    cells, cmap=SIGNED, norm=FuncNorm((_root, _square), -limit, limit),
                    alpha=(cells != 0).astype(float), extent=extent, interpolation="nearest",
                )
            )  # fmt: skip
            for_images(axes, f"atom {number}, {np.count_nonzero(maps[number]):,} places")
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color(QUIET)
            axes.spines[:].set_linewidth(0.5)
            axes.set(xlim=frame[:2], ylim=frame[2:])
        if len(self.images_):
            bar = self.figure_.colorbar(
                self.images_[0], ax=list(self.axes_[has_image:]), shrink=min(1, 2 / n_rows), aspect=25, pad=0.01
            )
            bar.set_label("activation", color=INK)
            bar.outline.set_visible(False)
            bar.ax.tick_params(colors=QUIET)

    def _draw_events(self, ax, max_maps, title):
        from matplotlib.collections import LineCollection

        maps = self.codes[self.index, :, 0]
        self.use_ = use_of(self.codes[[self.index]])
        self.order_ = np.argsort(-self.use_, kind="stable")[:max_maps]
        n_positions, n_rows = maps.shape[1], len(self.order_)
        heights = [2.2] * (self.image is not None) + [0.6 + 0.42 * n_rows]
        self.figure_, axes = panels(
            ax, len(heights), 1, (9, 0.85 * sum(heights) + 0.5), display="ActivationsDisplay", height_ratios=heights
        )
        self.axes_ = axes.ravel()
        start, length = 0.0, n_positions
        if self.image is not None:
            signal = np.asarray(self.image, np.float64)
            signal = signal[0] if len(signal) == 1 else signal
            length = len(signal)
            start = (length - n_positions) / 2  # positions are those of the middle of an atom
            down = channels_apart(signal)
            top = self.axes_[0]
            top.plot(signal.reshape(length, -1) - down, color=INK, linewidth=0.9)
            for_curves(top, "Signal" if title is None else title, "", "")
            if len(down) > 1:
                top.set_yticks(-down, [f"channel {number}" for number in range(len(down))])
            top.set_xlim(0, length - 1)
            top.tick_params(labelbottom=False)
        bottom = self.axes_[-1]
        values = maps[self.order_]
        limit = float(np.abs(values).max()) or 1.0
        self.images_, self.lines_ = [], []
        for row, own in enumerate(values):
            places = np.flatnonzero(own)
            ends = np.stack([np.full(len(places), row, float), row - 0.45 * own[places] / limit], axis=1)
            lines = np.stack([np.repeat(start + places[:, None], 2, axis=1), ends], axis=2)
            colours = [COLOURS[0] if value > 0 else ACCENT for value in own[places]]
            bottom.axhline(row, color=FAINT, linewidth=0.8)
            bottom.scatter(start + places, np.full(len(places), row), s=4, color=colours, linewidths=0)  # small ones
            self.lines_.append(bottom.add_collection(LineCollection(lines, colors=colours, linewidths=1.4)))
        used = np.count_nonzero(self.use_)
        for_curves(
            bottom, f"{np.count_nonzero(maps):,} activations of {used:,} of {len(maps):,} atoms, largest {limit:.2g}",
            "sample", "",
        )  # fmt: skip
        bottom.set_yticks(range(n_rows), [f"atom {number}" for number in self.order_])
        bottom.set(xlim=(0, length - 1), ylim=(n_rows - 0.4, -0.6))


def placed(map_shape, image_shape):
    """Where a map lies on its image, and the image itself: left, right, bottom and top ends in pixels.

    A map that has fewer places than the image has pixels is one of patches: at each pixel or at every few, and none at
    the edges where no patch is centred.

    Parameters
    ----------
    map_shape, image_shape : tuples of two ints
        Height and width.

    Returns
    -------
    map_ends, image_ends : tuples of four floats

    Examples
    --------
    >>> from sparseshare.plotting.activations import placed
    >>> placed((5, 5), (9, 9))[0]
    (1.5, 6.5, 6.5, 1.5)
    """
    ends = []
    for places, pixels in zip(map_shape, image_shape, strict=True):
        covered = places * max(1, pixels // places)
        ends.append(((pixels - covered) / 2 - 0.5, (pixels + covered) / 2 - 0.5))
    (top, bottom), (left, right) = ends
    return (left, right, bottom, top), (-0.5, image_shape[1] - 0.5, image_shape[0] - 0.5, -0.5)


def _root(values):
    """Square roots with their signs: a scale of colours on which small activations are seen, too."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values):
    return np.sign(values) * values**2


def largest_cells(codes, most):
    """A table with at most so many rows and columns: in each cell the entry of largest magnitude that falls into it.

    Averages would hide single codes, and so would leaving rows out.

    Parameters
    ----------
    codes : sparse array or ndarray of shape (n_rows, n_columns)
    most : int

    Returns
    -------
    ndarray of shape (min(n_rows, most), min(n_columns, most))

    Examples
    --------
    >>> from sparseshare.plotting.activations import largest_cells
    >>> largest_cells([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, -2.0]], 2).tolist()
    [[1.0, 0.0], [0.0, -2.0]]
    """
    from scipy.sparse import coo_array

    codes = coo_array(codes)
    shape = tuple(min(length, most) for length in codes.shape)
    row, column = (
        coordinate.astype(np.int64) * cells // length
        for coordinate, cells, length in zip(codes.coords, shape, codes.shape, strict=True)
    )
    table = np.zeros(shape)
    order = np.argsort(np.abs(codes.data), kind="stable")  # the largest is written last
    table[row[order], column[order]] = codes.data[order]
    return table
