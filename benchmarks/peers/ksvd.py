"""ksvd: approximate K-SVD over scikit-learn's OMP."""

from importlib import metadata

from ksvd import ApproximateKSVD
from work import Work


def version():
    return metadata.version("ksvd")


def ksvd(X, D, n_nonzero_coefs, n_iterations, threads):
    X, D = X.astype(float), D.astype(float)

    def run():
        learner = ApproximateKSVD(len(D), max_iter=n_iterations, transform_n_nonzero_coefs=n_nonzero_coefs)
        learner._initialize = lambda X: D.copy()  # it has no argument for the dictionary to start from
        return {"dictionary": learner.fit(X).components_}

    return Work(run, label="ksvd", warm_up=False)
