"""Bad channels by PREP, RANSAC and SSS: planted faults are found, good channels are left alone."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess import bads
from braindecode_pipe.preprocess.bads import find_noisy
from braindecode_pipe.preprocess.quality import find_bad_channels
from braindecode_pipe.preprocess.sidecars import Companions
from braindecode_pipe.preprocess.spatial import compose
from braindecode_pipe.preprocess.statistics import Statistics
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.recipe.models import MaxwellSection
from braindecode_pipe.simulate.forward import make_head, sensor_info
from braindecode_pipe.simulate.noise import draw_background, make_noise
from braindecode_pipe.simulate.settings import Settings

SFREQ = 200.0
N_EEG = 32
# What is planted where.
FLAT, CLIPPED, LOUD, COPIED, APART, NOISE = 3, 8, 13, 18, 22, 28


def _make_raw(seed, modality="eeg", seconds=60):
    settings = Settings(n_eeg=N_EEG, sfreq=SFREQ)
    head = make_head(settings, f"{seed:02d}")
    info = sensor_info(settings, modality, head)
    noise = make_noise(settings, modality, f"{seed:02d}", head, info)
    data = noise.draw(int(seconds * SFREQ), SFREQ, np.random.default_rng(seed))
    return mne.io.RawArray(data, info, verbose="error").filter(1, None, verbose="error")


@pytest.fixture(scope="module")
def good():
    return [_make_raw(seed) for seed in range(2)]


def _spoil(raw, seed):
    raw, rng = raw.copy(), np.random.default_rng(seed)
    data, level = raw._data, raw._data.std(axis=1)
    data[FLAT] = 1e-6
    data[CLIPPED] = np.clip(data[CLIPPED], -level[CLIPPED], level[CLIPPED])
    data[LOUD] *= 50
    data[COPIED] = data[COPIED - 1]
    data[APART] = level[APART] * draw_background(1, raw.n_times, SFREQ, rng)[0]
    data[NOISE] = level[NOISE] * rng.normal(size=raw.n_times)
    return raw


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_faults_are_found_by_all_methods_together(good, seed):
    raw = _spoil(good[seed], seed)
    names = raw.ch_names
    data = raw.get_data().astype(np.float32)
    statistics = Statistics(len(data), int(SFREQ), [(0, data.shape[1])])
    statistics.observe(0, data)
    simple = find_bad_channels(statistics.finish(), names, raw.get_channel_types())
    log = Log()
    found = find_noisy(raw, ["pyprep", "ransac"], 0, log)
    planted = {names[i] for i in (FLAT, CLIPPED, LOUD, COPIED, APART, NOISE)}
    # The excess of one channel is no fault of its neighbours.
    assert set(simple) | set(found) == planted
    assert found[names[FLAT]] == "flat (PREP)"
    assert "amplitude unlike" in found[names[LOUD]]
    for i in (APART, NOISE):
        assert names[i] in found and names[i] not in simple
        assert found[names[i]].endswith("not predicted by the other channels (RANSAC)")
    assert "more noise above 50 Hz" in found[names[NOISE]]
    assert not log.warnings


def test_good_channels_are_left_alone_and_the_seed_decides(good):
    n_false = 0
    for raw in good:
        first = find_noisy(raw, ["pyprep", "ransac"], 3, Log())
        n_false += len(first)
    assert n_false <= 0.05 * len(good) * N_EEG
    assert n_false == 0  # measured


def test_ransac_is_deterministic(good):
    raw = _spoil(good[0], 0).pick(list(range(16)))
    assert find_noisy(raw, ["ransac"], 5, Log()) == find_noisy(raw, ["ransac"], 5, Log())


def test_correlated_noise_without_positions(make_eeg, channel_names):
    data = make_eeg(n_times=6000)
    raw = mne.io.RawArray(data, mne.create_info(channel_names, 200.0, "eeg"), verbose="error")
    raw.info["bads"] = ["Cz"]
    log = Log()
    found = find_noisy(raw, ["pyprep", "ransac"], 0, log)
    print("false positives of 18", found)
    assert len(found) <= 0.06 * 18
    assert "RANSAC without 18 electrodes of unknown position" in log.warnings[0]
    assert log.warnings[1].startswith("no ransac: 0 good electrodes with positions")


@pytest.fixture(scope="module")
def meg():
    """306 channels (simulated): fields of the head and of far away, and a little noise."""
    raw = _make_raw(0, "meg", 5.2)
    rng = np.random.default_rng(0)
    scale = np.where(np.array(raw.get_channel_types()) == "mag", 1e-13, 3e-12)
    raw._data += 0.3 * scale[:, None] * rng.normal(size=raw._data.shape)
    return raw


def test_planted_bad_meg_channels_are_found_by_sss(meg):
    raw = meg.copy()
    rng = np.random.default_rng(1)
    planted = [30, 122, 190]
    for i in planted[:2]:
        raw._data[i] = 5 * raw._data[i].std() * rng.normal(size=raw.n_times)
    raw._data[planted[2]] = 0
    log = Log()
    found = find_noisy(raw, ["maxwell"], 0, log)
    names = [raw.ch_names[i] for i in planted]
    print(len(found), found)
    assert set(names) <= set(found) and len(set(found) - set(names)) <= 0.05 * 303
    assert found[names[2]] == "flat (SSS)"
    assert found[names[0]] == "not explained by sources in the head (SSS)"
    assert log.steps[0].startswith("bad channels by SSS")
    assert log.warnings == []
    with raw.info._unlock():
        raw.info["dig"] = None
    again = find_noisy(raw, ["maxwell"], 0, log)
    assert set(names) <= set(again)
    assert log.warnings == ["bad channels by SSS around (0.0, 0.0, 0.04) m (head frame): "
                            "no digitised head"]  # fmt: skip


def test_sss_knows_the_calibration_and_the_origin_of_the_recipe(meg, tmp_path):
    """A magnetometer of twice the gain is no bad channel where the calibration says so."""
    raw = meg.copy()
    twice = raw.ch_names[mne.pick_types(raw.info, meg="mag")[20]]
    raw._data[raw.ch_names.index(twice)] *= 2
    names = list(raw.ch_names)
    locs = [raw.info["chs"][raw.ch_names.index(name)]["loc"] for name in names]
    cals = [[0.5 if name == twice else float(name.endswith("1"))] for name in names]
    file = tmp_path / "calibration.dat"
    plain = [name.replace(" ", "") for name in names]
    calibration = {"ch_names": plain, "locs": np.array(locs), "imb_cals": cals}
    mne.preprocessing.write_fine_calibration(file, calibration)
    section = MaxwellSection(origin=(0.0, 0.0, 0.045))
    log = Log()
    assert twice in find_noisy(raw, ["maxwell"], 0, log, maxwell=section)
    assert log.warnings == [] and log.steps[0].startswith("bad channels by SSS: ")
    log = Log()
    site = Companions(calibration=file)
    assert twice not in find_noisy(raw, ["maxwell"], 0, log, maxwell=section, site=site)
    assert log.steps[0].startswith("bad channels by SSS, with calibration: ")


def test_a_stage_gives_sss_what_lies_beside_the_recording(meg, tmp_path, monkeypatch):
    seen = {}

    def find(raw, methods, seed, log, **options):
        seen.update(options)
        return {}

    monkeypatch.setattr(bads, "find_noisy", find)
    path = tmp_path / "sub-01" / "meg" / "sub-01_task-x_meg.fif"
    path.parent.mkdir(parents=True)
    cross_talk = path.with_name("sub-01_acq-crosstalk_meg.fif")
    for file in (path, cross_talk):
        file.write_bytes(b"x")
    section = EmegSection(noisy=["maxwell"], maxwell={"origin": (0.0, 0.0, 0.05)}, bads="keep")
    sensors = mne.io.RawArray(np.eye(306), meg.info, verbose="error")
    excerpts = SimpleNamespace(of=lambda *settings, **others: meg)
    compose(sensors, excerpts, section, path, tmp_path, Log())
    assert seen["site"] == Companions(cross_talk=cross_talk)
    assert seen["maxwell"].origin == (0.0, 0.0, 0.05)


def test_a_line_that_is_removed_makes_no_channel_bad(study, make_eeg):
    """One electrode with more of the line than the others: noise above 50 Hz where it stays."""
    data = make_eeg(n_times=12_000)
    data[5] += 20e-6 * np.sin(2 * np.pi * 60 * np.arange(data.shape[1]) / SFREQ)
    settings = {"noisy": ["pyprep"], "l_freq": 1.0, "bads": "keep"}
    reasons = []
    for notch in ([], [60.0]):
        _, qc = study(data, notch=notch, out=f"{len(notch)}.zarr", **settings)
        reasons.append(str(qc["bad_reason"].values[5]))
    assert "noise above 50 Hz" in reasons[0] and reasons[1] == ""


def test_what_cannot_be_looked_at_is_said(make_eeg, meg):
    raw = mne.io.RawArray(make_eeg(4, 400), mne.create_info(4, 200.0, "eeg"), verbose="error")
    log = Log()
    assert find_noisy(raw, ["maxwell", "pyprep"], 0, log) == {}
    assert log.warnings == [
        "no bad channels by SSS: no MEG channels", "no pyprep: 4 good electrodes, 12 are needed",
    ]  # fmt: skip
    log = Log()
    assert find_noisy(meg.copy().crop(0, 2), ["maxwell"], 0, log) == {}
    assert log.warnings == ["no bad channels by SSS: less than 5 s"]
    nowhere = mne.io.RawArray(
        make_eeg(12, 1200), mne.create_info(12, 200.0, "mag"), verbose="error"
    )
    with pytest.raises(DataError, match="cannot be found by SSS"):
        find_noisy(nowhere, ["maxwell"], 0, Log())


def test_a_missing_package_is_an_error(good, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyprep", None)
    with pytest.raises(RecipeError, match=r"noisy needs a package(.|\n)*pipe\[artifacts\]"):
        find_noisy(good[0], ["ransac"], 0, Log())
