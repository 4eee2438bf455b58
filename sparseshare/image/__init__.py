"""Images: patches and back, whitening, sparse features, restoration."""

from .extractor import PatchExtractor
from .patches import PatchGrid
from .whitening import ContrastNormalization, ZCAWhitening

__all__ = ["ContrastNormalization", "PatchExtractor", "PatchGrid", "ZCAWhitening"]
