"""EEG and MEG of one simulated person, as raw BIDS."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.simulate.brainvision import write_brainvision
from braindecode_pipe.simulate.design import Run, event_table, jittered_run, sequence
from braindecode_pipe.simulate.forward import make_head, sensor_info
from braindecode_pipe.simulate.latents import LatentCode
from braindecode_pipe.simulate.noise import Noise, background_autocovariance, make_noise
from braindecode_pipe.simulate.optimal import Whitener, identify
from braindecode_pipe.simulate.response import Response, make_response
from braindecode_pipe.simulate.settings import Settings
from braindecode_pipe.simulate.stimuli import Word
from braindecode_pipe.simulate.stories import Story

TASK, STORY_TASK = "concepts", "story"
PICTURE_DURATION = 0.5  # s
DRIFT_SFREQ = 2.0  # Hz, at which the truth holds the drift
_EOG_NAME = {"eeg": "VEOG", "meg": "EOG061"}
_EOG_BLINK, _EOG_NOISE = 300e-6, 10e-6  # V, at the peak of a blink and root mean square
_MARKER = {"picture": 1, "word": 2}


@dataclass(frozen=True)
class Simulated:
    """What was planted in the recordings of one person.

    Attributes
    ----------
    facts : JSON: bad channels, blinks per run, levels of noise and drift
    arrays : forward fields, templates, and the drift of every run at ``DRIFT_SFREQ``
    ranks : (n_trials, 2) of the optimal decoder, see ``optimal.identify``
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    ranks: np.ndarray


def simulate_emeg(
    root: Path,
    settings: Settings,
    modality: str,
    subject: str,
    stimuli: pd.DataFrame,
    latents: LatentCode,
    words: list[Word],
    stories: list[Story],
) -> Simulated:
    """Write all runs of one person, one after the other: first pictures and words, then stories.

    Parameters
    ----------
    root : Path
        The BIDS data set.
    modality : "eeg" | "meg"
    subject : str
        BIDS label, such as "01".
    stimuli : DataFrame
        Result of ``stimuli.stimulus_table``.
    words, stories
        What is heard; everybody hears the same stories.
    """
    head = make_head(settings, subject)
    info = sensor_info(settings, modality, head)
    noise = make_noise(settings, modality, subject, head, info)
    response = make_response(settings, modality, subject, head, info, noise, latents)
    decoder = _MatchedFilter(response, noise, settings.sfreq)

    rng = settings.rng("design", modality, subject)
    order = sequence(
        (stimuli["trial_type"] == "picture").to_numpy(),
        settings.n_repeats, settings.n_word_repeats, settings.n_runs, rng,
    )  # fmt: skip
    blinks, ranks, drifts = {}, [], {}
    step = max(1, round(settings.sfreq / DRIFT_SFREQ))
    for number, shown in enumerate(order, 1):
        label = f"{number:02d}"
        run = jittered_run(shown, settings.soa, settings.soa_jitter, settings.sfreq, rng)
        noise_rng = settings.rng("samples", modality, subject, label)
        data = noise.draw(round(run.duration * settings.sfreq), settings.sfreq, noise_rng)
        _add_responses(data, run, response, stimuli, latents, settings.sfreq)
        added = noise.add_artefacts(data, settings.sfreq, noise_rng)
        blinks[f"run-{label}"] = (
            [round(float(p), 4) for p in added.peaks] if noise.blink.any() else []
        )
        drifts[f"drift_run{label}"] = added.drift[:, ::step].astype(np.float32)
        ranks.append(decoder.ranks(data, run, latents))
        events = event_table(run, stimuli, PICTURE_DURATION)
        eog = _eog(settings, added.blinks, noise_rng)
        _write_run(root, modality, subject, TASK, label, info, data, eog, events)
    for number, story in enumerate(stories, 1):
        label = f"{number:02d}"
        run = story.run(latents.n_pictures, settings.sfreq)
        noise_rng = settings.rng("samples", modality, subject, story.name)
        data = noise.draw(round(run.duration * settings.sfreq), settings.sfreq, noise_rng)
        _add_responses(data, run, response, stimuli, latents, settings.sfreq)
        added = noise.add_artefacts(data, settings.sfreq, noise_rng)
        blinks[story.name] = [round(float(p), 4) for p in added.peaks] if noise.blink.any() else []
        events = story.event_table(run, words)
        eog = _eog(settings, added.blinks, noise_rng)
        _write_run(root, modality, subject, STORY_TASK, label, info, data, eog, events)
    _drop_electrode(root / f"sub-{subject}" / modality, _EOG_NAME[modality])
    facts = {
        "bad_channels": {info.ch_names[row]: kind for row, kind in sorted(noise.bad.items())},
        "noise_sd": _level_by_kind(info, noise, np.sqrt(noise.variance)),
        "drift_rms": _level_by_kind(info, noise, noise.drift),
        "blink_peaks_s": blinks,
        "line_freqs_hz": noise.line_freqs.tolist(),
    }
    arrays = {
        "sensor_names": np.array(info.ch_names),
        "specific": response.specific.astype(np.float32),
        **{f"common_{name}": part.astype(np.float32) for name, part in response.common.items()},
        "dipole_position": head.evoked.position,
        "dipole_orientation": head.evoked.orientation,
        "background": noise.background,
        "white": noise.white,
        "blink": noise.blink,
        "noise_sd": np.sqrt(noise.variance),
        "drift_rms": noise.drift,
        "drift_sfreq": np.array(settings.sfreq / step),
        **drifts,
    }
    return Simulated(facts, arrays, np.concatenate(ranks))


