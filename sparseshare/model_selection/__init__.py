"""Choosing the penalty, or the number of non-zeros, by what codes say about data they have not seen."""

from .dictionary_learning_cv import DictionaryLearningCV
from .information import select_n_nonzero_coefs
from .scorers import (
    heldout_entries_scorer,
    make_heldout_entries_scorer,
    reconstruction_density_scorer,
    sparsest_within_one_standard_error,
)
from .sparse_coder_cv import SparseCoderCV

__all__ = [
    "DictionaryLearningCV",
    "SparseCoderCV",
    "heldout_entries_scorer",
    "make_heldout_entries_scorer",
    "reconstruction_density_scorer",
    "select_n_nonzero_coefs",
    "sparsest_within_one_standard_error",
]
