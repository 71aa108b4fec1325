"""When a recording responds: planted shifts are told, null data raise no alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe import preprocess
from braindecode_pipe.fitting import lag as module
from braindecode_pipe.fitting.lag import bold_lag, evoked_lag, recording_lag, speech_lag
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.schema import ROLES
from braindecode_pipe.simulate import simulate_tiny
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_signal

RECIPES = {"eeg": "demo_eeg", "meg": "demo_meg", "bold": "demo_fmri"}


class Samples:
    """A signal in memory."""

    kind, first_time = "signal", 0.0

    def __init__(self, data, sfreq):
        self.data, self.sfreq = np.asarray(data, np.float32), sfreq
        self.n_sensors, self.n_times = data.shape
        self.time_good = np.ones(self.n_times, bool)
        self.sensors = pd.DataFrame({"sensor_good": np.ones(self.n_sensors, bool)})

    def read(self, start, stop):
        return self.data[:, start:stop]


def pink(rng, n_sensors, n_times, exponent=1.0):
    """Noise with a spectrum of 1 / f^exponent, mixed over sensors."""
    freq = np.fft.rfftfreq(n_times)
    freq[0] = freq[1]
    waves = np.fft.rfft(rng.normal(size=(n_sensors, n_times))) / freq ** (exponent / 2)
    return rng.normal(size=(n_sensors, n_sensors)) @ np.fft.irfft(waves, n_times)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Signals and plans of one simulated person in all modalities."""
    root = tmp_path_factory.mktemp("lag")
    data = root / "data"
    simulate_tiny(data, modalities=("eeg", "meg", "bold"), snr=0.5, seed=3, n_pictures=30)
    found = {}
    for kind, name in RECIPES.items():
        recipe = load_recipe(name)
        plan = build(recipe.plan, recipe.split, data).plan
        row = plan.recordings.iloc[0].to_dict()
        out = root / f"{kind}.zarr"
        preprocess.run(recipe.preprocess, row, data, out, allow_truncated=False,
                       data_origin="simulated")  # fmt: skip
        found[kind] = open_signal(out), plan, row["recording"]
    return found


def shifted(plan, seconds):
    return replace(plan, events=plan.events.assign(onset=plan.events["onset"] + seconds))


@pytest.mark.parametrize("kind", ["eeg", "meg", "bold"])
def test_honest_onsets_raise_no_alarm(simulated, kind):
    signal, plan, name = simulated[kind]
    found = recording_lag(signal, plan, name)
    low, high = found.expected
    assert not found.shifted and low <= found.lag <= high
    assert "as expected" in found.message
    assert found.n_events == ((plan.events["recording"] == name).to_numpy()
                              & (plan.role == ROLES["train"]).any(0)).sum()  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shift"), [("eeg", 0.5), ("meg", 0.5), ("bold", -4.0), ("bold", 4.0)]
)
def test_f20_shifted_onsets_are_told(simulated, kind, shift):
    signal, plan, name = simulated[kind]
    honest = recording_lag(signal, plan, name).lag
    found = recording_lag(signal, shifted(plan, shift), name)
    assert found.shifted and "onsets may be shifted" in found.message
    assert found.lag == pytest.approx(honest - shift, abs=1.01 if kind == "bold" else 0.011)


def test_labels_do_not_matter(simulated):
    signal, plan, name = simulated["eeg"]
    labels = plan.events["stimulus_picture"].sample(frac=1, random_state=0).to_numpy()
    other = replace(plan, events=plan.events.assign(stimulus_picture=labels, trial_type="x"))
    one, two = recording_lag(signal, plan, name), recording_lag(signal, other, name)
    assert np.array_equal(one.curve, two.curve)


def test_f36_only_events_that_are_trained_on_count(simulated):
    signal, plan, name = simulated["eeg"]
    tested = (plan.role[0] == ROLES["test"]) & (plan.events["recording"] == name).to_numpy()
    moved = plan.events.copy()
    moved.loc[tested, "onset"] += 0.4
    one = recording_lag(signal, plan, name)
    assert tested.any()
    assert np.array_equal(one.curve, recording_lag(signal, replace(plan, events=moved), name).curve)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["evoked", "bold"])
def test_null_recordings_raise_no_alarm(kind, exponent):
    alarms, n = 0, 20
    for seed in range(n):
        rng = np.random.default_rng(seed)
        if kind == "evoked":
            onset = 3 + np.cumsum(rng.uniform(0.65, 0.75, 80) if seed % 2 else np.full(80, 0.7))
            found = evoked_lag(Samples(pink(rng, 8, 7000, exponent), 100.0), onset)
        else:
            onset = 10 + np.cumsum(rng.uniform(30, 40, 7) if seed % 2 else np.full(7, 36.0))
            found = bold_lag(Samples(pink(rng, 60, 150, exponent), 0.5), onset, np.full(7, 20.0))
        alarms += found.shifted
    # A share of 1 % would be 0.2 +- 0.44 alarms: 4 standard errors are fewer than 2.
    assert alarms < 2


