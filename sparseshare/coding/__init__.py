"""Codes for a fixed dictionary."""

from .codes import Codes
from .encode import encode, sparse_encode
from .orthogonal_mp import orthogonal_mp, orthogonal_mp_gram
from .path import sparse_encode_path
from .problem import ALGORITHMS, Problem
from .saved import open_codes

__all__ = [
    "ALGORITHMS",
    "Codes",
    "Problem",
    "encode",
    "open_codes",
    "orthogonal_mp",
    "orthogonal_mp_gram",
    "sparse_encode",
    "sparse_encode_path",
]
