"""Makers of data that need no download: patches of real photographs, and signals of a planted dictionary."""

from .photographs import load_photographs, photo_patches
from .synthetic import make_sparse_signals

__all__ = ["load_photographs", "make_sparse_signals", "photo_patches"]
