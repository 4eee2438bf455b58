"""Shapes of atoms as users ask for them: one for all, one for each, or numbers of atoms by shape."""

from numbers import Integral

import numpy as np

from sparseshare.validation import check_number

_DEFAULT = 32  # atoms where nothing says how many


def atom_shapes(n_components, atom_shape, n_given=None):
    """How many atoms, and of which shapes.

    Parameters
    ----------
    n_components : int or None
    atom_shape : int, tuple of ints, list of shapes or dict of numbers by shape
    n_given : int or None, default=None
        Number of atoms in an array to start from, which counts where nothing else says how many.

    Returns
    -------
    n_components : int
    support : tuple of ints
        Spatial axes of the array of atoms: the longest along every axis.
    supports : tuple of tuples or None
        Of each atom; None if all are `support`.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from sparseshare.convolution.shapes import atom_shapes
    >>> atom_shapes(10, (8, 8))
    (10, (8, 8), None)
    >>> atom_shapes(None, {(4, 4): 1, (2, 8): 2})
    (3, (4, 8), ((4, 4), (2, 8), (2, 8)))
    >>> atom_shapes(None, {16: 1, 32: 1})
    (2, (32,), ((16,), (32,)))
    """
    if isinstance(atom_shape, dict):
        counts = [check_number(f"atom_shape[{shape}]", count, 1, integer=True) for shape, count in atom_shape.items()]
        shapes = [_shape(shape) for shape, count in zip(atom_shape, counts, strict=True) for _ in range(count)]
    elif isinstance(atom_shape, list) and any(np.ndim(shape) for shape in atom_shape):
        shapes = [_shape(shape) for shape in atom_shape]
    else:
        shape = _shape(atom_shape)
        number = n_components if n_components is not None else n_given or _DEFAULT
        return number, shape, None
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"atom_shape must hold shapes with as many axes each, got {atom_shape!r}")
    if n_components is not None and n_components != len(shapes):
        raise ValueError(f"atom_shape has shapes of {len(shapes)} atoms, n_components is {n_components}")
    support = tuple(max(lengths) for lengths in zip(*shapes, strict=True))
    return len(shapes), support, None if set(shapes) == {support} else tuple(shapes)


def _shape(shape):
    """1 to 3 positive ints."""
    numbers = (shape,) if isinstance(shape, Integral) else shape
    if not isinstance(numbers, tuple | list) or not 1 <= len(numbers) <= 3:
        raise ValueError(
            "atom_shape must be an int, 1 to 3 ints, a list of such shapes (one an atom) or a dict of numbers of atoms "
            f"by shape, got {shape!r}"
        )
    return tuple(check_number("atom_shape", number, 1, integer=True) for number in numbers)
