"""Networks and samples on disk: read piece by piece, codes written as they are made, the bits those of arrays."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, issparse
from stored import KINDS, Watched, stored

from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    DeepSparseEncoder,
    DeepSparseRegressor,
    Dense,
    LearnedSparseCoder,
    SequentialSparseCoder,
    batches,
    inputs,
    learner,
    multilayer_encoder,
    operators,
    sequential,
    unrolled_training,
)
from sparseshare.sources import BlockError, stacks
from sparseshare.sources import blocks as blocks_of_rows

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((60, 8, 8)).astype(np.float32)
SIGNALS = rng.standard_normal((1100, 6)).astype(np.float32)
SEQUENCES = rng.standard_normal((30, 7, 6)).astype(np.float32)
ATOMS = rng.standard_normal((12, 6))
ATOMS /= np.linalg.norm(ATOMS, axis=1, keepdims=True)

LEARN = dict(n_iter_no_change=None, random_state=0)
ENCODER = DeepSparseEncoder([Conv(4, 3), Conv(6, 3, stride=2)], n_iter=3, max_iter=1, batch_size=16, **LEARN)
CODER = LearnedSparseCoder(ATOMS, alpha=0.1, n_steps=3, max_iter=2, batch_size=300, **LEARN)
SEQUENTIAL = SequentialSparseCoder(ATOMS, learn=True, max_iter=2, batch_size=8, learning_rate=1e-3, **LEARN)
# Estimators, samples, and how many of them are read at one go.
ESTIMATORS = {
    "dictionaries": (ENCODER, IMAGES, 16),
    "unrolled steps": (CODER, SIGNALS, 512),
    "sequences": (SEQUENTIAL, SEQUENCES, 8),
    "classes": (DeepSparseClassifier([Dense(4)], max_iter=1, batch_size=8, **LEARN), IMAGES, 16),
    "numbers": (DeepSparseRegressor([Dense(4)], max_iter=1, batch_size=8, **LEARN), IMAGES, 16),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(operators, "_PIECE_BYTES", 17 * 4 * (64 + 36 * 4 + 4 * 6))  # 17 images: a block of 16
    monkeypatch.setattr(multilayer_encoder, "_DRAWN_FROM", 10)
    monkeypatch.setattr(blocks_of_rows, "_MOST", 512)
    monkeypatch.setattr(sequential, "_SEQUENCES", 8)
    monkeypatch.setattr(sequential, "_AT_ONCE", 8 * 2 * len(ATOMS))
    monkeypatch.setattr(learner, "_AT_ONCE", 16)
    monkeypatch.setattr(inputs, "_READ_BYTES", 8 * SEQUENCES[0].nbytes)
    monkeypatch.setattr(stacks, "_GAP", 0)


def fitted(estimator, X):
    return estimator.fit(X, np.arange(X.shape[0]) % 3) if hasattr(estimator, "predict") else estimator.fit(X)


def scored(estimator, X):
    if hasattr(estimator, "predict"):
        return estimator.predict(X)
    return estimator.score(X) if hasattr(estimator, "score") else None


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_piece_at_a_time(name):
    estimator, X, most = ESTIMATORS[name]
    expected = fitted(estimator, X).transform(X)
    score = scored(estimator, X)
    watched = Watched(X)
    assert_array_equal(fitted(estimator, watched).transform(watched), expected)
    assert_array_equal(scored(estimator, watched), score)
    out = np.zeros_like(expected)
    assert estimator.transform(watched, out=out) is out
    assert_array_equal(out, expected)
    assert watched.most <= most
    if name == "sequences":
        assert watched.largest <= 8 * 7 * 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["dictionaries", "unrolled steps", "sequences", "classes"])
def test_files(name, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "_GAP", 2**13)  # zarr takes its time for every read
    monkeypatch.setattr(inputs, "_READ_BYTES", 2**13)
    estimator, X, _ = ESTIMATORS[name]
    expected = fitted(estimator, X).transform(X)
    there = stored(kind, X, tmp_path)
    (tmp_path / "codes").mkdir()
    out = stored(kind, np.zeros_like(expected), tmp_path / "codes")
    out = np.load(tmp_path / "codes" / "X.npy", mmap_mode="r+") if kind == "memory map" else out
    for given in (X, there):
        assert_array_equal(estimator.transform(given), expected)
        assert estimator.transform(given, out=out) is out
        assert_array_equal(out[:], expected)
        out[:] = 0
    assert_array_equal(fitted(estimator, there).transform(X), expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_bad_piece_is_named_and_what_was_written_before_it_stays(name):
    estimator, X, most = ESTIMATORS[name]
    expected = fitted(estimator, X).transform(X)
    bad, out = X.copy(), np.zeros_like(expected)
    bad[-most // 2] = np.nan
    row = len(X) - most // 2
    with pytest.raises(BlockError, match=rf"block \d+ \(rows \d+ to \d+\) of X contains NaN .* first in row {row}"):
        estimator.transform(Watched(bad), out=out)
    first = row // most * most
    assert first and expected[:first].any()
    assert_array_equal(out[:first], expected[:first])
    with pytest.raises(ValueError, match="NaN"):
        fitted(estimator, Watched(bad))

    class Torn(Watched):
        def __getitem__(self, key):
            rows = key[0] if isinstance(key, tuple) else key
            if rows.stop == len(X):
                raise OSError("file truncated")
            return super().__getitem__(key)

    last = (len(X) - 1) // most * most
    fitted(estimator, X)
    with pytest.raises(BlockError, match=rf"rows {last} to {len(X) - 1}.* of X could not be read: OSError: file"):
        estimator.transform(Torn(X))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_out_that_does_not_suit_is_refused(name):
    estimator, X, _ = ESTIMATORS[name]
    shape = fitted(estimator, X[:40]).transform(X[:40]).shape
    for wrong in ((39, *shape[1:]), (*shape[:-1], 5), (40,)):
        with pytest.raises(ValueError, match="out must have the shape"):
            estimator.transform(X[:40], out=np.zeros(wrong))
    with pytest.raises(ValueError, match="floating-point"):
        estimator.transform(X[:40], out=np.zeros(shape, int))


def test_large_samples_come_in_small_parts(monkeypatch):
    classifier = DeepSparseClassifier([Conv(2, 3)], max_iter=1, **LEARN).fit(IMAGES, np.arange(60) % 2)
    expected, watched = classifier.predict_proba(IMAGES), Watched(IMAGES)
    monkeypatch.setattr(learner, "_BYTES", 5 * classifier.network_.bytes_a_sample())
    np.testing.assert_allclose(classifier.predict_proba(watched), expected, rtol=1e-5)
    assert watched.most == 5


def test_codes_of_all_layers_and_integers(tmp_path):
    encoder = ENCODER.fit(IMAGES)
    for layer, expected in zip(encoder.encode(Watched(IMAGES)), encoder.encode(IMAGES), strict=True):
        assert_array_equal(layer, expected)
    whole = np.round(IMAGES * 50).astype(np.int16)
    assert encoder.transform(whole).dtype == np.float64
    assert_array_equal(encoder.transform(Watched(whole)), encoder.transform(whole.astype(float)))
    flat = DeepSparseEncoder(**ENCODER.get_params() | {"image_shape": (8, 8)}).fit(Watched(IMAGES.reshape(60, -1)))
    assert_array_equal(flat.transform(Watched(IMAGES.reshape(60, -1))), encoder.transform(IMAGES))


def test_what_is_not_wanted_is_not_kept(monkeypatch):
    """Room for the deepest codes alone."""
    kept, room = [], batches.np.empty

    def empty(shape, dtype=float):
        kept.append(np.prod(shape))
        return room(shape, dtype)

    encoder = ENCODER.fit(IMAGES)
    monkeypatch.setattr(np, "empty", empty)
    encoder.transform(IMAGES)
    assert 60 * 24 in kept and 60 * 36 * 4 not in kept


@pytest.mark.parametrize("options", [{"loss": "codes"}, {"early_stopping": True}, {"loss": "codes", "discount": 0.5}])
def test_unrolled_steps_learn_from_signals_on_disk(options, monkeypatch):
    coder = LearnedSparseCoder(**CODER.get_params() | options)
    curve, scores = coder.fit(SIGNALS).loss_curve_, coder.validation_scores_
    watched, encode, at_once = Watched(SIGNALS), unrolled_training.encode, [0]
    monkeypatch.setattr(unrolled_training, "encode", lambda X, *a, **k: at_once.append(len(X)) or encode(X, *a, **k))
    assert coder.fit(watched).loss_curve_ == curve and coder.validation_scores_ == scores
    assert watched.most <= 512 and max(at_once) <= 512
    whole = np.round(SIGNALS * 9).astype(np.int8)
    assert coder.fit(Watched(whole)).loss_curve_ == coder.fit(whole).loss_curve_


def test_unrolled_steps_code_blocks_of_signals():
    coder, sparse = CODER.fit(SIGNALS), LearnedSparseCoder(**CODER.get_params() | {"sparse_output": True}).fit(SIGNALS)
    expected, blocks = coder.transform(SIGNALS), [SIGNALS[:700], csr_array(SIGNALS[700:701]), SIGNALS[701:]]
    out = np.zeros_like(expected)
    for given in (blocks, iter(blocks), Watched(SIGNALS)):
        codes = sparse.transform(given)
        assert issparse(codes) and codes.dtype == np.float32
        assert_array_equal(codes.toarray(), expected)
    assert_array_equal(coder.transform(iter(blocks)), expected)
    assert_array_equal(sparse.transform(iter(blocks), out=out), expected)
    with pytest.raises(ValueError, match="out has 1030 rows, X has more: row 1030 is in block 2"):
        coder.transform(iter(blocks), out=out[:1030])
    with pytest.raises(ValueError, match="X has 5 features, but LearnedSparseCoder is expecting 6"):
        coder.transform([SIGNALS[:, :5]])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        coder.transform(iter([SIGNALS[:0]]))
    with pytest.raises(BlockError, match=r"block 1 .* has 5 columns"):
        coder.transform([SIGNALS[:9], SIGNALS[:9, :5]])


def test_errors_of_unrolled_steps_block_by_block():
    coder, watched = LearnedSparseCoder(ATOMS, alpha=0.1, n_steps=2, max_iter=0).fit(SIGNALS), Watched(SIGNALS)
    whole, parts = coder.error_curve(SIGNALS[:512]), [coder.error_curve(SIGNALS[s : s + 256]) for s in (0, 256)]
    blocks = coder.error_curve(iter([SIGNALS[:256], SIGNALS[256:512]]))
    for name in ("learned", "ista", "fista"):
        np.testing.assert_allclose(blocks["code_error"][name], whole["code_error"][name])
        np.testing.assert_allclose(blocks["objective_gap"][name], whole["objective_gap"][name], atol=1e-12)
        least, most = np.sort([part["code_error"][name] for part in parts], axis=0)
        assert (least < whole["code_error"][name]).all() and (whole["code_error"][name] < most).all()
    found, expected = coder.error_curve(watched), coder.error_curve(SIGNALS)
    assert watched.most <= 512
    for measure in ("code_error", "objective_gap"):
        assert_array_equal(found[measure]["learned"], expected[measure]["learned"])


def test_what_fit_does_not_take():
    with pytest.raises(TypeError, match="X is an iterator"):
        CODER.fit(iter([SIGNALS]))
    with pytest.raises(ValueError, match=r"Found array with dim 3: X must be 2-D.* got shape \(60, 8, 8\)"):
        CODER.fit(Watched(IMAGES))
    with pytest.raises(ValueError, match="the dictionary has 12, X.shape is"):
        LearnedSparseCoder(ATOMS.T).fit(Watched(SIGNALS))
    with pytest.raises(ValueError, match="Complex"):
        SEQUENTIAL.fit(Watched(SEQUENCES + 1j))
    with pytest.raises(ValueError, match="Expected 3D array, got 2D"):
        SEQUENTIAL.fit(Watched(SIGNALS))


def test_sequences_learn_from_targets_on_disk():
    targets = SEQUENCES[::-1].astype(float)
    coder = SequentialSparseCoder(**SEQUENTIAL.get_params())
    curve, score = coder.fit(SEQUENCES, targets).loss_curve_, coder.score(SEQUENCES, targets)
    watched = Watched(targets)
    assert coder.fit(Watched(SEQUENCES), watched).loss_curve_ == curve
    assert coder.score(Watched(SEQUENCES), watched) == score and watched.most <= 8
    assert coder.fit(SEQUENCES, watched).loss_curve_ == curve
    with pytest.raises(ValueError, match=r"X has the shape \(30, 7, 6\), y \(29, 7, 6\)"):
        coder.fit(Watched(SEQUENCES), Watched(targets[1:]))
    targets[21, 3, 1] = np.inf
    with pytest.raises(ValueError, match="target 21 contains NaN or infinity"):
        coder.fit(SEQUENCES, Watched(targets))
