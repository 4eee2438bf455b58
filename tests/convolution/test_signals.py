"""What the convolution room takes for signals and atoms, and what it refuses, by name and number."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from sparseshare.convolution.atoms import atoms_inside, check_atoms, spatial_axes
from sparseshare.convolution.signals import as_given, check_atoms_and_signals, check_conv_signals
from sparseshare.sources import Stack

SHAPES = {1: (13,), 2: (6, 7), 3: (4, 3, 5)}


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("channels", [None, 3])
def test_stacks_lists_and_rows_are_the_same(rng, n_axes, channels):
    shape = (*SHAPES[n_axes], *([] if channels is None else [channels]))
    X = rng.standard_normal((4, *shape))
    rows = X.reshape(4, -1)
    for given, options in (
        (X, {}),
        (np.asfortranarray(X), {}),
        (list(X), {}),
        (tuple(X), {"image_shape": shape}),
        (rows, {"image_shape": shape}),
        (rows.tolist(), {"image_shape": shape}),
        (pd.DataFrame(rows), {"image_shape": list(shape)}),
        (rows, {"fitted_shape": shape}),
    ):
        signals = check_conv_signals(given, n_axes, channels, **options)
        assert (len(signals), signals.n_axes, signals.n_channels) == (4, n_axes, channels)
        assert signals.same_shape == signals.shape(3) == SHAPES[n_axes]
        assert not signals.separate and signals.masks is None
        for signal, own in zip(signals, X, strict=True):
            expected = own[None, None] if channels is None else np.moveaxis(own, -1, 0)[None]
            assert_array_equal(signal, expected)
            assert signal.flags.c_contiguous and signal.dtype == np.float64
            assert_array_equal(signals.as_given(signal), own)
    assert signals.flat == (len(shape) > 1)
    assert not check_conv_signals(X, n_axes, channels).flat
    if channels is not None:  # atoms without channels: each channel has codes of its own
        separate = check_conv_signals(X, n_axes)
        assert separate.separate and separate[1].shape == (3, 1, *SHAPES[n_axes])
        assert_array_equal(separate[1][:, 0], np.moveaxis(X[1], -1, 0))
        assert_array_equal(separate.as_given(separate[1]), X[1])
        assert_array_equal(as_given(separate[1], 3), X[1])
        assert not check_conv_signals(X, n_axes, "any").separate


def test_sizes_may_differ_in_a_list(rng):
    images = [rng.standard_normal(shape) for shape in [(5, 6, 3), (9, 4, 3)]]
    signals = check_conv_signals(images, 2, 3)
    assert signals.same_shape is None
    assert [signals.shape(0), signals.shape(1)] == [(5, 6), (9, 4)]
    assert_array_equal(signals[1][0, 2], images[1][..., 2])
    waves = np.empty(2, object)
    waves[:] = [np.arange(5), np.arange(8.0)]
    assert check_conv_signals(waves, 1)[1].shape == (1, 1, 8)


def test_rows_are_squares_cubes_or_signals_if_nothing_is_said():
    assert check_conv_signals(np.zeros((2, 49)), 2).shape(0) == (7, 7)
    assert check_conv_signals(np.zeros((2, 343)), 3).shape(0) == (7, 7, 7)
    assert check_conv_signals(np.zeros((2, 49)), 1).shape(0) == (49,)
    assert check_conv_signals(np.zeros((2, 75)), 2, 3)[0].shape == (1, 3, 5, 5)
    assert check_conv_signals(np.zeros((2, 30)), 1, 3)[0].shape == (1, 3, 10)
    with pytest.raises(ValueError, match="flat rows of 50 samples, which make no square image: give image_shape="):
        check_conv_signals(np.zeros((2, 50)), 2)
    with pytest.raises(ValueError, match="flat rows of 76 samples, which make no square image of 3 channels"):
        check_conv_signals(np.zeros((2, 76)), 2, 3)
    with pytest.raises(ValueError, match=r"X has 50 columns, signals of shape \(7, 7\) have 49 samples"):
        check_conv_signals(np.zeros((2, 50)), 2, image_shape=(7, 7))


def test_precision():
    X = np.zeros((2, 9))
    for given, expected in [(X.astype(np.float32), "float32"), (X.astype(np.float16), "float64"), (X, "float64"),
                            (X.astype(int), "float64"), (X.astype(bool), "float64"),
                            ([np.zeros(3, np.float32), np.zeros(4)], "float64"),
                            ([np.zeros(3, np.float32), np.zeros(4, np.float32)], "float32")]:  # fmt: skip
        signals = check_conv_signals(given, 1)
        assert signals.dtype == signals[0].dtype == expected


def test_items_are_copies(rng):
    X = rng.standard_normal((2, 9))
    check_conv_signals(X, 1)[0][:] = 7
    assert not (X == 7).any()


def test_mapped_signals(rng, tmp_path):
    np.save(tmp_path / "X.npy", rng.standard_normal((3, 8, 8)).astype(np.float32))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    signals = check_conv_signals(mapped, 2)
    assert isinstance(signals.arrays, Stack)  # read signal by signal
    assert_array_equal(signals[2][0, 0], mapped[2])


@pytest.mark.parametrize("n_channels", [None, 3])
def test_masks(rng, n_channels):
    X = rng.standard_normal((2, 5, 6, 3))
    by_channel, together = rng.random(X.shape) < 0.3, rng.random(X.shape[:3]) < 0.3
    for missing in (by_channel, together):
        everywhere = np.broadcast_to(missing if missing.ndim == 4 else missing[..., None], X.shape)
        holes = np.where(everywhere, np.nan, X)
        for given, mask, options in [
            (holes, missing, {}),
            (holes, "nan", {}),
            (list(holes), list(missing), {}),
            (list(holes), "nan", {}),
            (holes.reshape(2, -1), everywhere.reshape(2, -1), {"image_shape": (5, 6, 3)}),
            (holes.reshape(2, -1), "nan", {"image_shape": (5, 6, 3)}),
        ]:
            signals = check_conv_signals(given, 2, n_channels, mask=mask, **options)
            assert len(signals.masks) == 2
            for i in range(2):
                observed = signals.masks[i]
                assert observed.shape == signals[i].shape and observed.dtype == np.float64
                assert_array_equal(signals.as_given(observed), np.where(everywhere[i], 0, 1))
                assert_array_equal(signals.as_given(signals[i]), np.where(everywhere[i], 0, X[i]))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.zeros((2, 5, 5), bool),
            r"without channels.*: \(2, 5, 6, 3\) or \(2, 5, 6\); got an array of shape",
        ),
        (np.zeros((2, 5, 6, 3)), "got an array of shape .* dtype float64"),
        (np.zeros((5, 6), bool), "mask must be 'nan' or a boolean array"),
        ("missing", "mask must be 'nan' or a boolean array .*; got 'missing'"),
        (np.ones((2, 5, 6), bool), "every sample of signal 0 is missing: nothing to code"),
        ([np.zeros((5, 6), bool), np.ones((5, 6), bool)], "every sample of signal 1 is missing"),
    ],
)
def test_wrong_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        check_conv_signals(np.zeros((2, 5, 6, 3)), 2, 3, mask=mask)


def test_wrong_masks_of_lists():
    X = [np.zeros((5, 6)), np.zeros((4, 4))]
    with pytest.raises(ValueError, match="for a list of 2 signals, a list of as many masks"):
        check_conv_signals(X, 2, mask=np.zeros((2, 5, 6), bool))
    with pytest.raises(ValueError, match=r"for signal 1: \(4, 4\); got an array of shape \(5, 6\)"):
        check_conv_signals(X, 2, mask=[np.zeros((5, 6), bool)] * 2)


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.zeros((2, 3, 4, 5, 6)), {}, r"Found array with dim 5: for atoms of 2 spatial axes X must have the shape"),
        (np.zeros(9), {}, "Expected 2D array, got 1D array instead"),
        ([], {}, "Expected 2D array"),
        (np.zeros((0, 4, 4)), {}, r"Found array with 0 sample\(s\) \(shape=\(0, 4, 4\)\) while a minimum"),
        (np.zeros((2, 4, 0)), {}, r"Found array with 0 feature\(s\)"),
        (np.zeros((2, 4, 4)) + 1j, {}, "Complex data not supported: X"),
        (np.zeros((2, 4, 4)).astype(str), {}, "X must hold numbers"),
        (np.ma.masked_array(np.zeros((2, 4, 4))), {}, "X is a masked array, whose mask would be lost"),
        ([np.zeros((4, 4)), np.ma.masked_array(np.zeros((4, 4)))], {}, "signal 1 of X is a masked array"),
        ([np.zeros((4, 4)), np.zeros((4, 4, 3))], {}, r"signals of different dimensions: signal 0 .* signal 1 has"),
        ([np.zeros((4, 4)), np.zeros((4, 4, 3, 3))], {}, r"signal 1 of X must have the shape \(height, width\) or"),
        ([np.zeros((4, 4, 2)), np.zeros((4, 4, 3))], {}, r"signal 0 of X has 2 channel\(s\), signal 1 has 3"),
        ([np.zeros((4, 4)), np.zeros((0, 4))], {}, "signal 1 of X must have the shape"),
        ([np.zeros((4, 4)), np.zeros((4, 4)).astype(str)], {}, "signal 1 of X must hold numbers"),
        (np.zeros((2, 4, 4)), {"n_channels": 3}, r"the atoms have 3 channel\(s\), the signals .* no channel axis"),
        (np.zeros((2, 4, 4, 2)), {"n_channels": 3}, r"atoms have 3 channel\(s\), the signals of X have 2 channel"),
        (np.zeros((2, 4, 4)), {"image_shape": (4, 5)}, r"X has signals of shape \(4, 4\), image_shape asks"),
        ([np.zeros((4, 4))], {"image_shape": (4, 5)}, r"signal 0 of X has shape \(4, 4\), image_shape asks for"),
        (np.zeros((2, 16)), {"image_shape": (16,)}, r"be \(height, width\), \(height, width, n_channels\) or None"),
        (np.zeros((2, 16)), {"image_shape": (4, 0)}, "'image_shape' parameter must be an integer of at least 1, got 0"),
        (np.zeros((2, 16)), {"image_shape": 4}, "'image_shape' parameter must be"),
    ],
)  # fmt: skip
def test_wrong_signals_are_described(X, options, message):
    with pytest.raises(ValueError, match=message):
        check_conv_signals(X, 2, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_signal_with_nan_is_named(rng, bad):
    X = rng.standard_normal((4, 5, 6))
    X[2, 1, 1] = bad
    for given in (X, list(X), list(X.astype(np.float32))):
        with pytest.raises(
            ValueError, match="signal 2 contains NaN or infinity: .*; where samples are missing, encode with mask='nan'"
        ):
            check_conv_signals(given, 2)
    with pytest.raises(ValueError, match="signal 2 contains NaN or infinity"):
        check_conv_signals(X, 2, mask=np.zeros(X.shape, bool))


def test_sparse_rows_are_refused():
    with pytest.raises(TypeError, match="Sparse data was passed for X, but signals must be dense"):
        check_conv_signals(csr_array(np.eye(4)), 1)


@pytest.mark.parametrize(
    ("atoms", "signals", "expected"),
    [
        ((5, 8), (3, 100), (1, None)),
        ((5, 8), (3, 100, 4), (1, None)),
        ((5, 8, 4), (3, 100, 4), (1, 4)),
        ((5, 8, 8), (3, 60, 60), (2, None)),
        ((5, 8, 8), (3, 60, 60, 3), (2, None)),
        ((5, 8, 8, 3), (3, 60, 60, 3), (2, 3)),
        ((5, 8, 8, 3), (3, 60, 60, 9), (3, None)),
        ((5, 8, 8, 8), (3, 20, 20, 20, 2), (3, None)),
        ((5, 8, 8, 8, 2), (3, 20, 20, 20, 2), (3, 2)),
    ],
)
def test_which_axis_holds_channels(atoms, signals, expected):
    assert spatial_axes(atoms, np.zeros(signals)) == expected
    assert spatial_axes(atoms, list(np.zeros(signals))) == expected
    assert spatial_axes(atoms, np.zeros((2, 4)), image_shape=signals[1:]) == expected


def test_channels_as_told():
    X = np.zeros((3, 100, 4))
    assert spatial_axes((5, 8, 4), X, channels=False) == (2, None)
    assert spatial_axes((5, 8, 4), np.zeros((3, 100, 100)), channels=True) == (1, 4)
    assert spatial_axes((5, 8, 8), np.zeros((3, 64))) == (2, None)  # flat rows are squares
    assert spatial_axes((5, 8, 8, 3), np.zeros((3, 192))) == (2, 3)
    assert spatial_axes((5, 8, 3), np.zeros((3, 192)), channels=True) == (1, 3)
    with pytest.raises(ValueError, match=r"atoms of shape \(5, 8\) with channels .* have 0 spatial axes"):
        spatial_axes((5, 8), X, channels=True)
    with pytest.raises(ValueError, match="without channels .* have 4 spatial axes: there must be 1 to 3"):
        spatial_axes((5, 8, 8, 8, 3), X, channels=False)
    with pytest.raises(ValueError, match="'channels' parameter must be True, False or 'auto', got 3"):
        spatial_axes((5, 8), X, channels=3)


def test_atoms_and_signals_belong_together(rng, dtype):
    atoms, X = rng.standard_normal((5, 4, 4, 3)), rng.standard_normal((2, 9, 8, 3)).astype(dtype)
    inside, signals = check_atoms_and_signals(atoms, X)
    assert inside.shape == (5, 3, 4, 4) and inside.dtype == signals.dtype == dtype
    assert inside.flags.c_contiguous
    assert_array_equal(inside[:, 1], atoms[..., 1].astype(dtype))
    inside, signals = check_atoms_and_signals(atoms[..., 0].tolist(), X)
    assert inside.shape == (5, 1, 4, 4) and signals.separate
    with pytest.raises(
        ValueError, match=r"atoms of shape \(4, 4\) are larger than the signal: number 1 of shape \(3, 9\)"
    ):
        check_atoms_and_signals(atoms[..., 0], [np.zeros((9, 9)), np.zeros((3, 9))])


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (np.zeros(3), r"atoms must have the shape \(n_components, \*atom_shape\[, n_channels\]\) .*, got \(3,\)"),
        (np.zeros((0, 3)), r"atoms has no atoms: its shape is \(0, 3\), n_components must be at least 1"),
        (np.zeros((3, 0)), r"no empty axis, got \(3, 0\)"),
        (np.zeros((2, 3, 3, 3, 3, 3)), "1 to 3 axes of atom_shape"),
        ([[1.0, np.nan]], "atoms contains NaN or infinity"),
        ([[1.0], [1.0, 2.0]], "atoms must be an array of numbers"),
        ([["a"]], "atoms must hold numbers"),
        ([[1j]], "Complex data not supported: atoms"),
    ],
)
def test_wrong_atoms(atoms, message):
    with pytest.raises(ValueError, match=message):
        check_atoms(atoms)


def test_atoms_that_the_precision_does_not_hold():
    with pytest.raises(ValueError, match="atoms hold values too large for float32, the dtype of the signals"):
        atoms_inside(np.full((1, 2), 1e300), None, np.float32)
