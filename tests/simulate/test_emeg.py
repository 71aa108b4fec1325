from __future__ import annotations

import json

import mne_bids
import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.simulate import Settings, simulate_tiny
from braindecode_pipe.simulate.forward import make_head, sensor_info
from braindecode_pipe.simulate.latents import response_variance
from braindecode_pipe.simulate.noise import background_autocovariance, make_noise
from braindecode_pipe.simulate.optimal import Whitener, identify
from braindecode_pipe.simulate.response import make_response
from braindecode_pipe.simulate.settings import RESPONSE_S


def read_runs(root, modality, subject="01"):
    """``[(raw, events)]`` of all runs."""
    runs = []
    for table in sorted(root.glob(f"sub-{subject}/{modality}/*_events.tsv")):
        run = table.name.split("run-")[1][:2]
        path = mne_bids.BIDSPath(
            root=root, subject=subject, task="concepts", run=run, datatype=modality
        )
        raw = mne_bids.read_raw_bids(path, verbose="error")
        runs.append((raw, pd.read_csv(table, sep="\t", keep_default_na=False)))
    return runs


def good_channels(truth, modality, names):
    """Which of ``names`` are not planted as bad."""
    bad = truth["planted"][modality]["sub-01"]["bad_channels"]
    return np.array([str(name) not in bad for name in names])


def trials(runs, trial_type, n_times):
    """Pieces ``(n_trials, n_sensors, n_times)`` from onset on, and their files."""
    pieces, files = [], []
    for raw, events in runs:
        data = raw.get_data("data")
        for row in events[events["trial_type"] == trial_type].itertuples():
            at = round(row.onset * raw.info["sfreq"])
            pieces.append(data[:, at : at + n_times])
            files.append(row.stim_file)
    return np.array(pieces), np.array(files)


def fitted_gain(pieces, template, good):
    """Gain of ``template`` in single trials by least squares: mean and standard error.

    The spatial and temporal pattern is known; each trial gives one estimate.
    """
    t = template[good] / np.linalg.norm(template[good])
    gains = np.tensordot(pieces[:, good] - pieces[:, good].mean(2, keepdims=True), t, 2)
    gains /= np.linalg.norm(template[good])
    return gains.mean(), gains.std(ddof=1) / np.sqrt(len(gains))


