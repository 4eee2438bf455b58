"""ReconstructionDisplay: a signal or an image, what a dictionary makes of it, what is left, and by which atoms."""

import numpy as np

from sparseshare.validation import check_number

from .atoms import atom_form, mosaic, scaled, shaped
from .codes import (
    as_pictures,
    atoms_of,
    check_codes,
    codes_of,
    dense_coder,
    n_axes_of,
    on_host,
    patch_shape_of,
    reaching,
)
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
)


class ReconstructionDisplay:
    """Original, reconstruction, residual, and the atoms used most.

    Make one with `from_estimator` or `from_codes`.

    Parameters
    ----------
    original, reconstruction : ndarray of shape (time,), (height, width) or (height, width, n_channels)
        Or (time, n_channels) with `kind="curve"`.
    atoms : ndarray of shape (n_atoms, *atom_shape), default=None
        The whole dictionary. None: there is no panel of atoms.
    codes : csr_array of shape (n, n_atoms) or ndarray of shape (n, n_atoms, height, width), default=None
        One row for a signal, a row for each patch, or maps.
    kind : {"image", "curve"}, default=None
        None: a curve if there is one axis only.

    Attributes
    ----------
    used_ : ndarray of int
        Numbers of the atoms shown, the most used first.
    amounts_ : ndarray of shape (len(used_),)
        Their codes; of many rows or of maps, their shares in the sum of all magnitudes.
    axes_ : ndarray of matplotlib Axes
        Images: original, reconstruction, residual, atoms. Curves: signal and reconstruction, residual, atoms.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from sparseshare.plotting import ReconstructionDisplay
    >>> rng = np.random.default_rng(0)
    >>> dictionary, code = rng.standard_normal((30, 64)), np.where(np.arange(30) % 10 == 0, 1.0, 0.0)
    >>> signal = code @ dictionary + 0.1 * rng.standard_normal(64)
    >>> display = ReconstructionDisplay.from_codes(signal, code, dictionary)
    >>> [axes.get_title(loc="left") for axes in display.axes_][:2]
    ['Original', 'Reconstruction from 3 of 30 atoms']
    """

    def __init__(self, original, reconstruction, *, atoms=None, codes=None, kind=None):
        self.original = on_host(original)
        self.reconstruction = on_host(reconstruction)
        self.atoms = on_host(atoms)
        self.codes = on_host(codes)
        self.kind = kind

    @classmethod
    def from_estimator(cls, estimator, X, *, index=0, atom_shape=None, ax=None, **options):
        """Draw how an estimator codes one signal or image.

        Parameters
        ----------
        estimator : fitted transformer with `inverse_transform`
            Or a pipeline of such. Codes are the maps of `encode` where there is one.
        X : array-like of shape (n_features,), (n_samples, n_features), or images (n, height, width[, n_channels])
            For atoms shared over positions, signals as in their `fit`.
        index : int, default=0
            Which of X to draw.
        atom_shape : tuple of ints, default=None
            As in `AtomsDisplay.from_codes`.
        ax : array of matplotlib Axes or one Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        ReconstructionDisplay
        """
        estimator, X = on_host(estimator), on_host(X)
        X = X if isinstance(X, list) and hasattr(X[0], "ndim") else np.asarray(X)
        X = X[None] if np.ndim(X[0]) == 0 else X
        index = check_number("index", index, 0, len(X) - 1, integer=True, of=cls.__name__)
        one = X[index : index + 1]
        if not hasattr(estimator, "inverse_transform"):
            raise ValueError(f"{type(estimator).__name__} has no inverse_transform: use from_codes")
        if n_axes_of(estimator) is not None:
            return cls._of_shared_atoms(estimator, one).plot(ax=ax, **options)
        codes = codes_of(estimator, one)
        reconstruction = np.asarray(estimator.inverse_transform(codes))[0]
        atoms = atoms_of(estimator)
        if atom_shape is None and atoms.ndim == 2:
            atom_shape = patch_shape_of(estimator, atoms.shape[1])
        return cls.from_codes(
            one[0], codes, atoms, reconstruction=reconstruction, atom_shape=atom_shape, ax=ax, **options
        )

    @classmethod
    def _of_shared_atoms(cls, estimator, one):
        atoms, n_axes = atoms_of(estimator), n_axes_of(estimator)
        _, kind = atom_form(atoms, n_axes)
        coder, one = dense_coder(estimator), reaching(estimator, one)
        maps = coder.encode(one)
        reconstruction = np.asarray(coder.inverse_transform(maps)[0])
        codes = check_codes(as_pictures(maps[0][None], n_axes), len(atoms))
        return cls(np.reshape(one[0], reconstruction.shape), reconstruction, atoms=atoms, codes=codes, kind=kind)

    @classmethod
    def from_codes(cls, original, codes, dictionary, *, reconstruction=None, atom_shape=None, ax=None, **options):
        """Draw a signal, a patch or an image and what its codes make of it.

        Parameters
        ----------
        original : array-like of shape (n_features,), (height, width) or (height, width, n_channels)
        codes : array-like or sparse array of shape (n_atoms,), (n_patches, n_atoms), or maps (n_atoms, height, width)
        dictionary : array-like of shape (n_atoms, n_features) or (n_atoms, *atom_shape)
        reconstruction : array-like of the shape of `original`, default=None
            None: `codes @ dictionary`, which one row of codes allows.
        atom_shape : tuple of ints, default=None
            As in `AtomsDisplay.from_codes`; an `original` without a shape of its own takes it, too.
        ax : array of matplotlib Axes or one Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        ValueError
            If shapes do not fit together, or many rows of codes come without a reconstruction.
        """
        original, codes, dictionary, reconstruction = map(on_host, (original, codes, dictionary, reconstruction))
        original = np.asarray(original)
        if np.ndim(dictionary) == 2 and atom_shape is None and original.ndim > 1:
            if original.size == np.shape(dictionary)[1]:
                atom_shape = original.shape
        atoms, _ = shaped(dictionary, atom_shape, None)
        codes = check_codes(np.asarray(codes)[None] if np.ndim(codes) == 1 else codes, len(atoms))
        if reconstruction is None:
            if codes.ndim != 2 or codes.shape[0] != 1:
                raise ValueError(f"codes of shape {codes.shape} are of many patches or places: pass reconstruction")
            reconstruction = (codes @ atoms.reshape(len(atoms), -1))[0]
        reconstruction = np.asarray(reconstruction)
        if reconstruction.size != original.size:
            raise ValueError(f"original has the shape {original.shape}, but the reconstruction {reconstruction.shape}")
        if original.ndim == 1 and original.size == atoms[0].size:
            original = original.reshape(atoms.shape[1:])
        if not 1 <= original.ndim <= 3:
            raise ValueError(f"original must be one signal or image, got an array of shape {original.shape}")
        for name, array in (("original", original), ("reconstruction", reconstruction)):
            if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
                raise ValueError(f"{name} must hold finite real numbers")
        return cls(original, reconstruction.reshape(original.shape), atoms=atoms, codes=codes).plot(ax=ax, **options)

    def plot(self, ax=None, *, n_atoms=9, title=None):
        """Draw.

        Parameters
        ----------
        ax : array of matplotlib Axes or one Axes, default=None
            None makes a figure; one Axes gives its place to all panels.
        n_atoms : int, default=9
            Atoms to show at most.
        title : str, default=None
            Of the first panel.

        Returns
        -------
        ReconstructionDisplay
        """
        check_number("n_atoms", n_atoms, 1, integer=True, of="ReconstructionDisplay")
        pyplot()
        self.used_, self.amounts_ = np.zeros(0, int), np.zeros(0)
        if self.codes is not None:
            self._choose(n_atoms)
        curve = np.ndim(self.original) == 1 if self.kind is None else self.kind == "curve"
        draw = self._draw_curves if curve else self._draw_images
        draw(ax, title)
        return self

    @property
    def _one_row(self):
        return self.codes.ndim == 2 and self.codes.shape[0] == 1

    def _choose(self, n_atoms):
        """The atoms whose code times norm is largest."""
        if self.codes.ndim == 4:
            total = np.abs(self.codes).sum(axis=(0, 2, 3))
        else:
            total = np.asarray(abs(self.codes).sum(axis=0)).ravel()
        norms = np.linalg.norm(np.reshape(self.atoms, (len(total), -1)).astype(np.float64), axis=1)
        order = np.argsort(-total * norms, kind="stable")
        self.used_ = order[: min(n_atoms, np.count_nonzero(total))]
        if self._one_row:
            self.amounts_ = self.codes.toarray()[0, self.used_]
        else:
            self.amounts_ = (total * norms)[self.used_] / max((total * norms).sum(), np.finfo(float).tiny)

    def _titles(self):
        """Of reconstruction, residual and atoms."""
        residual = np.subtract(self.original, self.reconstruction, dtype=np.float64)
        size = np.sqrt(np.mean(residual**2))
        left = f"Residual, root mean square {size:.2g}"
        if self.codes is None:
            return "Reconstruction", left, ""
        count = self.codes.nnz if self.codes.ndim == 2 else np.count_nonzero(self.codes)
        if self._one_row:
            return f"Reconstruction from {count} of {self.codes.shape[1]} atoms", left, "Atoms and their codes"
        if self.codes.ndim == 2:
            made = f"Reconstruction, {count / self.codes.shape[0]:.1f} atoms a patch"
        else:
            made = f"Reconstruction, {count:,} activations"
        return made, left, "Atoms used most,\nshare of all codes"

    def _labels(self):
        if self._one_row:
            return [f"{amount:+.2g}".replace("-", "\N{MINUS SIGN}") for amount in self.amounts_]
        return [f"{100 * amount:.1f} %" for amount in self.amounts_]

    def _draw_images(self, ax, title):
        original, reconstruction = (np.asarray(image, np.float64) for image in (self.original, self.reconstruction))
        limits = natural_limits(np.asarray(self.original))
        with_atoms = self.codes is not None
        height, width = side_by_side(original).shape[:2]
        size = min(12.5, 3.2 * width / height * (3 + with_atoms)), 3.0
        size = size[0], max(2.2, min(6.5, size[0] / (3 + with_atoms) * height / width + 0.5))
        self.figure_, axes = panels(ax, 1, 3 + with_atoms, size, display="ReconstructionDisplay")
        self.axes_ = axes.ravel()
        made, left, atoms = self._titles()
        for axes, image, name in zip(
            self.axes_, (original, reconstruction), ("Original" if title is None else title, made), strict=False
        ):
            show(axes, image, limits)
            for_images(axes, name)
        residual = original - reconstruction
        limit = float(np.abs(residual).max()) or 1.0
        shown = show(self.axes_[2], residual, (-limit, limit), cmap=SIGNED)
        if side_by_side(residual).shape[-1] == 1:
            add_colorbar(shown, self.axes_[2], "original \N{MINUS SIGN} reconstruction")
        for_images(self.axes_[2], left)
        if with_atoms:
            self._draw_tiles(self.axes_[3])
            for_images(self.axes_[3], atoms)
        for axes in self.axes_:
            axes.set_anchor("N")  # titles in one line, though tiles have another aspect

    def _draw_tiles(self, axes):
        if not len(self.used_):
            axes.text(0.5, 0.5, "no atom is used", ha="center", va="center", color=QUIET, transform=axes.transAxes)
            return
        chosen = np.asarray(self.atoms)[self.used_]
        if chosen.ndim == 2:  # curves that make up an image: as rows of pixels
            chosen = chosen[:, None]
        values, limits = scaled(chosen, "atom", None)
        values = np.stack([side_by_side(one) for one in values])
        _, height, width, _ = values.shape
        gap, below = max(1, round(0.1 * width)), max(1, round(0.34 * height))
        n_rows, n_columns = grid_of(max(len(values), 6), (width + gap) / (height + below))
        show(axes, mosaic(values, n_rows, n_columns, gap, below), limits)
        for number, label in enumerate(self._labels()):
            row, column = divmod(number, n_columns)
            x, y = column * (width + gap) + (width - 1) / 2, row * (height + below) + 1.05 * height - 0.5
            axes.text(x, y, label, ha="center", va="top", fontsize=8, color=INK)

    def _draw_curves(self, ax, title):
        with_atoms = self.codes is not None
        n_used = len(self.used_)
        heights = [3, 1.6] + [1.2 + 0.55 * n_used] * with_atoms
        self.figure_, axes = panels(
            ax, len(heights), 1, (8, 0.85 * sum(heights) + 0.5), display="ReconstructionDisplay", height_ratios=heights
        )
        self.axes_ = axes.ravel()
        made, left, atoms = self._titles()
        original, reconstruction = np.asarray(self.original), np.asarray(self.reconstruction)
        residual = original - reconstruction.astype(np.float64)
        top, down = self.axes_[0], channels_apart(original)  # channels one below the other
        n_channels = down.shape[-1]
        lines = [
            top.plot(apart, color=colour, linewidth=width, alpha=alpha)[0]
            for signal, colour, width, alpha in ((original, QUIET, 2.5, 0.55), (reconstruction, COLOURS[0], 1.3, 1))
            for apart in (signal.reshape(len(signal), -1) - down).T
        ]
        for line, label in zip(lines[::n_channels], ("original", "reconstruction"), strict=True):
            line.set_label(label)
        for_curves(top, made if title is None else title, "", "signal")
        top.legend(frameon=False, fontsize=8.5, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        down_left = channels_apart(residual)
        self.axes_[1].plot(residual.reshape(len(residual), -1) - down_left, color=ACCENT, linewidth=1)
        for_curves(self.axes_[1], left, "" if with_atoms else "sample", "residual")
        for axes in self.axes_:
            axes.set_xlim(0, len(original) - 1)
        if n_channels > 1:
            for axes, places in zip(self.axes_, (down, down_left), strict=False):
                axes.set_yticks(-places, [f"channel {number}" for number in range(n_channels)])
                axes.set_ylabel("")
        top.tick_params(labelbottom=False)
        if not with_atoms:
            return
        bottom = self.axes_[2]
        for_curves(bottom, atoms + ", scaled by them" * self._one_row, "sample", "")
        self.axes_[1].tick_params(labelbottom=self.atoms[0].size != len(original))
        bottom.set_yticks([])
        bottom.spines["left"].set_visible(False)
        curves = np.asarray(self.atoms)[self.used_].astype(np.float64)
        if curves.ndim == 2 or self.kind is None:
            curves = curves.reshape(len(curves), self.atoms[0].size, 1)
        if self._one_row:
            curves = curves * self.amounts_[:, None, None]
        step = 1.15 * np.ptp(curves, axis=(1, 2)).max(initial=0) or 1.0
        bottom.set_xlim(0, curves.shape[1] - 1 if n_used else len(original) - 1)
        for row, (curve, label) in enumerate(zip(curves, self._labels(), strict=True)):
            bottom.axhline(-row * step, color=FAINT, linewidth=0.8)
            for channel, line in enumerate(curve.T):
                bottom.plot(line - row * step, color=COLOURS[channel % len(COLOURS)], linewidth=1.2)
            bottom.annotate(
                label, (1, -row * step), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", fontsize=8.5, color=INK,
            )  # fmt: skip


def channels_apart(signal):
    """How far down each channel of a signal is drawn, for none to lie on another.

    Parameters
    ----------
    signal : ndarray of shape (time,) or (time, n_channels)

    Returns
    -------
    ndarray of shape (n_channels,)
    """
    signal = np.asarray(signal, np.float64).reshape(len(signal), -1)
    return np.arange(signal.shape[1]) * 1.15 * (float(np.ptp(signal, axis=0).max()) or 1.0)


def natural_limits(image):
    """What black and white stand for in an image: its dtype's or its own ends.

    Parameters
    ----------
    image : ndarray

    Returns
    -------
    tuple of two floats
    """
    if image.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(image.min()), float(image.max())
    if 0 <= low and 0.5 < high <= 1:
        return 0.0, 1.0
    if low < 0 < high and high < 4 * -low and -low < 4 * high:  # a patch without its mean: grey stays zero
        low, high = -max(-low, high), max(-low, high)
    return (low, high) if high > low else (low - 1, high + 1)


def side_by_side(image):
    """An image of one channel or of three colours, any other channels one beside the other.

    Parameters
    ----------
    image : ndarray of shape (height, width) or (height, width, n_channels)

    Returns
    -------
    ndarray of shape (height, width, 1 or 3)
    """
    if image.ndim == 2:
        return image[..., None]
    if image.shape[2] in (1, 3):
        return image
    return np.moveaxis(image, 2, 1).reshape(len(image), -1, 1)


def show(axes, image, limits, cmap="gray"):
    """Draw an image within limits.

    Parameters
    ----------
    axes : matplotlib Axes
    image : ndarray of shape (height, width) or (height, width, n_channels)
    limits : tuple of two floats
    cmap : str, default="gray"
        For one channel; colours have their own.

    Returns
    -------
    matplotlib AxesImage
    """
    image = side_by_side(np.asarray(image))
    if image.shape[2] == 3:
        colours = np.clip((image - limits[0]) / (limits[1] - limits[0]), 0, 1)
        return axes.imshow(np.where(np.isnan(colours), 1, colours), interpolation="nearest")
    return axes.imshow(image[..., 0], cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
