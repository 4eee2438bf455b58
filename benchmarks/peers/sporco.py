"""SPORCO, in an environment of its own (see README.md): convolutional coding by ADMM, and learning.

Its images have the axes (height, width[, channels]), its atoms (height, width[, channels], atoms), its codes
(height, width, 1, 1, atoms). Inside it keeps all in that order. What is measured is told kindly: the codes are those of
its sparse variable Y, statistics are off, and the number of iterations is the least that will do, found beforehand.
"""

import time
from importlib import metadata

import numpy as np
import sporco.fft
from sporco.admm.cbpdn import ConvBPDN
from sporco.dictlrn import cbpdndl
from work import Work


def version():
    return metadata.version("sporco")


def iterations(x, atoms, alpha, targets, settings, most, threads):
    """How many iterations ADMM takes, for each of some settings of rho, until the objective of Y is below the targets.

    Parameters
    ----------
    x : ndarray of shape (height, width[, channels])
    atoms : ndarray of shape (K, height, width[, channels])
    alpha : float
    targets : list of float
        Objectives, falling.
    settings : list of dict
        `rho` (a factor of alpha, or None for SPORCO's own) and `adapt`.
    most : int
        Iterations to try.

    Returns
    -------
    Work
        Its result has `counts` (n_settings, n_targets), -1 where a target was not reached.
    """
    _threads(threads)
    S, D = _forms(x, atoms)

    def run():
        counts = np.full((len(settings), len(targets)), -1)
        best = np.full(len(targets), most)
        for row, setting in zip(counts, settings, strict=True):
            judge = _Objective(D, S, alpha)

            def reached(solver, row=row, judge=judge):
                value = judge(solver.Y)
                row[(row < 0) & (value <= np.array(targets))] = solver.k + 1
                np.minimum(best, np.where(row > 0, row, most), out=best)
                # A setting that another one has beaten to every target left is of no use.
                return bool(((row > 0) | (solver.k + 1 >= best)).all())

            ConvBPDN(D, S, alpha, _options(alpha, most, **setting, Callback=reached)).solve()
        return {"counts": counts}

    return Work(run, warm_up=False)


def encode(x, atoms, alpha, setting, n_iterations, threads, high_memory=True, tol=0.0):
    """ADMM for a number of iterations, or until its own residuals are below tol; from set up to sparse codes."""
    _threads(threads)
    S, D = _forms(x, atoms)

    def run():
        options = _options(alpha, n_iterations, **setting, HighMemSolve=high_memory, RelStopTol=tol)
        solver = ConvBPDN(D, S, alpha, options)
        solver.solve()
        return solver.getcoef()

    def rows(codes):
        return {"maps": np.ascontiguousarray(np.moveaxis(codes[:, :, 0, 0], -1, 0))}

    return Work(run, rows, label="SPORCO ADMM")


def learn(images, atoms, alpha, n_iterations, every, method, threads):
    """Dictionary learning, ADMM for the codes and for the atoms "cns" (ADMM consensus, what its example for grey images
    takes, settings included) or "pgm" (its default); atoms after every so many iterations, the clock stopped meanwhile.
    """
    _threads(threads)
    S = np.ascontiguousarray(np.moveaxis(images, 0, -1))
    D = np.ascontiguousarray(np.moveaxis(atoms, 0, -1))
    least = []

    def run():
        kept, marks, spent = [], [], [0.0, 0.0]

        def keep(solver):
            spent[0] += time.perf_counter() - spent[1]
            if (solver.j + 1) % every == 0:
                kept.append(np.moveaxis(np.squeeze(solver.getdict()), -1, 0).copy())
                marks.append(spent[0])
            spent[1] = time.perf_counter()
            return False

        options = cbpdndl.ConvBPDNDictLearn.Options(
            {
                "Verbose": False, "StatusHeader": False, "MaxMainIter": n_iterations, "AccurateDFid": False,
                "Callback": keep, "CBPDN": {"rho": 50.0 * alpha + 0.5},
                "CCMOD": {"rho": 10.0} if method == "cns" else {"L": 50.0},
            },
            dmethod=method,
        )  # fmt: skip
        spent[1] = time.perf_counter()
        cbpdndl.ConvBPDNDictLearn(D, S, alpha, options, dmethod=method).solve()
        for i, mark in enumerate(marks):
            if i == len(least):
                least.append(np.inf)
            least[i] = min(least[i], mark)
        return {"seconds": np.array(least), "dictionaries": np.array(kept)}

    return Work(run, label=f"SPORCO learning, {method}", warm_up=False)


class _Objective:
    """0.5 |D z - x|^2 + alpha |z|_1 of codes in SPORCO's form."""

    def __init__(self, D, S, alpha):
        self._S, self._alpha = S if S.ndim == 3 else S[..., None], alpha
        D = D if D.ndim == 4 else D[:, :, None]
        self._D = np.fft.rfft2(D, S.shape[:2], axes=(0, 1))

    def __call__(self, Y):
        spectra = np.fft.rfft2(Y[:, :, 0, 0], axes=(0, 1))
        made = np.fft.irfft2(np.einsum("abm,abcm->abc", spectra, self._D), self._S.shape[:2], axes=(0, 1))
        return 0.5 * np.sum((made - self._S) ** 2, dtype=float) + self._alpha * np.sum(np.abs(Y), dtype=float)


def _options(alpha, n_iterations, rho=None, adapt=False, **others):
    rho = {} if rho is None else {"rho": rho * alpha}
    return ConvBPDN.Options(
        {
            "Verbose": False, "StatusHeader": False, "MaxMainIter": n_iterations, "RelStopTol": 0.0, "FastSolve": True,
            "RelaxParam": 1.8, "AuxVarObj": False, "AutoRho": {"Enabled": adapt}, "HighMemSolve": True,
        } | rho | others
    )  # fmt: skip


def _forms(x, atoms):
    return np.ascontiguousarray(x), np.ascontiguousarray(np.moveaxis(atoms, 0, -1))


def _threads(threads):
    sporco.fft.pyfftw_threads = threads
