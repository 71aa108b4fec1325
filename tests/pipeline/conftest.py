"""Small BIDS trees with real BrainVision files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


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


@pytest.fixture
def bids(tmp_path) -> Path:
    """Two people, three runs each, 20 events a run of four words."""
    root = tmp_path / "bids"
    rng = np.random.default_rng(0)
    for subject in ("01", "02"):
        for run in ("1", "2", "3"):
            stem = root / f"sub-{subject}" / "eeg" / f"sub-{subject}_task-words_run-{run}"
            write_brainvision(Path(f"{stem}_eeg.vhdr"), rng.normal(0, 10, (4, 2200)))
            labels = rng.permutation(np.repeat(["cat", "dog", "car", "bus"], 5))
            write_events(Path(f"{stem}_events.tsv"), np.arange(20) + 0.5, labels)
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.9.0"}')
    return root


@pytest.fixture
def make():
    """Writers of BrainVision files and event tables."""
    return write_brainvision, write_events
