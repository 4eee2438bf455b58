"""What the door lets in, without a copy, and what it says to the rest."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sparseshare.validation import (
    check_axes,
    check_bool,
    check_choice,
    check_dictionary,
    check_each_finite,
    check_image_shape,
    check_number,
    check_signals,
    check_stack,
    compute_dtype,
    is_flat,
)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.int64(1), np.array(0.5), 1])
def test_numbers_inside_the_interval_become_python_numbers(value):
    assert check_number("alpha", value, 0, 1) == value
    assert type(check_number("alpha", value, 0, 1)) is float
    assert type(check_number("max_iter", np.int32(3), 1, integer=True)) is int


@pytest.mark.parametrize("value", [-1, 1.5, np.nan, np.inf, True, np.True_, "1", None, [0.5], np.array([0.5]), 1j])
def test_anything_else_is_refused_by_name(value):
    message = f"The 'alpha' parameter of KSVD must be a finite number of at least 0 and at most 1, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_number("alpha", value, 0, 1, of="KSVD")


def test_the_allowed_interval_is_spelled_out():
    assert check_number("n", None, 1, integer=True, allow_none=True) is None
    for value in (2.0, 0):
        with pytest.raises(ValueError, match=f"'n' parameter must be an integer of at least 1 or None, got {value}"):
            check_number("n", value, 1, integer=True, allow_none=True)
    with pytest.raises(ValueError, match="must be a finite number above 0, got 0"):
        check_number("tol", 0, 0, open_low=True)
    with pytest.raises(ValueError, match="must be a finite number of at most 1, got 2"):
        check_number("tol", 2, high=1)


def test_a_long_value_is_cut():
    with pytest.raises(ValueError) as caught:
        check_number("alpha", list(range(1000)))
    assert len(str(caught.value)) < 150


def test_choices():
    assert check_choice("algorithm", "omp", ("omp", "mp")) == "omp"
    assert check_choice("algorithm", np.str_("mp"), ("omp", "mp")) == "mp"
    assert check_choice("init", None, ("svd", None)) is None
    for value in ("lars", None, 1, np.zeros(3), ["omp"]):
        with pytest.raises(ValueError, match="'algorithm' parameter of f must be 'omp', 'mp' or 'ols', got"):
            check_choice("algorithm", value, ("omp", "mp", "ols"), of="f")
    with pytest.raises(ValueError, match="must be True or 'auto', got 1"):
        check_choice("gram", 1, (True, "auto"))


def test_booleans():
    assert check_bool("positive", True) is True and check_bool("positive", np.False_) is False
    for value in (1, "yes", None):
        with pytest.raises(ValueError, match="'positive' parameter must be True or False, got"):
            check_bool("positive", value)


def test_float32_only_if_every_array_is():
    single, double = np.zeros(1, np.float32), np.zeros(1)
    assert compute_dtype(single) == compute_dtype(single, np.float32) == np.float32
    for other in (double, np.zeros(1, np.float16), np.zeros(1, int), np.zeros(1, bool), np.longdouble):
        assert compute_dtype(single, other) == compute_dtype(other) == np.float64


def test_signals_are_not_copied(tmp_path):
    base = np.arange(48.0).reshape(6, 8)
    read_only = base.copy()
    read_only.flags.writeable = False
    np.save(tmp_path / "X.npy", base)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for X in (base, base[::2, ::3], base.T, np.asfortranarray(base), read_only, mapped, base.astype(np.float32)):
        checked, dtype = check_signals(X)
        assert np.shares_memory(checked, X) and checked.shape == X.shape and dtype == X.dtype
    frame = pd.DataFrame(base)
    assert np.shares_memory(check_signals(frame)[0], frame.to_numpy())


@pytest.mark.parametrize("given", [np.float16, np.int8, np.uint64, bool, np.longdouble])
def test_other_kinds_stay_and_ask_for_float64(given):
    checked, dtype = check_signals(np.ones((2, 3), given))
    assert checked.dtype == given and dtype == np.float64


def test_lists_frames_and_objects():
    assert check_signals([[1, 2], [3, 4]])[0].shape == (2, 2)
    assert check_signals(np.array([[1, 2.5]], object))[0].dtype == np.float64
    nullable = pd.DataFrame({"a": pd.array([1.0, None], dtype="Float64"), "b": [1, 2]})
    np.testing.assert_array_equal(check_signals(nullable)[0], [[1, 1], [np.nan, 2]])


def test_polars_frames():
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(check_signals(polars.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}))[0], [[1, 3], [2, 4]])


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr"])
@pytest.mark.parametrize("interface", ["array", "matrix"])
def test_sparse_signals_become_csr(kind, interface):
    X = getattr(sparse, f"{kind}_{interface}")(np.eye(3, dtype=np.float32))
    checked, dtype = check_signals(X, 3)
    assert checked.format == "csr" and dtype == np.float32
    assert (checked is X) == (kind == "csr")
    np.testing.assert_array_equal(checked.toarray(), np.eye(3))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(3), ValueError, r"Expected 2D array, got 1D array instead: X .*Reshape your data"),
        (3.0, ValueError, "Expected 2D array, got scalar array instead"),
        (np.zeros((1, 2, 3)), ValueError, "Found array with dim 3: X must be 2-D"),
        (np.zeros((0, 3)), ValueError, r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1"),
        (np.zeros((3, 0)), ValueError, r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required by X"),
        (sparse.csr_array((0, 3)), ValueError, r"Found array with 0 sample\(s\)"),
        (np.zeros((2, 3), complex), ValueError, "Complex data not supported: X has dtype complex128"),
        (sparse.csr_array(np.eye(3) * 1j), ValueError, "Complex data not supported"),
        (np.array([["a", "b"]]), ValueError, "X must hold numbers, got dtype <U1"),
        (np.array([["a", 1]], object), ValueError, "X must hold numbers: could not convert string"),
        (
            np.array([[{}, 1]], object),
            TypeError,
            r"X must hold numbers: float\(\) argument must be a string or a real n",
        ),
        (np.array([["2020-01-01"]], "M8[D]"), ValueError, "X must hold numbers, got dtype datetime64"),
        ([[1, 2], [3]], ValueError, "X must be a 2-D array of numbers"),
        (np.ma.masked_invalid([[1.0, np.nan]]), ValueError, "X is a masked array"),
        (pd.DataFrame({"a": ["x", "y"]}), ValueError, "X must hold numbers"),
        (
            np.zeros((2, 4)),
            ValueError,
            r"Dictionary and X have different numbers of features: .* has 3, X.shape is \(2, 4",
        ),
    ],
)
def test_bad_signals(X, error, message):
    with pytest.raises(error, match=message):
        check_signals(X, 3 if getattr(X, "shape", None) == (2, 4) else None)


def test_the_messages_use_the_name_given():
    with pytest.raises(ValueError, match="codes must have the shape"):
        check_signals(np.zeros(3), name="codes")


def test_dictionary_is_dense_contiguous_and_of_the_dtype_asked_for():
    atoms = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    atoms[0] = 0  # an atom of zeros is allowed
    for given in (atoms, atoms.tolist(), pd.DataFrame(atoms), sparse.csc_array(atoms), atoms[:, ::-1][:, ::-1]):
        for dtype in (None, np.float32, np.float64):
            checked = check_dictionary(given, dtype)
            assert checked.flags.c_contiguous and checked.dtype == (dtype or np.float64)
            np.testing.assert_array_equal(checked, atoms)
    assert check_dictionary(atoms.astype(np.float32)).dtype == np.float32
    assert check_dictionary(atoms.astype(int)).dtype == np.float64


@pytest.mark.parametrize(
    ("dictionary", "message"),
    [
        (np.zeros((0, 3)), r"dictionary has no atoms: its shape is \(0, 3\), n_components must be at least 1"),
        (np.zeros((3, 0)), r"0 feature\(s\)"),
        (np.zeros(3), "Expected 2D array, got 1D array instead: dictionary"),
        (np.array([[1, np.nan]]), "dictionary contains NaN or infinity; every entry"),
        (np.array([[1, -np.inf]], np.float32), "dictionary contains NaN or infinity"),
        (np.array([[1e300]]), "dictionary contains NaN or infinity, or values too large for float32"),
        (np.array([[1j]]), "Complex data not supported: dictionary"),
        (np.array([["a"]]), "dictionary must hold numbers"),
    ],
)
def test_bad_dictionaries(dictionary, message):
    with pytest.raises(ValueError, match=message):
        check_dictionary(dictionary, np.float32)


def test_axes():
    assert check_axes("stride", np.int64(2), 3) == (2, 2, 2)
    assert check_axes("stride", [1, 2], 2) == (1, 2)
    for value, allowed in [((1, 2), "one int, got"), ((0,), "an integer of at least 1, got 0"), (1.5, "an integer")]:
        with pytest.raises(ValueError, match=f"The 'stride' parameter of f must be {allowed}"):
            check_axes("stride", value, 1, of="f")


def test_image_shapes():
    assert check_image_shape([4, np.int32(5)]) == (4, 5)
    assert check_image_shape((4,), ["(time,)", "(time, n_channels)"]) == (4,)
    for wrong in (4, (4,), "four", (1, 2, 3, 4)):
        message = r"'image_shape' parameter must be \(height, width\), \(height, width, n_channels\) or None, got"
        with pytest.raises(ValueError, match=message):
            check_image_shape(wrong)
    with pytest.raises(ValueError, match="'image_shape' parameter must be an integer of at least 1, got 2.5"):
        check_image_shape((2.5, 4))


def test_stacks_are_not_copied():
    X = np.zeros((3, 4, 5), np.uint8)
    assert check_stack(X) is X
    for given in (list(X), tuple(X)):
        images = check_stack(given)
        assert isinstance(images, list) and all(np.shares_memory(image, X) for image in images)
    objects = np.empty(2, object)
    objects[:] = [np.zeros((4, 5)), np.zeros((2, 3))]
    assert [image.shape for image in check_stack(objects)] == [(4, 5), (2, 3)]
    rows = list(np.zeros((2, 6)))
    assert check_stack(rows).shape == (2, 6)  # flat rows of images
    assert isinstance(check_stack(rows, 1), list)  # signals
    assert is_flat(X[0]) and is_flat(X[0].tolist()) and not is_flat(X) and not is_flat(list(objects))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (sparse.csr_array(np.eye(3)), TypeError, "Sparse data was passed for X, but volumes must be dense"),
        (np.ma.masked_array(np.zeros((2, 3, 3))), ValueError, "X is a masked array, whose mask would be lost"),
        ([np.ma.masked_array(np.zeros((3, 3)))], ValueError, "volume 0 of X is a masked array"),
        ([np.zeros((3, 3)), np.zeros((3, 3)) * 1j], ValueError, "Complex data not supported: volume 1 of X"),
        ([[1.0], [1.0, 2.0]], ValueError, "X must be a 2-D array of numbers"),
    ],
)
def test_bad_stacks(X, error, message):
    with pytest.raises(error, match=message):
        check_stack(X, one="volume")


def test_the_image_that_is_not_finite_is_named():
    images = np.zeros((3, 2, 2), np.float32)
    check_each_finite(images)
    check_each_finite(np.full((2, 2), np.finfo(float).max))  # whose sum is not
    images[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="image 7 contains NaN or infinity: every pixel must be a finite number"):
        check_each_finite(images, 5)
