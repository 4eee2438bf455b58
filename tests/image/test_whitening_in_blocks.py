"""Contrast and whitening of rows on disk and in blocks: the bits of rows in memory, some at a time, nothing lost."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array
from stored import KINDS, Watched, Written, stored

from sparseshare.image import ContrastNormalization, ZCAWhitening, row_transformer
from sparseshare.sources import BlockError
from sparseshare.sources import blocks as blocks_of_rows

X = np.random.default_rng(0).normal(5, 3, (150, 6)).astype(np.float32)
MAKE = {"contrast": ContrastNormalization, "whitening": ZCAWhitening}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 32 rows, worked on 8 at a time."""
    monkeypatch.setattr(row_transformer, "_ROWS", 8)
    monkeypatch.setattr(blocks_of_rows, "_FEWEST", 32)
    monkeypatch.setattr(blocks_of_rows, "_MOST", 32)


def blocks_of(array, size=11):
    return (array[start : start + size] for start in range(0, len(array), size))


class Again:
    """Blocks whose number is not known, as often as they are asked for."""

    def __iter__(self):
        return blocks_of(X)


@pytest.mark.parametrize("kind", [*KINDS, "list", "iterator", "again"])
@pytest.mark.parametrize("name", MAKE)
def test_the_bits_of_rows_in_memory(name, kind, tmp_path):
    on_disk = stored(kind, X, tmp_path) if kind in KINDS else None

    def given():
        made = {"list": lambda: list(blocks_of(X)), "iterator": lambda: blocks_of(X), "again": Again}
        return on_disk if kind in KINDS else made[kind]()

    expected, found = MAKE[name]().fit(X), MAKE[name]().fit(given())
    assert found.n_features_in_ == 6
    rows = expected.transform(X)
    assert_array_equal(found.transform(given()), rows)
    out = Written(X.shape, np.float32)
    assert found.transform(given(), out=out) is out and out.most == 32
    assert_array_equal(out.array, rows)
    if name == "contrast":
        means, scales = expected.statistics(X)
        assert_array_equal(found.statistics(given()), (means, scales))
        options = [dict(means=means, scales=scales), dict(means=means), {}]
    else:
        for one in (expected, found):
            one.partial_fit(X[:50] if one is expected else [X[:3], X[3:50]])
        for attribute in ("mean_", "covariance_", "whitening_", "n_samples_seen_"):
            assert_array_equal(getattr(found, attribute), getattr(expected, attribute))
        options = [{}]
    for number, option in enumerate(options):
        rows_again = stored(kind, rows, tmp_path, f"rows{number}") if kind in KINDS else blocks_of(rows)
        out = np.empty(X.shape)
        assert found.inverse_transform(rows_again, **option, out=out) is out
        assert_array_equal(out, expected.inverse_transform(rows, **option))


@pytest.mark.parametrize("name", MAKE)
def test_a_block_at_a_time(name):
    watched = Watched(X)
    transformer = MAKE[name]().fit(watched)
    assert (watched.most, watched.n_read) == (32, 150)  # each row once
    rows = transformer.transform(watched)
    assert (watched.most, watched.n_read) == (32, 300)
    out = Written(X.shape, np.float64)  # of rows in memory, too
    transformer.transform(X, out=out)
    assert out.most == 32
    assert_array_equal(out.array, rows)


def test_blocks_of_wide_rows_are_short_where_no_bit_depends_on_it(monkeypatch):
    monkeypatch.setattr(row_transformer, "_ROWS", 64)  # more than rows_a_block gives
    for name, most in (("contrast", 32), ("whitening", 64)):
        watched, transformer = Watched(X), MAKE[name]().fit(X)
        assert_array_equal(transformer.transform(watched), transformer.transform(X))
        assert watched.most == most


def test_integers_become_floats(tmp_path):
    levels = np.random.default_rng(0).integers(0, 255, (60, 4), dtype=np.uint8)
    mapped = stored("memory map", levels, tmp_path)
    for make in MAKE.values():
        rows = make().fit_transform(mapped)
        assert rows.dtype == np.float64
        assert_array_equal(rows, make().fit_transform(levels))


