"""Numbers and geometry of the quality figures, against naive loops and planted truth."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braindecode_pipe.report import (
    figures,
    maps,
    methods_steps,
    qc_emeg,
    qc_events,
    qc_figures,
    qc_ica_figures,
    qc_time_figures,
    recording,
    references,
)
from braindecode_pipe.report.qc_figures import Spectrum


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
@pytest.mark.parametrize("gain", [1.0, 30.0, 1000.0])
def test_line_above_its_neighbours(scale, gain):
    rng = np.random.default_rng(0)
    freq = np.arange(0, 101, 0.5)
    base = scale**2 * (1 + freq) ** -1.0
    psd = base * rng.gamma(400, 1 / 400, (6, len(freq)))
    psd[:, freq == 50] *= gain
    naive = []
    for row in psd:
        near = [v for f, v in zip(freq, row) if 1.5 <= abs(f - 50) <= 5]
        at = max(v for f, v in zip(freq, row) if abs(f - 50) <= 0.75)
        naive.append(at / np.median(near))
    found = qc_emeg.above_neighbours(freq, psd, 50.0)
    np.testing.assert_allclose(found, 10 * np.log10(np.median(naive)))
    np.testing.assert_allclose(found, 10 * np.log10(gain), atol=0.8)


def test_line_outside_of_the_spectrum_is_no_number():
    freq = np.arange(0, 60.5, 0.5)
    psd = np.ones((3, len(freq)))
    assert np.isnan(qc_emeg.above_neighbours(freq, psd, 100.0))
    assert np.isnan(qc_emeg.above_neighbours(freq, psd, 60.0))  # one side is missing
    assert np.isnan(qc_emeg.above_neighbours(freq, psd * np.nan, 50.0))
    assert np.isnan(qc_emeg.above_neighbours(freq, psd * 0, 50.0))


@pytest.mark.parametrize("n", [1, 5, 16, 17, 100, 1603])
def test_thinned_is_the_mean_of_neighbours(n):
    values = np.random.default_rng(n).normal(size=(2, n))
    found = qc_time_figures.thinned(values, 16)
    step = -(-n // 16)
    naive = [[row[i : i + step].mean() for i in range(0, n, step)] for row in values]
    np.testing.assert_allclose(found, naive)
    assert found.shape[1] <= 16 or n <= 16


def test_topographies_find_the_planted_peak_at_any_unit():
    rng = np.random.default_rng(0)
    place = rng.uniform(-0.7, 0.7, (60, 2))
    peak = np.array([-0.4, 0.3])
    values = np.exp(-((place - peak) ** 2).sum(axis=1) / 0.05)
    images = qc_ica_figures.topographies(place, np.stack([values, -1e-13 * values]))
    at = np.linspace(-1, 1, images.shape[1])
    for image, sign in zip(images, (1, -1)):
        y, x = np.unravel_index(np.nanargmax(sign * image), image.shape)
        np.testing.assert_allclose([at[x], at[y]], peak, atol=0.12)
    np.testing.assert_allclose(images[1], -1e-13 * images[0], rtol=1e-6, atol=1e-20)
    assert np.isnan(images[0, 0, 0]) and np.isfinite(images[0, 36, 36])


def test_topographies_take_sensors_at_one_place():
    place = np.repeat(np.random.default_rng(0).uniform(-0.7, 0.7, (12, 2)), 2, axis=0)
    images = qc_ica_figures.topographies(place, np.ones((1, 24)))
    np.testing.assert_allclose(images[np.isfinite(images)], 1.0)


def test_components_of_few_or_unplaced_sensors_are_drawn():
    for n in (1, 5, 30):
        weights = np.linspace(-1, 1, n)
        shown = [qc_ica_figures.Component("0 brain", "", False, weights, None)]
        place = np.random.default_rng(n).uniform(-1.4, 1.4, (n, 2))
        assert qc_ica_figures.components(shown, place, None, "alt", "caption").png
        place[:] = np.nan
        assert qc_ica_figures.components(shown, place, None, "alt", "caption").png


def test_mapped_sensors_prefer_one_kind():
    table = pd.DataFrame({"kind": ["grad", "mag", "mag", "eeg"]})
    weights = np.ones((2, 4))
    assert qc_emeg._mapped_sensors(table, weights)[1] == "eeg"
    weights[:, 3] = np.nan
    rows, kind = qc_emeg._mapped_sensors(table, weights)
    assert kind == "mag" and rows.tolist() == [1, 2]


def test_border_goes_round_the_pixels():
    inside = np.zeros((4, 3), bool)
    inside[1:3, 1] = True
    sides = maps.border(inside)
    naive = set()
    for i, j in np.argwhere(inside):
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            a, b = i + di, j + dj
            if not (0 <= a < 4 and 0 <= b < 3 and inside[a, b]):
                middle = np.array([i + di / 2, j + dj / 2])
                along = np.array([abs(dj), abs(di)]) / 2
                naive.add((*(middle - along), *(middle + along)))
    assert {tuple(side.ravel()) for side in sides} == naive and len(sides) == 6


def test_spectra_are_limited_by_what_was_there_before():
    freq = np.arange(0, 50, 0.5)
    before = np.full((3, len(freq)), 1e-12)
    after = before.copy()
    after[:, freq > 30] = 1e-25
    bad = np.array([False, False, True])
    before[2] *= 1e6
    low, high = Spectrum("eeg", (freq, before), (freq, after), bad).limits()
    assert 1e-4 < low < 1 < high < 10  # µV²/Hz; neither the stop band nor the bad sensor count
    assert Spectrum("eeg", (freq, 0 * before), None, bad).limits() is None


def test_figures_survive_hard_inputs():
    nan = float("nan")
    flat, freq = np.zeros((2, 8)), np.arange(8.0)
    bad = np.array([True, False])
    part = Spectrum("eeg", (freq, flat), None, bad)
    assert qc_figures.spectra([part], [50.0], (0.1, 40.0), "a", "c").png
    every = Spectrum("mag", (freq, flat + 1), (freq, flat * nan), np.array([True, True]))
    assert qc_figures.spectra([every], [], None, "a", "c").png
    amplitude = np.array([1e-6, nan, 0.0, 1e-3])
    good, names = np.zeros(4, bool), ["a", "b", "c", "d"]
    assert qc_figures.amplitudes(amplitude, ["eeg"] * 4, good, names, "a", "c").png
    assert qc_figures.lines_removed(np.array([50.0]), np.array([nan]), np.array([nan]), "a", "c")
    assert qc_time_figures.traces(freq, flat, ["a", "b"], ["mag", "grad"], [(2, 3)], "a", "c").png
    assert qc_time_figures.carpet(freq, flat, {}, [], "a", "c").png
    assert qc_time_figures.timeline(np.ones(1), np.ones(1), ["a"], (0, 2), [], "a", "c").png
    assert qc_time_figures.timeline(np.ones(3), np.zeros(3), ["a"] * 3, (1, 1), [], "a", "c").png
    onset, length = np.arange(40.0), np.ones(40)
    assert qc_time_figures.spans(onset, length, list(map(str, range(40))), (0, 50), "a", "c").png
    assert qc_time_figures.drift((0, 60), 1.0, 0.0, nan, "a", "c").png
    lags = np.arange(3.0)
    assert qc_time_figures.lag(lags, lags * nan, lags, nan, (1, 2), "r", "a", "c").png
    assert qc_time_figures.histograms({"a": np.full(4, nan), "b": np.ones(3)}, ("b",), "a", "c").png


def test_a_day_of_events_draws_no_more_lines_than_pixels():
    onset = np.sort(np.random.default_rng(0).uniform(0, 86400, 200_000))
    kept = qc_time_figures._distinct(onset, (0.0, 86400.0))
    assert len(kept) <= qc_time_figures.PIXELS + 1
    assert np.diff(onset[kept]).max() < 2 * 86400 / qc_time_figures.PIXELS


def test_runs_of_bad_time():
    time = np.arange(6.0)
    flag = np.array([1, 0, 1, 1, 0, 1], bool)
    assert recording.runs(time, flag) == [(0, 0), (2, 3), (5, 5)]
    assert recording.runs(time, ~flag & flag) == []


def test_windows_that_meet_bad_spans_are_counted():
    rng = np.random.default_rng(0)
    time = np.arange(0, 60, 0.01)
    bad = np.zeros(len(time), bool)
    for start in rng.uniform(0, 55, 6):
        bad[(time >= start) & (time < start + rng.uniform(0.02, 3))] = True
    onset = np.sort(rng.uniform(0, 58, 80))
    window = {"tmin": -0.2, "tmax": None, "delay": 0.1}
    events = pd.DataFrame({"onset": onset, "duration": rng.uniform(0.1, 0.5, 80)})
    study = SimpleNamespace(section=lambda *_: window)
    fake = SimpleNamespace(events=events, bad_spans=recording.runs(time, bad), study=study)
    naive = 0
    for row in events.itertuples():
        low, high = row.onset - 0.2 + 0.1, row.onset + row.duration + 0.1
        naive += bool(bad[(time >= low) & (time <= high)].any())
    assert 0 < naive < 80
    assert qc_events.in_bad_spans(fake) == naive
    fake.bad_spans = []
    assert qc_events.in_bad_spans(fake) is None


def test_names_on_heads_and_shafts():
    names = ["A1", "A2", "A3", "B1", "B2"]
    place = np.array([[1, 0, 0], [2, 0, 0], [3, 0, 0], [0, 2, 0], [0, 1, 0.0]])
    state = np.array(["good", "bad", "good", "good", "good"], object)
    assert qc_figures._labels(names, state, place, head=False) == {1: "A2", 2: "A", 3: "B"}
    flat = place[:, :2]
    assert len(qc_figures._labels(names, state, flat, head=True)) == 5
    pairs = np.repeat(flat[:2], [3, 2], axis=0)
    assert qc_figures._labels(names, state, pairs, head=True) == {1: "A2"}


def test_steps_of_many_recordings_become_one_list():
    first = ["4 of 5 channels: 4 eeg", "interpolated bad channels: Fp1", "clamped to +-20: 0.146%"]
    second = ["4 of 6 channels: 4 eeg", "notch at 50 Hz", "clamped to +-20: 2.5%"]
    third = ["4 of 5 channels: 4 eeg", "interpolated bad channels: C3, C4", "clamped to +-20: 1%"]
    assert methods_steps.joint_steps([first, second, third]) == [
        ("4 of 5 to 6 channels: 4 eeg", 3),
        ("notch at 50 Hz", 1),
        ("interpolated bad channels (named on the quality pages)", 2),
        ("clamped to +-20: 0.146 to 2.5%", 3),
    ]
    assert methods_steps.joint_steps([]) == []


@pytest.mark.parametrize(
    ("step", "keys"),
    [
        ("ICA (picard), ICLabel: 1 of 20 removed",
         ["Ablin 2018", "Pion-Tonachini 2019", "Li 2022"]),
        ("no ICA: picard needs 20 s", []),
        ("tSSS (Maxwell filter, 10 s)", ["Taulu 2005", "Taulu 2006"]),
        ("SSS (Maxwell filter)", ["Taulu 2005"]),
        ("re-referenced to infinity (REST)", ["Yao 2001"]),
        ("the rest of the channels", []),
        ("zapline at 50 Hz: 2 components", ["de Cheveigné 2020"]),
        ("single-trial betas by LSS", ["Mumford 2012"]),
        ("band-pass 0.1 to 40 Hz (zero-phase FIR)", []),
        ("lossless", []),
    ],
)  # fmt: skip
def test_only_steps_that_ran_are_cited(step, keys):
    assert references.cited_by([step]) == keys
    assert set(keys) <= set(references.REFERENCES)


def test_every_citation_has_its_reference():
    for pattern, keys in references.CITED_BY_STEPS:
        assert set(keys) <= set(references.REFERENCES), pattern
    assert set(references.CASE_MATTERS) <= {pattern for pattern, _ in references.CITED_BY_STEPS}


def test_line_drawings_with_a_palette_look_the_same():
    made = []
    for few in (False, True):
        with figures.canvas(3, 2) as (figure, ax):
            ax.plot(np.random.default_rng(0).normal(size=400), color=figures.INK, lw=0.5)
            made.append(figures.picture(figure, "alt", "caption", few_colours=few).png)
    images = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int) for png in made]
    assert np.abs(images[0] - images[1]).max() <= 12 and (images[1][0, 0] == 255).all()
    assert len(made[1]) < 0.75 * len(made[0])
