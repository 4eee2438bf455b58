"""Kernels of networks on a GPU against their twins: the same bits in every order of threads, all outputs written."""

import numpy as np
import pytest

from sparseshare.kernels.dispatch import kernels_for

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
ORDERS = ["forward", "reverse", "random"]
SIZES = [(1, 1), (31, 33), (257, 10), (3, 257)]

pytestmark = [pytest.mark.parametrize("dtype", TOLERANCE), pytest.mark.races]


@pytest.fixture
def same(gpu, dtype):
    """Run work in every order of threads, and once looking for races; what it returns is compared with the expected."""

    def check(work, *expected, tolerance=None):
        found = []
        for order in ORDERS:
            with gpu.order(order):
                found.append([gpu.get(array) for array in work()])
        with gpu.races():
            work()
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
        assert len(found[0]) == len(expected)
        for a, b in zip(found[0], expected, strict=True):
            scale = np.abs(np.nan_to_num(b)).max(initial=1)
            np.testing.assert_allclose(a, b, rtol=0, atol=(tolerance or TOLERANCE[dtype]) * scale)

    return check


def samples(*shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def here(family):
    return kernels_for("cpu", family)


def there(family):
    return kernels_for("cuda:0", family)


@pytest.mark.parametrize("mode", range(5))
@pytest.mark.parametrize("shape", SIZES)
def test_activations(gpu, same, dtype, mode, shape):
    z, bias, t = samples(*shape, dtype=dtype), samples(shape[1], dtype=dtype, seed=1), np.full(shape[1], 0.3, dtype)
    t[0] = 0
    if shape[0] > 30:
        z[7, 3] = np.nan
    expected = z + bias
    if mode == 4:
        expected = np.tanh(expected)
        count = np.count_nonzero(expected)
    else:
        expected = z.copy()
        count = here("activations").activate(expected, bias, t, mode)

    def work():
        a = gpu.asarray(z)
        counts = there("activations").activate(a, gpu.asarray(bias), gpu.asarray(t), mode)
        return a, counts.sum()

    same(work, expected, count)
    da, kernels = samples(*shape, dtype=dtype, seed=2), there("activations")
    dz, sums, threshold_sums = np.empty_like(da), np.zeros(shape[1], dtype), np.zeros(shape[1], dtype)
    if mode == 4:
        here("recurrent").tanh_gradient(da, expected, dz, sums)
    else:
        here("activations").activation_gradient(da, expected, t, mode, dz, sums, threshold_sums)

    def back():
        parts = kernels.sum_parts(*shape), shape[1]
        dz, sums, threshold_sums = (gpu.poisoned(size, dtype) for size in (shape, parts, parts))
        kernels.activation_gradient(
            gpu.asarray(da), gpu.asarray(expected), gpu.asarray(t), mode, dz, sums, threshold_sums
        )
        return [dz, sums.sum(axis=0)] + ([threshold_sums.sum(axis=0)] if mode in (1, 2) else [])

    same(back, dz, sums, *([threshold_sums] if mode in (1, 2) else []))


@pytest.mark.parametrize(("n", "count"), [(1, 1), (31, 4), (257, 100), (600, 599), (64, 64)])
def test_the_largest_of_every_row(gpu, same, dtype, n, count):
    z = samples(5, n, dtype=dtype)
    z[1], z[2, ::2] = 0.5, -0.25  # ties
    z[3] = 0
    z = np.round(z, 1)
    bias = np.round(samples(1, dtype=dtype), 1)
    expected = z + bias
    total = here("activations").keep_largest(expected, count)

    def work():
        a = gpu.asarray(z)
        counts = there("activations").keep_largest(a, gpu.asarray(bias), 1, count)
        return a, counts.sum()

    same(work, expected, total)


@pytest.mark.parametrize("by_unit", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("n", "density"), [(1, 0.3), (33, 0.5), (257, 0.07), (10, 1.0)])
def test_thresholds_move_to_a_quantile(gpu, same, dtype, by_unit, nonnegative, n, density):
    z = np.round(samples(n, 3, dtype=dtype), 2)  # with duplicates
    size = z if nonnegative else np.abs(z)
    old = np.full(3 if by_unit else 1, 0.2, dtype)
    wanted = np.maximum(np.quantile(size.astype(float), 1 - density, axis=0 if by_unit else None), 0)

    def work():
        thresholds = gpu.asarray(old.copy())
        there("activations").move_thresholds(gpu.asarray(z), nonnegative, density, 0.1, thresholds)
        return [thresholds]

    same(work, np.atleast_1d(old + (wanted - old) * 0.1))


GRIDS = [((2, 7, 6, 1), (3, 2, 1, 1)), ((3, 9, 8, 33), (2, 3, 2, 1)), ((1, 5, 5, 3), (5, 5, 1, 1))]


@pytest.mark.parametrize(("shape", "grid"), GRIDS)
def test_columns(gpu, same, dtype, shape, grid):
    images = samples(*shape, dtype=dtype)
    padded = np.empty((shape[0], shape[1] + 2, shape[2] + 1, shape[3]), dtype)
    here("columns").pad_images(images, 1, 0, padded)
    kh, kw, sy, sx = grid
    grid = (*grid, (shape[1] + 2 - kh) // sy + 1, (shape[2] + 1 - kw) // sx + 1)
    columns = np.empty((shape[0] * grid[4] * grid[5], kh * kw * shape[3]), dtype)
    here("columns").take_columns(padded, *grid, columns)
    slopes, back = samples(*columns.shape, dtype=dtype, seed=1), np.empty_like(padded)
    here("columns").add_columns(slopes, *grid, back)

    def work():
        kernels, around = there("columns"), gpu.poisoned(padded.shape, dtype)
        found, direct = gpu.poisoned(columns.shape, dtype), gpu.poisoned(columns.shape, dtype)
        sums, inside = gpu.poisoned(padded.shape, dtype), gpu.poisoned(shape, dtype)
        kernels.pad_images(gpu.asarray(images), 1, 0, around)
        kernels.take_columns(around, *grid, found)
        kernels.take_columns(gpu.asarray(images), *grid, direct, 1, 0)
        kernels.add_columns(gpu.asarray(slopes), *grid, sums)
        kernels.add_columns(gpu.asarray(slopes), *grid, inside, 1, 0)
        return around, found, direct, sums, inside

    same(work, padded, columns, columns, back, back[:, 1 : 1 + shape[1], : shape[2]])


@pytest.mark.parametrize(("shape", "window"), [*GRIDS, ((2, 8, 6, 5), (2, 2, 2, 2)), ((1, 17, 19, 1), (16, 17, 1, 1))])
def test_windows(gpu, same, dtype, shape, window):
    kh, kw, sy, sx = window
    images = np.round(samples(*shape, dtype=dtype), 1)  # with ties
    out = np.empty((shape[0], (shape[1] - kh) // sy + 1, (shape[2] - kw) // sx + 1, shape[3]), dtype)
    mean, place = np.empty_like(out), np.empty(out.shape, np.uint8 if kh * kw <= 256 else np.int32)
    slopes, back, mean_back = samples(*out.shape, dtype=dtype, seed=1), np.empty_like(images), np.empty_like(images)
    kernels = here("windows")
    kernels.largest_in_windows(images, *window, out, place)
    kernels.mean_of_windows(images, *window, mean)
    kernels.largest_gradient(slopes, place, *window, back)
    kernels.mean_gradient(slopes, *window, mean_back)

    def work():
        kernels, x, dy = there("windows"), gpu.asarray(images), gpu.asarray(slopes)
        found, means, back, mean_back = (
            gpu.poisoned(s, dtype) for s in (out.shape, out.shape, images.shape, images.shape)
        )
        where = gpu.poisoned(out.shape, place.dtype)
        kernels.largest_in_windows(x, *window, found, where)
        kernels.mean_of_windows(x, *window, means)
        kernels.largest_gradient(dy, where, *window, back)
        kernels.mean_gradient(dy, *window, mean_back)
        return found, where, means, back, mean_back

    same(work, out, place, mean, back, mean_back)


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize(
    ("shape", "patch", "window", "before"),
    [((3, 9, 10, 1), (3, 3, 1, 1), (2, 2), (0, 0)), ((2, 8, 9, 33), (3, 2, 1, 1), (3, 1), (1, 0)),
     ((2, 13, 11, 3), (3, 3, 2, 1), (1, 5), (1, 1))],
)  # fmt: skip
def test_convolutions_with_windows(gpu, same, dtype, mode, shape, patch, window, before):
    (kh, kw, sy, sx), (ph, pw), (top, left) = patch, window, before
    images, weights = samples(*shape, dtype=dtype), samples(kh * kw * shape[3], 35, dtype=dtype, seed=1)
    bias, t = samples(35, dtype=dtype, seed=2), np.full(35, 0.4, dtype)
    padded = np.pad(images, [(0, 0), (top, top), (left, left), (0, 0)])
    lines = ((padded.shape[1] - kh) // sy + 1) // ph, ((padded.shape[2] - kw) // sx + 1) // pw
    grid = (kh, kw, sy, sx, lines[0] * ph, lines[1] * pw)
    columns = np.empty((shape[0] * grid[4] * grid[5], len(weights)), dtype)
    here("columns").take_columns(padded, *grid, columns)
    a = columns @ weights
    count = here("activations").activate(a, bias, t, mode)
    out = np.empty((shape[0], *lines, 35), dtype)
    place = np.empty(out.shape, np.uint8)
    a = a.reshape(shape[0], grid[4], grid[5], 35)
    here("windows").largest_in_windows(a, ph, pw, ph, pw, out, place)
    slopes, dz = samples(*out.shape, dtype=dtype, seed=3), np.empty_like(a)
    slopes[:, 0] = 0
    here("windows").largest_gradient(slopes, place, ph, pw, ph, pw, dz)
    gradient, back = columns.T @ dz.reshape(-1, 35), np.empty_like(padded)
    here("columns").add_columns(dz.reshape(-1, 35) @ weights.T, *grid, back)
    where = (top, left, *patch, *window)

    def work():
        kernels, x, w = there("pooled_convolution"), gpu.asarray(images), gpu.asarray(weights)
        found, places, dx = (
            gpu.poisoned(out.shape, dtype),
            gpu.poisoned(out.shape, np.uint8),
            gpu.poisoned(shape, dtype),
        )
        more = gpu.asarray(bias), gpu.asarray(t), mode
        counts, *_ = kernels.pooled_patches(x, *where, w, *more, found, places, None)
        again, same_places = gpu.poisoned(out.shape, dtype), gpu.poisoned(out.shape, np.uint8)
        _, kept, taken = kernels.pooled_patches(x, *where, w, *more, again, same_places, 7)  # by columns
        only = kernels.pooled_tap_gradients(x, *where, gpu.asarray(slopes), gpu.asarray(place))
        given = x, top, left, *grid, w, gpu.asarray(dz.reshape(-1, 35))
        parts, again_parts = kernels.pooled_gradients(*given, taken, dx), kernels.pooled_gradients(*given, None, None)
        gradients = [each.sum(axis=0) for each in (parts, again_parts, only)]
        spread = gpu.poisoned((dz.size // 35, 35), dtype)
        sums = gpu.poisoned((there("activations").sum_parts(out.size // 35, 35), 35), dtype)
        two = [array.reshape(-1, 35) for array in (gpu.asarray(slopes), gpu.asarray(place))]
        there("activations").activation_gradient(
            two[0], two[0], more[1], 0, spread, sums, None, two[1], (ph, pw, lines[1])
        )
        return found, again, counts[0].sum(), kept[0], *gradients, dx, spread, sums.sum(axis=0)

    inside = back[:, top : top + shape[1], left : left + shape[2]]
    kept = (columns @ weights + bias)[::7]
    same(
        work,
        out,
        out,
        count,
        kept,
        *[gradient] * 3,
        inside,
        dz.reshape(-1, 35),
        slopes.sum(axis=(0, 1, 2)),
        tolerance=20 * TOLERANCE[dtype],
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_steps_of_optimizers(gpu, same, dtype, kind):
    sizes, names = [1, 33, 2049], ("sgd_step", "momentum_step", "adam_step")
    given = [[samples(n, dtype=dtype, seed=10 * i + n) for i in range(4)] for n in sizes]
    for each in given:
        each[3] = np.abs(each[3])  # a mean of squares
    uses = np.arange(33) % 3 + 1
    expected, numbers = [], (0.1, 0.9, 0.99, 1e-3)
    for i, each in enumerate(given):
        values, gradient, first, second = (array.copy() for array in each)
        if i > 0:
            gradient += (uses if i == 1 else 1) * (dtype(0.3 + i) * np.sign(values) + dtype(0.2) * values)
        state = [(), (first,), (first, second)][kind]
        scalars = [dtype(number) for number in numbers[: (1, 2, 4)[kind]]]
        scalars[0] = dtype(0.1 if kind == 2 else 0.1 * (i + 1))
        getattr(here("optimizer_steps"), names[kind])(values, gradient, *state, *scalars)
        expected += [np.maximum(values, 0) if i == 2 else values, *state]

    def work():
        entries, found = [], []
        for i, each in enumerate(given):
            values, gradient, first, second = (gpu.asarray(array.copy()) for array in each)
            if i == 2:
                gradient = gpu.xp.stack([0.25 * gradient, 0.75 * gradient]).astype(dtype)  # in parts
            many = gpu.asarray(uses.astype(np.int64)) if i == 1 else None
            entries.append((values, gradient, first, second, many, i == 2, i > 0, float(i + 1), float(i), 0.0))
            found += [values, *[(), (first,), (first, second)][kind]]
        there("optimizer_steps").fused_step(kind, entries, {}, 0.1, 0.3, 0.2, 0.9, 0.99, 1e-3)
        return found

    same(work, *expected, tolerance=4 * TOLERANCE[dtype])


@pytest.mark.parametrize(("n", "n_values"), [(1, 1), (257, 5), (33, 31), (5000, 7)])
def test_weights_that_share_values(gpu, same, dtype, n, n_values):
    index, signs = np.empty(n, np.int32), np.empty(n, np.int8)
    here("shared_products").hashed_index(n_values, 3, index, signs)
    values, gradient, sums = samples(n_values, dtype=dtype), samples(n, dtype=dtype, seed=1), np.ones(n_values, dtype)
    holes = np.where(np.arange(n) % 5 == 4, -1, index).astype(np.int32)
    full = np.empty(n, dtype)
    here("shared_products").spell_out(values, holes, signs, full)
    here("shared_products").gather_gradients(gradient, holes, signs, sums)

    def work():
        kernels, numbers, ones = there("shared_products"), gpu.poisoned(n, np.int32), gpu.poisoned(n, np.int8)
        kernels.hashed_index(n_values, 3, numbers, ones)
        out, total, where = gpu.poisoned(n, dtype), gpu.xp.ones(n_values, dtype), gpu.asarray(holes)
        kernels.spell_out(gpu.asarray(values), where, ones, out)
        segments = kernels.segments(holes, n_values, "cuda:0")
        kernels.gather_gradients(gpu.asarray(gradient), where, ones, total, segments)
        return numbers, ones, out, total

    same(work, index, signs, full, sums)


@pytest.mark.parametrize(("n", "n_units"), [(1, 1), (31, 33), (3, 257)])
def test_steps_through_time(gpu, same, dtype, n, n_units):
    z, before, dh = (samples(n, k * n_units, dtype=dtype, seed=k) for k in (4, 1, 1))
    gates, memory, shown, seen = (
        z.copy(),
        np.empty_like(before),
        np.empty_like(before),
        np.ones((n, 2 + n_units), dtype),
    )
    here("recurrent").lstm_step(gates, before, memory, shown, seen, 2)
    dc, dz = samples(n, n_units, dtype=dtype, seed=5), np.empty_like(z)
    carried = dc.copy()
    here("recurrent").lstm_gradient(dh, gates, before, shown, carried, dz)
    t = np.full(n_units, 0.4, dtype)
    sums = [before.copy(), before.copy()]
    counts = [here("recurrent").add_and_threshold(a, dh, t, p) for a, p in zip(sums, (False, True), strict=True)]

    def work():
        kernels, a = there("recurrent"), gpu.asarray(z.copy())
        c, s, states = (
            gpu.poisoned(memory.shape, dtype),
            gpu.poisoned(memory.shape, dtype),
            gpu.xp.ones(seen.shape, dtype),
        )
        kernels.lstm_step(a, gpu.asarray(before), c, s, states, 2)
        slope, out = gpu.asarray(dc.copy()), gpu.poisoned(z.shape, dtype)
        kernels.lstm_gradient(gpu.asarray(dh), a, gpu.asarray(before), s, slope, out)
        both = [gpu.asarray(before.copy()), gpu.asarray(before.copy())]
        found = [
            kernels.add_and_threshold(b, gpu.asarray(dh), gpu.asarray(t), p).sum()
            for b, p in zip(both, (False, True), strict=True)
        ]
        return a, c, s, states, slope, out, *both, *found

    same(work, gates, memory, shown, seen, carried, dz, *sums, *counts)


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (33, 10), (7, 257)])
def test_losses(gpu, same, dtype, n, n_classes):
    outputs, wanted = 3 * samples(n, n_classes, dtype=dtype), samples(n, n_classes, dtype=dtype, seed=1)
    targets, weights = np.arange(n) % n_classes, np.linspace(0, 2, n_classes)
    expected = []
    for each in (None, weights):
        expected += here("losses").cross_entropy(outputs, targets, each)
    expected += here("losses").squared_error(outputs, wanted)

    def work():
        kernels, z, found = there("losses"), gpu.asarray(outputs), []
        for each in (None, gpu.asarray(weights)):
            loss, gradient = kernels.cross_entropy(z, gpu.asarray(targets), each)
            found += [loss.sum(), gradient]
        loss, gradient = kernels.squared_error(z, gpu.asarray(wanted))
        return *found, loss.sum(), gradient, kernels.log_softmax(z)

    same(work, *expected, here("losses").log_softmax(outputs), tolerance=4 * TOLERANCE[dtype])


def test_outputs_that_are_not_finite_give_no_finite_loss(gpu, dtype):
    for bad in (np.nan, np.inf):
        outputs = np.zeros((3, 4), dtype)
        outputs[1, 2] = bad
        loss, _ = there("losses").cross_entropy(gpu.asarray(outputs), gpu.asarray(np.zeros(3, np.int64)), None)
        assert not np.isfinite(gpu.get(loss).sum())


def test_the_same_entries_are_dropped(gpu, same, dtype):
    x, out = samples(1000, dtype=dtype), np.empty(1000, dtype)
    here("dropout").drop(x, 12345, int(0.3 * 2**32), dtype(1 / 0.7), out)
    assert 0.25 < np.mean(out == 0) < 0.35

    def work():
        found = gpu.poisoned(1000, dtype)
        there("dropout").drop(gpu.asarray(x), 12345, int(0.3 * 2**32), dtype(1 / 0.7), found)
        return [found]

    same(work, out)


def test_counts_and_dtypes(gpu, dtype):
    x = gpu.asarray(np.array([[0, 1], [2, 0]], dtype))
    assert int(there("sparse_products").count_nonzeros(x)) == 2
    other = np.float64 if dtype == np.float32 else np.float32
    entry = (x, x.astype(other), None, None, None, False, False, 1.0, 0.0, 0.0)
    with pytest.raises(TypeError, match="A gradient must be C-contiguous and of dtype"):
        there("optimizer_steps").fused_step(0, [entry], {}, 0.1)
