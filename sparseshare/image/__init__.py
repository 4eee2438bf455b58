"""Images: patches and back, whitening, sparse features, restoration."""

from .denoising import denoise_image
from .encoder import SparseImageEncoder
from .extractor import PatchExtractor
from .inpainting import inpaint_image
from .lazy_patches import LazyPatches
from .noise import estimate_sigma
from .patches import PatchGrid
from .whitening import ContrastNormalization, ZCAWhitening

__all__ = [
    "ContrastNormalization",
    "LazyPatches",
    "PatchExtractor",
    "PatchGrid",
    "SparseImageEncoder",
    "ZCAWhitening",
    "denoise_image",
    "estimate_sigma",
    "inpaint_image",
]
