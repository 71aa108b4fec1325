"""Small whole studies, written through the store as the other rooms write them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from braindecode_pipe.evaluate import run as evaluate
from braindecode_pipe.evaluate import run_zero_shot as evaluate_zero_shot
from braindecode_pipe.evaluate.ledger import append, configuration_of, read
from braindecode_pipe.recipe import Recipe, ZeroShotSection
from braindecode_pipe.report import ReportInputs
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    embedding_dataset,
    prediction_dataset,
    sensor_coords,
    signal_dataset,
    table_to_dataset,
)
from braindecode_pipe.splits import StudyPlan, content_hash
from braindecode_pipe.store import store_attrs, write_store


@dataclass
class Names:
    """Every text that a data set or a recipe can bring onto a page."""

    title: str = "Which picture was seen?"
    description: str = "Two people saw pictures of four categories."
    subjects: tuple[str, ...] = ("01", "02")
    labels: tuple[str, ...] = ()
    categories: tuple[str, ...] = ("animal", "food", "vehicle", "tool")
    sensor: str = "EEG"
    reason: str = "flat: 1e-3 of the median amplitude of its type"
    warning: str = "no low-pass: 40 Hz is not below 32 Hz (Nyquist)"
    step: str = "band-pass 0.1 to 40 Hz (zero-phase FIR)"
    exclude_reason: str = "bytes equal to another run"
    error: str = "UnitError: eeg amplitudes cannot be in V"
    version: str = "1.13.0"
    licence: str = "CC0-1.0"
    embedding: str = "pictures"
    extra: dict = field(default_factory=dict)


def _plan(folder: Path, names: Names, *, n_runs, n_trials, datatype, kind, data, origin):
    rng = np.random.default_rng(0)
    n_labels = len(names.labels)
    rows, events = [], []
    for subject, run in itertools.product(names.subjects, range(n_runs)):
        recording = f"sub-{subject}_task-see_run-{run + 1:02d}"
        rows.append(
            {
                "recording": recording, "subject": subject, "session": "", "task": "see",
                "run": f"{run + 1:02d}", "datatype": datatype, "path": f"{recording}.edf",
                "content_hash": content_hash(recording), "sfreq": 64.0, "n_times": 64 * 60,
                "n_sensors": 18, "duration": 60.0, "excluded": False, "exclude_reason": "",
                "data_origin": origin, "problem": "",
            }
        )  # fmt: skip
        shown = rng.permutation(np.arange(n_trials) % n_labels)
        onset = 1.0 + np.arange(n_trials) * (55.0 / n_trials) + rng.uniform(0, 0.2, n_trials)
        for i, (stimulus, time) in enumerate(zip(shown, onset)):
            events.append(
                {
                    "event": f"{recording}:{i:05d}", "recording": recording, "subject": subject,
                    "session": "", "run": f"{run + 1:02d}", "onset": time, "duration": 0.5,
                    "group": f"{run}", "repetition": 0, "stimulus_picture": f"{stimulus:016x}",
                }
            )  # fmt: skip
    rows.append({**rows[0], "recording": f"{rows[0]['recording']}x", "excluded": True,
                 "exclude_reason": names.exclude_reason})  # fmt: skip
    stimuli = []
    for i, label in enumerate(names.labels):
        path = ""
        if kind == "image":
            path = f"stimuli/{i}.png"
            (data / "stimuli").mkdir(parents=True, exist_ok=True)
            shade = np.zeros((60, 80, 4), np.uint8)
            shade[10:50, 10:70] = (40 + 11 * i % 200, 255 - 17 * i % 200, 29 * i % 255, 255)
            Image.fromarray(shade).save(data / path)
        stimuli.append(
            {
                "stimulus": f"{i:016x}", "target": "picture", "kind": kind, "label": label,
                "path": path, "onset": 0.0, "offset": np.nan,
                "category": names.categories[i % len(names.categories)] if kind == "image"
                else label, "near_duplicate_group": f"{i:016x}",
            }
        )  # fmt: skip
    recordings, events = pd.DataFrame(rows), pd.DataFrame(events)
    folds = pd.DataFrame(
        [
            {"fold": f"{subject}/{run}", "subject": subject, "groups": str(run)}
            for subject, run in itertools.product(names.subjects, range(n_runs))
        ]
    )
    role = np.zeros((len(folds), len(events)), np.int8)
    for i, fold in folds.iterrows():
        own = (events["subject"] == fold["subject"]).to_numpy()
        role[i, own] = np.where(events["group"][own] == fold["groups"], 3, 1)
    plan = StudyPlan(recordings, events, pd.DataFrame(stimuli), folds, role)
    path = folder / "plan.zarr"
    tables = {name: getattr(plan, name) for name in ("recordings", "events", "stimuli", "folds")}
    groups = {name: table_to_dataset(table, f"{name}_row") for name, table in tables.items()}
    groups["split"] = xr.Dataset({"role": (("fold", "event"), role)}, attrs={"kind": "table",
                                 "schema_version": SCHEMA_VERSION})  # fmt: skip
    attrs = {
        "kind": "table", "stage": "plan", "dropped_events": {rows[1]["recording"]: 2},
        "excluded": {rows[-1]["recording"]: names.exclude_reason}, "problems": {},
        "duplicates": [[rows[0]["recording"], rows[-1]["recording"], 1.0]],
        "shared_stimuli": {"picture": [s["stimulus"] for s in stimuli]},
        "dataset_name": names.title, "dataset_license": names.licence,
        "dataset_references": [f"A paper about {names.title}"],
    }  # fmt: skip
    write_store(path, groups, attrs=attrs)
    return plan, path


def _sensors(names: Names, datatype: str):
    if datatype == "bold":
        ijk = np.argwhere(np.ones((7, 6, 3), bool))[::1]
        ijk = ijk[np.linalg.norm((ijk - [3, 2.5, 1]) / [3.6, 3.1, 2], axis=1) < 1]
        labels = [f"{names.sensor}{i:03d}-{j:03d}-{k:03d}" for i, j, k in ijk]
        affine = np.diag([-3.0, 3.0, 3.5, 1.0])
        position = (np.c_[ijk, np.ones(len(ijk))] @ affine.T)[:, :3] / 1e3
        return sensor_coords(labels, "voxel", "a.u.", position, ijk=ijk), {
            "affine": affine.tolist(), "grid_shape": [7, 6, 3], "t_r": 2.0,
        }  # fmt: skip
    n = 18
    turn = np.arange(n) * 2.399963
    z = 1 - 0.95 * (np.arange(n) + 0.5) / n
    position = 0.09 * np.c_[np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z]
    good = np.arange(n) != 3
    labels = [f"{names.sensor}{i:03d}" for i in range(n)]
    return sensor_coords(labels, "eeg", "V", position, good=good), {}


def _signals(folder: Path, plan: StudyPlan, names: Names, datatype: str, origin: str):
    rng = np.random.default_rng(1)
    coords, extra = _sensors(names, datatype)
    labels = coords["sensor"][1]
    n, sfreq = len(labels), 0.5 if datatype == "bold" else 64.0
    n_times = int(60 * sfreq)
    time = np.arange(n_times) / sfreq
    found = {}
    for recording in plan.recordings.loc[~plan.recordings["excluded"], "recording"]:
        data = rng.normal(size=(n, n_times)).cumsum(axis=1)
        data = ((data - data.mean(1, keepdims=True)) / data.std(1, keepdims=True)).astype("f4")
        good = ~((time > 20) & (time < 24))
        attrs = {"sfreq": sfreq, "first_time": 0.0, "data_origin": origin, **extra,
                 "steps": [names.step], "filter_half_length_s": 1.65,
                 "position_frame": "scanner" if datatype == "bold" else "head"}  # fmt: skip
        qc_attrs = {"schema_version": SCHEMA_VERSION, "kind": "qc", "steps": [names.step],
                    "warnings": [names.warning]}  # fmt: skip
        sensor = {"sensor": ("sensor", labels)}
        if datatype == "bold":
            tsnr = 60 + 25 * np.sin(np.arange(n) / 9)
            qc = xr.Dataset(
                {
                    "tsnr": ("sensor", tsnr.astype("f4")), "mean": ("sensor", tsnr * 9),
                    "carpet": (("sensor_subset", "time"), data[::2]),
                    "global_signal": ("time", 900 + data.mean(axis=0).astype(float)),
                    "framewise_displacement": ("time", rng.gamma(1.5, 0.08, n_times)),
                },
                coords={**sensor, "sensor_subset": ("sensor_subset", labels[::2])},
                attrs=qc_attrs,
            )  # fmt: skip
        else:
            freq = np.linspace(0, 32, 65)
            psd = (1e-11 / (1 + freq)) * rng.gamma(20, 0.05, (n + 1, 1)) * rng.gamma(9, 0.1, 65)
            psd[:, 50] *= 40
            after = np.where(np.arange(n + 1)[:, None] == n, np.nan, psd)[:, :41]
            qc = xr.Dataset(
                {
                    "psd_before": (("sensor", "freq"), psd.astype("f4")),
                    "psd_after": (("sensor", "freq_after"), after.astype("f4")),
                    "amplitude": ("sensor", 1e-5 * rng.gamma(9, 0.1, n + 1)),
                    "bad_reason": ("sensor", np.array(
                        [names.reason if i in (3, n) else "" for i in range(n + 1)], object)),
                },
                coords={"sensor": ("sensor", np.array([*labels, f"{names.sensor}-off"], object)),
                        "freq": ("freq", freq), "freq_after": ("freq_after", freq[:41])},
                attrs=qc_attrs,
            )  # fmt: skip
        path = folder / f"signal-{len(found)}.zarr"
        write_store(path, {"": signal_dataset(data, coords, time, attrs, good), "qc": qc})
        found[str(recording)] = path
    return found, labels


def _predictions(folder, plan, names, vectors, decoders, snr, sensors, origin, delay):
    rng = np.random.default_rng(2)
    ids = list(plan.stimuli["stimulus"])
    found = []
    for decoder, fold in itertools.product(decoders, range(len(plan.folds))):
        rows = plan.rows(fold, "test")
        truth = plan.events["stimulus_picture"].iloc[rows].tolist()
        strength = snr * {"ridge": 1.0, "mlp": 0.8, "conv": 1.1}[decoder]
        data = strength * vectors[[ids.index(s) for s in truth]]
        data = data + rng.normal(size=data.shape)
        subject = str(plan.folds["subject"].iloc[fold])
        attrs = {
            "fold": fold, "subject": subject, "decoder": decoder, "embedding": names.embedding,
            "target": "picture", "data_origin": origin, "inner_score": 0.5 - 0.1 * len(decoder),
            "delay_s": 4.0 if delay else 0.0, "dropped": {"outside": 1, "bad span": 3},
            "fit_scope": plan.scope(fold).hash(),
        }  # fmt: skip
        groups = {"": prediction_dataset(data, list(plan.events["event"].iloc[rows]), truth, attrs)}
        if decoder == "ridge":
            shown = ids[:8] if len(ids) <= 20 else ["norm"]
            pattern = rng.normal(size=(len(shown), len(sensors))) + np.sin(np.arange(len(sensors)))
            pattern = np.abs(pattern) if shown == ["norm"] else pattern
            groups["pattern"] = xr.Dataset(
                {"pattern": (("component", "sensor"), pattern.astype("f4"))},
                coords={"component": ("component", np.array(shown, object)),
                        "sensor": ("sensor", sensors)},
                attrs={"schema_version": SCHEMA_VERSION, "kind": "table"},
            )  # fmt: skip
        else:
            epoch = np.arange(1, 21)
            loss = 3 * np.exp(-epoch / 7) + rng.normal(0, 0.05, 20)
            log = {"epoch": epoch, "train_loss": loss, "validation_loss": loss + 0.4,
                   "validation_top1": 0.4 * (1 - np.exp(-epoch / 6))}  # fmt: skip
            groups["log"] = table_to_dataset(pd.DataFrame(log), "epoch_row")
        if delay:
            lag = np.arange(0, 12.1, 2)
            curve = {"delay": lag, "correlation": np.exp(-((lag - 4) ** 2) / 9)}
            groups["delay"] = table_to_dataset(pd.DataFrame(curve), "delay_row")
        path = folder / f"prediction-{decoder}-{fold}.zarr"
        write_store(path, groups)
        found.append(path)
    return found


def _zero_shot(folder: Path, plan: StudyPlan, names: Names, recipe: Recipe, origin: str) -> Path:
    rng = np.random.default_rng(3)
    labels = list(names.labels)
    n = len(labels)
    ids = list(plan.stimuli["stimulus"])
    rows = []
    for pair, (a, b) in enumerate(itertools.combinations(range(n), 2)):
        for true in (a, b):
            own = plan.events[plan.events["stimulus_picture"] == ids[true]]["event"].tolist()
            rows += [(pair, event, true, a, b) for event in own]
    latent = rng.normal(size=(n, 5))
    weights = rng.normal(size=(len(rows), n)) * 0.4 + (latent @ latent.T)[[r[2] for r in rows]]
    for i, (_, _, _, a, b) in enumerate(rows):
        weights[i, [a, b]] = 0
    columns = dict(zip(("pair", "event", "true", "a", "b"), zip(*rows)))
    dataset = xr.Dataset(
        {"weights": (("row", "category"), weights.astype("f4"))},
        coords={
            "category": ("category", np.array(labels, object)),
            "event": ("row", np.array(columns["event"], object)),
            **{k: ("row", np.array(columns[k], np.int64)) for k in ("pair", "true", "a", "b")},
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": "table", "data_origin": origin},
    )
    write_store(folder / "weights.zarr", {"": dataset})
    tables = {}
    for name, noise in (("names", 0.3), ("sentences", 4.0)):
        vectors = latent + noise * rng.normal(size=latent.shape)
        path = folder / f"prompts-{name}.zarr"
        attrs = {"data_origin": origin, "labels": labels}
        write_store(path, {"": embedding_dataset(vectors, ids, attrs)})
        tables[name] = path
    section = ZeroShotSection(target="picture", categories=labels, embeddings=list(tables))
    out = folder / "zero-shot.zarr"
    evaluate_zero_shot(recipe.evaluate, section, folder / "weights.zarr", tables, out, plan=plan)
    return out


def build_study(
    folder: Path,
    *,
    modality: str = "eeg",
    snr: float = 0.8,
    origin: str = "recorded",
    names: Names | None = None,
    zero_shot: bool = False,
    n_runs: int = 3,
    n_trials: int = 24,
    draws: int = 200,
) -> ReportInputs:
    """A whole study with stores of every stage; ``modality`` is eeg or bold."""
    data = folder / "data"
    data.mkdir(parents=True)
    bold = modality == "bold"
    names = names or Names()
    if not names.labels:
        names.labels = (
            ("face", "house", "cat", "shoe") if bold
            else tuple(f"{names.categories[i % 4]} {i}" for i in range(24))
        )  # fmt: skip
    (data / "dataset_description.json").write_text(json.dumps({"Name": names.title}))
    (data / "README").write_text(f"Pictures.\nLicence of the pictures: {names.licence}\n")
    kind = "concept" if bold else "image"
    datatype = "bold" if bold else "eeg"
    plan, plan_path = _plan(folder, names, n_runs=n_runs, n_trials=n_trials, datatype=datatype,
                            kind=kind, data=data, origin=origin)  # fmt: skip
    signals, sensors = _signals(folder, plan, names, datatype, origin)
    vectors = np.random.default_rng(4).normal(size=(len(names.labels), 12))
    embedding = folder / "embedding.zarr"
    model = "one-hot" if bold else "efficientnet-lite0"
    attrs = {"data_origin": origin, "labels": list(names.labels), "model": model}
    write_store(embedding, {"": embedding_dataset(vectors, list(plan.stimuli["stimulus"]), attrs)})
    decoders = ["ridge", "mlp"] if bold else ["conv", "ridge"]
    settings = {
        "study": {"name": "study", "title": names.title, "description": names.description,
                  "license": names.licence, "citation": f"Someone (2001). {names.title}."},
        "plan": {"stimuli": {"picture": {"kind": kind}}},
        "embed": {names.embedding: {"target": "picture",
                                    "model": model}},
        "train": {"decoders": decoders, "select": bold,
                  "windows": {"delay": "estimate" if bold else 0.0, "tmax": 0.8}},
        "evaluate": {"bootstrap": draws, "permutations": draws},
    }  # fmt: skip
    recipe = Recipe.model_validate(settings)
    predictions = _predictions(
        folder, plan, names, vectors, decoders, snr, sensors, origin, delay=bold
    )
    evaluation = folder / "evaluation.zarr"
    evaluate(recipe.evaluate, names.embedding, plan, predictions, embedding, evaluation)
    evaluations = {names.embedding: evaluation}
    if zero_shot:
        evaluations["zero_shot"] = _zero_shot(folder, plan, names, recipe, origin)
    dump = recipe.model_dump(mode="json")
    this = configuration_of(dump)
    ledger = {}
    for path in evaluations.values():
        attrs = store_attrs(path)
        for configuration in ("aaaaaaaaaaaaaaaa", this):
            for entry in attrs["scored"]:
                append(folder / "ledger", attrs["test_hash"], configuration=configuration,
                       study=names.title, embedding=names.embedding, **entry)  # fmt: skip
        ledger[attrs["test_hash"]] = read(folder / "ledger", attrs["test_hash"])
    return ReportInputs(
        recipe=dump, plan=plan_path, signals=signals, embeddings={names.embedding: embedding},
        predictions={names.embedding: predictions}, evaluations=evaluations, ledger=ledger,
        data=data, versions={"mne": names.version},
        failures=[{"stage": "preprocess", "unit": f"sub-{names.subjects[0]}",
                   "error": names.error}] if names.extra.get("failed") else [],
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_study():
    """Function that writes a whole small study and gives its :class:`ReportInputs`."""
    return build_study


@pytest.fixture(scope="session")
def make_names():
    """The texts of a study."""
    return Names
