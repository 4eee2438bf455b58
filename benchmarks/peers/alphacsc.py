"""alphacsc, in an environment of its own with NumPy below 2.4 (see README.md): locally greedy coordinate descent.

Its LGCD is Python that runs on one thread for one signal, whatever `n_jobs` says.
"""

import warnings
from importlib import metadata

import numpy as np
from work import Work

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from alphacsc.update_z_multi import update_z_multi


def version():
    return metadata.version("alphacsc")


def encode(x, atoms, alpha, tol, threads):
    """Codes >= 0, full boundary, of a signal (length,) for atoms (K, support), to the largest update `tol`."""
    X, D = x[None, None], atoms[:, None]

    def run():
        return update_z_multi(X, D, alpha, solver="lgcd", solver_kwargs={"tol": tol}, positive=True, n_jobs=1)[0]

    return Work(run, rows=lambda codes: {"maps": np.ascontiguousarray(codes[0])}, label="alphacsc LGCD")
