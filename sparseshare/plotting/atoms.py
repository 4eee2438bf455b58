"""AtomsDisplay: the atoms of a dictionary side by side."""

from math import isqrt

import numpy as np

from sparseshare.validation import check_bool, check_choice, check_number

from .codes import atoms_of, check_codes, codes_of, n_axes_of, on_host, patch_shape_of, use_of
from .style import COLOURS, FAINT, INK, QUIET, add_colorbar, for_images, grid_of, panels, pyplot, share

_LABELLED = 40  # atoms at most that have room for a number each


class AtomsDisplay:
    """Atoms as images or as curves.

    Make one with `from_estimator` or `from_codes`.

    Parameters
    ----------
    atoms : ndarray of shape (n_atoms, height, width), (n_atoms, height, width, n_channels)
        Or (n_atoms, time[, n_channels]) with `kind="curve"`.
    kind : {"image", "curve"}, default="image"
    use : array of shape (n_atoms,), default=None
        Share of signals, or of places, that use each atom.
    counted : {"signals", "places"}, default="signals"

    Attributes
    ----------
    order_ : ndarray of int of shape (n_shown,)
        Numbers of the atoms shown, in their order.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage or None
        All images in one, rows of tiles.
    lines_ : matplotlib LineCollection or None
        The curves, channel by channel.

    See Also
    --------
    ReconstructionDisplay : A signal and the atoms it is made of.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from sparseshare.plotting import AtomsDisplay
    >>> dictionary = np.random.default_rng(0).standard_normal((12, 64))
    >>> display = AtomsDisplay.from_codes(dictionary)
    >>> display.ax_.get_title(loc="left")
    '12 atoms of 8 × 8 pixels'
    """

    def __init__(self, atoms, *, kind="image", use=None, counted="signals"):
        self.atoms = on_host(atoms)
        self.kind = kind
        self.use = on_host(use)
        self.counted = counted

    @classmethod
    def from_estimator(cls, estimator, X=None, *, atom_shape=None, kind=None, ax=None, **options):
        """Draw the atoms of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            With `components_` or `atoms_`; or a pipeline that ends in one; or a fitted search.
        X : array-like, default=None
            Signals, whose codes say how much each atom is used.
        atom_shape : tuple of ints, default=None
            As in `from_codes`; None also asks the estimator, or an earlier step, for its `patch_shape`.
        kind : {"image", "curve"}, default=None
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        AtomsDisplay
        """
        estimator, X = on_host(estimator), on_host(X)
        atoms, n_axes = atoms_of(estimator), n_axes_of(estimator)
        if n_axes is not None and atom_shape is None:
            atom_shape, kind = atom_form(atoms, n_axes)
        elif atom_shape is None and kind is None and atoms.ndim == 2:
            atom_shape = patch_shape_of(estimator, atoms.shape[1])
        codes = None if X is None else codes_of(estimator, X)
        return cls.from_codes(atoms, codes, atom_shape=atom_shape, kind=kind, ax=ax, **options)

    @classmethod
    def from_codes(cls, atoms, codes=None, *, atom_shape=None, kind=None, ax=None, **options):
        """Draw atoms, the most used first if codes are given.

        Parameters
        ----------
        atoms : array of shape (n_atoms, n_features) or (n_atoms, height, width[, n_channels])
            Rows of a dictionary, or atoms shared by all places of an image.
        codes : array or sparse array of shape (n_signals, n_atoms), or maps (n, n_atoms, height, width), default=None
        atom_shape : tuple of ints, default=None
            ``(height, width[, n_channels])`` of images, ``(time,)`` of curves. None: rows of a square number of
            entries are square images, of thrice a square number are square colour images, all others are curves.
        kind : {"image", "curve"}, default=None
            "curve" with ``atom_shape=(time, n_channels)`` for signals of several channels.
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        AtomsDisplay

        Raises
        ------
        ValueError
            If shapes do not fit together, or atoms are not finite.
        """
        atoms, kind = shaped(atoms, atom_shape, kind)
        use, counted = None, "signals"
        if codes is not None:
            codes = check_codes(codes, len(atoms))
            use, counted = use_of(codes), "places" if codes.ndim == 4 else "signals"
        return cls(atoms, kind=kind, use=use, counted=counted).plot(ax=ax, **options)

    def plot(
        self, ax=None, *, order="auto", max_atoms=None, n_columns=None, scale="atom", symmetric=None, cmap="gray",
        title=None,
    ):  # fmt: skip
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure, as large as the number of atoms asks for.
        order : {"auto", "use", "norm"} or None, default="auto"
            By how many signals use them or by their norm, the largest first; None as they are numbered. "auto" is
            "use" if that is known, else None.
        max_atoms : int, default=None
            Show only the first; None shows all.
        n_columns : int, default=None
        scale : {"atom", "all"}, default="atom"
            Stretch each atom to the full range, or all alike (then with a scale of grey beside them).
        symmetric : bool, default=None
            Put zero in the middle of the range: entries of equal magnitude stand out equally. False takes an atom's
            smallest entry as black and its largest as white. None: where there are negative entries, else black is 0.
        cmap : str or matplotlib Colormap, default="gray"
            For images of one channel.
        title : str, default=None

        Returns
        -------
        AtomsDisplay
        """
        check_choice("order", order, ("auto", "use", "norm", None), of="AtomsDisplay")
        check_choice("scale", scale, ("atom", "all"), of="AtomsDisplay")
        check_number("n_columns", n_columns, 1, integer=True, allow_none=True, of="AtomsDisplay")
        check_number("max_atoms", max_atoms, 1, integer=True, allow_none=True, of="AtomsDisplay")
        if symmetric is not None:
            check_bool("symmetric", symmetric, of="AtomsDisplay")
        pyplot()
        self.order_, sorted_by = self._order(order)
        self.order_ = self.order_[:max_atoms]
        shown = np.asarray(self.atoms)[self.order_]
        labels = None
        if self.use is not None and len(shown) <= _LABELLED:
            labels = [share(self.use[number]) for number in self.order_]
        draw = self._draw_images if self.kind == "image" else self._draw_curves
        draw(ax, shown, n_columns, scale, symmetric, cmap, labels)
        for_images(self.ax_, self._title(shown, sorted_by, labels) if title is None else title)
        return self

    def _order(self, order):
        """Numbers of the atoms, and in words what they are sorted by."""
        if order == "auto":
            order = None if self.use is None else "use"
        if order is None:
            return np.arange(len(self.atoms)), ""
        if order == "norm":
            flat = np.asarray(self.atoms, np.float64).reshape(len(self.atoms), -1)
            return np.argsort(-np.linalg.norm(flat, axis=1), kind="stable"), "largest norm first"
        if self.use is None:
            raise ValueError("order='use' needs codes: pass them to from_codes, or X to from_estimator")
        return np.argsort(-np.asarray(self.use), kind="stable"), "most used first"

    def _title(self, shown, sorted_by, labels):
        count = f"{len(shown):,}" if len(shown) == len(self.atoms) else f"{len(shown):,} of {len(self.atoms):,}"
        if self.kind == "curve":
            size = f"{shown.shape[1]} samples"
        else:
            size = f"{shown.shape[1]} × {shown.shape[2]} pixels"
        n_channels = shown.shape[-1] if shown.ndim == (4 if self.kind == "image" else 3) else 1
        if n_channels == 3 and self.kind == "image":
            size += " in colour"
        elif n_channels > 1:
            size += f" in {n_channels} channels" + (", side by side" if self.kind == "image" else "")
        parts = [f"{count} atom{'s' * (len(shown) != 1)} of {size}"]
        if sorted_by:
            parts.append(sorted_by)
        if labels:
            parts.append(f"with the share of {self.counted} that use them")
        return ",\n".join([", ".join(parts[:2]), *parts[2:]] if len(parts[0]) < 32 else parts)

    def _draw_images(self, ax, shown, n_columns, scale, symmetric, cmap, labels):
        shown = shown[..., None] if shown.ndim == 3 else shown
        n_atoms, height, width, n_channels = shown.shape
        values, limits = scaled(shown, scale, symmetric)
        gap = max(1, round(0.07 * min(height, width)))
        if n_channels not in (1, 3):  # channels side by side in an atom, closer than atoms are
            strip = np.full((n_atoms, height, n_channels, width + gap), np.nan)
            strip[..., :width] = np.moveaxis(values, 3, 2)
            values = strip.reshape(n_atoms, height, -1, 1)[:, :, :-gap]
            width, n_channels, gap = values.shape[2], 1, 3 * gap
        below = max(gap, round(0.3 * height)) if labels else max(1, round(0.07 * height))
        if n_columns is None:
            n_rows, n_columns = grid_of(n_atoms, (width + gap) / (height + below))
        else:
            n_rows = -(-n_atoms // n_columns)
        picture = mosaic(values, n_rows, n_columns, gap, below)
        inch = min(1.1 / np.sqrt(height * width), 8 / picture.shape[1], 7.5 / picture.shape[0])  # of a pixel
        size = max(4.2, picture.shape[1] * inch + 0.3 + (scale == "all")), picture.shape[0] * inch + 0.6
        self.figure_, axes = panels(ax, 1, 1, size, display="AtomsDisplay")
        self.ax_, self.lines_ = axes[0, 0], None
        if n_channels == 3:
            picture = np.clip((picture - limits[0]) / (limits[1] - limits[0]), 0, 1)
            picture = np.where(np.isnan(picture), 1, picture)
            self.image_ = self.ax_.imshow(picture, interpolation="nearest")
        else:
            self.image_ = self.ax_.imshow(
                picture[..., 0], cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest"
            )
            if scale == "all":
                add_colorbar(self.image_, self.ax_, "entry of an atom")
        for number, label in enumerate(labels or []):
            row, column = divmod(number, n_columns)
            x, y = column * (width + gap) + width / 2 - 0.5, row * (height + below) + height - 0.5 + 0.06 * height
            self.ax_.text(x, y, label, ha="center", va="top", fontsize=8, color=QUIET)

    def _draw_curves(self, ax, shown, n_columns, scale, symmetric, cmap, labels):
        from matplotlib.collections import LineCollection
        from matplotlib.lines import Line2D

        shown = shown[..., None] if shown.ndim == 2 else shown
        n_atoms, length, n_channels = shown.shape
        values, limits = scaled(shown, scale, symmetric)
        if n_columns is None:
            n_rows, n_columns = grid_of(n_atoms, 1.8)
        else:
            n_rows = -(-n_atoms // n_columns)
        size = np.clip(1.7 * n_columns, 4.2, 9), np.clip(0.95 * n_rows, 1.6, 8) + 0.5
        self.figure_, axes = panels(ax, 1, 1, tuple(size), display="AtomsDisplay")
        self.ax_, self.image_ = axes[0, 0], None
        row, column = np.divmod(np.arange(n_atoms), n_columns)
        across = column[:, None] + np.linspace(0, 0.88, length)
        unit = 0.76 / (limits[1] - limits[0])
        base = row + 0.5 + unit * (limits[0] + limits[1]) / 2  # where zero lies; rows count downwards
        zeros = np.stack([across[:, [0, -1]], np.repeat(base[:, None], 2, axis=1)], axis=2)
        self.ax_.add_collection(LineCollection(zeros, colors=FAINT, linewidths=0.8))
        up = base[:, None, None] - unit * values
        lines = [np.column_stack([across[k], up[k, :, c]]) for c in range(n_channels) for k in range(n_atoms)]
        colours = [COLOURS[c % len(COLOURS)] for c in range(n_channels) for _ in range(n_atoms)]
        self.lines_ = self.ax_.add_collection(LineCollection(lines, colors=colours, linewidths=1.1))
        self.ax_.set_xlim(-0.06, n_columns - 0.06)
        self.ax_.set_ylim(n_rows, 0)
        for x, y, label in zip(column, row, labels or [], strict=False):
            self.ax_.text(x, y + 0.02, label, va="top", fontsize=8, color=QUIET)
        if 1 < n_channels <= len(COLOURS):
            marks = [Line2D([], [], color=COLOURS[c], label=f"channel {c}") for c in range(n_channels)]
            self.ax_.legend(
                handles=marks, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(n_channels, 4), frameon=False,
                fontsize=8.5, labelcolor=INK,
            )  # fmt: skip


def atom_form(atoms, n_axes):
    """Shape and kind of atoms that are shared over positions.

    Parameters
    ----------
    atoms : ndarray of shape (n_atoms, *atom_shape[, n_channels])
    n_axes : int
        Axes of `atom_shape`.

    Returns
    -------
    atom_shape : tuple of ints
        With the channels.
    kind : {"image", "curve"}

    Raises
    ------
    ValueError
        For atoms of volumes.
    """
    if n_axes == 3:
        raise ValueError("atoms of volumes cannot be drawn: pass a slice of them, atoms[:, depth], to from_codes")
    return atoms.shape[1:], "curve" if n_axes == 1 else "image"


def shaped(atoms, atom_shape, kind):
    """Atoms in their shape, checked, and whether they are images or curves.

    Parameters
    ----------
    atoms : array of shape (n_atoms, n_features) or (n_atoms, *atom_shape)
    atom_shape : tuple of ints or None
    kind : {"image", "curve"} or None

    Returns
    -------
    atoms : ndarray
    kind : {"image", "curve"}

    Raises
    ------
    ValueError
    """
    check_choice("kind", kind, ("image", "curve", None), of="AtomsDisplay")
    atoms = np.asarray(on_host(atoms))
    if not 2 <= atoms.ndim <= 4 or atoms.size == 0:
        raise ValueError(
            "atoms must have the shape (n_atoms, n_features) or (n_atoms, height, width[, n_channels]), got "
            f"{atoms.shape}"
        )
    if atoms.dtype.kind not in "fiub" or not np.isfinite(atoms).all():
        raise ValueError(f"atoms must be finite real numbers, got dtype {atoms.dtype}, or NaN or infinity in them")
    if atom_shape is None and atoms.ndim == 2:
        n_features = atoms.shape[1]
        side, colour_side = isqrt(n_features), isqrt(n_features // 3)
        if kind == "curve" or n_features < 4:
            atom_shape = (n_features,)
        elif side**2 == n_features:
            atom_shape = (side, side)
        elif 3 * colour_side**2 == n_features:
            atom_shape = (colour_side, colour_side, 3)
        elif kind == "image":
            raise ValueError(f"atoms of {n_features} entries are no square images: pass atom_shape")
        else:
            atom_shape = (n_features,)
    shape = atoms.shape[1:] if atom_shape is None else (atom_shape,) if np.ndim(atom_shape) == 0 else tuple(atom_shape)
    kind = kind or ("curve" if len(shape) == 1 else "image")
    if len(shape) not in ((1, 2) if kind == "curve" else (2, 3)):
        wanted = (
            "(time,) or (time, n_channels)" if kind == "curve" else "(height, width) or (height, width, n_channels)"
        )
        raise ValueError(f"atom_shape of {kind}s must be {wanted}, got {shape}")
    if np.prod(shape) != np.prod(atoms.shape[1:]):
        raise ValueError(f"atom_shape={shape} has {np.prod(shape)} entries, an atom has {np.prod(atoms.shape[1:])}")
    return atoms.reshape(len(atoms), *shape), kind


def scaled(atoms, scale, symmetric):
    """Entries divided by the largest magnitude of their atom (or as they are), and what black and white stand for.

    Parameters
    ----------
    atoms : ndarray of shape (n_atoms, ...)
    scale : {"atom", "all"}
    symmetric : bool or None
        As in `AtomsDisplay.plot`.

    Returns
    -------
    values : float ndarray of the shape of atoms
    limits : tuple of two floats
    """
    values = np.array(atoms, np.float64)
    if symmetric is None and (values >= 0).all():
        low, symmetric = 0.0, False
    else:
        low, symmetric = None, symmetric is not False
    axes = tuple(range(1, values.ndim)) if scale == "atom" else tuple(range(values.ndim))
    if symmetric or low is not None:
        largest = np.abs(values).max(axis=axes, keepdims=True)
        if scale == "atom":
            values, largest = values / np.where(largest == 0, 1, largest), np.ones(1)
        limit = float(largest.max()) or 1.0
        return values, (-limit if symmetric else 0.0, limit)
    least, largest = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    if scale == "all":
        return values, (float(least.max()), float(largest.max()) + float(largest.max() == least.max()))
    return (values - least) / np.where(largest == least, 1, largest - least), (0.0, 1.0)


def mosaic(tiles, n_rows, n_columns, gap, below):
    """Tiles in rows, NaN between them and where there are none.

    Parameters
    ----------
    tiles : ndarray of shape (n, height, width, n_channels)
    n_rows, n_columns : int
    gap, below : int
        Pixels beside and below a tile.

    Returns
    -------
    ndarray of shape (n_rows * (height + below), n_columns * (width + gap) - gap, n_channels)
    """
    n, height, width, n_channels = tiles.shape
    picture = np.full((n_rows * n_columns, height + below, width + gap, n_channels), np.nan)
    picture[:n, :height, :width] = tiles
    picture = picture.reshape(n_rows, n_columns, height + below, width + gap, n_channels).swapaxes(1, 2)
    return picture.reshape(n_rows * (height + below), n_columns * (width + gap), n_channels)[:, :-gap]
