"""Files without pickle give back what was saved, and nothing but known classes."""

import json

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_digits

from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    DeepSparseRegressor,
    Dense,
    Dropout,
    MaxPool,
    circulant,
    cluster,
    clustered,
    hashed,
    load,
    prune,
    quantize,
    save,
    shared,
    tied,
    toeplitz,
)
from sparseshare.network.attention import Attention
from sparseshare.network.recurrent import LSTM, Recurrent

X, Y = (array[:300] for array in load_digits(return_X_y=True))
X = X / 16


def fitted(layers, X=X, y=Y, **options):
    return DeepSparseClassifier(layers, max_iter=2, n_iter_no_change=None, random_state=0, **options).fit(X, y)


NETWORKS = {
    "default": lambda: fitted(None),
    "float32": lambda: fitted([Dense(8)], X.astype(np.float32)),
    "images": lambda: fitted([Conv(3, 3, share=hashed(1 / 2)), MaxPool(2), Dense(4)], X.reshape(-1, 8, 8)),
    "rows as images": lambda: fitted([Conv(3, 3), MaxPool(2)], image_shape=(8, 8)),
    "sequences": lambda: fitted([LSTM(4, return_sequences=True), Recurrent(4)], X.reshape(-1, 8, 8)),
    "attention": lambda: fitted([Attention(4)], X.reshape(-1, 8, 8)),
    "rules": lambda: fitted(
        [
            Dropout(0.1),
            Dense(36 * 2, share=toeplitz((8, 8, 1), 3)),
            Dense(72, share=circulant()),
            Dense(9, share=shared(np.arange(72 * 9).reshape(72, 9) % 40 - 1)),
            Dense(9, share=tied("a", hashed(20))),
            Dense(9, share=tied("a", hashed(20))),
        ]
    ),
    "thresholds": lambda: fitted(
        [Dense(8, activation="soft", threshold="learned"), Dense(6, activation="hard", density=0.5)]
    ),
    "clustered": lambda: fitted([Dense(8)], share=clustered(5)),
    "pruned": lambda: prune(fitted([Dense(20)]), 0.2),
    "pruned and quantised": lambda: quantize(prune(fitted([Conv(3, 3)], X.reshape(-1, 8, 8)), 0.5), 3),
    "hashed, clustered": lambda: cluster(fitted([Dense(20)], share=hashed(1 / 4)), 7),
    "labels": lambda: fitted(
        [Dense(8)], y=np.array(["even", "odd"], object)[Y % 2], class_weight={"even": 2.0, "odd": 1.0}
    ),
    "stopped": lambda: fitted([Dense(8)], early_stopping=True),
    "regression": lambda: DeepSparseRegressor([Dense(8)], max_iter=2, n_iter_no_change=None).fit(X, Y),
    "outputs": lambda: DeepSparseRegressor([Dense(8)], max_iter=2, n_iter_no_change=None).fit(X, X[:, :3]),
}  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    made = {}
    return lambda name: made.setdefault(name, NETWORKS[name]()) if name not in made else made[name]


def samples_for(network):
    return X if hasattr(network, "n_features_in_") else X.reshape(-1, 8, 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_files_give_back_the_estimator(networks, name, tmp_path):
    network, path = networks(name), tmp_path / "network.npz"
    save(network, path)
    same = load(path)
    samples = samples_for(network)
    assert type(same) is type(network) and repr(same) == repr(network)
    np.testing.assert_array_equal(same.predict(samples), network.predict(samples))
    np.testing.assert_array_equal(same.transform(samples), network.transform(samples))
    np.testing.assert_array_equal(same.densities_, network.densities_)
    assert same.loss_curve_ == network.loss_curve_ and same.n_iter_ == network.n_iter_
    assert str(same.parameter_report()) == str(network.parameter_report())


@pytest.mark.parametrize("name", ["pruned and quantised", "clustered", "outputs", "labels"])
def test_what_was_loaded_can_go_on(networks, name, tmp_path):
    network = networks(name)
    save(network, tmp_path / "network.npz")
    same = load(tmp_path / "network.npz").set_params(warm_start=True)
    y = X[:, :3] if name == "outputs" else np.array(["even", "odd"])[Y % 2] if name == "labels" else Y
    stored = [p.values.size for p in same.network_.parameters]
    assert np.isfinite(same.fit(samples_for(network), y).loss_curve_).all()
    assert [p.values.size for p in same.network_.parameters] == stored


@pytest.mark.parametrize("name", NETWORKS)
def test_skops_gives_back_the_estimator(networks, name):
    network = networks(name)
    text = skops.io.dumps(network)
    unknown = skops.io.get_untrusted_types(data=text)
    assert all(kind.startswith("sparseshare.") for kind in unknown)
    samples = samples_for(network)
    np.testing.assert_array_equal(skops.io.loads(text, trusted=unknown).predict(samples), network.predict(samples))


def test_small_networks_make_small_files(networks, tmp_path):
    network = fitted([Dense(2000)], share=hashed(1 / 64))
    save(network, tmp_path / "network.npz")
    assert (tmp_path / "network.npz").stat().st_size < 1.2 * 8 * (network.parameter_report().total.stored) + 4000


def test_what_cannot_be_stored_is_named(tmp_path):
    network = fitted([Dense(3)], schedule=lambda epoch, max_iter: 1.0)
    with pytest.raises(ValueError, match="'schedule' cannot be stored"):
        save(network, tmp_path / "network.npz")
    with pytest.raises(ValueError, match="'random_state' cannot be stored"):
        save(network.set_params(schedule="constant", random_state=np.random.RandomState(0)), tmp_path / "network.npz")
    with pytest.raises(ValueError, match="save is for a fitted DeepSparseClassifier"):
        save(DeepSparseClassifier(), tmp_path / "network.npz")


def altered(path, change):
    """Write the file again with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, arrays: header.update(format=99), "has format 99"),
        (lambda header, arrays: header.update(estimator="Popen"), "asks for 'Popen', which is not one of Deep"),
        (lambda header, arrays: header["parameters"].update(layers=[{"part": "system", "parameters": {}}]), "'system'"),
        (lambda header, arrays: header["fitted"].update(fit=1), "unknown attribute 'fit'"),
        (lambda header, arrays: header["weights"].pop(), "holds 3 parameters, its layers have 4"),
        (lambda header, arrays: arrays.update({key: a[..., :2] for key, a in arrays.items()}), "its layers have"),
        (lambda header, arrays: header.pop("format"), "is no file that sparseshare.network.save has written"),
    ],
)  # fmt: skip
def test_files_that_were_tampered_with(networks, tmp_path, change, message):
    path = tmp_path / "network.npz"
    save(fitted([Dense(8)]), path)
    altered(path, change)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_other_files(tmp_path):
    path = tmp_path / "network.npz"
    with pytest.raises(FileNotFoundError):
        load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match="is no file that sparseshare.network.save has written"):
        load(path)
    np.savez(path, header=np.array([{"format": 1}], dtype=object))
    with pytest.raises(ValueError, match="is no file that sparseshare.network.save has written"):
        load(path)
