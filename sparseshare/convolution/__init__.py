"""Sparse coding with atoms shared over all positions of a signal, an image or a volume."""

from .coder import ConvSparseCoder
from .encode import conv_sparse_encode
from .learner import ConvDictionaryLearning

__all__ = ["ConvDictionaryLearning", "ConvSparseCoder", "conv_sparse_encode"]
