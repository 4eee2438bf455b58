"""Sparse coding and dictionary learning as fast scikit-learn estimators."""

from typing import TYPE_CHECKING

from .coding import open_codes, orthogonal_mp, orthogonal_mp_gram, sparse_encode, sparse_encode_path
from .convolution import ConvDictionaryLearning, ConvSparseCoder, conv_sparse_encode
from .image import (
    ContrastNormalization,
    LazyPatches,
    PatchExtractor,
    SparseImageEncoder,
    ZCAWhitening,
    denoise_image,
    estimate_sigma,
    inpaint_image,
)
from .learning import (
    KSVD,
    DictionaryLearning,
    MiniBatchDictionaryLearning,
    SparseCoder,
    dict_learning,
    dict_learning_online,
)
from .model_selection import (
    DictionaryLearningCV,
    SparseCoderCV,
    heldout_entries_scorer,
    make_heldout_entries_scorer,
    reconstruction_density_scorer,
    select_n_nonzero_coefs,
    sparsest_within_one_standard_error,
)
from .plotting import (
    ActivationsDisplay,
    AtomsDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    SparsityPathDisplay,
)
from .version import __version__

if TYPE_CHECKING:
    from .network import (
        DeepSparseClassifier,
        DeepSparseEncoder,
        DeepSparseRegressor,
        LearnedSparseCoder,
        SequentialSparseCoder,
        parameter_report,
    )

__all__ = [
    "ActivationsDisplay",
    "AtomsDisplay",
    "ContrastNormalization",
    "ConvDictionaryLearning",
    "ConvSparseCoder",
    "DeepSparseClassifier",
    "DeepSparseEncoder",
    "DeepSparseRegressor",
    "DictionaryLearning",
    "DictionaryLearningCV",
    "KSVD",
    "LazyPatches",
    "LearnedSparseCoder",
    "LossCurveDisplay",
    "MiniBatchDictionaryLearning",
    "PatchExtractor",
    "ReconstructionDisplay",
    "SequentialSparseCoder",
    "SparseCoder",
    "SparseCoderCV",
    "SparseImageEncoder",
    "SparsityPathDisplay",
    "ZCAWhitening",
    "__version__",
    "conv_sparse_encode",
    "denoise_image",
    "dict_learning",
    "dict_learning_online",
    "estimate_sigma",
    "heldout_entries_scorer",
    "inpaint_image",
    "make_heldout_entries_scorer",
    "open_codes",
    "orthogonal_mp",
    "orthogonal_mp_gram",
    "parameter_report",
    "reconstruction_density_scorer",
    "select_n_nonzero_coefs",
    "sparse_encode",
    "sparse_encode_path",
    "sparsest_within_one_standard_error",
]


def __getattr__(name):
    """Networks take a third of the time of all imports, and wait for their first use."""
    if name == "network" or name in __all__:
        import sparseshare.network as network

        return network if name == "network" else getattr(network, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, "network"})
