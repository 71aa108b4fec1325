"""Stores with every array of the quality group, for one kind of recording each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.recipe import Recipe
from braindecode_pipe.report import ReportInputs
from braindecode_pipe.report.document import Figure
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    response_dataset,
    sensor_coords,
    signal_dataset,
    table_to_dataset,
)
from braindecode_pipe.splits import content_hash
from braindecode_pipe.store import write_store

SETTINGS = {
    "eeg": {"emeg": {"notch": [50.0], "ica": {}, "l_freq": 0.5, "h_freq": 40.0}},
    "meg": {"emeg": {"notch": [50.0], "ica": {"find": ["ecg"]}, "maxwell": {"movement": "chpi"},
                     "h_freq": None, "l_freq": 0.5}},
    "ieeg": {"emeg": {"notch": [60.0], "reference": "bipolar"}},
    "epochs": {"emeg": {"ica": {}}},
    "bold": {"bold": {"confounds_strategy": ["motion"]}},
    "parcels": {"bold": {"sensors": "parcels", "atlas": "atlas.nii.gz"}},
    "betas": {"bold": {"responses": "glmsingle"}},
}  # fmt: skip
DATATYPE = {"parcels": "bold", "betas": "bold"}
KINDS = {"eeg": ("eeg",), "epochs": ("eeg",), "meg": ("mag", "grad"), "ieeg": ("seeg",)}
STEPS = {
    "eeg": [
        "32 of 33 channels: 32 eeg", "interpolated bad channels: EEG004",
        "ICA (picard) on 600 s, ICLabel: 2 of 12 components removed",
        "band-pass 0.5 to 40 Hz (zero-phase FIR)", "no low-pass: zapline was not asked for",
    ],
    "meg": ["tSSS (Maxwell filter, 10 s)", "SSP: 2 projectors"],
    "betas": ["single-trial betas by GLMsingle: fractional ridge"],
}  # fmt: skip


def sphere(n: int, radius: float = 0.09) -> np.ndarray:
    """(n, 3) evenly spread places on the upper part of a head [m]."""
    turn, z = np.arange(n) * 2.399963, 1 - 1.05 * (np.arange(n) + 0.5) / n
    return radius * np.c_[np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z]


def emeg_sensors(case: str, prefix: str):
    """Coordinates, kinds and names of the sensors of an M/EEG case; sensor 3 is bad."""
    if case == "meg":
        place = np.repeat(sphere(24, 0.12), 3, axis=0)
        kinds = ["mag", "grad", "grad"] * 24
        units = ["T", "T/m", "T/m"] * 24
    elif case == "ieeg":
        place = np.linspace([0.02, -0.03, 0.01], [0.06, 0.02, 0.03], 18)
        kinds, units = ["seeg"] * 18, ["V"] * 18
    else:
        place = sphere(32)
        kinds, units = ["eeg"] * 32, ["V"] * 32
    names = [f"{prefix}{i:03d}" for i in range(len(kinds))]
    good = np.arange(len(kinds)) != 3
    return sensor_coords(names, kinds, units, place, good=good), kinds, units, names


def emeg_quality(case: str, kinds, units, names, texts: dict, seed: int) -> xr.Dataset:
    """The quality group of an M/EEG recording, with one sensor that was dropped."""
    rng = np.random.default_rng(seed)
    n = len(names)
    typical = {"V": 1e-6, "T": 1e-13, "T/m": 1e-11}
    scale = np.array([typical[unit] for unit in [*units, units[0]]])
    freq, after = np.arange(0, 126, 0.5), np.arange(0, 60.5, 0.5)
    shape = (1 + freq / 5) ** -1.5
    psd = scale[:, None] ** 2 * shape * rng.gamma(20, 0.05, (n + 1, len(freq)))
    line = 60.0 if case == "ieeg" else 50.0
    cleaned = psd[:, : len(after)] * np.where(after > 45, 1e-9, 1.0)
    for k in (1, 2):
        psd[:, np.abs(freq - k * line) < 0.3] *= 300.0
    cleaned[-1] = np.nan
    reason = [""] * (n + 1)
    reason[3] = texts["reason"]
    reason[7] = f"{texts['reason']} (interpolated)" if case == "eeg" else ""
    reason[-1] = texts["reason"]
    variables = {
        "psd_before": (("sensor", "freq"), psd.astype("f4")),
        "psd_after": (("sensor", "freq_after"), cleaned.astype("f4")),
        "amplitude": ("sensor", scale * rng.gamma(20, 0.5, n + 1)),
        "bad_reason": ("sensor", np.array(reason, object)),
        "line_power_before": ("line", np.array([300.0, 300.0])),
        "line_power_after": ("line", np.array([3.0, 1.0])),
        "span_onset": ("span", np.array([5.0, 20.0, 41.0])),
        "span_duration": ("span", np.array([1.0, 4.0, 0.5])),
        "span_reason": ("span", np.array([texts["span"], "over the limit", texts["span"]], object)),
    }
    coords = {
        "sensor": ("sensor", np.array([*names, f"{texts['sensor']}off"], object)),
        "kind": ("sensor", np.array([*kinds, kinds[0]], object)),
        "unit": ("sensor", np.array([*units, units[0]], object)),
        "freq": freq, "freq_after": after, "line": np.array([line, 2 * line]),
    }  # fmt: skip
    if case in ("eeg", "meg"):
        mixing = rng.normal(size=(12, n + 1))
        mixing[0] = np.r_[np.exp(-((sphere(n)[:, 1] - 0.09) ** 2) / 2e-3), 0]
        mixing[:, -1] = np.nan
        time = np.arange(0, 20, 0.02)
        source = rng.normal(size=(12, len(time)))
        source[0] += 12 * (np.sin(2 * np.pi * time / 3) > 0.99)
        labels = [texts["label"], "muscle artifact", *["brain"] * 10]
        variables |= {
            "ica_map": (("component", "sensor"), mixing.astype("f4")),
            "ica_label": ("component", np.array(labels, object)),
            "ica_score": ("component", np.linspace(0.99, 0.4, 12)),
            "ica_excluded": ("component", np.arange(12) < 2),
            "ica_variance": ("component", np.linspace(0.2, 0.01, 12)),
            "ica_source": (("component", "ica_time"), source.astype("f4")),
        }
        coords |= {"component": np.arange(12), "ica_time": time}
    if case == "meg":
        moved = np.cumsum(rng.normal(0, 2e-4, (60, 6)), axis=0)
        variables["head_position"] = (("head_time", "head_parameter"), moved)
        coords["head_time"] = np.arange(60.0)
    return xr.Dataset(variables, coords=coords, attrs={"n_bad": 2, "good_share": 0.93})


def bold_sensors(case: str, prefix: str):
    """Coordinates of voxels in a small grid, or of parcels, and the attributes of the store."""
    if case == "parcels":
        names = [f"{prefix}{i:02d}" for i in range(30)]
        return sensor_coords(names, "parcel", "a.u.", sphere(30)), {}
    ijk = np.argwhere(np.ones((9, 8, 4), bool))
    ijk = ijk[np.linalg.norm((ijk - [4, 3.5, 1.5]) / [4.6, 4.1, 2.4], axis=1) < 1]
    affine = np.diag([-3.0, 3.0, 3.5, 1.0])
    place = (np.c_[ijk, np.ones(len(ijk))] @ affine.T)[:, :3] / 1e3
    names = [f"{prefix}{i:03d}-{j:03d}-{k:03d}" for i, j, k in ijk]
    coords = sensor_coords(names, "voxel", "a.u.", place, ijk=ijk)
    return coords, {"affine": affine.tolist(), "grid_shape": [9, 8, 4]}


def bold_quality(case: str, names, n_times: int, texts: dict, seed: int) -> xr.Dataset:
    """The quality group of an fMRI recording."""
    rng = np.random.default_rng(seed)
    n = len(names)
    variables = {
        "tsnr": ("sensor", (60 + 25 * np.sin(np.arange(n) / 9)).astype("f4")),
        "mean": ("sensor", (900 + 80 * np.cos(np.arange(n) / 5)).astype("f4")),
        "carpet": (("sensor_subset", "time"), rng.normal(size=(-(-n // 2), n_times)).astype("f4")),
        "global_signal": ("time", 900 + rng.normal(size=n_times)),
        "framewise_displacement": ("time", np.r_[np.nan, rng.gamma(1.5, 0.08, n_times - 1)]),
        "dvars": ("time", np.r_[np.nan, rng.gamma(9, 0.1, n_times - 1)]),
        "motion": (("time", "parameter"), np.cumsum(rng.normal(0, 0.02, (n_times, 6)), axis=0)),
    }
    attrs = {"mask_coverage": 0.6}
    if case == "parcels":
        share = np.ones(n)
        share[[2, 5]] = 0.3, 0.8
        variables["coverage"] = ("sensor", share)
        attrs["lost_labels"] = [texts["label"]]
    if case == "betas":
        variables |= {
            "r2": ("sensor", rng.uniform(0, 0.4, n)),
            "hrf_index": ("sensor", rng.integers(-1, 20, n)),
            "ridge_fraction": ("sensor", rng.choice([0.05, 0.5, 1.0], n)),
            "noise_ceiling": ("sensor", rng.uniform(0, 60, n)),
        }
    coords = {
        "sensor": ("sensor", names),
        "sensor_subset": ("sensor_subset", names[::2]),
        "time": ("time", 2.0 * np.arange(n_times)),
    }
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def quality_study(
    folder: Path, case: str, *, lack: Sequence[str] = (), payload: str = "", n: int = 1,
    settings: dict | None = None, origin: str = "simulated", matching: dict | None = None,
) -> ReportInputs:  # fmt: skip
    """A study with ``n`` recordings of one kind and no decoding.

    Parameters
    ----------
    folder : where to write
    case : key of ``SETTINGS``
    lack : arrays of the quality group to leave out
    payload : text that stands wherever the data can bring one
    settings : [preprocess] in place of the case's own
    matching : what the plan says of the device's triggers
    """
    texts = {name: payload or word for name, word in (
        ("sensor", "EEG"), ("reason", "flat in 90% of its windows"), ("span", "BAD_jump"),
        ("label", "eye blink"), ("step", "band-pass"), ("warning", "no low-pass"),
        ("trial", "face"),
    )}  # fmt: skip
    folder.mkdir(parents=True)
    bold = case in ("bold", "parcels", "betas")
    signals, recordings, events = {}, [], []
    for i in range(n):
        name = f"{payload}{i}" if payload else f"sub-01_run-{i + 1:02d}"
        signals[name] = folder / f"store-{i}.zarr"
        recordings.append({
            "recording": name, "subject": "01", "session": "", "task": "see", "run": f"{i + 1}",
            "datatype": DATATYPE.get(case, case), "path": f"{name}.edf", "excluded": False,
            "exclude_reason": "", "content_hash": content_hash(name), "sfreq": 100.0,
            "n_times": 6000, "n_sensors": 32, "duration": 60.0, "data_origin": origin,
            "problem": "",
        })  # fmt: skip
        events += [
            {"event": f"{name}:{k:05d}", "recording": name, "subject": "01", "session": "",
             "run": f"{i + 1}", "onset": 1.0 + 1.9 * k, "duration": 0.5, "group": f"{i}",
             "repetition": 0, "stimulus_trial_type": f"{k % 2:016x}"}
            for k in range(30)
        ]  # fmt: skip
        _write_recording(signals[name], case, name, texts, i, lack, origin, bold)
    stimuli = [
        {"stimulus": f"{k:016x}", "target": "trial_type", "kind": "concept", "path": "",
         "label": f"{texts['trial']}{k}", "onset": 0.0, "offset": np.nan, "category": "",
         "near_duplicate_group": ""}
        for k in range(2)
    ]  # fmt: skip
    tables = {"recordings": recordings, "events": events, "stimuli": stimuli,
              "folds": [{"fold": "0", "subject": "01", "groups": "0"}]}  # fmt: skip
    groups = {
        key: table_to_dataset(pd.DataFrame(rows), f"{key}_row") for key, rows in tables.items()
    }
    groups["split"] = xr.Dataset(
        {"role": (("fold", "event"), np.ones((1, len(events)), np.int8))},
        attrs={"kind": "table", "schema_version": SCHEMA_VERSION},
    )
    attrs = {"kind": "table", "stage": "plan", "dropped_events": {next(iter(signals)): 2},
             "excluded": {}, "problems": {}, "duplicates": [], "shared_stimuli": {},
             "split_hash": content_hash("split")}  # fmt: skip
    if matching is not None:
        attrs["event_matching"] = dict.fromkeys(signals, matching)
    write_store(folder / "plan.zarr", groups, attrs=attrs)
    recipe = Recipe.model_validate({
        "study": {"name": "study", "title": payload or "Quality"},
        "preprocess": SETTINGS[case] if settings is None else settings,
        "train": {"windows": {"tmin": 0.0, "tmax": 0.5}},
    })  # fmt: skip
    return ReportInputs(
        recipe=recipe.model_dump(mode="json"), plan=folder / "plan.zarr", signals=signals,
        embeddings={}, predictions={}, evaluations={}, data=folder, versions={"mne": "1.13.0"},
    )  # fmt: skip


def _write_recording(path, case, name, texts, seed, lack, origin, bold) -> None:
    rng = np.random.default_rng(seed)
    sfreq = 0.5 if bold else 100.0
    n_times = int(60 * sfreq)
    if bold:
        coords, extra = bold_sensors(case, texts["sensor"])
        qc = bold_quality(case, coords["sensor"][1], n_times, texts, seed)
        extra |= {"t_r": 2.0}
    else:
        coords, kinds, units, names = emeg_sensors(case, texts["sensor"])
        qc = emeg_quality(case, kinds, units, names, texts, seed)
        extra = {
            "engine": "fast", "resampler": f"{texts['step']} resampler, lag below 0.01 ms",
            "filter_half_length_s": 1.65,
            "scaler": {"scope": "per_recording", "n_samples": 5400, "extents_hash": "ab12"},
        }  # fmt: skip
    steps = STEPS.get(case, []) + [texts["step"]]
    attrs = {"data_origin": origin, "datatype": DATATYPE.get(case, case), "sfreq": sfreq,
             "recording": name, "first_time": 0.0, "content_hash": content_hash(name),
             "position_frame": "head", "steps": steps, **extra}  # fmt: skip
    qc = qc.drop_vars([array for array in lack if array in qc])
    qc.attrs |= {"schema_version": SCHEMA_VERSION, "kind": "qc", "steps": steps,
                 "warnings": [texts["warning"]]}  # fmt: skip
    n = len(coords["sensor"][1])
    if case in ("betas", "epochs"):
        times = None if case == "betas" else np.arange(50) / sfreq
        shape = (30, n) if times is None else (30, n, 50)
        data = rng.normal(size=shape).astype("f4")
        events = [f"{name}:{k:05d}" for k in range(30)]
        dataset = response_dataset(data, coords, events, attrs, times)
        dataset = dataset.assign_coords(event_good=("event", np.arange(30) > 3))
    else:
        data = rng.normal(size=(n, n_times)).cumsum(axis=1)
        data = ((data - data.mean(1, keepdims=True)) / data.std(1, keepdims=True)).astype("f4")
        time = np.arange(n_times) / sfreq
        dataset = signal_dataset(data, coords, time, attrs, ~((time > 20) & (time < 24)))
    write_store(path, {"": dataset, "qc": qc})


@pytest.fixture(scope="session")
def make_quality():
    """Function that writes a study of one kind of recording and gives its inputs."""
    return quality_study


@pytest.fixture(scope="session", params=sorted(SETTINGS))
def case(request):
    """Every kind of recording."""
    return request.param


@pytest.fixture
def fast_figures(monkeypatch):
    """Figures without their pixels, for tests of what stands around them."""

    def picture(figure, alt, caption, few_colours=False):
        return Figure(b"\x89PNG", alt, caption, 10, 10)

    for module in ("maps", "qc_figures", "qc_time_figures", "qc_ica_figures"):
        monkeypatch.setattr(f"braindecode_pipe.report.{module}.picture", picture)
