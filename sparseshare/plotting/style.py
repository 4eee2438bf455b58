"""What all pictures share: matplotlib on first use, colours, panels, and axes without clutter."""

import numpy as np

INK, QUIET, FAINT = "#1f2a37", "#6b7280", "#e5e7eb"
# Okabe and Ito's palette, told apart by colour-blind readers too, the darkest first; yellow is too pale for lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
ACCENT = COLOURS[1]
SIGNED = "RdBu_r"  # red and blue, not red and green


def pyplot():
    """matplotlib.pyplot, imported when a picture is drawn.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    """
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError('pictures are drawn by matplotlib: pip install "sparseshare[plot]"') from error
    return matplotlib.pyplot


def panels(ax, n_rows, n_columns, size, *, display, **ratios):
    """Axes to draw several panels on.

    Parameters
    ----------
    ax : matplotlib Axes, array of Axes or None
        None makes a figure; one Axes gives its place to the panels; an array is used as it is.
    n_rows, n_columns : int
    size : tuple of two floats
        Of a new figure, in inches.
    display : str
        Class that draws, for messages.
    **ratios : lists
        `width_ratios` and `height_ratios` of the panels.

    Returns
    -------
    figure : matplotlib Figure
    axes : ndarray of Axes of shape (n_rows, n_columns)
    """
    plt = pyplot()
    if ax is None:
        figure = plt.figure(figsize=size, layout="constrained")
        return figure, figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw=ratios)
    if isinstance(ax, plt.Axes):
        place = ax.get_subplotspec()
        if n_rows * n_columns == 1:
            return ax.figure, np.array([[ax]])
        if place is None:
            raise ValueError(
                f"{display} draws {n_rows * n_columns} panels: ax must be one made by subplots, or an array"
            )
        ax.set_axis_off()
        inner = place.subgridspec(n_rows, n_columns, **ratios)
        return ax.figure, inner.subplots(squeeze=False)
    axes = np.asarray(ax, dtype=object)
    if axes.size != n_rows * n_columns or not all(isinstance(one, plt.Axes) for one in axes.flat):
        raise ValueError(
            f"{display} draws {n_rows * n_columns} panels: ax must be None, one Axes or an array of as many"
        )
    return axes.flat[0].figure, axes.reshape(n_rows, n_columns)


def put_title(axes, text):
    """A title at the left, in the ink of the lines."""
    axes.set_title(text, loc="left", fontsize=10.5, color=INK)


def for_curves(axes, title, x, y):
    """Title, labels, and only the two spines and the grid that a reader needs."""
    put_title(axes, title)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, which="both")
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def for_images(axes, title=None):
    """A title, and neither ticks nor frame."""
    if title:
        put_title(axes, title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def add_colorbar(image, axes, label):
    """A slim scale beside an image.

    Parameters
    ----------
    image : matplotlib AxesImage
    axes : matplotlib Axes
    label : str

    Returns
    -------
    matplotlib Colorbar
    """
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(label, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=QUIET)
    return bar


def grid_of(count, aspect):
    """Rows and columns for tiles, so that together they are about as wide as high and few places stay empty.

    Parameters
    ----------
    count : int
    aspect : float
        Width of a tile over its height.

    Returns
    -------
    n_rows, n_columns : int

    Examples
    --------
    >>> from sparseshare.plotting.style import grid_of
    >>> grid_of(4, 1.0), grid_of(100, 1.0), grid_of(1000, 1.0)
    ((1, 4), (10, 10), (25, 40))
    """
    if count <= 5 and count * aspect <= 8:
        return 1, count
    ideal = np.sqrt(count * 1.4 / aspect)  # screens and pages of text are wider than high
    near = range(max(1, int(0.75 * ideal)), int(1.35 * ideal) + 2)
    n_columns = min(near, key=lambda n: (-count % n / n + abs(np.log(n / ideal)), n))
    return -(-count // n_columns), n_columns


def share(part):
    """A share as per cent, short.

    Examples
    --------
    >>> from sparseshare.plotting.style import share
    >>> share(0.314), share(0.0123), share(0.00004), share(0)
    ('31 %', '1.2 %', '<0.1 %', '0 %')
    """
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"
