"""phi and psi against their definition, the squared error they stand for, and sums of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.statistics import ConvStatistics, complete


def draw(rng, geometry, n_signals=1, n_components=3, n_channels=1, density=0.3, dtype=np.float64):
    """A signal, atoms and maps with some zeros."""
    signal = rng.standard_normal((n_signals, n_channels, *geometry.signal_shape)).astype(dtype)
    atoms = rng.standard_normal((n_components, n_channels, *geometry.support)).astype(dtype)
    maps = rng.standard_normal((n_signals, n_components, *geometry.positions)).astype(dtype)
    return signal, atoms, np.where(rng.random(maps.shape) < density, maps, 0).astype(dtype)


def plain_phi(maps, support, circular):
    """phi[k, k', tau] = sum_u z_k[u] z_k'[u + tau], as it is written."""
    positions, n_components = maps.shape[2:], maps.shape[1]
    phi = np.zeros((n_components, n_components, *(2 * length - 1 for length in support)))
    for offset in product(*(range(1 - length, length) for length in support)):
        at = (slice(None), slice(None), *(t + length - 1 for t, length in zip(offset, support, strict=True)))
        for u in np.ndindex(*positions):
            v = tuple(a + b for a, b in zip(u, offset, strict=True))
            if circular:
                v = tuple(a % n for a, n in zip(v, positions, strict=True))
            elif any(a < 0 or a >= n for a, n in zip(v, positions, strict=True)):
                continue
            phi[at] += np.einsum("jk,jl->kl", maps[(..., *u)], maps[(..., *v)])
    return phi


def plain_psi(signal, maps, support):
    """psi[k, c, l] = sum_u z_k[u] x_c[u + l], as it is written."""
    psi = np.zeros((maps.shape[1], signal.shape[1], *support))
    for at in np.ndindex(*support):
        for u in np.ndindex(*maps.shape[2:]):
            pixel = tuple((a + b) % n for a, b, n in zip(u, at, signal.shape[2:], strict=True))
            psi[(..., *at)] += np.einsum("jk,jc->kc", maps[(..., *u)], signal[(..., *pixel)])
    return psi


GEOMETRIES = [
    Geometry((17,), (5,), "circular"),
    Geometry((17,), (5,), "full"),
    Geometry((6,), (5,), "circular"),  # offsets that mean the same position
    Geometry((5,), (5,), "circular"),
    Geometry((5,), (5,), "full"),
    Geometry((9, 8), (3, 4), "circular"),
    Geometry((9, 8), (3, 4), "full"),
    Geometry((4, 5), (3, 4), "circular"),
    Geometry((5, 6, 4), (2, 3, 2), "circular"),
    Geometry((5, 6, 4), (2, 3, 2), "full"),
    Geometry((7, 7), (1, 1), "full"),
]


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_sums_are_those_of_the_definition(geometry, density, rng, monkeypatch):
    signal, atoms, maps = draw(rng, geometry, n_signals=2, n_channels=2, density=density)
    phi, psi = plain_phi(maps, geometry.support, geometry.boundary == "circular"), plain_psi(
        signal, maps, geometry.support
    )  # fmt: skip
    for dense in (False, True):
        monkeypatch.setattr(ConvStatistics, "_is_dense", lambda *_, answer=dense: answer)
        found = ConvStatistics.zeros(3, 2, geometry.support).add(signal, maps, geometry.boundary)
        np.testing.assert_allclose(found.phi, phi, atol=1e-10)
        np.testing.assert_allclose(found.psi, psi, atol=1e-10)
        np.testing.assert_array_equal(found.usage, (maps != 0).sum(axis=(0, *range(2, maps.ndim))))
        assert found.energy == pytest.approx(0.5 * (signal**2).sum())


@st.composite
def geometries(draw_one):
    n_axes = draw_one(st.integers(1, 3))
    support = tuple(draw_one(st.integers(1, 4)) for _ in range(n_axes))
    shape = tuple(length + draw_one(st.integers(0, 6)) for length in support)
    return Geometry(shape, support, draw_one(st.sampled_from(["circular", "full", "valid"])))


@given(geometry=geometries(), n_channels=st.integers(1, 3), n_signals=st.integers(1, 2), seed=st.integers(0, 99))
def test_they_stand_for_the_squared_error(geometry, n_channels, n_signals, seed):
    """At the present atoms exactly, masks and atoms that stick out included; for other atoms never below it."""
    rng = np.random.default_rng(seed)
    signal, atoms, maps = draw(rng, geometry, n_signals=n_signals, n_channels=n_channels)
    mask = rng.random(signal.shape) * (rng.random(signal.shape) < 0.7) if seed % 2 else None
    here = Convolution(atoms, geometry)
    completed, boundary, weight, constant = complete(signal, maps, here, mask)
    statistics = ConvStatistics.zeros(3, n_channels, geometry.support)
    statistics.add(completed, maps, boundary, weight=weight, constant=constant)

    def error(atoms):
        residual = signal - Convolution(atoms, geometry).synthesize(maps)
        return 0.5 * float(((residual if mask is None else mask * residual) ** 2).sum())

    def surrogate(atoms):
        together = Convolution(atoms, Geometry(completed.shape[2:], geometry.support, boundary))
        fit = statistics.psi.ravel() @ atoms.ravel()
        made = together.synthesize(maps).ravel()
        return statistics.energy - fit + 0.5 * weight * float(made @ made)

    scale = 1 + error(atoms)
    assert surrogate(atoms) == pytest.approx(error(atoms), abs=1e-9 * scale)
    other = atoms + rng.standard_normal(atoms.shape)
    assert surrogate(other) >= error(other) - 1e-9 * (scale + error(other))
    if mask is None and geometry.boundary != "valid":
        assert surrogate(other) == pytest.approx(error(other), abs=1e-9 * (scale + error(other)))


def test_they_add_up_and_forget(rng):
    geometry = Geometry((12, 10), (3, 3), "full")
    parts = [draw(rng, geometry, n_channels=2) for _ in range(3)]

    def of(*chosen, **options):
        total = ConvStatistics.zeros(3, 2, (3, 3))
        for signal, _, maps in chosen:
            total.add(signal, maps, "full", **options)
        return total

    whole, sums = of(*parts), of(parts[0]) + of(*parts[1:])
    sums_in_place = of(parts[0])
    sums_in_place += of(*parts[1:])
    forgotten = of(parts[0]).forget(0.5)
    for name in vars(whole):
        np.testing.assert_allclose(getattr(sums, name), getattr(whole, name))
        np.testing.assert_allclose(getattr(sums_in_place, name), getattr(whole, name))
        if name != "usage":
            np.testing.assert_allclose(getattr(forgotten, name), getattr(of(parts[0], weight=0.5), name))


def test_any_number_of_threads_gives_the_same_bits(rng, monkeypatch):
    geometry = Geometry((20, 20), (4, 4), "circular")
    signal, _, maps = draw(rng, geometry, n_components=9)
    for dense in (False, True):
        monkeypatch.setattr(ConvStatistics, "_is_dense", lambda *_, answer=dense: answer)
        one, two = (
            ConvStatistics.zeros(9, 1, (4, 4)).add(signal, maps, "circular", n_threads=threads) for threads in (1, 2)
        )
        np.testing.assert_array_equal(one.half, two.half)
        np.testing.assert_array_equal(one.psi, two.psi)


def test_float32_is_summed_in_float64(rng):
    geometry = Geometry((30,), (4,), "full")
    signal, _, maps = draw(rng, geometry, dtype=np.float32)
    found = ConvStatistics.zeros(3, 1, (4,)).add(signal, maps, "full")
    exact = ConvStatistics.zeros(3, 1, (4,)).add(signal.astype(float), maps.astype(float), "full")
    np.testing.assert_allclose(found.half, exact.half, rtol=1e-14)
    np.testing.assert_allclose(found.psi, exact.psi, rtol=1e-14)


def test_memory_does_not_depend_on_the_signals(rng):
    small, large = (
        ConvStatistics.zeros(3, 1, (4,)).add(*draw(rng, Geometry((n,), (4,), "full"))[::2], "full") for n in (9, 900)
    )
    assert small.half.nbytes == large.half.nbytes and small.psi.nbytes == large.psi.nbytes


def test_atoms_that_stick_out_ask_for_a_completed_signal(rng):
    signal, _, maps = draw(rng, Geometry((9,), (4,), "valid"))
    with pytest.raises(ValueError, match="complete the signal first"):
        ConvStatistics.zeros(3, 1, (4,)).add(signal, maps, "valid")


def test_a_dropped_atom_leaves_nothing(rng):
    geometry = Geometry((12,), (3,), "full")
    signal, _, maps = draw(rng, geometry)
    found = ConvStatistics.zeros(3, 1, (3,)).add(signal, maps, "full")
    found.drop(1)
    maps[:, 1] = 0
    without = ConvStatistics.zeros(3, 1, (3,)).add(signal, maps, "full")
    np.testing.assert_allclose(found.half, without.half)
    np.testing.assert_allclose(found.psi, without.psi)
