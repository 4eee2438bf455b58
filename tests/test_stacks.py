"""Images, signals and samples on disk: read part by part by every estimator that takes them, with the same result."""

import os
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stored import KINDS, Watched, stored

from sparseshare.convolution import ConvDictionaryLearning, ConvSparseCoder
from sparseshare.image import SparseImageEncoder
from sparseshare.image import images as images_in_parts
from sparseshare.image.patch_codes import PatchCoder
from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    DeepSparseEncoder,
    DeepSparseRegressor,
    Dense,
    inputs,
    learner,
    multilayer_encoder,
    operators,
)
from sparseshare.sources import BlockError, Stack, stack_of, stacks

X = np.random.default_rng(0).random((20, 8, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_those_of_the_array(kind, tmp_path):
    stack = stack_of(stored(kind, X, tmp_path))
    assert isinstance(stack, Stack)
    assert (stack.shape, stack.dtype, stack.ndim, len(stack), stack.nbytes) == (X.shape, X.dtype, 4, 20, X.nbytes)
    (tmp_path / "flat").mkdir()
    flat = stack_of(stored(kind, X.reshape(20, -1), tmp_path / "flat")).reshape(20, 8, 6, 3)
    for one in (stack, flat, pickle.loads(pickle.dumps(stack))):
        for key in (3, -1, np.int64(4), slice(2, 9), slice(None), (slice(3, 5), slice(2, 7)), (2, slice(1, 3))):
            assert_array_equal(one[key], X[key])
        for rows in ([19, 2, 2, 3, 11], [7], []):
            rows = np.array(rows, int)
            assert_array_equal(one[rows], X[rows])
        assert_array_equal(np.stack(list(one)), X)
        assert_array_equal(one.reshape(20, -1)[4:6], X.reshape(20, -1)[4:6])
        part = one[:]
        part[:] = 7  # in memory of its own
        assert_array_equal(one[:], X)
        with pytest.raises(IndexError):
            one[20]


def test_what_is_in_memory_passes_as_it_is():
    for given in (X, X[0], list(X), X.tolist(), None, "text", 3):
        assert stack_of(given) is given


def test_a_file_that_was_cut_is_an_error_and_no_crash(tmp_path):
    stack = stack_of(stored("memory map", X, tmp_path))
    os.truncate(tmp_path / "X.npy", 1000)
    for key in (slice(3, 5), np.arange(4), 19):
        with pytest.raises(BlockError, match=r"of X could not be read: OSError: .* has been cut to 1000 bytes"):
            stack[key]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(inputs, "_READ_BYTES", 2 * X[0].nbytes)
    monkeypatch.setattr(images_in_parts, "_READ", 2 * X[0].size)
    monkeypatch.setattr(PatchCoder, "part_sizes", (4096, 4))
    monkeypatch.setattr(learner, "_AT_ONCE", 8)
    monkeypatch.setattr(multilayer_encoder, "_DRAWN_FROM", 4)
    monkeypatch.setattr(operators, "_PIECE_BYTES", 0)
    monkeypatch.setattr(stacks, "_GAP", 0)


def encoder():
    return SparseImageEncoder(5, patch_shape=3, n_patches=60, max_iter=3, random_state=0)


def classifier(**options):
    return DeepSparseClassifier([Dense(4)], max_iter=2, batch_size=4, n_iter_no_change=None, random_state=0, **options)


def regressor():
    return DeepSparseRegressor([Dense(4)], max_iter=1, batch_size=4, n_iter_no_change=None, random_state=0)


def dictionaries():
    return DeepSparseEncoder([Conv(3, 3)], n_iter=2, max_iter=1, batch_size=4, n_iter_no_change=None, random_state=0)


def convolutional(**options):
    return ConvDictionaryLearning(3, (3, 3), alpha=0.1, max_iter=1, tol=0, random_state=0, **options)


LABELS = np.arange(20) % 3
USES = {
    "image encoder": lambda X: encoder().fit(X).transform(X),
    "image encoder, in batches": lambda X: encoder().partial_fit(X).partial_fit(X).encode(X),
    "classifier": lambda X: classifier().fit(X, LABELS).predict_proba(X),
    "classifier, transform": lambda X: classifier().fit(X, LABELS).transform(X),
    "classifier, in batches": lambda X: classifier().partial_fit(X, LABELS, [0, 1, 2]).score(X, LABELS),
    "regressor": lambda X: regressor().fit(X, LABELS / 2).predict(X),
    "dictionaries": lambda X: dictionaries().fit(X).transform(X),
    "shared atoms": lambda X: convolutional().fit(X).transform(X),
    "shared atoms, in batches": lambda X: convolutional(method="online", batch_size=4).partial_fit(X).score(X),
    "shared atoms, given": lambda X: ConvSparseCoder(X[:3][:, :3, :3], alpha=0.1).fit(X).transform(X),
}


@pytest.mark.parametrize("use", USES)
def test_every_estimator_reads_a_part_at_a_time(use, tmp_path):
    watched, expected = Watched(X), USES[use](X)
    assert_array_equal(USES[use](watched), expected)
    assert watched.most <= 8  # of 20
    if "atoms" not in use:  # which read as the others do
        assert_array_equal(USES[use](stored("memory map", X, tmp_path)), expected)


@pytest.mark.parametrize("make", [encoder, lambda: classifier(), convolutional], ids=["image", "network", "atoms"])
def test_nan_on_disk_is_named(make):
    bad = X.copy()
    bad[13, 2, 2, 1] = np.nan
    with pytest.raises(ValueError, match="(image|sample|signal) 13 contains NaN or infinity"):
        make().fit(Watched(bad), LABELS)


@pytest.mark.parametrize("make", [encoder, lambda: classifier(), convolutional], ids=["image", "network", "atoms"])
def test_iterators_are_refused_with_what_to_do_instead(make):
    with pytest.raises(TypeError, match="X is an iterator, .* hand its blocks to partial_fit"):
        make().fit(iter([X]), LABELS)
    with pytest.raises(ValueError, match="Complex"):
        make().fit(Watched(X + 1j), LABELS)
