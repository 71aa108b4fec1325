"""Small BIDS trees with real BrainVision files, recipes for them, and one run that went well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import parse_recipe

WORDS = ("cat", "dog", "car", "bus")
RECIPE = """\
[study]
name = "words"

[plan.stimuli.word]

[preprocess.emeg]
sfreq = "none"
l_freq = 1.0
h_freq = "none"

[embed.word]

[train.windows]
sfreq = 20.0

[evaluate]
top_k = [1, 2]
bootstrap = 200
permutations = 499

[report]
gallery = 2
"""


def write_brainvision(path: Path, data: np.ndarray, sfreq: float = 100.0, names=None) -> None:
    """A BrainVision recording, (n_channels, n_times) in microvolts, float32."""
    names = names or [f"E{i + 1}" for i in range(len(data))]
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.name.removesuffix(".vhdr")
    channels = "".join(f"Ch{i + 1}={name},,1,µV\n" for i, name in enumerate(names))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(data)}\n"
        f"SamplingInterval={1e6 / sfreq}\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n"
        f"[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
        f"DataFile={stem}.eeg\n[Marker Infos]\n",
        encoding="utf-8",
    )
    path.with_suffix(".eeg").write_bytes(np.asarray(data.T, "<f4").tobytes())


def write_events(path: Path, onsets, labels, durations=None, extra="") -> None:
    """An events.tsv."""
    durations = durations if durations is not None else [0.3] * len(onsets)
    rows = [f"{a}\t{d}\t{b}" for a, b, d in zip(onsets, labels, durations)]
    path.write_text("onset\tduration\ttrial_type\n" + "\n".join(rows) + "\n" + extra)


def write_study(
    root: Path,
    subjects=("01", "02"),
    runs=("1", "2", "3"),
    planted=("01",),
    seed: int = 0,
    amplitude: float = 8.0,
) -> Path:
    """20 events a run of four words; people in ``planted`` have one pattern [uV] per word."""
    root.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        rng = np.random.default_rng([seed, int(subject)])
        pattern = {word: rng.normal(0, amplitude, 4) for word in WORDS}
        for run in runs:
            stem = root / f"sub-{subject}" / "eeg" / f"sub-{subject}_task-words_run-{run}"
            data = rng.normal(0, 10, (4, 2200))
            labels = rng.permutation(np.repeat(WORDS, 5))
            if subject in planted:
                for number, word in enumerate(labels):
                    data[:, number * 100 + 50 : number * 100 + 80] += pattern[word][:, None]
            write_brainvision(Path(f"{stem}_eeg.vhdr"), data)
            write_events(Path(f"{stem}_events.tsv"), np.arange(20) + 0.5, labels)
    description = {"Name": "test", "BIDSVersion": "1.9.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def bids(tmp_path) -> Path:
    """Two people, three runs each; nothing but noise."""
    return write_study(tmp_path / "bids", planted=())


@pytest.fixture
def make():
    """Writers of BrainVision files and event tables."""
    return write_brainvision, write_events


@pytest.fixture(scope="session")
def make_recording():
    """Writers of one recording and of one event table."""
    return write_brainvision, write_events


@pytest.fixture(scope="session")
def make_study():
    """Writer of a whole small data set: see :func:`write_study`."""
    return write_study


@pytest.fixture(scope="session")
def recipe_text() -> str:
    """A recipe for those data sets."""
    return RECIPE


@pytest.fixture(scope="session")
def words():
    """That recipe, read, with overrides."""
    return lambda *overrides: parse_recipe(RECIPE, "words.toml", overrides)


@pytest.fixture(scope="session")
def stores_in():
    """Every file of every store of a run, as {relative path: bytes}."""

    def read(out: Path) -> dict[str, bytes]:
        return {
            file.relative_to(out).as_posix(): file.read_bytes()
            for store in sorted(Path(out).glob("*/*/*.zarr"))
            for file in sorted(store.rglob("*"))
            if file.is_file()
        }

    return read


@pytest.fixture(scope="session")
def first(tmp_path_factory, words):
    """A data set with a planted signal for sub-01, and one uninterrupted run of it: read only."""
    folder = tmp_path_factory.mktemp("first")
    data = write_study(folder / "bids")
    result = pipeline.run(words(), data, folder / "out", quiet=True, ledger=folder / "ledger")
    assert [(row.unit, row.error) for row in result.failed] == []
    return folder, result


@pytest.fixture
def again(first, tmp_path, words):
    """A copy of the finished run's folder, data beside it, and a way to run in it."""
    folder, _ = first
    shutil.copytree(folder, tmp_path / "study", dirs_exist_ok=True)
    base = tmp_path / "study"

    def run(*overrides, **options):
        options = {"quiet": True, "ledger": base / "ledger", "data": base / "bids", **options}
        return pipeline.run(words(*overrides), out=base / "out", **options)

    run.base, run.out, run.data = base, base / "out", base / "bids"
    return run
