"""What a simulated study holds on purpose, and how much of it the stage finds and removes.

Every study is simulated twice from one seed: as it is, and as its twin without blinks, line and
drift, which is equal in everything else. What the stage makes of the twin is the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.simulate import simulate
from braindecode_pipe.simulate.noise import BAD_KINDS
from braindecode_pipe.store import open_store

CLEAN = {"blinks": 0.0, "line": 0.0, "drift": 0.0}
N_BLINKING = 5  # sensors with the strongest blinks
RECIPE = """\
[plan]
datatypes = ["{modality}"]

[plan.stimuli.picture]
kind = "image"
column = "picture"

[split]
by = "none"

[preprocess.emeg]
sfreq = {sfreq}
h_freq = "none"
scaler = "none"
clamp = "none"
{steps}
"""
FILTER = "l_freq = 0.5\nnotch = [50.0]\n"
EEG = FILTER + 'reference = "average"\nnoisy = ["pyprep", "ransac"]\n'
MEG = FILTER + 'noisy = ["maxwell"]\n[preprocess.emeg.maxwell]\nst_duration_s = "none"\n'
ICA = "[preprocess.emeg.ica]\n"
BY_EOG = ICA + 'find = ["eog"]\n'


@dataclass(frozen=True)
class Processed:
    """One recording after the stage.

    Attributes
    ----------
    subject, run : labels
    names, data : channels, and their samples (n_channels, n_times) [V, T or T/m]
    reasons : name of a bad channel -> why
    freqs, before : [Hz] and (n_channels, n_freqs), spectral density of what was recorded
    log : everything that the store says
    """

    subject: str
    run: str
    names: list[str]
    data: np.ndarray
    reasons: dict[str, str]
    freqs: np.ndarray
    before: np.ndarray
    log: str


class Campaign:
    """A study and its twin on disk, and what the stage makes of them."""

    def __init__(self, folder: Path, modality: str, **settings) -> None:
        self.folder, self.modality = folder, modality
        for name, clean in (("planted", {}), ("twin", CLEAN)):
            simulate(folder / name, modalities=modality, **{**settings, **clean})
        text = (folder / "planted" / "truth.json").read_text(encoding="utf-8")
        self.truth = json.loads(text)["planted"][modality]
        self.sfreq = json.loads(text)["settings"]["sfreq"]

    def run(self, name: str, steps: str) -> list[Processed]:
        """All recordings of ``planted`` or ``twin`` through the stage ``preprocess``."""
        recipe = self.folder / "recipe.toml"
        recipe.write_text(RECIPE.format(modality=self.modality, sfreq=self.sfreq, steps=steps))
        result = pipeline.run(
            load_recipe(recipe), self.folder / name, self.folder / "out" / name,
            until="preprocess", quiet=True,
        )  # fmt: skip
        assert not result.failed, [(row.unit, str(row.error)) for row in result.failed]
        return [self._read(row) for row in result.rows if row.stage == "preprocess"]

    def _read(self, row) -> Processed:
        store, qc = open_store(row.path), open_store(row.path, "qc")
        label = lambda key: row.unit.split(f"{key}-")[1].split("_")[0]  # noqa: E731
        reasons = dict(zip(map(str, qc["sensor"].values), map(str, qc["bad_reason"].values)))
        return Processed(
            label("sub"), label("run"), list(map(str, store["sensor"].values)),
            store["signal"].values.astype(float), {n: r for n, r in reasons.items() if r},
            qc["freq"].values, qc["psd_before"].values.astype(float),
            "\n".join([*store.attrs["steps"], *qc.attrs.get("warnings", [])]),
        )  # fmt: skip

    def arrays(self, part: Processed) -> dict[str, np.ndarray]:
        """What the truth holds of a person, as arrays."""
        file = self.folder / "planted" / "truth" / f"{self.modality}_sub-{part.subject}.npz"
        with np.load(file) as arrays:
            return dict(arrays)

    def bad(self, part: Processed) -> dict[str, str]:
        """Planted bad channels and their kinds."""
        return self.truth[f"sub-{part.subject}"]["bad_channels"]

    def good(self, part: Processed) -> np.ndarray:
        """(n_channels,) bool: not planted as bad."""
        return np.array([name not in self.bad(part) for name in part.names])

    def blinking(self, part: Processed) -> np.ndarray:
        """(n_times,) bool: within a blink."""
        peaks = self.truth[f"sub-{part.subject}"]["blink_peaks_s"][f"run-{part.run}"]
        time = np.arange(part.data.shape[1]) / self.sfreq
        return (np.abs(time[:, None] - np.array(peaks)) < 0.175).any(1)


def bad_channels(campaign: Campaign, parts: list[Processed]) -> dict:
    """How many of the planted bad channels were found, by kind, and how many others."""
    found = {"n_good": 0, "false": []}
    for part in parts:
        planted = campaign.bad(part)
        found["n_good"] += len(part.names) - len(planted)
        found["false"] += sorted(set(part.reasons) - set(planted))
        for name, kind in planted.items():
            hits, n = found.get(kind, (0, 0))
            found[kind] = (hits + (name in part.reasons), n + 1)
    return found


def blink_power(
    campaign: Campaign, parts: list[Processed], twins: list[Processed]
) -> tuple[np.ndarray, np.ndarray]:
    """Power in the windows of blinks, over that of the twin, where blinks are strongest.

    Returns
    -------
    added : (n_parts,) power of the difference to the twin
    total : (n_parts,) power itself
    """
    added, total = [], []
    for part, twin in zip(parts, twins):
        size = np.abs(campaign.arrays(part)["blink"]) / campaign.arrays(part)["noise_sd"]
        rows = np.argsort(-size * campaign.good(part))[:N_BLINKING]
        at = np.ix_(rows, np.flatnonzero(campaign.blinking(part)))
        power = (twin.data[at] ** 2).mean(1)
        added.append((((part.data[at] - twin.data[at]) ** 2).mean(1) / power).mean())
        total.append(((part.data[at] ** 2).mean(1) / power).mean())
    return np.array(added), np.array(total)


def line_ratio(freqs: np.ndarray, density: np.ndarray, line: float) -> np.ndarray:
    """(n_channels,) density at the line over the median of 2 to 6 Hz beside it."""
    off = np.abs(freqs - line)
    near = np.median(density[:, (off > 2) & (off < 6)], axis=1)
    return density[:, off.argmin()] / near


def spectrum(data: np.ndarray, sfreq: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean periodogram (Hann) of pieces of ``seconds``."""
    n = round(seconds * sfreq)
    pieces = data[:, : data.shape[1] // n * n].reshape(len(data), -1, n)
    power = np.abs(np.fft.rfft(pieces * np.hanning(n), axis=2)) ** 2
    return np.fft.rfftfreq(n, 1 / sfreq), power.mean(1)


def slow_power(data: np.ndarray, sfreq: float) -> np.ndarray:
    """(n_channels,) power below 0.3 Hz, of the whole run at once."""
    freqs, power = spectrum(data - data.mean(1, keepdims=True), sfreq, data.shape[1] / sfreq)
    return power[:, freqs < 0.3].sum(1)


def drift_power(campaign: Campaign, part: Processed, twin: Processed) -> tuple[float, float, float]:
    """Power below 0.3 Hz over that of the twin: what was planted, what is left, and all that is."""
    arrays = campaign.arrays(part)
    good = campaign.good(part)
    planted = arrays[f"drift_run{part.run}"][good].astype(float)
    step = round(campaign.sfreq / float(arrays["drift_sfreq"]))
    truth = slow_power(twin.data[good], campaign.sfreq)
    # Periodograms of a thinned series are smaller by the square of the step.
    before = step**2 * slow_power(planted, campaign.sfreq / step) / truth
    left = slow_power(part.data[good] - twin.data[good], campaign.sfreq) / truth
    total = slow_power(part.data[good], campaign.sfreq) / truth
    return float(np.median(before)), float(np.median(left)), float(np.median(total))


def report(campaign: Campaign, steps: str, ica: str) -> dict:
    """Figures of one modality; printed, and returned for the assertions."""
    cleaned = campaign.run("planted", steps + ica)
    kept = campaign.run("planted", steps)
    twins = campaign.run("twin", steps)
    figures = {"bad": bad_channels(campaign, cleaned), "twin": bad_channels(campaign, twins)}
    figures["blink_before"] = blink_power(campaign, kept, twins)[0]
    figures["blink_left"], figures["blink_total"] = blink_power(campaign, cleaned, twins)
    for when in ("before", "after"):
        for line in (50.0, 100.0):
            ratios = []
            for part in cleaned:
                freqs, density = part.freqs, part.before
                if when == "after":
                    freqs, density = spectrum(part.data, campaign.sfreq, 2.0)
                if line + 6 < campaign.sfreq / 2:
                    ratios.append(line_ratio(freqs, density[campaign.good(part)], line))
            figures[f"line_{line:g}_{when}"] = np.array([np.median(r) for r in ratios])
            figures[f"line_{line:g}_{when}_most"] = np.array([r.max() for r in ratios])
    drift = np.array([drift_power(campaign, *pair) for pair in zip(cleaned, twins)])
    figures["drift_before"], figures["drift_left"], figures["drift_total"] = drift.T
    print(f"\n{campaign.modality}: {len(cleaned)} recordings")
    for name, value in figures.items():
        print(f"  {name}: {np.round(value, 4) if isinstance(value, np.ndarray) else value}")
    for part in cleaned:
        print(f"  {part.subject} {part.run}", campaign.bad(part), part.reasons)
        print("   ", part.log.replace("\n", "\n    "))
    return figures


def check_removed(figures: dict) -> None:
    """Blinks, line and drift that towered over the brain are below it afterwards."""
    assert figures["blink_before"].min() > 5 and figures["blink_left"].max() < 0.35
    assert figures["drift_before"].min() > 100 and figures["drift_left"].max() < 0.3
    for name in ("blink_total", "drift_total"):
        assert figures[name].min() > 0.7 and figures[name].max() < 1.3
    for line in ("line_50", "line_100"):
        if len(figures[f"{line}_before"]):
            assert figures[f"{line}_before"].min() > 4
            assert figures[f"{line}_after_most"].max() < 1


def test_what_was_planted_in_a_small_study_is_found_and_removed(tmp_path):
    study = Campaign(
        tmp_path, "eeg", n_subjects=1, n_runs=2, n_pictures=20, n_words=0, n_repeats=4, n_bad=3,
        n_eeg=32, sfreq=125.0, snr=0.3, seed=0,
    )  # fmt: skip
    # RANSAC needs more sensors: between 32, each is predicted from few neighbours.
    figures = report(study, EEG.replace(', "ransac"', ""), BY_EOG)
    assert [figures["bad"][kind] for kind in BAD_KINDS] == [(2, 2)] * 3
    # PREP takes electrodes beside the eyes for too strong, for the blinks that they see.
    assert set(figures["bad"]["false"]) <= {"Fp1", "Fp2"}
    check_removed(figures)


@pytest.mark.slow
def test_what_was_planted_in_eeg_is_found_and_removed(tmp_path):
    study = Campaign(
        tmp_path, "eeg", n_subjects=2, n_runs=2, n_pictures=40, n_words=0, n_repeats=6, n_bad=6,
        snr=0.3, seed=1,
    )  # fmt: skip
    figures = report(study, EEG, ICA)
    assert [figures["bad"][kind] for kind in BAD_KINDS] == [(8, 8)] * 3
    assert len(figures["bad"]["false"]) <= 4 and figures["bad"]["n_good"] == 232
    check_removed(figures)


@pytest.mark.slow
def test_what_was_planted_in_meg_is_found_and_removed(tmp_path):
    study = Campaign(
        tmp_path, "meg", n_subjects=2, n_runs=1, n_pictures=40, n_words=0, n_repeats=3, n_bad=9,
        snr=0.3, seed=1,
    )  # fmt: skip
    figures = report(study, MEG, BY_EOG)
    # A loose sensor is as strong as the others: SSS tells most of them.
    assert figures["bad"]["noisy"] == figures["bad"]["flat"] == (6, 6)
    assert figures["bad"]["loose"][0] >= 4
    assert len(figures["bad"]["false"]) <= 2 and figures["bad"]["n_good"] == 594
    check_removed(figures)
