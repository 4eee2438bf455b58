"""The rows of the table, a file a subject. A row is a function of the settings that returns a `Row`."""

from functools import partial

import numpy as np

from .convolution import conv_1d, conv_128, conv_256, conv_rgb
from .convolution_growth import conv_growth
from .convolution_learning import conv_learning
from .convolution_memory import conv_learning_memory, conv_memory
from .denoising import denoising
from .distributed import distributed
from .features import encoders, features, features_error, features_memory
from .growth import growth
from .ksvd import ksvd
from .lasso import lasso
from .learning import learning
from .masked import masked
from .memory import memory
from .network_compressed import compressed_memory, compressed_speed
from .network_digits import digits_compressed, digits_net, digits_sparse
from .network_multilayer import ml_ista
from .network_sequences import sequences, sequential_coding
from .network_speed import net_sparse, net_training
from .network_unrolled import lista
from .path import path
from .pursuit import pursuit
from .selection import selection

LASSO_SLOW = {"lasso_lars": 400, "lasso_cd": 2000}

# By the name on the command line; the numbers are the ratios asked for.
ROWS = {
    "lasso": partial(
        lasso, side=8, n_components=256, dtype=np.float32, n_signals=40_000, n_slow=LASSO_SLOW,
        targets={"spams": 9, "lasso_lars": 250, "lasso_cd": 50},
    ),
    "lasso64": partial(
        lasso, side=8, n_components=256, dtype=np.float64, n_signals=40_000, n_slow=LASSO_SLOW, targets={"spams": 6}
    ),
    "lasso_wide": partial(
        lasso, side=16, n_components=1024, dtype=np.float32, n_signals=10_000,
        n_slow={"lasso_lars": 100, "lasso_cd": 400}, targets={"spams": 9},
    ),
    "omp": partial(pursuit, algorithm="omp", targets={"spams": 5, "omp": 200}),
    "ols": partial(pursuit, algorithm="ols", targets={"spams": 4}),
    "learning": learning,
    "ksvd": ksvd,
    "path": path,
    "masked": masked,
    "memory": memory,
    "growth": growth,
    "selection": selection,
    "denoising": denoising,
    "features": features,
    "features_memory": features_memory,
    "features_error": features_error,
    "features_error_1600": partial(features_error, n_components=1600, limit=0.9, known=""),
    "encoders": encoders,
    "conv_128": conv_128,
    "conv_256": conv_256,
    "conv_rgb": conv_rgb,
    "conv_1d": conv_1d,
    "conv_learning": conv_learning,
    "conv_memory": conv_memory,
    "conv_learning_memory": conv_learning_memory,
    "conv_growth": conv_growth,
    "net_training": net_training,
    "net_sparse": net_sparse,
    "sequences": sequences,
    "sequential_coding": sequential_coding,
    "compressed_speed": compressed_speed,
    "compressed_memory": compressed_memory,
    "digits_net": digits_net,
    "digits_sparse": digits_sparse,
    "digits_compressed": partial(digits_compressed, factor=8),
    "digits_compressed_32": partial(digits_compressed, factor=32),
    "ml_ista": ml_ista,
    "lista": lista,
    "distributed": distributed,
}  # fmt: skip

__all__ = ["ROWS"]
