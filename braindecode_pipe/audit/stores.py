"""Leaks that stores show: what was fitted on what, what was chosen where, what was scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.audit.findings import Finding, finding
from braindecode_pipe.errors import StoreError
from braindecode_pipe.evaluate.predictions import fold_number
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import (
    StudyPlan,
    divided_recordings,
    overlaps,
    seen_tests,
    tested_within,
    window_times,
)
from braindecode_pipe.store import (
    list_extra_files,
    list_groups,
    open_signal,
    open_store,
    read_file,
    read_table,
    store_attrs,
)

_FITTED = (ROLES["train"], ROLES["validation"])
Extent = tuple[float, float | None]


def audit_recording(path: Path, plan: StudyPlan, extent: Extent) -> Iterator[Finding]:
    """Findings about one preprocessed recording: what its scaler, drift terms, ICA ... saw."""
    attrs = store_attrs(path)
    name = str(attrs.get("recording", path.parent.name))
    if name not in divided_recordings(plan):
        return
    if attrs.get("fit_extents") is None:
        what = "the recording is divided by the split and does not say what was fitted on it"
        yield finding("fit-extents", "", what, [name], "warning")
    else:
        yield from audit_extents(path, plan, extent)


def audit_extents(path: Path, plan: StudyPlan, extent: Extent) -> Iterator[Finding]:
    """Findings about any store that says which stretches of which recordings its fits saw.

    ``fit_extents`` holds (start, stop) [s] pairs of the attribute ``recording``, whose fits stay
    with it: they may see all of a recording that no fold divides. Or it maps recordings to such
    pairs: what was fitted on several serves all, and may see no tested window of its fold
    (attribute ``fold``), or of any.
    """
    attrs = store_attrs(path)
    extents, given = attrs.get("fit_extents") or {}, attrs.get("fold")
    fold = None if given is None else fold_number(given, plan)
    if isinstance(extents, Mapping):
        role = plan.role if fold is None else plan.role[fold : fold + 1]
        tested = (role == ROLES["test"]).any(axis=0)
        found = {name: _tested_in(plan, tested, name, extents[name], extent) for name in extents}
    else:
        name = str(attrs.get("recording", path.parent.name))
        found = {name: tested_within(plan, name, extents, extent, fold)}
    for name, met in found.items():
        if met:
            what = f"{_made_by(path)} was fitted on {name}, on samples of tested windows"
            yield finding("fit-extents", "" if given is None else str(given), what, met)


def _tested_in(
    plan: StudyPlan, tested: np.ndarray, name: str, pairs: Any, extent: Extent
) -> list[str]:
    """Tested events of a recording whose windows share time with ``pairs``."""
    rows = np.flatnonzero(tested & (plan.events["recording"] == name).to_numpy())
    pairs = np.asarray(pairs, float).reshape(-1, 2)
    if not len(rows) or not len(pairs):
        return []
    start, stop = window_times(plan.events.iloc[rows], extent)
    return list(plan.events["event"].iloc[rows[overlaps(start, stop, pairs[:, 0], pairs[:, 1])]])


def audit_scopes(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about the scopes that a store says: one rule for everything that is fitted.

    Every attribute ``*_scope``, of the store, of its groups and of the settings of a checkpoint, is
    the hash of a ``FitScope`` and must be that of the training part of its fold, or of the training
    or validation events alone. A store without the attribute ``fold`` serves all folds, and what it
    was fitted on must be the training part of each.
    """
    given = store_attrs(path).get("fold")
    folds = range(len(plan.folds)) if given is None else [fold_number(given, plan)]
    for fold in (f for f in folds if f is not None):
        label = str(plan.folds["fold"].iloc[fold])
        parts = (("train", "validation"), ("train",), ("validation",))
        right = {plan.scope(fold, roles).hash() for roles in parts}
        tested = plan.scope(fold, ("test",)).hash()
        for name, scope in scopes_of(path):
            if scope in right:
                continue
            chosen = name.startswith("selection")
            what = "chosen" if chosen else "fitted"
            where = "the test" if scope == tested else "something else than its training part"
            yield finding("selection" if chosen else "fit-scope", label,
                          f"{_made_by(path)}: {name} says that it was {what} on {where}",
                          [path.parent.name])  # fmt: skip


