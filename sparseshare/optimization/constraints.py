"""Sets that atoms may be confined to, and the exact Euclidean projections onto them.

The atom sweep of `kernels/cpu/atoms.py` projects one row at a time inside compiled code; everything else that needs a
feasible dictionary (initialisation, MOD, replaced atoms) comes here.
"""

from dataclasses import dataclass

import numpy as np

from sparseshare.devices import array_module
from sparseshare.validation import check_bool, check_choice, check_number

from .reductions import highest


@dataclass(frozen=True)
class AtomConstraint:
    """The set C that every atom belongs to.

    Parameters
    ----------
    norm : {"ball", "sphere"}, default="ball"
        |d|_2 <= 1, or |d|_2 = 1.
    nonnegative : bool, default=False
        d >= 0 in every entry.
    zero_mean : bool, default=False
        The entries of d sum to 0.
    l1_budget : float or None, default=None
        |d|_1 <= l1_budget: sparse atoms (Mairal et al. 2010, section 5.4). Every unit vector has 1 <= |d|_1 <=
        sqrt(n_features), so budgets between these two are the ones that mean something.

    Raises
    ------
    ValueError
        For values out of range, and for combinations that have no projection in closed form: zero mean with
        non-negative atoms or with an l1 budget, the sphere with an l1 budget.

    Notes
    -----
    `project` returns argmin |d - atom|_2 over d in C, row by row. For the non-negative ball (a cone and a ball around
    its tip) and for the zero-mean ball (a subspace and a ball around 0) projecting on one after the other is exact. On
    the sphere, which is not convex, a nearest point is returned: any of them where several are equally near.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.optimization import AtomConstraint
    >>> AtomConstraint(nonnegative=True).project(np.array([[3.0, -1.0, 4.0], [0.1, -0.2, 0.0]]))
    array([[0.6, 0. , 0.8],
           [0.1, 0. , 0. ]])
    """

    norm: str = "ball"
    nonnegative: bool = False
    zero_mean: bool = False
    l1_budget: float | None = None

    def __post_init__(self):
        check_choice("atom_norm", self.norm, ("ball", "sphere"))
        check_bool("positive_dict", self.nonnegative)
        check_bool("zero_mean_dict", self.zero_mean)
        check_number("atom_l1_budget", self.l1_budget, 0, open_low=True, allow_none=True)
        if self.zero_mean and self.nonnegative:
            raise ValueError("positive_dict and zero_mean_dict exclude each other: only atoms of zeros have both")
        if self.l1_budget is not None and (self.zero_mean or self.norm == "sphere"):
            other = "zero_mean_dict=True" if self.zero_mean else "atom_norm='sphere'"
            raise ValueError(f"atom_l1_budget cannot be combined with {other}: use atom_norm='ball' and no zero mean")

    def project(self, atoms):
        """Nearest point of the set for every row.

        Parameters
        ----------
        atoms : array of shape (n_components, n_features)
            float32 or float64, NumPy or CuPy; not changed.

        Returns
        -------
        array of the same shape, dtype and device
        """
        xp = array_module(atoms)
        atoms = xp.asarray(atoms)
        if self.zero_mean:
            # Twice: the first mean of large entries leaves a rounding error that scaling down would keep.
            projected = atoms - atoms.mean(axis=1, keepdims=True)
            projected -= projected.mean(axis=1, keepdims=True)
        elif self.nonnegative:
            projected = xp.maximum(atoms, 0)
        else:
            projected = atoms
        if self.norm == "sphere":
            return _project_on_sphere(projected, atoms, self)
        if self.l1_budget is not None:
            return _project_on_l1_and_l2_balls(projected, self.l1_budget)
        return project_on_unit_ball(projected)

    def contains(self, atoms, tol=1e-6):
        """Whether every row belongs to the set, up to `tol`.

        Parameters
        ----------
        atoms : array of shape (n_components, n_features)
        tol : float, default=1e-6

        Returns
        -------
        bool
        """
        xp = array_module(atoms)
        atoms = xp.asarray(atoms, dtype=np.float64)
        norms = xp.sqrt(xp.einsum("ij,ij->i", atoms, atoms))
        inside = xp.abs(norms - 1) <= tol if self.norm == "sphere" else norms <= 1 + tol
        inside = inside.all()
        if self.nonnegative:
            inside &= (atoms >= 0).all()
        if self.zero_mean:
            inside &= highest(xp.abs(atoms.sum(axis=1))) <= tol
        if self.l1_budget is not None:
            inside &= highest(xp.abs(atoms).sum(axis=1)) <= self.l1_budget * (1 + tol)
        return bool(inside)