@pytest.mark.parametrize("name", MAKE)
def test_a_bad_block_is_named_and_what_was_written_stays(name):
    transformer, bad = MAKE[name]().fit(X), X.copy()
    bad[70, 2] = np.nan
    out, expected = Written(X.shape, np.float32), transformer.transform(X)
    message = r"block 2 \(rows 64 to 95\) of X contains NaN or infinity, first in row 70"
    with pytest.raises(BlockError, match=message):
        transformer.transform(Watched(bad), out=out)
    assert_array_equal(out.array[:64], expected[:64])
    assert np.isnan(out.array[64:]).all()
    for method in ("fit", "statistics" if name == "contrast" else "partial_fit"):
        with pytest.raises(BlockError, match=message):
            getattr(transformer, method)(Watched(bad))
    assert_array_equal(transformer.transform(X), expected)  # as before a fit that failed
    with pytest.raises(BlockError, match=r"block 6 \(rows 66 to 76\) of X contains NaN"):
        transformer.fit(blocks_of(bad))  # their own number
    with pytest.raises(BlockError, match="block 1 .* has 4 columns, those before it have 6"):
        transformer.transform([X, X[:, :4]])
    with pytest.raises(BlockError, match=r"block 0 \(rows 0 to 31\) of X could not be read: OSError: the cable"):
        transformer.fit(Broken())


class Broken:
    shape, dtype = (150, 6), np.dtype(np.float32)

    def __getitem__(self, rows):
        raise OSError("the cable is out")


@pytest.mark.parametrize("name", MAKE)
def test_what_is_refused(name):
    transformer = MAKE[name]().fit(X)
    for sparse in (csr_array(X), [csr_array(X)], iter([X[:40], csr_array(X)])):
        with pytest.raises(TypeError, match="Sparse data was passed"):
            transformer.transform(sparse)
    with pytest.raises(ValueError, match=r"out must have the shape \(150, 6\), got \(149, 6\)"):
        transformer.transform(X, out=np.empty((149, 6)))
    with pytest.raises(ValueError, match=r"out must have the shape \(n_samples, 6\), got \(150, 5\)"):
        transformer.inverse_transform(blocks_of(X), out=np.empty((150, 5)))
    with pytest.raises(ValueError, match="X has 5 features, but .* is expecting 6"):
        transformer.transform(Watched(X[:, :5]))
    with pytest.raises(ValueError, match="Complex"):
        transformer.fit(Watched(X + 1j))
    with pytest.raises(ValueError, match="used up"):
        transformer.fit_transform(blocks_of(X))
    with pytest.raises(ValueError, match="have no rows"):
        transformer.fit(iter([X[:0], X[:0]]))


def test_means_and_scales_of_rows_that_are_not_counted():
    normalization = ContrastNormalization()
    with pytest.raises(ValueError, match=r"block 4 .*: means must have one number a row, got 149 of them for 150"):
        normalization.inverse_transform(blocks_of(X), means=np.zeros(149), scales=np.ones(150))
    with pytest.raises(ValueError, match=r"scales must have one number a row, shape \(150,\), got shape \(151,\)"):
        normalization.inverse_transform(blocks_of(X), scales=np.ones(151))
    with pytest.raises(ValueError, match=r"means must have one number a row, shape \(n_samples,\), got shape \(2, 3\)"):
        normalization.inverse_transform(blocks_of(X), means=np.zeros((2, 3)))
    far = np.concatenate([np.zeros((70, 2)), np.full((1, 2), [2, -2])])
    with pytest.raises(BlockError, match=r"block 2 \(rows 64 to 70\) of X: row 70 of X has variance 4"):
        normalization.inverse_transform(iter([far]))
    with pytest.raises(BlockError, match=r"block 2 \(rows 64 to 70\) of X: .* squares overflow"):
        normalization.transform(iter([1e200 * far]))