def scopes_of(path: Path) -> list[tuple[str, str]]:
    """(name, hash) of every scope that a store states, each once."""
    settings = [json.loads(read_file(path, f)) for f in list_extra_files(path)
                if f.endswith("model.json")]  # fmt: skip
    stated = [store_attrs(path), *settings]
    stated += [store_attrs(path, group) for group in list_groups(path) if group]
    pairs = [(str(k), v) for attrs in stated for k, v in attrs.items()]
    return sorted({(k, v) for k, v in pairs
                   if k.endswith("_scope") and isinstance(v, str) and v})  # fmt: skip


def audit_tokens(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about the tokens of one recording that decoders read: what their tokenizer saw."""
    attrs = store_attrs(path)
    if attrs.get("kind") != "response":
        return  # a tokenizer, or codes that nothing is decoded from
    name, seen = str(attrs["recording"]), attrs["tokenizer_seen"]
    if seen is None:
        what = f"the tokenizer of {name} does not say what it was fitted on"
        yield finding("tokenizer", "", what, [name], "warning")
        return
    content = str(plan.recordings.set_index("recording").loc[name, "content_hash"])
    for fold, label in enumerate(plan.folds["fold"].astype(str)):
        if label in attrs["folds"]:
            met = seen_tests(plan, {content: seen}, tuple(attrs["token_extent"]), fold)
            if met:
                what = f"the tokenizer of {name} was fitted on samples of tested windows"
                yield finding("tokenizer", label, what, met)


def audit_embedding(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about stimuli whose embeddings are nearly the same, one tested, one trained on.

    Only of targets whose stimuli the split keeps apart; the threshold is the table's own.
    """
    attrs = store_attrs(path)
    column = f"stimulus_{attrs.get('target', '')}"
    if "near_duplicates" not in list_groups(path) or column not in plan.events:
        return
    pairs = read_table(path, "near_duplicates")
    shown = plan.events[column].astype(str).to_numpy()
    own = plan.stimuli[plan.stimuli["target"] == attrs["target"]]
    label = dict(zip(own["stimulus"], own["label"].astype(str)))
    for fold, name in enumerate(plan.folds["fold"].astype(str)):
        fitted = np.isin(plan.role[fold], _FITTED)
        trained, tested = set(shown[fitted]) - {""}, set(shown[plan.rows(fold, "test")]) - {""}
        if trained & tested:
            continue
        close = [
            f"{label.get(a, a)} and {label.get(b, b)} ({cosine:.3f})"
            for a, b, cosine in zip(pairs["first"], pairs["second"], pairs["cosine"])
            if (a in tested and b in trained) or (b in tested and a in trained)
        ]
        if close:
            what = f"stimuli on both sides are nearly the same for {attrs['model']}"
            yield finding("near-duplicates", name, what, close)


def audit_prediction(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about one prediction store: the events it holds, and what its decoder saw."""
    dataset = open_store(path)
    decoder, given = dataset.attrs.get("decoder", "?"), dataset.attrs.get("fold", "")
    fold = fold_number(given, plan)
    if fold is None:
        what = f"{decoder} was trained on a fold that the plan does not have"
        yield finding("fold", str(given), what, [path.parent.name])
        return
    name = str(plan.folds["fold"].iloc[fold])
    tested = set(plan.events["event"].iloc[plan.rows(fold, "test")])
    strange = sorted({str(e) for e in dataset["event"].values} - tested)
    if strange:
        what = f"{decoder} is scored on events that the fold does not test"
        yield finding("tested-events", name, what, strange)
    yield from _normalizer(path, plan, fold, name)
    if dataset.attrs.get("fit_scope") is None:
        what = f"{decoder} does not say what it was fitted on"
        yield finding("fit-scope", name, what, [path.parent.name], "warning")
    yield from audit_scopes(path, plan)


def _normalizer(path: Path, plan: StudyPlan, fold: int, name: str) -> Iterator[Finding]:
    if "normalizer" not in list_groups(path):
        return
    dataset = open_store(path, "normalizer")
    seen = set(map(str, dataset["stimulus"].values)) if "stimulus" in dataset else set()
    target = store_attrs(path).get("target", "")
    shown = plan.events[f"stimulus_{target}"].astype(str).to_numpy()
    outside = sorted(seen - set(shown[np.isin(plan.role[fold], _FITTED)]))
    if outside:
        what = "the embedding was normalised on stimuli that training did not show"
        yield finding("normalizer", name, what, outside)


def audit_trials(paths: Sequence[Path], plan: StudyPlan) -> Iterator[Finding]:
    """Findings about trials with equal samples, in responses and recordings that come epoched.

    Only trials of one recording can be told here: each recording is scaled by itself. Copies among
    recordings are found in the raw files.
    """
    rows = {str(e): i for i, e in enumerate(plan.events["event"])}
    content: dict[int, bytes] = {}
    divided = set(divided_recordings(plan))
    for path in paths:
        # A damaged store fails by itself, where it is needed.
        with suppress(StoreError):
            if str(store_attrs(path).get("recording", path.parent.name)) in divided:
                content |= {rows[e]: h for e, h in _trial_hashes(path) if e in rows}
    ids = plan.events["event"].astype(str).to_numpy()
    for fold, name in enumerate(plan.folds["fold"].astype(str)):
        fitted = np.flatnonzero(np.isin(plan.role[fold], _FITTED))
        trained = {content[i]: ids[i] for i in fitted if i in content}
        met = [f"{ids[i]} = {trained[content[i]]}" for i in plan.rows(fold, "test")
               if content.get(i) in trained]  # fmt: skip
        if met:
            yield finding("copied-trials", name, "tested trials hold the samples of trained ones",
                          met)  # fmt: skip


def _trial_hashes(path: Path) -> Iterator[tuple[str, bytes]]:
    """Events of a response with the hash of their samples; trials of zeros or NaN have none."""
    signal = open_signal(path)
    for position, event in enumerate(() if signal.kind != "response" else signal.events):
        values = np.ascontiguousarray(signal.read_events([position]))
        if values.any() and np.isfinite(values).all():
            yield str(event), blake2b(values.tobytes(), digest_size=16).digest()


def audit_ledger(
    path: Path, entries: Sequence[Mapping[str, Any]], configuration: str
) -> Iterator[Finding]:
    """Findings about one evaluation: whether it is the best of several on the same test items.

    Parameters
    ----------
    path : the evaluation store
    entries : of ``evaluate.ledger.read``
    configuration : hash of the configuration that the evaluation is of
    """
    attrs = store_attrs(path)
    verdict = attrs.get("verdict", {})
    scored = {(s["decoder"], s["metric"]): s for s in attrs.get("scored", [])}
    headline = scored.get((verdict.get("decoder"), verdict.get("metric")))
    if headline is None:
        return
    keys = ("metric", "n_candidates", "candidates", "aggregate")
    alike = [e for e in entries
             if all(e.get(k, headline.get(k)) == headline.get(k) for k in keys)]  # fmt: skip
    others = [e for e in alike if e["configuration"] != configuration]
    if others and headline["value"] > max(float(e["value"]) for e in others):
        values = [float(e["value"]) for e in alike]
        n = len({e["configuration"] for e in alike} | {configuration})
        what = (
            f"{attrs.get('embedding', path.parent.name)}: the best of {n} configurations that "
            f"were scored on these test items is reported ({headline['metric']} "
            f"{headline['value']:.3g}; median {np.median(values):.3g})"
        )
        yield finding("ledger", "", what, [str(attrs.get("test_hash", ""))[:16]])


def _made_by(path: Path) -> str:
    """What a store is of: the decoder, tokenizer or recording that it names."""
    attrs = store_attrs(path)
    named = next((str(attrs[k]) for k in ("decoder", "tokenizer", "recording") if k in attrs), "")
    return named or f"{path.parent.parent.name} {path.parent.name}"
