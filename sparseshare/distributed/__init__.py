"""The learners on many machines, by Dask."""

from .convolution import DaskConvDictionaryLearning
from .encoding import encode_dask
from .mini_batch import DaskMiniBatchDictionaryLearning

__all__ = ["DaskConvDictionaryLearning", "DaskMiniBatchDictionaryLearning", "encode_dask"]
