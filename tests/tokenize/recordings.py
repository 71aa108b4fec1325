"""Small simulated recordings of EEG and MEG in stores, and tokenizers that fit within a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import write_store

SFREQ = 32.0
NETWORK = {"width": 16, "n_sources": 3, "n_heads": 2, "n_filters": 4, "ratios": [4, 2],
           "kernel": 3, "n_levels": 2, "codebook_size": 16}  # fmt: skip


def section(**changes) -> TokenizeSection:
    """A tokenizer of windows of 32 samples, 8 steps of 4 samples."""
    settings = {"sfreq": SFREQ, "window_s": 1.0, "network": NETWORK, "epochs": 2, "batch_size": 8}
    return TokenizeSection.model_validate(settings | changes)


def write_recording(
    path: Path, kinds: list[str], seconds: float = 40.0, seed: int = 0, sfreq: float = SFREQ,
    placed: bool = True, good: np.ndarray | None = None, spoil=None,
) -> Path:  # fmt: skip
    """Two oscillating sources seen by sensors around a head, with noise, in SI units."""
    rng = np.random.default_rng(seed)
    n, n_times = len(kinds), round(seconds * sfreq)
    position = rng.normal(size=(n, 3))
    position *= 0.1 / np.linalg.norm(position, axis=1, keepdims=True)
    times = np.arange(n_times) / sfreq
    sources = np.stack([np.sin(2 * np.pi * 5 * times), np.sin(2 * np.pi * 2.3 * times + 1)])
    scale = np.array([{"eeg": 1e-5, "mag": 1e-13, "grad": 1e-11}.get(k, 1.0) for k in kinds])
    data = 10 * position[:, :2] @ sources + 0.2 * rng.normal(size=(n, n_times))
    data = (scale[:, None] * data).astype(np.float32)
    time_good = np.ones(n_times, bool)
    if spoil is not None:
        spoil(data, time_good)
    units = {"eeg": "V", "mag": "T", "grad": "T/m"}
    orientation = np.where(np.array([k == "eeg" for k in kinds])[:, None], 0.0, position * 10)
    sensors = sensor_coords(
        [f"{kind}{i}" for i, kind in enumerate(kinds)], list(kinds),
        [units.get(k, "a.u.") for k in kinds], position if placed else None, orientation, good,
    )  # fmt: skip
    attrs = {"data_origin": "simulated", "sfreq": sfreq, "first_time": 0.0}
    write_store(path, {"": signal_dataset(data, sensors, times, attrs, time_good)})
    return path
