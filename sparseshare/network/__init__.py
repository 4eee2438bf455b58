"""Deep networks whose activations are thresholded and whose weights are shared."""

from .attention import Attention
from .compression import cluster, prune, quantize
from .convolutional import AvgPool, Conv, MaxPool
from .estimators import DeepSparseClassifier, DeepSparseRegressor
from .layers import Dense, Dropout, Flatten
from .model import Network
from .multilayer import layered_thresholding, ml_fista, ml_ista
from .multilayer_encoder import DeepSparseEncoder
from .multilayer_layer import MultilayerCoding
from .recurrent import LSTM, Recurrent
from .report import parameter_report
from .sequential import SequentialSparseCoder
from .sharing import circulant, clustered, hashed, shared, tied, toeplitz
from .storage import load, save
from .unrolled import LearnedSparseCoder

__all__ = [
    "Attention",
    "AvgPool",
    "Conv",
    "DeepSparseClassifier",
    "DeepSparseEncoder",
    "DeepSparseRegressor",
    "Dense",
    "Dropout",
    "Flatten",
    "LSTM",
    "LearnedSparseCoder",
    "MaxPool",
    "MultilayerCoding",
    "Network",
    "Recurrent",
    "SequentialSparseCoder",
    "circulant",
    "cluster",
    "clustered",
    "hashed",
    "layered_thresholding",
    "load",
    "ml_fista",
    "ml_ista",
    "parameter_report",
    "prune",
    "quantize",
    "save",
    "shared",
    "tied",
    "toeplitz",
]
