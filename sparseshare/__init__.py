"""Sparse coding and dictionary learning as fast scikit-learn estimators."""

from .coding import orthogonal_mp, orthogonal_mp_gram, sparse_encode, sparse_encode_path
from .learning import (
    KSVD,
    DictionaryLearning,
    MiniBatchDictionaryLearning,
    SparseCoder,
    dict_learning,
    dict_learning_online,
)
from .version import __version__

__all__ = [
    "DictionaryLearning",
    "KSVD",
    "MiniBatchDictionaryLearning",
    "SparseCoder",
    "__version__",
    "dict_learning",
    "dict_learning_online",
    "orthogonal_mp",
    "orthogonal_mp_gram",
    "sparse_encode",
    "sparse_encode_path",
]
