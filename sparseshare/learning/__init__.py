"""Learning a dictionary: statistics, atom updates, initialisation, estimators."""

from .batch import DictionaryLearning, dict_learning
from .ksvd import KSVD
from .online import MiniBatchDictionaryLearning, dict_learning_online
from .sparse_coder import SparseCoder
from .statistics import Statistics, partial_statistics

__all__ = [
    "KSVD",
    "DictionaryLearning",
    "MiniBatchDictionaryLearning",
    "SparseCoder",
    "Statistics",
    "dict_learning",
    "dict_learning_online",
    "partial_statistics",
]
