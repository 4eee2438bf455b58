"""dictlearn: pure Python with optional Numba, float64 whatever it is given."""

import dictlearn
from work import Work


def version():
    return dictlearn.__version__


def omp(X, D, n_nonzero_coefs, threads):
    coder = dictlearn.SparseCoder(D, n_nonzero_coefs=n_nonzero_coefs)
    return Work(lambda: coder.transform(X), label="dictlearn omp")


def ksvd(X, D, n_nonzero_coefs, n_iterations, threads, fit_algorithm="aksvd"):
    def run():
        learner = dictlearn.DictionaryLearning(
            len(D),
            fit_algorithm=fit_algorithm,
            n_nonzero_coefs=n_nonzero_coefs,
            max_iter=n_iterations,
            dict_init=D,
            random_state=0,
        )
        return {"dictionary": learner.fit(X).components_}

    return Work(run, label=f"dictlearn {fit_algorithm}")
