"""Learning shared atoms on a cluster: as on one machine."""

import numpy as np
import pytest

from sparseshare import ConvDictionaryLearning
from sparseshare.convolution.replacement import WorstCoded
from sparseshare.distributed import DaskConvDictionaryLearning

da = pytest.importorskip("dask.array")


def in_blocks(X, rows=2):
    return da.from_array(X, chunks=(rows, *(-1 for _ in X.shape[1:])))


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ((8, 60), dict(atom_shape=6, boundary="valid")),
        ((8, 12, 13), dict(atom_shape=(4, 4), alpha_relative=True, alpha=0.3)),
        ((8, 12, 10, 2), dict(atom_shape=(3, 3), rank1=True)),
        ((8, 12, 10, 2), dict(atom_shape=(3, 3), channels=False, joint=0.5)),
        ((8, 120), dict(atom_shape=(3, 3), image_shape=(12, 10))),
    ],
    ids=["1-D", "relative", "rank 1", "separate", "rows"],
)
def test_synchronous_is_the_online_learner(client, rng, shape, parameters):
    """Rounds of two blocks of two signals are batches of 4."""
    X = rng.standard_normal(shape)
    parameters = dict(n_components=3, alpha=1.0, max_iter=2, tol=0, shuffle=False, random_state=0) | parameters
    expected = ConvDictionaryLearning(method="online", batch_size=4, **parameters).fit(X)
    found = DaskConvDictionaryLearning(blocks_per_update=2, **parameters).fit(in_blocks(X))
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-8)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    for name in ("alpha_", "n_axes_", "n_channels_", "signal_shape_", "n_steps_", "n_iter_"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    signals = in_blocks(X, 5)
    np.testing.assert_allclose(found.encode(signals).compute(), found.encode(X))
    rows = found.transform(X)
    np.testing.assert_allclose(found.transform(signals).compute(), rows)
    for use, expected in ((found.encode, found.encode(X)), (found.transform, rows)):
        np.testing.assert_array_equal(use(X, out=np.zeros(expected.shape)), expected)
        with pytest.raises(ValueError, match="out does not go with a Dask array: .* its to_zarr"):
            use(signals, out=np.zeros(expected.shape))
    with pytest.raises(ValueError, match="mask does not go with a Dask array"):
        found.encode(signals, mask=np.zeros(shape, bool))
    assert found.score(signals) == pytest.approx(found.score(X))


def test_dead_atoms_leave_as_on_one_machine(client, rng):
    """Batches of one block: an atom that goes unused for ten of them gets the place of the worst coded patch."""
    X = rng.standard_normal((12, 50)).astype(np.float32)
    start = np.zeros((3, 5), np.float32)
    start[:2] = rng.standard_normal((2, 5))
    parameters = dict(dict_init=start, n_components=3, alpha=0.8, max_iter=2, tol=0, shuffle=False, atom_shape=5)
    expected = ConvDictionaryLearning(method="online", batch_size=2, **parameters).fit(X)
    found = DaskConvDictionaryLearning(blocks_per_update=2, **parameters).fit(in_blocks(X, 1))
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-4)
    assert (np.abs(found.components_).max(axis=1) > 0).all()


def test_asynchronous_partial_and_warm(client, rng):
    X = in_blocks(rng.standard_normal((8, 60)))
    parameters = dict(n_components=3, atom_shape=6, alpha=1.0, tol=0, random_state=0)
    found = DaskConvDictionaryLearning(mode="asynchronous", max_iter=3, max_staleness=1, **parameters).fit(X)
    assert found.n_steps_ == 12 and found.loss_curve_[-1] < found.loss_curve_[0]
    assert found.set_params(max_iter=1, warm_start=True).fit(X).n_steps_ == 16
    assert found.partial_fit(X).n_steps_ == 17 and len(found.loss_curve_) == 2


def test_too_large_a_penalty_is_told(client, rng):
    with pytest.warns(UserWarning, match="all codes are zero"):
        DaskConvDictionaryLearning(2, 5, alpha=1e4, max_iter=1).fit(in_blocks(rng.standard_normal((4, 30))))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [(dict(mode="sync"), "'mode' parameter"), (dict(solver="omp"), "'solver' parameter"), (dict(tol=-1), "'tol'")],
)
def test_wrong_parameters(rng, parameters, message):
    with pytest.raises(ValueError, match=message):
        DaskConvDictionaryLearning(2, 5, **parameters).fit(in_blocks(rng.standard_normal((4, 30))))


def test_wrong_signals(client, rng):
    X = rng.standard_normal((6, 30))
    with pytest.raises(TypeError, match="Dask array, got ndarray"):
        DaskConvDictionaryLearning(2, 5).fit(X)
    with pytest.raises(ValueError, match="atoms of shape .* are larger"):
        DaskConvDictionaryLearning(2, 40).fit(in_blocks(X))
    X[5, 3] = np.nan
    with pytest.raises(ValueError, match="block 2 of X, rows 4 to 5: .*NaN"):
        DaskConvDictionaryLearning(2, 5, dict_init="gaussian").fit(in_blocks(X))


def test_the_worst_patches_of_parts_are_those_of_all(rng):
    residuals = rng.standard_normal((6, 1, 1, 30))
    residuals[4] = residuals[1]  # equal ones: the first counts
    whole, parts = WorstCoded((4,), 5), [WorstCoded((4,), 5) for _ in range(2)]
    for number, residual in enumerate(residuals):
        for worst in (whole, parts[number // 3]):
            worst.look_at(residual, 1.0)
    np.testing.assert_array_equal(parts[0].merge(parts[1]).patches, whole.patches)
