"""Images: patches and back, whitening, sparse features, restoration."""

from .patches import PatchGrid

__all__ = ["PatchGrid"]
