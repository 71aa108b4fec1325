"""Simulated EEG of current dipoles, and simple ways to fill in electrodes that are missing."""

from __future__ import annotations

import mne
import numpy as np

SFREQ, WINDOW = 64.0, 64


def montage(n: int = 32) -> mne.Info:
    """The electrodes of BioSemi's caps, as an ``Info``."""
    caps = mne.channels.make_standard_montage(f"biosemi{n}")
    info = mne.create_info(caps.ch_names, SFREQ, "eeg")
    info.set_montage(caps)
    return info


def positions(info: mne.Info) -> np.ndarray:
    """Of electrodes ``(n_sensors, 3)`` [m]."""
    return np.array([channel["loc"][:3] for channel in info["chs"]])


def leadfield(places: np.ndarray, n_dipoles: int, depth: float, seed: int) -> np.ndarray:
    """Potentials ``(n_sensors, n_dipoles)`` of dipoles inside, in an unbounded medium.

    ``v = q . (p - d) / |p - d|^3``, up to a factor; average reference.
    """
    rng = np.random.default_rng(seed)
    centre = places.mean(0)
    radius = np.linalg.norm(places - centre, axis=1).mean()
    on = rng.choice(len(places), n_dipoles, replace=False)
    towards = (places[on] - centre) + 0.15 * radius * rng.normal(size=(n_dipoles, 3))
    dipoles = centre + depth * radius * towards / np.linalg.norm(towards, axis=1, keepdims=True)
    moments = rng.normal(size=(n_dipoles, 3))
    moments /= np.linalg.norm(moments, axis=1, keepdims=True)
    away = places[:, None] - dipoles
    field = (away * moments).sum(-1) / np.linalg.norm(away, axis=-1) ** 3
    field -= field.mean(0)
    return field / field.std(0)


def recording(field: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Windows ``(n, n_sensors, 64)`` of dipoles that oscillate at 2 to 10 Hz, and 10 % of noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(WINDOW) / SFREQ
    frequency = rng.uniform(2, 10, (n, field.shape[1], 1))
    phase = rng.uniform(0, 2 * np.pi, frequency.shape)
    amplitude = rng.exponential(1.0, frequency.shape)
    sources = amplitude * np.sin(2 * np.pi * frequency * time + phase)
    x = field @ sources
    return x + 0.1 * x.std() * rng.normal(size=x.shape)


def mean_of_neighbours(x: np.ndarray, places: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden sensors as the mean of the four nearest that are seen."""
    seen = np.flatnonzero(~hidden)
    distance = np.linalg.norm(places[hidden][:, None] - places[seen], axis=-1)
    nearest = seen[np.argsort(distance, axis=1)[:, :4]]
    return x[:, nearest].mean(2)


def spherical_splines(x: np.ndarray, info: mne.Info, hidden: np.ndarray) -> np.ndarray:
    """Hidden sensors by mne's spherical splines."""
    info = info.copy()
    info["bads"] = [info["ch_names"][k] for k in np.flatnonzero(hidden)]
    epochs = mne.EpochsArray(x.copy(), info, verbose="error")
    return epochs.interpolate_bads(verbose="error").get_data(copy=False)[:, hidden]


def correlations(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean over windows and sensors of the correlation over time."""
    one, two = (v - v.mean(-1, keepdims=True) for v in (estimate, truth))
    return float(((one * two).sum(-1) / np.sqrt((one**2).sum(-1) * (two**2).sum(-1))).mean())
