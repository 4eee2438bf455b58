"""Displays of what lives on a GPU: as of the same arrays in the host's memory."""

import matplotlib
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from sparseshare import SparseCoder
from sparseshare.convolution import ConvSparseCoder
from sparseshare.image import PatchExtractor, SparseImageEncoder
from sparseshare.plotting import ActivationsDisplay, AtomsDisplay, ReconstructionDisplay, SparsityPathDisplay

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


ATOMS = np.random.default_rng(0).standard_normal((6, 16))
SIGNALS = np.random.default_rng(1).standard_normal((10, 16))


def test_arrays(gpu):
    codes = np.random.default_rng(2).standard_normal((10, 6))
    found = AtomsDisplay.from_codes(gpu.asarray(ATOMS), gpu.asarray(codes))
    np.testing.assert_array_equal(found.order_, AtomsDisplay.from_codes(ATOMS, codes).order_)
    ActivationsDisplay.from_codes(gpu.asarray(codes))
    maps = gpu.asarray(codes.reshape(6, 2, 5))
    ActivationsDisplay.from_codes(maps, image=gpu.asarray(codes[:2, :5]))
    display = ReconstructionDisplay.from_codes(gpu.asarray(SIGNALS[0]), gpu.asarray(codes[0]), gpu.asarray(ATOMS))
    np.testing.assert_allclose(display.reconstruction.ravel(), codes[0] @ ATOMS)
    SparsityPathDisplay.from_path(gpu.asarray(SIGNALS), gpu.asarray(ATOMS), gpu.asarray(codes[None]))
    AtomsDisplay(gpu.asarray(ATOMS.reshape(6, 4, 4))).plot()


def test_estimators(gpu):
    there = gpu.asarray(SIGNALS)
    coder = SparseCoder(gpu.asarray(ATOMS), transform_algorithm="omp", transform_n_nonzero_coefs=2).fit(there)
    for estimator in (coder, make_pipeline(coder)):
        AtomsDisplay.from_estimator(estimator, there)
        ActivationsDisplay.from_estimator(estimator, there)
        ReconstructionDisplay.from_estimator(estimator, there)
        SparsityPathDisplay.from_estimator(estimator, there, alphas=[0.5, 0.1])
        assert isinstance(coder.components_, gpu.xp.ndarray)  # it has not been moved


def test_images(gpu):
    images = np.random.default_rng(0).random((4, 9, 9))
    encoder = SparseImageEncoder(5, patch_shape=3, max_iter=1, random_state=0).fit(gpu.asarray(images))
    AtomsDisplay.from_estimator(encoder, gpu.asarray(images))
    ActivationsDisplay.from_estimator(encoder, gpu.asarray(images))
    pipeline = make_pipeline(PatchExtractor((4, 4)), SparseCoder(gpu.asarray(ATOMS), transform_n_nonzero_coefs=1))
    AtomsDisplay.from_estimator(pipeline.fit(gpu.asarray(images)), gpu.asarray(images))
    coder = ConvSparseCoder(np.random.default_rng(0).standard_normal((2, 3, 3)), alpha=0.1)
    ActivationsDisplay.from_estimator(coder.fit(images), gpu.asarray(images))
