"""What coding, learning, convolution and networks share: constraints on atoms and their projections."""

from .constraints import AtomConstraint, project_on_unit_ball, row_norms

__all__ = ["AtomConstraint", "project_on_unit_ball", "row_norms"]