def test_band_and_null_are_those_of_designs_that_never_were():
    rng = np.random.default_rng(0)
    found = evoked_lag(Samples(pink(rng, 8, 9000), 100.0), 3 + 0.7 * np.arange(100))
    assert found.null.shape == (module.N_NULL,) and found.band.shape == found.lags.shape
    above = (found.curve > found.band).mean()
    assert above < 0.3 and found.lag is None


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_units_do_not_matter(scale):
    rng = np.random.default_rng(1)
    data, onset = pink(rng, 8, 9000), 3 + np.cumsum(rng.uniform(0.6, 0.8, 100))
    for at in (onset * 100).astype(int):
        data[:, at + 15 : at + 20] += 2 * data.std()
    one, two = (evoked_lag(Samples(data * f, 100.0), onset) for f in (1.0, scale))
    assert one.lag == two.lag == pytest.approx(0.17, abs=0.03)
    assert two.curve == pytest.approx(one.curve, rel=1e-3)


@pytest.mark.parametrize(("delay", "told"), [(0.15, False), (0.75, True), (None, False)])
def test_speech_is_followed_by_its_envelope(delay, told):
    rng = np.random.default_rng(2)
    onset = 5.0 + 12.0 * np.arange(8)
    sounds = []
    data = pink(rng, 6, 11000)
    data /= data.std(1, keepdims=True)
    for start in onset:
        wave = np.abs(np.convolve(rng.normal(size=1000), np.ones(15) / 15, "same"))
        sounds.append((wave, 100.0))
        if delay is not None:
            at = round((start + delay) * 100)
            data[:3, at : at + 1000] += 0.5 * (wave - wave.mean()) / wave.std()
    found = speech_lag(Samples(data, 100.0), onset, sounds)
    assert found.shifted == told
    assert found.lag is None if delay is None else found.lag == pytest.approx(delay, abs=0.011)


def test_the_envelope_is_used_for_long_sounds(make_signal):
    rng = np.random.default_rng(3)
    wave = np.abs(np.convolve(rng.normal(size=600), np.ones(15) / 15, "same"))
    data = rng.normal(size=(4, 10000))
    onset = 2.0 + 10.0 * np.arange(9)
    for start in onset:
        at = round((start + 0.2) * 100)
        data[:, at : at + 600] += (wave - wave.mean()) / wave.std()
    events = pd.DataFrame(
        {"event": [f"r:{i}" for i in range(9)], "recording": "r", "onset": onset,
         "duration": 6.0, "stimulus_sound": "s"}
    )  # fmt: skip
    recordings = pd.DataFrame({"recording": ["r"], "datatype": ["eeg"]})
    role = np.ones((1, 9), np.int8)
    plan = StudyPlan(recordings, events, pd.DataFrame(), pd.DataFrame({"fold": ["1"]}), role)
    signal = make_signal("r", data, 100.0)
    found = recording_lag(signal, plan, "r", lambda stimulus: (wave, 100.0))
    assert found.kind == "speech" and found.lag == pytest.approx(0.2, abs=0.011)
    assert recording_lag(signal, plan, "r", lambda stimulus: None).kind == "evoked"
    few = replace(plan, role=np.where(np.arange(9) < 3, 1, 3)[None].astype(np.int8))
    assert recording_lag(signal, few, "r") is None


def test_epochs_are_looked_at_as_they_are(make_response):
    rng = np.random.default_rng(4)
    times = -0.2 + np.arange(60) / 50
    data = rng.normal(size=(80, 6, 60)) + 50 * rng.normal(size=(80, 6, 1))
    null = make_response("null", data, [f"r:{i}" for i in range(80)], times)
    data[:, :, 20:24] += 1.0
    signal = make_response("r", data, [f"r:{i}" for i in range(80)], times)
    assert module.epochs_lag(signal, np.arange(80)).lag == pytest.approx(0.23, abs=0.04)
    assert module.epochs_lag(null, np.arange(80)).lag is None


@pytest.mark.parametrize(
    ("recipe", "folder", "says"),
    [
        ("fmri_objects", "haxby2001-slice", "expected 4-7 s: onsets may be shifted"),
        ("eeg_words", "n400-words", "response peaks 0.16 s after onset, as expected"),
    ],
)
def test_real_recordings(shared_data, tmp_path, recipe, folder, says):
    recipe = load_recipe(recipe)
    plan = build(recipe.plan, recipe.split, shared_data / folder).plan
    row = plan.recordings.iloc[0].to_dict()
    preprocess.run(recipe.preprocess, row, shared_data / folder, tmp_path / "x.zarr",
                   allow_truncated=False, data_origin="recorded")  # fmt: skip
    found = recording_lag(open_signal(tmp_path / "x.zarr"), plan, row["recording"])
    assert says in found.message
    if found.shifted:
        assert abs(found.lag) <= 1.5  # onsets of this copy are shifted by the response
