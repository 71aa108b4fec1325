"""Maxwell filter in blocks: the same samples as MNE in one go; head movement from coils."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import maxwell
from braindecode_pipe.preprocess.maxwell import MaxwellSource, head_positions, head_variables
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import MaxwellSection

SFREQ = 50.0
ORIGIN = (0.0, 0.0, 0.04)
# As many terms as a third of the helmet can tell apart.
ORDERS = {"int_order": 5, "ext_order": 2}


def some_places(info):
    """Positions of the channels of every third place in a helmet of 102: both kinds of coil."""
    meg = mne.pick_types(info, meg=True, exclude=())
    return meg[np.arange(len(meg)) // 3 % 3 == 0]


def section_of(**settings):
    return MaxwellSection(**ORDERS, origin=ORIGIN, **settings)


def in_one_go(raw, **settings):
    return mne.preprocessing.maxwell_filter(
        raw.copy(), origin=ORIGIN, **ORDERS, verbose="error", **settings
    ).pick(raw.ch_names)


class _Memory:
    """A recording in memory; counts what is read."""

    def __init__(self, raw, breaks=()):
        self.info, self.n_times, self.breaks = raw.info, raw.n_times, list(breaks)
        self._data, self.longest = raw.get_data(), 0

    def read(self, start, stop):
        self.longest = max(self.longest, stop - start)
        return self._data[:, start:stop]


@pytest.fixture(scope="module")
def info(shared_data):
    """102 channels and a digitised head of a real helmet, one channel marked as bad."""
    path = shared_data / "formats/mne-io/tests/data/test-ave.fif.gz"
    info = mne.io.read_info(path, verbose="error")
    info = mne.pick_info(info, some_places(info))
    info["bads"] = [info.ch_names[10]]
    with info._unlock():
        info["sfreq"], info["projs"], info["lowpass"] = SFREQ, [], SFREQ / 2
    return info


@pytest.fixture(scope="module")
def raw(info):
    """17.3 s (simulated): a source in the head, interference nearby and far away, noise."""
    rng = np.random.default_rng(0)
    n_times = int(17.3 * SFREQ)
    scale = np.where(np.array(info.get_channel_types()) == "mag", 1e-13, 2e-12)[:, None]
    time = np.arange(n_times) / SFREQ
    data = scale * rng.normal(size=(len(scale), n_times))
    orientation = np.array([ch["loc"][9:12] for ch in info["chs"]])
    magnetometer = np.array(info.get_channel_types()) == "mag"
    field = orientation @ rng.normal(size=3) * magnetometer
    data += 1e-11 * field[:, None] * np.sin(2 * np.pi * 0.7 * time)
    data[40] += 5e-11 * np.sign(np.sin(2 * np.pi * 1.3 * time))
    return mne.io.RawArray(data, info, verbose="error")


def _assert_equal(found, expected):
    scale = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-7)


@pytest.mark.parametrize("breaks", [[], [(400, 430)]], ids=["whole", "break"])
def test_tsss_in_blocks_equals_mne_in_one_go(raw, breaks, monkeypatch):
    monkeypatch.setattr(maxwell, "_MOST_HOPS", 2)
    log = Log()
    source = _Memory(raw, breaks)
    filtered = MaxwellSource(source, section_of(st_duration_s=2.0), log)
    whole = raw.copy()
    whole.set_annotations(
        mne.Annotations([a / SFREQ for a, _ in breaks], [(b - a) / SFREQ for a, b in breaks],
                        ["BAD_ACQ_SKIP"] * len(breaks))
    )  # fmt: skip
    expected = in_one_go(whole, st_duration=2.0)
    blocks = list(filtered.blocks())
    assert len(blocks) > 5
    _assert_equal(np.concatenate([part for _, part in blocks], axis=1), expected.get_data())
    # Two half windows of 1 s with one more on both sides, or up to two for the last.
    assert source.longest < 6 * 50
    _assert_equal(filtered.read(333, 471), expected.get_data(start=333, stop=471))
    assert filtered.info["bads"] == [] and filtered.info.ch_names == raw.ch_names
    assert f"repaired {raw.ch_names[10]}" in log.steps[0]
    assert log.warnings == ["Maxwell filter without fine calibration and cross-talk"]


def test_sss_is_a_matrix_and_removes_what_is_far_away(raw):
    filtered = MaxwellSource(_Memory(raw), section_of(st_duration_s=None), Log())
    expected = in_one_go(raw)
    found = filtered.read(0, raw.n_times)
    _assert_equal(found, expected.get_data())
    mags = mne.pick_types(raw.info, meg="mag", exclude="bads")
    power = [np.abs(np.fft.rfft(x[mags], axis=1)) ** 2 for x in (raw.get_data(), found)]
    at = round(0.7 * raw.n_times / SFREQ)
    left = power[1][:, at].sum() / power[0][:, at].sum()
    assert left < 1e-3  # measured: 3e-6


def test_movement_in_blocks_equals_mne_in_one_go(raw, monkeypatch):
    monkeypatch.setattr(maxwell, "_MOST_HOPS", 3)
    raw = raw.copy().crop(0, 9)
    trans = raw.info["dev_head_t"]["trans"]
    times = np.array([0.0, 2.5, 4.5, 7.0])
    position = np.zeros((4, 10))
    position[:, 0] = times
    position[:, 1:4] = mne.transforms.rot_to_quat(trans[:3, :3])
    position[:, 4:7] = trans[:3, 3] + 0.004 * np.arange(4)[:, None] * [1, 0, 0.5]
    section = section_of(st_duration_s=2.0, movement="chpi")
    filtered = MaxwellSource(_Memory(raw), section, Log(), head_pos=position)
    expected = in_one_go(raw, st_duration=2.0, head_pos=position)
    found = np.concatenate([part for _, part in filtered.blocks()], axis=1)
    _assert_equal(found, expected.get_data())


def test_a_window_of_an_odd_number_of_samples_is_rounded_to_an_even_one(raw, monkeypatch):
    monkeypatch.setattr(maxwell, "_MOST_HOPS", 1)
    raw = raw.copy().crop(0, 6)
    filtered = MaxwellSource(_Memory(raw), section_of(st_duration_s=2.02), Log())
    expected = in_one_go(raw, st_duration=2.0)
    found = np.concatenate([part for _, part in filtered.blocks()], axis=1)
    _assert_equal(found, expected.get_data())


def test_stretches_shorter_than_a_window(raw):
    log = Log()
    raw = raw.copy().crop(0, 5)
    filtered = MaxwellSource(_Memory(raw, [(200, 210)]), section_of(st_duration_s=3.0), log)
    found = np.concatenate([part for _, part in filtered.blocks()], axis=1)
    plain = in_one_go(raw)
    _assert_equal(found[:, 210:], plain.get_data()[:, 210:])
    np.testing.assert_array_equal(found[:, 200:210], raw.get_data()[:, 200:210])
    assert any("1 stretches shorter than 3 s" in text for text in log.warnings)


def test_errors_of_the_maxwell_filter(raw, info, make_eeg):
    section = MaxwellSection()
    eeg = mne.io.RawArray(make_eeg(3, 400), mne.create_info(3, 100.0, "eeg"), verbose="error")
    with pytest.raises(DataError, match="no MEG channels in the frame of the device"):
        MaxwellSource(_Memory(eeg), section, Log())
    bare = raw.copy().crop(0, 1)
    with bare.info._unlock():
        bare.info["dig"] = None
    with pytest.raises(DataError, match=r"no digitised head(.|\n)*origin, for instance \[0, 0"):
        MaxwellSource(_Memory(bare), section, Log())
    with bare.info._unlock():
        bare.info["dev_head_t"] = None
    with pytest.raises(DataError, match='place of the head(.|\n)*coord_frame = "meg"'):
        MaxwellSource(_Memory(bare), section, Log())
    with pytest.raises(DataError, match="movement needs the head frame"):
        MaxwellSource(_Memory(bare), MaxwellSection(coord_frame="meg", movement="chpi"), Log())
    with pytest.raises(DataError, match='no continuous head position(.|\n)*movement = "none"'):
        head_positions(raw, Log())


# -- head movement


@pytest.fixture(scope="module")
def moving(shared_data):
    """4 s (simulated) with four HPI coils on a head that is moved by 5 mm after 2 s."""
    path = shared_data / "formats/mne-io/tests/data/test-ave.fif.gz"
    info = mne.io.read_info(path, verbose="error")
    stim = mne.pick_types(info, meg=False, stim=True)[:1]
    info = mne.pick_info(info, np.sort(np.r_[some_places(info), stim]))
    sfreq = 600.0
    with info._unlock():
        info["sfreq"], info["projs"], info["lowpass"], info["bads"] = sfreq, [], 290.0, []
        coils = info["hpi_meas"][-1]["hpi_coils"]
        for coil, freq in zip(coils, (83.0, 143.0, 203.0, 263.0)):
            coil["coil_freq"] = freq
        stim = info.ch_names[mne.pick_types(info, meg=False, stim=True)[0]]
        info["hpi_subsystem"] = {
            "event_channel": stim,
            "hpi_coils": [{"event_bits": np.array([256 * 2**i])} for i in range(len(coils))],
        }
    rng = np.random.default_rng(0)
    types = np.array(info.get_channel_types())
    scale = np.select([types == "mag", types == "grad"], [3e-14, 1e-12], 0.0)
    data = scale[:, None] * rng.normal(size=(len(types), int(4 * sfreq)))
    raw = mne.io.RawArray(data, info, first_samp=1200, verbose="error")
    trans = info["dev_head_t"]["trans"]
    position = np.zeros((2, 10))
    position[:, 0] = [2.0, 4.0]
    position[:, 1:4] = mne.transforms.rot_to_quat(trans[:3, :3])
    position[:, 4:7] = trans[:3, 3] + np.array([[0, 0, 0], [0.003, 0.004, 0]])
    mne.simulation.add_chpi(raw, head_pos=position, interp="zero", verbose="error")
    return raw, position


def test_planted_head_movement_is_found(moving):
    raw, planted = moving
    log = Log()
    found = head_positions(raw, log)
    assert found[0, 0] < 0.6 and 2.9 < found[-1, 0] < 4.0
    error = []
    for rows, truth in ((found[:, 0] < 1.8, planted[0]), (found[:, 0] > 2.2, planted[1])):
        error.append(np.linalg.norm(found[rows, 4:7] - truth[4:7], axis=1).max())

    assert max(error) < 1e-4  # m; measured: 4e-6
    assert "head positions from cHPI" in log.steps[0]
    variables = head_variables(found)
    place = variables["head_position"][1]
    assert variables["head_position"][0] == ("head_time", "head_axis") and place.shape[1] == 6
    np.testing.assert_allclose(place[:, :3], found[:, 4:7])
    np.testing.assert_array_equal(variables["head_time"][1], found[:, 0])
    moved = np.linalg.norm(place[-1, :3] - place[0, :3])
    assert moved == pytest.approx(0.005, abs=5e-4)
    # Rotation vectors are those of the quaternions.
    from scipy.spatial.transform import Rotation

    real = np.sqrt(1 - (found[:, 1:4] ** 2).sum(axis=1))
    expected = Rotation.from_quat(np.column_stack([found[:, 1:4], real])).as_rotvec()
    np.testing.assert_allclose(place[:, 3:], expected, atol=1e-10)


def test_coils_that_are_off_give_no_position(moving):
    raw = moving[0].copy().crop(0, 0.5)
    meg, rng = mne.pick_types(raw.info, meg=True), np.random.default_rng(0)
    raw._data[meg] = 1e-13 * rng.normal(size=(len(meg), raw.n_times))
    with pytest.raises(DataError, match="no head position could be fitted"):
        head_positions(raw, Log())
