"""Codes for a fixed dictionary."""

from .encode import Codes, encode, sparse_encode
from .problem import ALGORITHMS, Problem

__all__ = ["ALGORITHMS", "Codes", "Problem", "encode", "sparse_encode"]
