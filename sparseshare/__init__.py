"""Sparse coding and dictionary learning as fast scikit-learn estimators."""

from .coding import sparse_encode

__all__ = ["sparse_encode"]
__version__ = "0.1.0"