def _eog(settings: Settings, blinks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Potential over one eye [V], ``(n_times,)``."""
    noise = rng.standard_normal(len(blinks))
    return settings.blinks * _EOG_BLINK * blinks + _EOG_NOISE * noise


class _MatchedFilter:
    """The optimal decoder of pictures in single trials; it knows what it could not learn."""

    def __init__(self, response: Response, noise: Noise, sfreq: float) -> None:
        self.good = noise.good
        self.n_times = response.specific.shape[2]
        self.sfreq = sfreq
        time = np.arange(self.n_times) / sfreq
        lags = np.abs(np.subtract.outer(np.arange(self.n_times), np.arange(self.n_times)))
        angle = 2 * np.pi * np.outer(time, noise.line_freqs)
        # Within a response drift is a straight line.
        slow = [np.stack([np.ones_like(time), time], axis=1)] if noise.drift.any() else []
        whitener = Whitener.of(
            background=noise.background[self.good],
            white=noise.white[self.good],
            temporal=background_autocovariance(self.n_times, sfreq)[lags],
            null_sensors=noise.blink[self.good, None],
            null_times=np.concatenate([np.cos(angle), np.sin(angle), *slow], axis=1),
        )
        templates = response.specific[:, self.good]
        self.filters = np.stack([whitener.inverse(t) for t in templates])
        self.gram = np.tensordot(self.filters, templates, axes=((1, 2), (1, 2)))
        self.gram = (self.gram + self.gram.T) / 2
        self.common = np.tensordot(
            self.filters, response.common["picture"][self.good], axes=((1, 2), (0, 1))
        )

    def ranks(self, data: np.ndarray, run: Run, latents: LatentCode) -> np.ndarray:
        """``optimal.identify`` of the pictures of one run among all pictures."""
        pictures = run.stimulus < latents.n_pictures
        starts = np.round(run.onset[pictures] * self.sfreq).astype(int)
        good = data[self.good]
        u = np.array(
            [
                np.tensordot(self.filters, good[:, at : at + self.n_times], axes=((1, 2), (0, 1)))
                for at in starts
            ]
        ).reshape(len(starts), len(self.gram))
        code = latents.code[: latents.n_pictures]
        return identify(u - self.common, self.gram, code, run.stimulus[pictures])


def _add_responses(
    data: np.ndarray,
    run: Run,
    response: Response,
    stimuli: pd.DataFrame,
    latents: LatentCode,
    sfreq: float,
) -> None:
    n_times = response.specific.shape[2]
    kinds = stimuli["trial_type"].to_numpy()
    flat = response.specific.reshape(len(response.specific), -1)
    for stimulus, onset in zip(run.stimulus, run.onset):
        at = round(onset * sfreq)
        own = (latents.code[stimulus] @ flat).reshape(-1, n_times)
        data[:, at : at + n_times] += response.common[kinds[stimulus]] + own


def _level_by_kind(info, noise: Noise, level: np.ndarray) -> dict[str, float]:
    """Root mean square of ``level`` over the good sensors of each kind [V, T or T/m]."""
    kinds = np.array(info.get_channel_types())
    return {
        str(kind): float(np.sqrt((level[noise.good & (kinds == kind)] ** 2).mean()))
        for kind in sorted(set(kinds))
    }


def _drop_electrode(folder: Path, name: str) -> None:
    """Leave an electrode whose place was not measured out of the table that all runs share."""
    for table in folder.glob("*_electrodes.tsv"):
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{name}\t")]
        table.write_text("".join(kept), encoding="utf-8")


def _write_run(
    root: Path,
    modality: str,
    subject: str,
    task: str,
    run: str,
    info,
    data: np.ndarray,
    eog: np.ndarray,
    events: pd.DataFrame,
) -> None:
    """One recording through :func:`mne_bids.write_raw_bids`, with our own event table."""
    import mne
    import mne_bids

    name = _EOG_NAME[modality]
    data = np.concatenate([data, eog[None]])
    path = mne_bids.BIDSPath(
        subject=subject, task=task, run=run, datatype=modality, suffix=modality, root=root
    )
    if modality == "eeg":
        codes = [_MARKER[kind] for kind in events["trial_type"]]
        samples = np.round(events["onset"] * info["sfreq"]).astype(int)
        with tempfile.TemporaryDirectory() as folder:
            header = Path(folder) / "run.vhdr"
            markers = list(zip(samples, codes))
            write_brainvision(header, data, [*info.ch_names, name], info["sfreq"], markers)
            raw = mne.io.read_raw_brainvision(header, eog=[name], verbose="error")
            raw.set_montage(info.get_montage(), verbose="error")
            raw.info["line_freq"] = info["line_freq"]
            written = mne_bids.write_raw_bids(raw, path, readme=False, verbose="error")
    else:
        raw = mne.io.RawArray(data[:-1], info, verbose="error")
        beside = mne.create_info([name], info["sfreq"], "eog")
        raw.add_channels(
            [mne.io.RawArray(data[-1:], beside, verbose="error")], force_update_info=True
        )
        raw.orig_format = "single"  # the format in which mne-bids writes
        written = mne_bids.write_raw_bids(
            raw, path, allow_preload=True, format="FIF", readme=False, verbose="error"
        )
    table = written.copy().update(suffix="events", extension=".tsv").fpath
    events.to_csv(table, sep="\t", index=False, na_rep="n/a")
    # mne-bids describes its own columns; ours are described once, at the root.
    table.with_suffix(".json").unlink(missing_ok=True)
    sidecar = written.copy().update(extension=".json").fpath
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    # mne-bids infers a maker from the file format; nobody made this amplifier.
    facts["Manufacturer"] = "none: simulated"
    if modality == "eeg":
        facts["EEGReference"] = "none: simulated potentials against infinity"
    sidecar.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
