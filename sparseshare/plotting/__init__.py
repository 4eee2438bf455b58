"""Pictures of dictionaries, codes and fits, drawn by matplotlib, in scikit-learn's Display conventions."""

from .activations import ActivationsDisplay
from .atoms import AtomsDisplay
from .loss import LossCurveDisplay
from .reconstruction import ReconstructionDisplay
from .sparsity_path import SparsityPathDisplay

__all__ = [
    "ActivationsDisplay",
    "AtomsDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
    "SparsityPathDisplay",
]