@pytest.mark.parametrize(("modality", "n_sensors"), [("eeg", 16), ("meg", 30)])
def test_bids_is_read_back(study, modality, n_sensors):
    runs = read_runs(study, modality)
    assert len(runs) == 2
    for raw, events in runs:
        assert raw.get_channel_types().count("eog") == 1
        raw.pick("data")
        assert len(raw.ch_names) == n_sensors and raw.info["sfreq"] == 125.0
        assert raw.info["line_freq"] == 50.0 and raw.info["bads"] == []
        assert len(raw.annotations) == len(events)
        np.testing.assert_allclose(raw.annotations.onset, events["onset"])
        assert set(raw.annotations.description) == {"picture", "word"}
        assert raw.times[-1] >= events["onset"].iloc[-1] + RESPONSE_S
        assert np.isfinite(raw.get_data()).all()
        positions = np.array([ch["loc"][:3] for ch in raw.info["chs"]])
        assert np.isfinite(positions).all() and np.ptp(positions, axis=0).min() > 0.05
        files = events["stim_file"]
        assert all((study / "stimuli" / file).is_file() for file in files)
    total = pd.concat([events for _, events in runs])
    assert total.groupby("stim_file").size().groupby(lambda f: f.split("/")[0]).agg(set).to_dict() \
        == {"pictures": {6}, "words": {3}}  # fmt: skip


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_bad_channel_is_found_and_nothing_else(study, truth, modality):
    bad = truth["planted"][modality]["sub-01"]["bad_channels"]
    assert list(bad.values()) == ["noisy"]
    raw = read_runs(study, modality)[0][0].pick("data")
    power = np.diff(raw.get_data(), axis=1).std(1)  # differences: blinks and drifts are slow
    kinds = np.array(raw.get_channel_types())
    score = power / np.array([np.median(power[kinds == kind]) for kind in kinds])
    assert [raw.ch_names[i] for i in np.flatnonzero(score > 4)] == list(bad)


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_spectrum_has_line_and_one_over_f(study, truth, modality):
    raw = read_runs(study, modality)[0][0].pick("data")
    good = good_channels(truth, modality, raw.ch_names)
    data = raw.get_data()[good]
    n = 500
    blocks = data[:, : data.shape[1] // n * n].reshape(len(data), -1, n) * np.hanning(n)
    power = (np.abs(np.fft.rfft(blocks, axis=2)) ** 2).mean(1)
    frequency = np.fft.rfftfreq(n, 1 / raw.info["sfreq"])
    near = (np.abs(frequency - 50) > 2) & (np.abs(frequency - 50) < 6)
    assert (power[:, frequency == 50.0][:, 0] > 10 * np.median(power[:, near], axis=1)).all()
    low = power[:, (frequency > 1) & (frequency < 4)].mean(1)
    high = power[:, (frequency > 20) & (frequency < 40)].mean(1)
    assert (low > 5 * high).mean() > 0.8


def test_blinks_are_where_the_truth_says(study, truth):
    raw = read_runs(study, "eeg")[0][0].pick("data")
    arrays = np.load(study / "truth" / "eeg_sub-01.npz")
    blink = arrays["blink"] * good_channels(truth, "eeg", raw.ch_names)
    course = blink @ raw.get_data() / (blink @ blink)
    peaks = np.array(truth["planted"]["eeg"]["sub-01"]["blink_peaks_s"]["run-01"])
    at = np.round(peaks * raw.info["sfreq"]).astype(int)
    assert np.median(course[at]) == pytest.approx(1, abs=0.35)
    assert np.abs(np.median(course)) < 0.2


@pytest.mark.parametrize(("modality", "name"), [("eeg", "VEOG"), ("meg", "EOG061")])
def test_an_eog_channel_sees_the_blinks(study, truth, modality, name):
    raw = read_runs(study, modality)[0][0]
    assert raw.ch_names[raw.get_channel_types().index("eog")] == name
    eog = raw.get_data([name])[0]
    peaks = np.array(truth["planted"][modality]["sub-01"]["blink_peaks_s"]["run-01"])
    at = np.round(peaks * raw.info["sfreq"]).astype(int)
    assert np.median(eog[at]) == pytest.approx(300e-6, rel=0.4)
    assert np.median(np.abs(eog)) < 30e-6


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_drift_is_what_the_truth_says(study, truth, modality):
    """Means over two seconds are drift and little else."""
    arrays = np.load(study / "truth" / f"{modality}_sub-01.npz")
    raw = read_runs(study, modality)[0][0].pick("data")
    drift, step = arrays["drift_run01"], round(125.0 / arrays["drift_sfreq"])
    data = raw.get_data()
    kernel = np.ones(250) / 250
    smooth = np.stack([np.convolve(row, kernel, mode="same") for row in data])[:, ::step]
    inner = slice(4, -4)
    for row in np.flatnonzero(good_channels(truth, modality, raw.ch_names)):
        assert np.corrcoef(smooth[row, inner], drift[row, inner])[0, 1] > 0.8
    level = truth["planted"][modality]["sub-01"]
    for kind, sd in level["noise_sd"].items():
        assert level["drift_rms"][kind] == pytest.approx(3 * sd)


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_planted_response_is_in_the_recordings(study, truth, modality):
    arrays = np.load(study / "truth" / f"{modality}_sub-01.npz")
    latents = np.load(study / "truth" / "latents.npz")
    names = arrays["sensor_names"].tolist()
    good = good_channels(truth, modality, names)
    scale = arrays["noise_sd"][:, None]
    row = {file: i for i, file in enumerate(latents["stim_file"])}
    pieces, files = trials(read_runs(study, modality), "picture", arrays["specific"].shape[2])
    template = arrays["common_picture"] / scale
    template = template - template.mean(1, keepdims=True)
    gain, error = fitted_gain(pieces / scale, template, good)
    assert abs(gain - 1) < 4 * error and error < 0.25
    # The specific part of each stimulus, too: what is left correlates with what was planted.
    own = np.tensordot(latents["code"][[row[f] for f in files]], arrays["specific"] / scale, axes=1)
    rest = pieces / scale - arrays["common_picture"] / scale
    own, rest = (x - x.mean(2, keepdims=True) for x in (own[:, good], rest[:, good]))
    gains = (own * rest).sum((1, 2)) / (own**2).sum((1, 2))
    assert abs(gains.mean() - 1) < 4 * gains.std(ddof=1) / np.sqrt(len(gains))


def test_null_study_has_no_evoked_response(tmp_path):
    simulate_tiny(tmp_path / "null", snr=0.0, seed=3, n_pictures=40)
    arrays = np.load(tmp_path / "null" / "truth" / "eeg_sub-01.npz")
    assert not arrays["specific"].any() and not arrays["common_picture"].any()
    simulate_tiny(tmp_path / "planted", snr=0.5, seed=3, n_pictures=40)
    signal = np.load(tmp_path / "planted" / "truth" / "eeg_sub-01.npz")
    scale = signal["noise_sd"][:, None]
    template = signal["common_picture"] / scale
    template = template - template.mean(1, keepdims=True)
    truth = json.loads((tmp_path / "null" / "truth.json").read_text(encoding="utf-8"))
    good = good_channels(truth, "eeg", signal["sensor_names"])
    for name, expected in (("null", 0.0), ("planted", 1.0)):
        pieces, _ = trials(read_runs(tmp_path / name, "eeg"), "picture", template.shape[1])
        gain, error = fitted_gain(pieces / scale, template, good)
        assert abs(gain - expected) < 4 * error and error < 0.2
    result = truth["optimal_decoder"]["eeg"]
    chance = 1 / 40
    bound = 4 * np.sqrt(chance * (1 - chance) / result["n_trials"])
    assert abs(result["top1"] - chance) < bound and result["n_candidates"] == 40


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_snr_is_what_its_definition_says(study, truth, modality):
    arrays = np.load(study / "truth" / f"{modality}_sub-01.npz")
    code = np.load(study / "truth" / "latents.npz")["code"][:20]
    good = good_channels(truth, modality, arrays["sensor_names"])
    responses = np.tensordot(code, arrays["specific"], axes=1)
    variance = responses.var(0).mean(1)
    ratio = np.sqrt((variance[good] / arrays["noise_sd"][good] ** 2).mean())
    assert ratio == pytest.approx(0.5, rel=1e-4)


def test_responses_scale_with_snr_and_end_in_time():
    class Latents:
        code = np.random.default_rng(0).standard_normal((30, 32))
        block = np.repeat(["visual", "auditory", "semantic"], (18, 6, 8))
        n_pictures = 30

    fields = []
    for snr in (0.2, 0.6):
        settings = Settings(snr=snr, n_eeg=16)
        head = make_head(settings, "01")
        info = sensor_info(settings, "eeg", head)
        noise = make_noise(settings, "eeg", "01", head, info)
        fields.append(make_response(settings, "eeg", "01", head, info, noise, Latents))
    np.testing.assert_allclose(fields[1].specific, 3 * fields[0].specific, rtol=1e-9)
    np.testing.assert_allclose(fields[1].common["word"], 3 * fields[0].common["word"], rtol=1e-9)
    size = np.sqrt(response_variance(fields[0].specific, Latents)).mean(0)
    time = np.arange(len(size)) / 250.0
    assert not size[time < 0.025].any()
    assert size[time > 0.58].max() < 0.02 * size.max()
    assert 0.1 <= time[size.argmax()] <= 0.4


def test_optimal_decoder_rises_with_snr(tmp_path):
    scores = []
    for snr in (0.0, 0.03, 0.1, 0.3):
        simulate_tiny(tmp_path / str(snr), snr=snr, seed=5, n_repeats=8)
        truth = json.loads((tmp_path / str(snr) / "truth.json").read_text(encoding="utf-8"))
        scores.append(truth["optimal_decoder"]["eeg"]["top1"])
    assert scores[0] == pytest.approx(0.05)
    assert all(a < b for a, b in zip(scores, scores[1:])) and scores[-1] > 0.8


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_optimal_decoder_agrees_with_theory(tmp_path, modality):
    """Scores on the recordings equal those of numbers drawn from N(G z, G)."""
    simulate_tiny(tmp_path / "x", modalities=modality, snr=0.06, seed=4, n_repeats=15)
    truth = json.loads((tmp_path / "x" / "truth.json").read_text(encoding="utf-8"))
    found = truth["optimal_decoder"][modality]
    arrays = np.load(tmp_path / "x" / "truth" / f"{modality}_sub-01.npz")
    code = np.load(tmp_path / "x" / "truth" / "latents.npz")["code"][:20]
    good = good_channels(truth, modality, arrays["sensor_names"])
    templates = arrays["specific"].astype(float)[:, good]
    n = templates.shape[2]
    angle = 2 * np.pi * 50.0 * np.arange(n) / 125.0
    whitener = Whitener.of(
        background=arrays["background"][good],
        white=arrays["white"][good],
        temporal=background_autocovariance(n, 125.0)[
            np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        ],
        null_sensors=arrays["blink"][good, None],
        null_times=np.stack([np.cos(angle), np.sin(angle), np.ones(n), np.arange(n)], axis=1),
    )
    filters = np.stack([whitener.inverse(t) for t in templates])
    gram = np.tensordot(filters, templates, axes=((1, 2), (1, 2)))
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0))
    shown = rng.integers(20, size=20_000)
    u = code[shown] @ gram + rng.standard_normal((len(shown), len(gram))) @ root.T
    ranks = identify(u, gram, code, shown)
    expected = float(np.mean(ranks[:, 0] == 0))
    assert 0.15 < expected < 0.95
    bound = 4 * np.sqrt(expected * (1 - expected) / found["n_trials"])
    assert abs(found["top1"] - expected) < bound
