"""Independent components and projections: planted blinks and heart beats go, the rest stays."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, MissingFileError, PositionError, RecipeError
from braindecode_pipe.preprocess.artifacts import fit_ica
from braindecode_pipe.preprocess.projections import apply_ssp, fit_ssp
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import IcaSection

SFREQ = 250.0
NAMES = [
    "Fp1", "Fpz", "Fp2", "AF7", "AF8", "F7", "F3", "Fz", "F4", "F8", "FT9", "FC5", "FC1", "FC2",
    "FC6", "FT10", "T7", "C3", "Cz", "C4", "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz",
    "P4", "P8", "O1", "O2",
]  # fmt: skip


def _beats(n_times, rng):
    """Time course of a heart: QRS complexes of height 1 and T waves, 0.9 s apart."""
    time = np.arange(n_times) / SFREQ
    at = np.cumsum(rng.normal(0.9, 0.05, int(time[-1]) + 5))
    waves = ((0, 1, 0.012), (-0.03, -0.2, 0.01), (0.03, -0.25, 0.012), (0.25, 0.25, 0.05))
    course = np.zeros(n_times)
    for beat in at[at < time[-1] - 0.5]:
        for lag, height, width in waves:
            course += height * np.exp(-0.5 * ((time - beat - lag) / width) ** 2)
    return course


@pytest.fixture(scope="module")
def simulated():
    """Raws (simulated) with 32 electrodes, EOG and ECG: clean, spoiled; time courses; fields."""
    from braindecode_pipe.simulate.forward import lead_field, make_head
    from braindecode_pipe.simulate.noise import draw_background, draw_blinks
    from braindecode_pipe.simulate.settings import Settings

    info = mne.create_info(NAMES, SFREQ, "eeg")
    info.set_montage("colin27_1020")
    rng = np.random.default_rng(0)
    n_times = int(40 * SFREQ)
    field = 13e-9 * lead_field(info, make_head(Settings(), "01").background)
    clean = field @ draw_background(field.shape[1], n_times, SFREQ, rng)
    clean += 1e-6 * rng.normal(size=clean.shape)
    place = np.array([channel["loc"][:3] for channel in info["chs"]])
    # The eyeball is a dipole; outside of the head its field falls with the cube of the distance.
    eyes = np.zeros(len(NAMES))
    for side in (-0.033, 0.033):
        away = place - [side, 0.085, -0.01]
        eyes += away @ [0, 0.4, 0.9] / np.linalg.norm(away, axis=1) ** 3
    eyes *= 150e-6 / eyes.max()
    heart = 30e-6 * (place - place.mean(axis=0)) @ [-0.8, 0.2, -0.5] / 0.1
    blinks, peaks = draw_blinks(n_times, SFREQ, rng)
    beats = _beats(n_times, rng)
    eog = 300e-6 * blinks + 1e-5 * rng.normal(size=n_times)
    ecg = 1e-3 * beats + 2e-5 * rng.normal(size=n_times)
    spoiled = clean + eyes[:, None] * blinks + heart[:, None] * beats
    info = mne.create_info([*NAMES, "EOG", "ECG"], SFREQ, ["eeg"] * 32 + ["eog", "ecg"])
    info.set_montage("colin27_1020")
    raws = []
    for data in (clean, spoiled):
        raw = mne.io.RawArray(np.vstack([data, eog, ecg]), info.copy(), verbose="error")
        raw.filter(1, 100, verbose="error").set_eeg_reference("average", verbose="error")
        raws.append(raw)
    return *raws, blinks, beats, eyes - eyes.mean(), heart - heart.mean()


@pytest.fixture(scope="module")
def judged(simulated):
    """Result and log of the same decomposition judged in both ways."""
    log = Log()
    section = IcaSection(n_components=12, find=["iclabel", "eog", "ecg"], threshold=0.8)
    return fit_ica(simulated[1], section, log), log


def _correlation(a, b):
    return abs(np.corrcoef(a, b)[0, 1])


def test_planted_blinks_and_beats_are_found_and_removed(simulated, judged):
    clean, spoiled, blinks, beats, eyes, heart = simulated
    result, log = judged
    assert result.names == NAMES and result.maps.shape == (12, 32)
    found = {result.labels[i]: i for i in np.flatnonzero(result.excluded)}
    assert set(found) == {"eye blink", "heart beat"} and result.excluded.sum() == 2
    assert _correlation(result.maps[found["eye blink"]], eyes) > 0.98
    assert _correlation(result.maps[found["heart beat"]], heart) > 0.9
    assert result.scores[found["eye blink"]] > 0.8
    # What is left of the artifacts, over what was planted.
    truth, before = clean.get_data("eeg"), spoiled.get_data("eeg")
    after = result.matrix @ before
    for course, limit in ((blinks, 0.1), (beats, 0.35)):
        at = course > 0.3
        left = np.linalg.norm((after - truth)[:, at]) / np.linalg.norm((before - truth)[:, at])
        assert left < limit  # measured: 0.09 and 0.22
    assert "2 of 12 components removed" in log.steps[0]
    assert "eye blink" in log.steps[0] and "heart beat, ECG" in log.steps[0]
    assert not log.warnings


def test_the_matrix_is_ica_apply(simulated, judged):
    spoiled = simulated[1]
    result, _ = judged
    ica = mne.preprocessing.ICA(
        12, method="picard", fit_params={"ortho": False, "extended": True}, random_state=0,
        verbose="error",
    )  # fmt: skip
    ica.fit(spoiled, picks="eeg", verbose="error")
    expected = ica.apply(
        spoiled.copy(), exclude=np.flatnonzero(result.excluded), verbose="error"
    ).get_data("eeg")
    found = result.matrix @ spoiled.get_data("eeg") + result.offset[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # The excerpt is high-passed: the constant is nothing.
    assert np.abs(result.offset).max() < 1e-2 * expected.std()
    # Maps and sources rebuild what ICA.get_sources gives, in volts.
    sources = ica.get_sources(spoiled).get_data()
    ratio = [
        ica.get_explained_variance_ratio(spoiled, components=[i], ch_type="eeg")["eeg"]
        for i in (0, 1)
    ]
    np.testing.assert_allclose(result.variance[:2], ratio, rtol=0.1)
    rebuilt = ica.apply(spoiled.copy(), n_pca_components=12, verbose="error").get_data("eeg")
    rebuilt -= rebuilt.mean(axis=1, keepdims=True)
    sources -= sources.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(result.maps.T @ sources, rebuilt, atol=1e-12)


def test_on_unit_vectors_and_in_the_quality_group(judged):
    result, _ = judged
    names = ["X", *NAMES[::-1]]
    info = mne.create_info(names, SFREQ, "eeg")
    sensors = mne.io.RawArray(np.eye(33), info, verbose="error")
    result.apply(sensors)
    rows = [names.index(name) for name in NAMES]
    np.testing.assert_array_equal(sensors.get_data()[np.ix_(rows, rows)], result.matrix)
    assert sensors.get_data()[0].tolist() == [1.0] + [0.0] * 32
    variables = result.variables(names)
    dims, maps = variables["ica_map"]
    assert dims == ("component", "sensor") and np.isnan(maps[:, 0]).all()
    np.testing.assert_array_equal(maps[:, rows], result.maps)
    assert variables["ica_source"][1].shape == (12, len(variables["ica_time"][1]))
    assert variables["ica_time"][1][-1] < 10 and result.source_sfreq == 125
    assert 0.9 < result.variance.sum() < 1.05


@pytest.fixture(scope="module")
def small(simulated):
    """Ten channels, few samples: for what does not depend on the size."""
    keep = ["Fp1", "Fp2", "F7", "F8", "Cz", "T7", "T8", "Pz", "O1", "O2", "EOG", "ECG"]
    return simulated[1].copy().pick(keep).crop(0, 12)


@pytest.mark.parametrize("method", ["picard", "fastica", "infomax"])
def test_every_method_finds_the_blink_with_few_channels(small, method):
    log = Log()
    section = IcaSection(method=method, n_components=5, find=["eog"])
    first, second = fit_ica(small, section, log), fit_ica(small, section, Log())
    assert first.excluded.sum() == 1 and first.scores[first.excluded] > 0.9
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert "of 5 components removed" in log.steps[0]


def test_frontal_electrodes_stand_in_for_eog(small):
    raw = small.copy().drop_channels(["EOG", "ECG"])
    log = Log()
    result = fit_ica(raw, IcaSection(n_components=5, find=["eog", "ecg"]), log)
    assert result.excluded.sum() == 1
    assert any("no heart beats sought in EEG" in text for text in log.warnings)
    log = Log()
    raw.drop_channels(["Fp1", "Fp2"])
    assert not fit_ica(raw, IcaSection(n_components=5, find=["eog"]), log).excluded.any()
    assert any("no blinks sought" in text for text in log.warnings)


def test_rank_and_scale(small):
    """An average reference lacks one dimension; units do not matter."""
    raw = small.copy().set_eeg_reference("average", verbose="error")
    results = []
    for scale in (1.0, 1e-7):
        scaled = mne.io.RawArray(raw.get_data() * scale, raw.info, verbose="error")
        section = IcaSection(n_components=None, find=["eog"], method="fastica")
        results.append(fit_ica(scaled, section, Log()))
    assert len(results[0].maps) == 9
    np.testing.assert_allclose(results[0].matrix, results[1].matrix, atol=1e-6)


def test_what_iclabel_was_not_trained_on_is_said(small):
    raw = mne.io.RawArray(small.get_data(), small.info, verbose="error")
    raw.pick("eeg")
    with raw.info._unlock():
        raw.info["highpass"], raw.info["lowpass"] = 0.5, 40.0
    raw._data += 5e-5 * np.sin(np.arange(raw.n_times) / 7)
    log = Log()
    fit_ica(raw, IcaSection(n_components=5), log)
    assert any("has another" in text for text in log.warnings)
    assert any("the excerpt has 0.5 to 40 Hz" in text for text in log.warnings)


def test_meg_is_not_judged_by_iclabel(make_eeg):
    raw = mne.io.RawArray(make_eeg(4, 400), mne.create_info(4, 200.0, "mag"), verbose="error")
    log = Log()
    assert fit_ica(raw, IcaSection(), log) is None
    assert "no ICA of MEG: ICLabel knows EEG only" in log.warnings[0]


def test_errors_of_ica(small, monkeypatch):
    with pytest.raises(RecipeError, match="not there(.|\n)*ica.eog_channels"):
        fit_ica(small, IcaSection(n_components=5, find=["eog"], eog_channels=["VEOG"]), Log())
    with pytest.raises(RecipeError, match="not there(.|\n)*ica.ecg_channel"):
        fit_ica(small, IcaSection(n_components=5, find=["ecg"], ecg_channel="X"), Log())
    with pytest.raises(DataError, match="too little EEG"):
        fit_ica(small.copy().crop(0, 0.1), IcaSection(find=["eog"]), Log())
    nowhere = mne.io.RawArray(
        small.get_data("eeg"), mne.create_info(10, SFREQ, "eeg"), verbose="error"
    )
    with pytest.raises(PositionError, match="ICLabel needs the positions"):
        fit_ica(nowhere, IcaSection(n_components=5), Log())
    for module, key in (("picard", "ica.method"), ("mne_icalabel", "ica.find")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(RecipeError, match=rf"{key} needs(.|\n)*pipe\[artifacts\]"):
                fit_ica(small, IcaSection(), Log())


# -- projections


def test_projections_of_blinks_equal_mne_and_remove_them(simulated):
    clean, spoiled, blinks, beats, eyes, _ = simulated
    log = Log()
    projs = fit_ssp(spoiled, ["eog"], log)
    expected, events = mne.preprocessing.compute_proj_eog(
        spoiled, n_grad=1, n_mag=1, n_eeg=1, reject=None, no_proj=True, verbose="error"
    )
    raw = spoiled.copy().pick("eeg")
    sensors = mne.io.RawArray(np.eye(32), raw.info, verbose="error")
    apply_ssp(sensors, projs, log)
    found = sensors.get_data() @ raw.get_data()
    raw.add_proj(expected, verbose="error").apply_proj(verbose="error")
    np.testing.assert_allclose(found, raw.get_data(), atol=1e-15)
    assert [proj["active"] for proj in sensors.info["projs"]] == [True]
    before = spoiled.get_data("eeg")
    at = blinks > 0.3
    left = [np.linalg.norm((eyes / np.linalg.norm(eyes)) @ x[:, at]) for x in (found, before)]
    assert left[0] < 0.05 * left[1]  # measured: 0.002
    assert log.steps[0] == f"1 projections from {len(events)} EOG events"


def test_projections_of_the_file(simulated):
    raw = simulated[0].copy().pick("eeg")
    projs = mne.compute_proj_raw(raw, n_eeg=2, n_mag=0, n_grad=0, verbose="error")
    raw.add_proj(projs, verbose="error")
    log = Log()
    sensors = mne.io.RawArray(np.eye(32), raw.info, verbose="error")
    apply_ssp(sensors, fit_ssp(raw, ["file"], log), log)
    expected = raw.copy().apply_proj(verbose="error").get_data()
    np.testing.assert_allclose(sensors.get_data() @ raw.get_data(), expected, atol=1e-15)
    assert len(sensors.info["projs"]) == 2
    bare = mne.io.RawArray(np.eye(32), simulated[0].copy().pick("eeg").info, verbose="error")
    apply_ssp(bare, fit_ssp(bare, ["file"], log), log)
    assert log.warnings == ["no projections in the file", "no projections for these channels"]


@pytest.fixture
def empty_room(tmp_path):
    """A BIDS folder (simulated) with MEG of a person and of the empty room; its interference."""
    import mne_bids

    from braindecode_pipe.simulate.forward import make_head, sensor_info
    from braindecode_pipe.simulate.settings import Settings

    settings = Settings(n_meg=48)
    info = sensor_info(settings, "meg", make_head(settings, "01"))
    rng = np.random.default_rng(0)
    white = np.where(np.array(info.get_channel_types()) == "mag", 1e-13, 5e-12)
    field = 10 * white[:, None] * rng.normal(size=(48, 2))
    with info._unlock():
        info["meas_date"] = datetime(2020, 1, 1, tzinfo=UTC)
    for subject, session, task in (("01", None, "rest"), ("emptyroom", "20200101", "noise")):
        data = field @ rng.normal(size=(2, 5000)) + white[:, None] * rng.normal(size=(48, 5000))
        raw = mne.io.RawArray(data, info.copy(), verbose="error")
        raw.orig_format = "single"
        mne_bids.write_raw_bids(
            raw,
            mne_bids.BIDSPath(
                subject=subject, session=session, task=task, datatype="meg", root=tmp_path
            ),
            allow_preload=True, format="FIF", verbose="error",
        )  # fmt: skip
    return tmp_path, tmp_path / "sub-01/meg/sub-01_task-rest_meg.fif", raw, field


def test_projections_of_the_empty_room(empty_room):
    root, path, raw, field = empty_room
    raw = mne.io.read_raw_fif(path, preload=True, verbose="error")
    log = Log()
    projs = fit_ssp(raw, ["empty-room"], log, path=path, data=root)
    assert len(projs) == 6
    sensors = mne.io.RawArray(np.eye(48), raw.info, verbose="error")
    apply_ssp(sensors, projs, log)
    left = np.linalg.norm(sensors.get_data() @ field) / np.linalg.norm(field)
    assert left < 0.05  # measured: 0.001
    assert "sub-emptyroom_ses-20200101_task-noise_meg.fif" in log.steps[0]
    with pytest.raises(MissingFileError, match="no recording of the empty room"):
        fit_ssp(raw, ["empty-room"], Log(), path=root / "loose.fif", data=root)


def test_errors_of_projections(small):
    with pytest.raises(RecipeError, match="not there(.|\n)*VEOG"):
        fit_ssp(small, ["eog"], Log(), eog_channels=["VEOG"])
    with pytest.raises(DataError, match="no ECG channel"):
        fit_ssp(small.copy().pick("eeg"), ["ecg"], Log())
