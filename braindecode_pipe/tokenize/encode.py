"""A recording as codes, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.spans import sample_at, time_of
from braindecode_pipe.networks.sensors import normalize_signal
from braindecode_pipe.networks.tokenizer import Tokens, standardized
from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    codes_dataset,
    response_dataset,
    sensor_coords,
    table_to_dataset,
)
from braindecode_pipe.store import Signal, StoreWriter
from braindecode_pipe.tokenize.measures import CodeCounts, Rebuilding, source_patterns
from braindecode_pipe.tokenize.saved import Tokenizer
from braindecode_pipe.tokenize.sensors import SensorArray, check_rate, read_windows

ROWS = 1024  # windows of single sensors that pass through the network at a time
CHUNK = 64  # windows of codes in a chunk, at least
MEASURED = 32  # windows that are rebuilt, evenly spread over the recording
MAPPED = 4  # of them, windows that sources are looked at in
SHOWN = 24  # sensors of the excerpt


@dataclass(frozen=True)
class EventWindows:
    """Events whose windows become vectors: columns event, onset [s]; whole windows of tokens."""

    events: pd.DataFrame
    extent: tuple[float, float]
    delay: float


@dataclass(frozen=True)
class About:
    """What a store says about its tokens; frequencies in Hz."""

    sfreq: float
    window_s: float
    hop_s: float
    n_sources: int
    n_steps: int
    n_sensors: int
    sensors_without_position: int
    data_origin: str


class Encoding:
    """One recording on its way through one tokenizer.

    Parameters
    ----------
    tokenizer : Tokenizer
    section : TokenizeSection
    signal : Signal
    device : where the network goes
    """

    def __init__(
        self, tokenizer: Tokenizer, section: TokenizeSection, signal: Signal, device: torch.device
    ) -> None:
        check_rate(signal, tokenizer.sfreq)
        from hashlib import sha256

        files = tokenizer.files()
        self.fingerprint = sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
        self.tokenizer, self.section, self.signal = tokenizer, section, signal
        self.network, self.device = tokenizer.network.to(device), device
        self.array = SensorArray.of(signal)
        self.window, self.hop = tokenizer.window, section.hop
        self.batch = max(1, ROWS // len(self.array.rows))
        n = 1 + (signal.n_times - self.window) // self.hop
        if signal.n_times < self.window:
            raise DataError(
                "the recording is shorter than a window of tokens",
                file=signal.path,
                expected=f"at least {self.window} samples",
                found=f"{signal.n_times}",
                remedy="leave it out in [[plan.exclude]], or shorten tokenize.window_s",
            )
        self.starts = self.hop * np.arange(n, dtype=np.int64)
        self.about = About(
            signal.sfreq, self.window / signal.sfreq, self.hop / signal.sfreq,
            tokenizer.n_sources, self.network.steps_per_window, len(self.array.rows),
            self.array.unplaced, str(signal.attrs["data_origin"]),
        )  # fmt: skip
        quantizer = self.network.quantizer
        self.counts = CodeCounts(len(quantizer.levels), quantizer.codebook_size)

    def windows(self, starts: np.ndarray, length: int) -> Tensor:
        """Normalised windows ``(n, n_sensors, window)`` of pieces of whole windows."""
        x = read_windows(self.signal, self.array, starts, length)
        x = x.unflatten(2, (-1, self.window)).transpose(1, 2).flatten(0, 1)
        return normalize_signal(x, self.array.kinds)

    @torch.no_grad()
    def tokens(self, windows: Tensor) -> Tokens:
        """Tokens of normalised windows."""
        array = self.array
        return self.network.encode(
            windows.to(self.device), array.geometry.to(self.device), array.kinds.to(self.device)
        )

    def write(self, out: Path, attrs: Mapping[str, Any], events: EventWindows | None) -> None:
        """Encode all windows and events, and write the store."""
        rebuilt = self._rebuilt()
        templates = {"codes": self._codes_template(), **rebuilt}
        chunk = self.batch * -(-CHUNK // self.batch)
        chunks = {"window": chunk}
        counted = self._empty_usage()
        templates["usage"] = counted
        first, good = np.zeros(0, np.int64), np.zeros(0, bool)
        if events is not None:
            first, good, length = self._event_starts(events)
            templates[""] = self._response_template(events, good, length)
            chunks["event"] = self.batch
        with StoreWriter(out, templates, {**attrs}, chunks=chunks) as writer:
            self._write_codes(writer, chunk)
            if events is not None:
                self._write_events(writer, first, good, length)
            table = self.counts.table()
            for name in table:
                writer.set("usage", name, table[name].to_numpy())

    def _codes_template(self) -> xr.Dataset:
        n, about, levels = len(self.starts), self.about, len(self.network.quantizer.levels)
        good = np.concatenate([[0], np.cumsum(~self.signal.time_good)])
        clean = good[self.starts + self.window] == good[self.starts]
        return codes_dataset(
            da.zeros((n, about.n_sources * about.n_steps, levels), dtype=np.int16),
            time_of(self.signal, self.starts),
            clean,
            {"sfreq": about.sfreq, "window_s": about.window_s, "hop_s": about.hop_s,
             "data_origin": about.data_origin},
        )  # fmt: skip

    def _empty_usage(self) -> xr.Dataset:
        """The table of usage, to be filled when all codes are counted."""
        dataset = table_to_dataset(self.counts.table(), "level_row")
        return dataset.assign({
            name: ("level_row", da.zeros(variable.shape, dtype=variable.dtype))
            for name, variable in dataset.data_vars.items()
        })  # fmt: skip

    def _write_codes(self, writer: StoreWriter, chunk: int) -> None:
        for begin in range(0, len(self.starts), chunk):
            part = self.starts[begin : begin + chunk]
            found = [
                self.tokens(self.windows(part[i : i + self.batch], self.window)).codes.cpu()
                for i in range(0, len(part), self.batch)
            ]
            codes = torch.cat(found).flatten(1, 2).numpy()
            self.counts.add(codes)
            region = {"window": slice(begin, begin + len(part))}
            writer.write("codes", "codes", region, codes.astype(np.int16))

    def _event_starts(self, windows: EventWindows) -> tuple[np.ndarray, np.ndarray, int]:
        """First sample of each event's window, whether all of it is there and good, its length."""
        first, last = windows.extent
        length = self.window * max(1, round((last - first) * self.signal.sfreq / self.window))
        onset = windows.events["onset"].to_numpy(float)
        known = np.isfinite(onset)
        start = sample_at(self.signal, np.where(known, onset, 0.0) + windows.delay + first)
        inside = known & (start >= 0) & (start + length <= self.signal.n_times)
        start = np.where(inside, start, 0)
        bad = np.concatenate([[0], np.cumsum(~self.signal.time_good)])
        stop = np.minimum(start + length, self.signal.n_times)
        return start, inside & (bad[stop] == bad[start]), length

    def _response_template(
        self, windows: EventWindows, good: np.ndarray, length: int
    ) -> xr.Dataset:
        about, width = self.about, self.network.quantizer.dim
        names = [f"source-{i:02d}/feature-{j:03d}" for i in range(about.n_sources)
                 for j in range(width)]  # fmt: skip
        n_steps = about.n_steps * length // self.window
        step_s = about.window_s / about.n_steps
        times = windows.extent[0] + windows.delay + step_s * np.arange(n_steps)
        dataset = response_dataset(
            da.zeros((len(good), len(names), n_steps), dtype=np.float32),
            sensor_coords(names, "latent", "a.u."),
            windows.events["event"].astype(str).tolist(),
            {"sfreq": 1 / step_s, "data_origin": about.data_origin,
             "signal_sfreq": about.sfreq},
            times,
        )  # fmt: skip
        return dataset.assign_coords(event_good=("event", good))

    def _write_events(
        self, writer: StoreWriter, first: np.ndarray, good: np.ndarray, length: int
    ) -> None:
        shape = writer.chunks("", "response")
        step, n_windows = shape["event"], length // self.window
        for begin in range(0, len(first), step):
            rows = np.arange(begin, min(begin + step, len(first)))
            own = rows[good[rows]]
            values = np.full((len(rows), shape["sensor"], shape["time"]), np.nan, np.float32)
            for part in np.array_split(own, max(1, -(-len(own) * n_windows // self.batch))):
                if not len(part):
                    continue
                vectors = self.tokens(self.windows(first[part], length)).vectors.cpu()
                # (event, window, source, step, width) to (event, source, width, window, step)
                vectors = vectors.unflatten(0, (-1, n_windows)).permute(0, 2, 4, 1, 3)
                values[part - begin] = vectors.flatten(3).flatten(1, 2).numpy()
            region = {"event": slice(begin, begin + len(rows))}
            writer.write("", "response", region, values)

    @torch.no_grad()
    def _rebuilt(self) -> dict[str, xr.Dataset]:
        """Errors of rebuilding, what sources add, and an excerpt, from some windows."""
        array, table = self.array, self.array.table
        rows = np.unique(np.linspace(0, len(self.starts) - 1, MEASURED).astype(int))
        errors = Rebuilding(table["kind"].astype(str).tolist(), self.about.sfreq)
        geometry, kinds = array.geometry.to(self.device), array.kinds.to(self.device)
        kept: list[Tensor] = []
        for part in np.array_split(rows, -(-len(rows) // self.batch)):
            windows = self.windows(self.starts[part], self.window)
            vectors = self.tokens(windows).vectors
            errors.add(windows, self.network.decode(vectors, geometry, kinds).cpu())
            kept.append(vectors)
        vectors = torch.cat(kept)
        few = np.unique(np.linspace(0, len(vectors) - 1, MAPPED).astype(int))
        patterns, share = source_patterns(self.network, vectors[few], geometry, kinds)
        attrs = {"schema_version": SCHEMA_VERSION, "kind": "table"}
        name = ("sensor", table["sensor"].astype(str).to_numpy(object))
        sources = xr.Dataset(
            {"pattern": (("source", "sensor"), patterns.astype(np.float32)),
             "share": ("source", share)},
            {"sensor": name}, attrs,
        )  # fmt: skip
        return {
            "errors": table_to_dataset(errors.table(), "error_row"),
            "sources": sources,
            "excerpt": self._excerpt(attrs),
        }

    def _excerpt(self, attrs: Mapping[str, Any]) -> xr.Dataset:
        """Two windows side by side from the middle, or one, as they were and as rebuilt."""
        n = min(2, self.signal.n_times // self.window)
        start = np.array([(self.signal.n_times - n * self.window) // 2])
        windows = self.windows(start, n * self.window)
        device = self.device
        rebuilt = self.network.decode(
            self.tokens(windows).vectors, self.array.geometry.to(device),
            self.array.kinds.to(device),
        ).cpu()  # fmt: skip
        table = self.array.table
        shown = np.unique(np.linspace(0, len(table) - 1, min(SHOWN, len(table))).astype(int))
        whole = [x.transpose(0, 1).flatten(1)[shown].numpy().astype(np.float32)
                 for x in (standardized(windows), rebuilt)]  # fmt: skip
        samples = start[0] + np.arange(n * self.window)
        return xr.Dataset(
            {"original": (("sensor", "time"), whole[0]),
             "rebuilt": (("sensor", "time"), whole[1])},
            {"sensor": ("sensor", table["sensor"].astype(str).to_numpy(object)[shown]),
             "sensor_kind": ("sensor", table["kind"].astype(str).to_numpy(object)[shown]),
             "time": ("time", time_of(self.signal, samples))},
            dict(attrs),
        )  # fmt: skip
