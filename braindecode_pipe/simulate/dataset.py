"""Simulated studies as raw BIDS data sets, with what was planted beside them."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DiskFullError, InputError
from braindecode_pipe.simulate.bold import simulate_bold
from braindecode_pipe.simulate.design import EVENT_COLUMNS
from braindecode_pipe.simulate.emeg import STORY_TASK, TASK, Simulated, simulate_emeg
from braindecode_pipe.simulate.latents import LatentCode, make_latents
from braindecode_pipe.simulate.optimal import score
from braindecode_pipe.simulate.settings import RESPONSE_S, VERSION, Settings, subject_label
from braindecode_pipe.simulate.stimuli import (
    Word,
    choose_pictures,
    choose_words,
    stimulus_table,
    write_stimuli,
)
from braindecode_pipe.simulate.stories import STORY_COLUMNS, Story, make_stories

_README = """\
Simulated recordings: no person was measured. The same {n_subjects} simulated people see pictures
and hear words in {modalities}. Written by `braindecode_pipe simulate`; settings, planted
truth and the score of the optimal decoder are in truth.json and truth/.
The pictures are OpenMoji glyphs, CC BY-SA 4.0: see stimuli/LICENSE.
"""
_TINY = {
    "n_subjects": 1, "n_pictures": 20, "n_words": 0, "n_repeats": 4, "n_runs": 2,
    "n_bold_repeats": 2, "n_eeg": 16, "n_meg": 30, "sfreq": 125.0, "grid": (10, 10, 8),
}  # fmt: skip


def simulate(out: str | Path, **settings: Any) -> None:
    """Write a BIDS data set of simulated people who see pictures and hear words.

    Layout: ``sub-XX/eeg`` and ``sub-XX/meg`` (BrainVision and FIF, several runs each),
    ``sub-XX/func`` (events) with ``derivatives/fmriprep/sub-XX/func`` (images, masks, confounds),
    ``stimuli/`` (PNG, WAV, ``stimuli.tsv``, ``LICENSE``), and what was planted: ``truth.json``
    (settings, bad channels, blinks, levels of noise and drift, ``optimal_decoder``) and
    ``truth/*.npz`` (latent codes, response templates, forward fields, drift, HRF).
    ``dataset_description.json`` holds ``"SimulatedData": true``.

    Parameters
    ----------
    out : path
        Folder to make. When it already holds the same simulation, nothing is done.
    **settings
        Fields of :class:`braindecode_pipe.simulate.Settings`, such as ``n_subjects``, ``snr``,
        ``seed`` and ``modalities``.

    Raises
    ------
    InputError : a setting out of range; ``out`` holds something else or cannot be written
    DiskFullError : no space left
    ModelError : the package with the pictures (extra ``simulate``) is not installed
    """
    chosen = Settings(**settings)
    out = Path(out).absolute()
    if is_current(out, chosen):
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            "the folder to simulate into is not empty",
            file=out,
            expected="an empty folder, or the same simulation",
            found="a file" if out.is_file() else "other files or other settings",
            remedy="choose another folder, or delete this one",
        )
    # Written aside and renamed: a data set that exists is complete.
    aside = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(aside, chosen)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise (DiskFullError if full else InputError)(
            "the simulation cannot be written",
            file=out,
            expected="a folder with enough free space that may be written to",
            found=error.strerror or str(error),
            remedy="free some space or choose another folder",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def simulate_tiny(out: str | Path, **settings: Any) -> None:
    """:func:`simulate` with few sensors and trials, for tests: 1 person, 20 pictures, EEG only.

    ``settings`` take precedence over those of the preset.
    """
    simulate(out, **{"modalities": ("eeg",), **_TINY, **settings})


def is_current(out: Path, settings: Settings) -> bool:
    """Whether ``out`` is a complete simulation with these settings by this version."""
    try:
        truth = json.loads((out / "truth.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = json.loads(json.dumps(settings.as_json()))
    return truth.get("version") == VERSION and truth.get("settings") == same


def _write(root: Path, settings: Settings) -> None:
    pictures = choose_pictures(settings.n_pictures, settings.rng("pictures"))
    words = choose_words(pictures, settings.n_words, settings.rng("words"), min(0.55, RESPONSE_S))
    stories = make_stories(words, settings)
    stimuli = stimulus_table(pictures, words)
    latents = make_latents(pictures, words, settings.rng("latents"), settings.nonlinear)
    _write_description(root, settings)
    write_stimuli(root / "stimuli", pictures, words, {story.file: story.sound for story in stories})
    (root / "truth").mkdir()
    np.savez(
        root / "truth" / "latents.npz",
        code=latents.code,
        block=latents.block,
        stim_file=stimuli["stim_file"].to_numpy(str),
    )
    truth: dict[str, Any] = {
        "version": VERSION,
        "settings": settings.as_json(),
        "snr": {m: settings.snr_of(m) for m in settings.modalities},
        "optimal_decoder": {},
        "planted": {},
    }
    for modality in settings.modalities:
        people = {}
        for index in range(settings.n_subjects):
            subject = subject_label(index)
            people[subject] = _simulate(
                root, settings, modality, subject, stimuli, latents, words, stories
            )
            np.savez(root / "truth" / f"{modality}_sub-{subject}.npz", **people[subject].arrays)
        truth["planted"][modality] = {f"sub-{s}": p.facts for s, p in people.items()}
        truth["optimal_decoder"][modality] = score(
            [p.ranks for p in people.values()], settings.n_pictures
        )
    _write_participants(root, settings)
    _write_json(root / "truth.json", truth)


def _simulate(
    root: Path, settings: Settings, modality: str, subject: str, stimuli, latents: LatentCode,
    words: list[Word], stories: list[Story],
) -> Simulated:  # fmt: skip
    if modality == "bold":
        return simulate_bold(root, settings, subject, stimuli, latents)
    return simulate_emeg(root, settings, modality, subject, stimuli, latents, words, stories)


def _write_description(root: Path, settings: Settings) -> None:
    generated = [{"Name": "braindecode_pipe simulate", "Version": VERSION}]
    _write_json(
        root / "dataset_description.json",
        {
            "Name": "Simulated people who see pictures and hear words",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "Recordings and sounds: CC0. Pictures: OpenMoji, CC BY-SA 4.0",
            "Authors": ["braindecode_pipe simulate"],
            "GeneratedBy": generated,
            "SimulatedData": True,
        },
    )
    (root / "README").write_text(
        _README.format(n_subjects=settings.n_subjects, modalities=", ".join(settings.modalities)),
        encoding="utf-8",
    )
    tasks = {TASK: EVENT_COLUMNS, **({STORY_TASK: STORY_COLUMNS} if settings.n_stories else {})}
    for task, described in tasks.items():
        columns = {name: {"Description": text} for name, text in described.items()}
        columns["onset"]["Units"] = columns["duration"]["Units"] = "s"
        _write_json(root / f"task-{task}_events.json", columns)
    # truth is no part of BIDS.
    (root / ".bidsignore").write_text("truth.json\ntruth/\n", encoding="utf-8")
    if "bold" in settings.modalities:
        _write_json(
            root / f"task-{TASK}_bold.json",
            {"RepetitionTime": settings.t_r, "TaskName": TASK},
        )
        derivative = root / "derivatives" / "fmriprep"
        derivative.mkdir(parents=True)
        _write_json(
            derivative / "dataset_description.json",
            {
                "Name": "Simulated BOLD in the form of fMRIPrep's output",
                "BIDSVersion": "1.9.0",
                "DatasetType": "derivative",
                "GeneratedBy": generated,
                "SimulatedData": True,
            },
        )


def _write_participants(root: Path, settings: Settings) -> None:
    """Replace what mne-bids wrote: age, sex and hand of simulated people are not known."""
    rows = [f"sub-{subject_label(i)}" for i in range(settings.n_subjects)]
    text = "\n".join(["participant_id", *rows]) + "\n"
    (root / "participants.tsv").write_text(text, encoding="utf-8")
    _write_json(
        root / "participants.json", {"participant_id": {"Description": "Label of the person."}}
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
