"""Units of the stage ``tokenize``: a tokenizer for what folds may see, codes of a recording."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting import loop
from braindecode_pipe.fitting.selfsupervised import OWN, Unlabelled
from braindecode_pipe.fitting.world import World, best_device
from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.schema import join_data_origin, table_to_dataset
from braindecode_pipe.splits import FitScope
from braindecode_pipe.store import Signal, open_signal, write_store
from braindecode_pipe.tokenize.encode import Encoding, EventWindows
from braindecode_pipe.tokenize.measures import CodeCounts
from braindecode_pipe.tokenize.saved import Tokenizer, load_tokenizer, make_network
from braindecode_pipe.tokenize.sensors import SensorWindows, check_rate, usable_rows, windows_within

COUNTED = 256  # windows over which a fitted tokenizer tells how evenly it uses its codes


def fit(
    section: TokenizeSection,
    scope: FitScope,
    contents: Mapping[str, str],
    signals: Mapping[str, Path],
    out: Path,
    *,
    threads: int = 1,
) -> None:
    """Fit a tokenizer to what a scope may see, and write it.

    Windows lie side by side in the extents of the scope, wholly in good samples; the last share of
    each recording's only tells when to stop. Recordings without a good sensor are left out. A fit
    that is stopped goes on from its checkpoints in ``<key>.fit`` beside the store, which go when
    the store is there. Under ``torchrun`` all processes share it and the first one writes.

    The store holds ``model.safetensors`` and ``model.json``, and the groups ``log`` (epochs) and
    ``usage`` (of codes, on windows of the fit).

    Parameters
    ----------
    section : TokenizeSection
    scope : FitScope, with the extents [s] of each recording
    contents : recording -> content hash, by which the tokenizer says what it saw
    signals : recording -> store
    out : store to write
    threads : that sums may use

    Raises
    ------
    DataError
        When a recording has another rate, or there are fewer than two windows.
    RecipeError
        For settings that the network cannot do with.
    """
    torch.set_num_threads(threads)
    opened = {name: open_signal(signals[name]) for name in sorted(signals)}
    for signal in opened.values():
        check_rate(signal, section.sfreq)
    network, arguments = make_network(section)
    seen, held = _divided(section, scope, opened)
    n = sum(map(len, seen.values()))
    if n < 2:
        raise DataError(
            "there are too few windows to fit a tokenizer",
            expected=f"two of {section.window_s:g} s, in good samples away from what is tested",
            found=f"{n} in {len(signals)} recordings",
            remedy="shorten tokenize.window_s, or split by run or subject",
        )
    device, folder = best_device(), out.with_suffix(".fit")
    network.to(device)
    train = SensorWindows(opened, seen, section.window, section.windows_per_epoch, device=device)
    validation = None
    if any(map(len, held.values())):
        few = section.windows_per_epoch and max(1, section.windows_per_epoch // 10)
        examples = SensorWindows(opened, held, section.window, few, draws=False, device=device)
        validation = Unlabelled(len(examples), examples)
    names = ("lr", "weight_decay", "batch_size", "epochs", "patience", "seed", "schedule",
             "warmup", "clip_norm", "precision")  # fmt: skip
    done = loop.fit(
        network, Unlabelled(len(train), train), validation, folder=folder, loss=OWN,
        **{name: getattr(section, name) for name in names},
    )  # fmt: skip
    world = World.current()
    if world.rank == 0:
        own = _seen(scope, contents, seen)
        tokenizer = Tokenizer(network.cpu(), arguments, section.sfreq, own, scope.hash())
        attrs = {
            "kind": "tokenizer",
            "stage": "tokenize",
            "tokenizer": section.kind,
            "sfreq": section.sfreq,
            "window_s": section.window_s,
            "fit_scope": scope.hash(),
            "recordings": list(seen),
            "left_out": sorted(set(opened) - set(seen)),
            "n_windows": n,
            "n_validation": sum(map(len, held.values())),
            "best_epoch": done.best_epoch,
            "parameters": sum(p.numel() for p in network.parameters()),
            "data_origin": join_data_origin(*(str(opened[n].attrs["data_origin"]) for n in seen)),
        }
        groups = {
            "log": table_to_dataset(pd.DataFrame(done.log), "epoch_row"),
            "usage": table_to_dataset(_usage(tokenizer, train), "level_row"),
        }
        write_store(out, groups, attrs=attrs, files=tokenizer.files())
        shutil.rmtree(folder, ignore_errors=True)
    world.wait()


def _divided(
    section: TokenizeSection, scope: FitScope, opened: Mapping[str, Signal]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """First samples of the windows to fit on, and of those that only validate, by recording."""
    seen, held = {}, {}
    for name, signal in opened.items():
        extents = scope.extents.get(name, ())
        if len(usable_rows(signal)):
            starts = windows_within(signal, extents, section.window)
            if len(starts):
                cut = len(starts) - int(section.validation * len(starts))
                seen[name], held[name] = starts[:cut], starts[cut:]
    return seen, held


def _seen(
    scope: FitScope, contents: Mapping[str, str], starts: Mapping[str, Any]
) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for name in sorted(starts):
        found.setdefault(contents[name], []).extend(list(map(list, scope.extents[name])))
    return found


@torch.no_grad()
def _usage(tokenizer: Tokenizer, windows: SensorWindows) -> pd.DataFrame:
    """Use of codes over some windows, evenly spread over those of the fit."""
    quantizer = tokenizer.network.quantizer
    counts = CodeCounts(len(quantizer.levels), quantizer.codebook_size)
    windows.draws, windows.device = False, "cpu"
    rows = np.unique(np.linspace(0, len(windows) - 1, COUNTED).astype(int))
    for part in np.array_split(rows, -(-len(rows) // 16)):
        counts.add(tokenizer.network.encode(*windows(part)).codes.numpy())
    return counts.table()


def encode(
    section: TokenizeSection,
    tokenizer: Path,
    recording: Mapping[str, Any],
    signal: Path,
    out: Path,
    *,
    events: pd.DataFrame | None = None,
    extent: tuple[float, float] = (0.0, 0.0),
    delay: float = 0.0,
    folds: tuple[str, ...] = (),
    threads: int = 1,
) -> None:
    """Codes of a recording, and the window of every event as vectors.

    The group ``codes`` holds ``codes (window, token, quantizer)`` int16 of windows that follow one
    another by ``hop_s``; what is left at the end and fills no window has none. Where there are
    events the root is a ``response (event, sensor, time)``: sensors are the features of the latent
    sources, of kind ``latent``, time goes by steps of the tokens, and windows that leave the
    recording or meet bad samples are marked as bad events. Beside them lie ``usage`` (of codes),
    ``errors`` (of rebuilding, by kind of sensor and band), ``sources`` (what each latent source
    adds to each sensor) and ``excerpt`` (a piece of the recording and what became of it).

    The recording is read in blocks: memory does not grow with its length.

    Parameters
    ----------
    section : TokenizeSection
    tokenizer : store or folder of the tokenizer
    recording : row of ``StudyPlan.recordings``
    signal : its store
    out : store to write
    events : DataFrame, optional
        Columns event, onset [s].
    extent : (tmin, tmax) [s] around each event, whole windows
    delay : [s] that windows begin later
    folds : names of the folds that this tokenizer is for; empty: all
    threads : that sums may use

    Raises
    ------
    DataError, RecipeError, ModelError, MissingFileError
        See ``check_rate``, ``SensorArray.of`` and ``load_tokenizer``; or the recording is shorter
        than a window.
    """
    torch.set_num_threads(threads)
    windows = None if events is None else EventWindows(events, extent, delay)
    found = load_tokenizer(tokenizer, section)
    job = Encoding(found, section, open_signal(signal), best_device())
    content = str(recording["content_hash"])
    attrs = {
        "stage": "tokenize",
        "recording": str(recording["recording"]),
        "tokenizer": job.fingerprint,
        "fit_scope": found.fit_scope,
        "tokenizer_seen": None if found.seen is None else found.seen.get(content, []),
        "folds": list(folds),
        "token_extent": list(extent),
        # The rate at the root is that of the tokens, where there are any.
        **{name: value for name, value in asdict(job.about).items() if name != "sfreq"},
    }
    job.write(out, attrs, windows)