def row_norms(rows):
    """Euclidean norm of every row, in float64 and without overflow or underflow.

    Parameters
    ----------
    rows : array of shape (n_rows, n_features)

    Returns
    -------
    array of shape (n_rows,), float64, on the device of the rows
    """
    xp = array_module(rows)
    rows = xp.asarray(rows, dtype=np.float64)
    largest = highest(xp.abs(rows), axis=1)
    scale = xp.where(largest > 0, largest, 1)
    scaled = rows / scale[:, None]
    return scale * xp.sqrt(xp.einsum("ij,ij->i", scaled, scaled))


def project_on_unit_ball(atoms):
    """Divide every row of norm above 1 by its norm.

    Parameters
    ----------
    atoms : array of shape (n_components, n_features)

    Returns
    -------
    array of the same shape, dtype and device
    """
    norms = row_norms(atoms)
    return (atoms / array_module(atoms).where(norms > 1, norms, 1)[:, None]).astype(atoms.dtype, copy=False)


def _project_on_sphere(projected, atoms, constraint):
    xp, norms = array_module(atoms), row_norms(projected)
    result = (projected / xp.where(norms > 0, norms, 1)[:, None]).astype(atoms.dtype, copy=False)
    zero = xp.flatnonzero(norms == 0)
    if len(zero) == 0:
        return result
    if constraint.zero_mean:
        if atoms.shape[1] == 1:
            raise ValueError("zero_mean_dict with atom_norm='sphere' needs at least 2 features, got 1")
        result[zero] = 0
        result[zero, 0], result[zero, 1] = np.sqrt(0.5), -np.sqrt(0.5)
    else:
        # Every point is equally near to 0; for atoms that are negative throughout it is the axis of the largest entry.
        result[zero, atoms[zero].argmax(axis=1)] = 1
    return result


def _project_on_l1_and_l2_balls(atoms, budget):
    """Project every row onto {|d|_2 <= 1, |d|_1 <= budget}.

    By the optimality conditions d = S_t(v) / max(1, s), where S_t is the soft threshold: either the ball alone binds
    (t = 0), or the budget alone (s = 1), or both, and then t is where |S_t(v)|_1 = budget * |S_t(v)|_2, which falls as
    t grows and is a quadratic equation between two sorted magnitudes. Magnitudes are counted down from the largest of
    their row, so S_t is max(height - depth, 0), and rows far outside lose no digits.
    """
    xp, on_ball = array_module(atoms), project_on_unit_ball(atoms)
    over = xp.flatnonzero(xp.abs(on_ball).sum(axis=1, dtype=np.float64) > budget)
    if len(over) == 0:
        return on_ball
    rows = atoms[over].astype(np.float64)
    top = xp.abs(rows).max(axis=1, keepdims=True)
    depths = top - xp.abs(rows)
    ascending = xp.sort(depths, axis=1)
    counts = xp.arange(1, rows.shape[1] + 1)

    # The budget alone (Duchi et al. 2008, figure 1).
    heights = (budget + ascending.cumsum(axis=1)) / counts
    support = (heights > ascending).sum(axis=1)[:, None]
    result = xp.maximum(xp.take_along_axis(heights, support - 1, axis=1) - depths, 0)

    both = xp.flatnonzero((result**2).sum(axis=1) > 1)
    if len(both):
        scale = xp.maximum(ascending[both, -1:], np.finfo(np.float64).tiny)
        ascending, depths, top = ascending[both] / scale, depths[both] / scale, top[both] / scale
        sums, squares = ascending.cumsum(axis=1), (ascending**2).cumsum(axis=1)
        following = xp.column_stack([ascending[:, 1:], top])
        l1 = counts * following - sums
        l2_squared = counts * following**2 - 2 * following * sums + squares
        reached = l1**2 >= budget**2 * l2_squared
        reached[:, -1] = True  # whatever rounding says: the row is over the budget, so its whole has the ratio
        m = reached.argmax(axis=1)
        at, m = (xp.arange(len(both)), m), m + 1
        spread = xp.maximum(m * squares[at] - sums[at] ** 2, 0)
        flat = m - budget**2 <= 1e-12 * m  # magnitudes all alike: the whole segment has the ratio, its end is as good
        height = (sums[at] + budget * xp.sqrt(spread / xp.where(flat, 1, m - budget**2))) / m
        height = xp.where(flat, following[at], xp.minimum(height, following[at]))
        kept = xp.maximum(height[:, None] - depths, 0)
        norms = xp.sqrt((kept**2).sum(axis=1, keepdims=True))
        result[both] = xp.where(norms > 0, kept, result[both]) / xp.where(
            norms > 0, norms, row_norms(result[both])[:, None]
        )
    on_ball[over] = xp.copysign(result, rows)
    return on_ball
