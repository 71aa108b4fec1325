"""References as matrices: the same numbers as MNE's own calls on the samples."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, PositionError, RecipeError
from braindecode_pipe.preprocess.reference import apply_reference, head_sphere, shaft_neighbours
from braindecode_pipe.preprocess.sensors import info_from_json, info_to_json
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection

CONTACTS = [f"{shaft}{number}" for shaft in ("LA", "RH'") for number in range(1, 6)]


@pytest.fixture(scope="module")
def eeg_info(channel_names):
    info = mne.create_info(channel_names, 200.0, "eeg")
    info.set_montage(mne.channels.make_standard_montage("colin27_1020"))
    return info


@pytest.fixture(scope="module")
def ieeg_info():
    info = mne.create_info(CONTACTS, 200.0, "seeg")
    for i, channel in enumerate(info["chs"]):
        channel["loc"][:3] = [0.03 * (-1) ** (i // 5), 0.01, 0.0035 * (i % 5)]
    return info


@pytest.fixture
def apply():
    """``apply(info, data, bads=..., **emeg)`` -> sensors after it, matrix @ data, log."""

    def call(info, data, bads=(), **emeg):
        sensors = mne.io.RawArray(np.eye(len(info["chs"])), info.copy(), verbose="error")
        sensors.info["bads"] = list(bads)
        log = Log(bad_reason=dict.fromkeys(bads, "planted"))
        sensors = apply_reference(sensors, EmegSection(**emeg), log)
        return sensors, sensors.get_data() @ data, log

    return call


def _raw(info, data, bads=()):
    raw = mne.io.RawArray(data.copy(), info.copy(), verbose="error")
    raw.info["bads"] = list(bads)
    return raw


def test_no_reference_changes_nothing(apply, eeg_info, make_eeg):
    data = make_eeg(n_times=200)
    _, found, log = apply(eeg_info, data)
    np.testing.assert_array_equal(found, data)
    assert not log.steps


@pytest.mark.parametrize("bads", [(), ("Fp1", "Cz")])
def test_average_and_channels_equal_mne(apply, eeg_info, make_eeg, bads):
    data = make_eeg(n_times=500)
    _, found, _ = apply(eeg_info, data, bads, reference="average")
    expected = _raw(eeg_info, data, bads).set_eeg_reference("average", verbose="error")
    np.testing.assert_allclose(found, expected.get_data(), atol=1e-15)
    _, found, log = apply(
        eeg_info, data, bads, reference="channels", reference_channels=["T7", "T8"]
    )
    expected = _raw(eeg_info, data, bads).set_eeg_reference(["T7", "T8"], verbose="error")
    np.testing.assert_allclose(found, expected.get_data(), atol=1e-15)
    assert log.steps == ["reference: mean of T7, T8"]


def test_each_type_of_electrode_has_its_own_average(apply, make_eeg):
    info = mne.create_info([f"E{i}" for i in range(6)], 200.0, ["seeg"] * 4 + ["ecog"] * 2)
    data = make_eeg(6, 300)
    _, found, _ = apply(info, data, reference="average")
    np.testing.assert_allclose(found[:4], data[:4] - data[:4].mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(found[4:], data[4:] - data[4:].mean(axis=0), atol=1e-15)


def test_a_single_reference_channel_is_marked(apply, eeg_info, make_eeg):
    sensors, found, log = apply(
        eeg_info, make_eeg(n_times=200), reference="channels", reference_channels=["Cz"]
    )
    assert not found[sensors.ch_names.index("Cz")].any()
    assert sensors.info["bads"] == ["Cz"] and log.constant == {"Cz"}


@pytest.mark.parametrize("bads", [(), ("P7",)])
def test_rest_equals_mne(apply, eeg_info, make_eeg, bads):
    data = make_eeg(n_times=300)
    _, found, log = apply(eeg_info, data, bads, reference="REST")
    raw = _raw(eeg_info, data, bads)
    centre, radius = head_sphere(raw.info)
    sphere = mne.make_sphere_model(centre, radius, verbose="error")
    source = mne.setup_volume_source_space(sphere=sphere, pos=15.0, exclude=30.0, verbose="error")
    forward = mne.make_forward_solution(
        raw.info, trans=None, src=source, bem=sphere, eeg=True, meg=False, verbose="error"
    )
    raw.set_eeg_reference("REST", forward=forward, verbose="error")
    np.testing.assert_allclose(found, raw.get_data(), atol=1e-15)
    assert log.steps[0].startswith(f"REST reference over {19 - len(bads)} good electrodes")


def test_rest_comes_nearer_to_infinity_than_the_average(apply):
    """Forward-modelled dipoles against infinity, recorded against Cz (simulated)."""
    from braindecode_pipe.simulate.forward import lead_field, make_head, sensor_info
    from braindecode_pipe.simulate.settings import Settings

    settings = Settings()
    head = make_head(settings, "01")
    info = sensor_info(settings, "eeg", head)
    rng = np.random.default_rng(0)
    field = lead_field(info, head.background)
    truth = 1e-8 * field @ rng.normal(size=(field.shape[1], 200))
    recorded = truth - truth[info.ch_names.index("Cz")]
    error = {}
    for reference in ("average", "REST"):
        _, found, _ = apply(info, recorded, reference=reference)
        error[reference] = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    # Measured: 0.25 and 0.11.
    assert error["REST"] < 0.6 * error["average"]


@pytest.mark.parametrize("bads", [(), ("O1",)])
def test_scalp_laplacian_equals_mne_times_the_squared_radius(apply, eeg_info, make_eeg, bads):
    data = make_eeg(n_times=300)
    sensors, found, log = apply(eeg_info, data, bads, reference="laplacian")
    raw = _raw(eeg_info, data, bads)
    centre, radius = head_sphere(raw.info)
    good = raw.copy().pick("eeg", exclude="bads", verbose="error")
    density = mne.preprocessing.compute_current_source_density(
        good, sphere=(*centre, radius), verbose="error"
    )
    rows = [raw.ch_names.index(name) for name in good.ch_names]
    np.testing.assert_allclose(found[rows], density.get_data() * radius**2, rtol=1e-10, atol=1e-16)
    left = sorted(set(range(19)) - set(rows))
    np.testing.assert_array_equal(found[left], data[left])
    assert set(sensors.get_channel_types()) == {"eeg"}
    assert "V/m^2" in log.steps[0]
    # A constant over the head has no Laplacian.
    _, flat, _ = apply(eeg_info, np.ones((19, 3)), bads, reference="laplacian")
    assert np.abs(flat[rows]).max() < 1e-3


def test_bipolar_equals_mne_and_lies_midway(apply, ieeg_info, make_eeg):
    data = make_eeg(10, 300)
    sensors, found, log = apply(ieeg_info, data, reference="bipolar")
    pairs = [(a, c) for a, c in zip(CONTACTS, CONTACTS[1:]) if a[:-1] == c[:-1]]
    anodes, cathodes = (list(side) for side in zip(*pairs))
    expected = mne.set_bipolar_reference(_raw(ieeg_info, data), anodes, cathodes, verbose="error")
    assert sensors.ch_names == expected.ch_names == [f"{a}-{c}" for a, c in pairs]
    np.testing.assert_allclose(found, expected.get_data(), atol=1e-18)
    assert set(sensors.get_channel_types()) == {"seeg"}
    place = {ch["ch_name"]: ch["loc"][:3] for ch in ieeg_info["chs"]}
    for channel, (a, c) in zip(sensors.info["chs"], pairs):
        np.testing.assert_allclose(channel["loc"][:3], (place[a] + place[c]) / 2)
    again = info_from_json(info_to_json(sensors.info, 100.0))
    assert again.ch_names == sensors.ch_names
    assert log.steps == ["bipolar reference: 8 pairs, neighbours by name"]


def test_a_bad_contact_spoils_its_pairs_only(apply, ieeg_info, make_eeg):
    sensors, _, log = apply(ieeg_info, make_eeg(10, 100), ("LA2",), reference="bipolar")
    assert sensors.info["bads"] == ["LA1-LA2", "LA2-LA3"]
    assert log.bad_reason["LA1-LA2"] == "LA2: planted"


def test_given_pairs_and_what_is_left_out(apply, ieeg_info, make_eeg):
    data = make_eeg(10, 100)
    pairs = [["LA1", "LA3"], ["RH'5", "RH'1"], ["LA1", "X9"]]
    sensors, found, log = apply(ieeg_info, data, reference="bipolar", bipolar_pairs=pairs)
    assert sensors.ch_names == ["LA1-LA3", "RH'5-RH'1"]
    np.testing.assert_allclose(found, [data[0] - data[2], data[9] - data[5]], atol=1e-18)
    assert any("without X9" in text for text in log.warnings)
    assert any("in no bipolar pair: LA2, LA4" in text for text in log.warnings)


def test_neighbours_by_name():
    names = ["POL B3-Ref", "POL B4-Ref", "A'09", "A'10", "A'12", "G8", "G9", "G7", "Cz", "B5"]
    types = ["seeg"] * 5 + ["ecog"] * 3 + ["eeg", "seeg"]
    nowhere = np.full((10, 3), np.nan)
    found = {(names[i], names[j]) for i, j in shaft_neighbours(names, types, nowhere)}
    assert found == {("POL B3-Ref", "POL B4-Ref"), ("A'09", "A'10"), ("G7", "G8"), ("G8", "G9")}


def test_the_rows_of_a_grid_are_not_joined():
    names = [f"G{i}" for i in range(1, 65)]
    place = 0.01 * np.array([[(i % 8), (i // 8), 0] for i in range(64)])
    pairs = shaft_neighbours(names, ["ecog"] * 64, place)
    assert len(pairs) == 56
    assert all(np.isclose(np.linalg.norm(place[i] - place[j]), 0.01) for i, j in pairs)


def test_shaft_laplacian_against_a_loop(apply, ieeg_info, make_eeg):
    data = make_eeg(10, 100)
    sensors, found, log = apply(ieeg_info, data, ("LA2",), reference="laplacian")
    rows = {name: i for i, name in enumerate(CONTACTS)}
    for name, i in rows.items():
        near = [f"{name[:-1]}{int(name[-1]) + step}" for step in (-1, 1)]
        near = [rows[other] for other in near if other in rows and other != "LA2"]
        expected = data[i] - np.mean([data[j] for j in near], axis=0) if near else data[i]
        np.testing.assert_allclose(found[i], expected, atol=1e-18)
    assert sensors.info["bads"] == ["LA2", "LA1"]
    assert log.bad_reason["LA1"] == "no good neighbour on its shaft"
    assert sensors.ch_names == CONTACTS


def test_projections_that_were_not_asked_for_are_left_out(apply, eeg_info, make_eeg):
    info = eeg_info.copy()
    with info._unlock():
        data = {
            "col_names": info.ch_names, "row_names": None, "data": np.ones((1, 19)), "ncol": 19,
            "nrow": 1,
        }  # fmt: skip
        info["projs"] = [mne.Projection(active=False, data=data, desc="blink")]
    sensors, _, log = apply(info, make_eeg(n_times=100), reference="average")
    assert not sensors.info["projs"]
    assert log.steps[0] == "left out, not applied before the reference: blink"


def test_no_electrodes_is_said(apply, make_eeg):
    info = mne.create_info(["M1", "M2"], 100.0, "mag")
    _, _, log = apply(info, make_eeg(2, 100), reference="REST")
    assert log.warnings == ["no REST reference: no electrodes"]


def test_errors_say_what_is_missing(apply, eeg_info, ieeg_info, make_eeg, channel_names):
    data = make_eeg(n_times=100)
    nowhere = mne.create_info(channel_names, 200.0, "eeg")
    for reference in ("REST", "laplacian"):
        with pytest.raises(PositionError, match="needs the positions(.|\n)*19 without: Fp1"):
            apply(nowhere, data, reference=reference)
    with pytest.raises(DataError, match="no bipolar pairs(.|\n)*bipolar_pairs"):
        apply(eeg_info, data, reference="bipolar")
    with pytest.raises(RecipeError, match="not among the picked electrodes(.|\n)*without M1"):
        apply(eeg_info, data, reference="channels", reference_channels=["M1"])
    with pytest.raises(RecipeError, match="no reference channels"):
        apply(eeg_info, data, reference="channels")
    for pairs in ([["LA1"]], [["LA1", "LA1"]], [["LA1", "LA2"]] * 2):
        with pytest.raises(RecipeError, match="different pairs of two channels"):
            apply(ieeg_info, make_eeg(10, 9), reference="bipolar", bipolar_pairs=pairs)
    with pytest.raises(RecipeError, match="pairs are not there(.|\n)*X1"):
        apply(ieeg_info, make_eeg(10, 9), reference="bipolar", bipolar_pairs=[["X1", "LA1"]])
    alone = mne.create_info(["A1", "B1"], 200.0, "seeg")
    with pytest.raises(DataError, match="no contact has a good neighbour"):
        apply(alone, make_eeg(2, 9), reference="laplacian")
