"""One recording as its quality page sees it: its store, what the plan says, what was asked for."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import BraindecodePipeError, IncompleteStoreError
from braindecode_pipe.report import maps
from braindecode_pipe.report.study import Study, group_or_none
from braindecode_pipe.report.training import sensor_table
from braindecode_pipe.store import open_signal, open_store

GOOD, BAD, INTERPOLATED, DROPPED = "good", "bad", "interpolated", "dropped"
BOLD = ("bold", "parcels")


class Recording:
    """One signal or response store with its quality group.

    The quality group may hold more sensors than the store: those that were dropped.
    """

    def __init__(self, study: Study, name: str) -> None:
        self.study, self.name, self.path = study, name, Path(study.inputs.signals[name])

    @cached_property
    def root(self) -> xr.Dataset:
        """The signal or response itself, not read yet."""
        return open_store(self.path)

    @property
    def attrs(self) -> dict:
        return self.root.attrs

    @cached_property
    def qc(self) -> xr.Dataset:
        dataset = group_or_none(self.path, "qc")
        if dataset is None:
            raise IncompleteStoreError("the group qc is missing", file=self.path.name)
        return dataset

    @cached_property
    def row(self) -> dict[str, Any]:
        """The recording's row in the plan, empty where the plan cannot say."""
        with suppress(BraindecodePipeError, OSError):
            table = self.study.plan.recordings
            rows = table[table["recording"].astype(str) == self.name].to_dict("records")
            return rows[0] if rows else {}
        return {}

    @property
    def datatype(self) -> str:
        """``eeg``, ``meg``, ``ieeg``, ``bold``, ``parcels``, ``epochs`` or "" where unknown."""
        stated = str(self.row.get("datatype") or "")
        with suppress(BraindecodePipeError, OSError):
            stated = stated or str(self.attrs.get("datatype") or "")
        return stated

    @property
    def is_bold(self) -> bool:
        return self.datatype in BOLD

    @property
    def section(self) -> dict:
        """The recipe's section that the recording was preprocessed by."""
        return self.study.section("preprocess", "bold" if self.is_bold else "emeg")

    @cached_property
    def plan_attrs(self) -> dict:
        return self.study.plan_attrs

    @cached_property
    def events(self) -> pd.DataFrame:
        """The plan's events of this recording."""
        events = self.study.plan.events
        return events[events["recording"].astype(str) == self.name]

    @cached_property
    def _sensors(self) -> tuple[pd.DataFrame, maps.Grid | None]:
        return sensor_table(self.path, self.root)

    @property
    def grid(self) -> maps.Grid | None:
        return self._sensors[1]

    @cached_property
    def sensors(self) -> pd.DataFrame:
        """Sensors of the store, with ``reason`` ("" for good ones) and ``state``."""
        table = self._sensors[0]
        stated = self.stated.set_index("sensor")["reason"].to_dict()
        marked = np.where(table["good"], "", "marked as bad")
        reasons = [stated.get(s) or m for s, m in zip(table["sensor"], marked)]
        # A sensor with a reason that is good again has been made anew from its neighbours.
        state = [
            GOOD if not reason else INTERPOLATED if good else BAD
            for reason, good in zip(reasons, table["good"])
        ]
        return table.assign(reason=reasons, state=state)

    @cached_property
    def stated(self) -> pd.DataFrame:
        """Sensors of the quality group: sensor, kind, unit, reason, x, y, z [m] and their fate.

        ``dropped``: not in the store for being bad; ``left_out``: not in it for what this text
        says; ``recorded``: False for those that were made of others.
        """
        table = self._sensors[0].set_index("sensor")
        names = [str(v) for v in self.qc["sensor"].values]
        reasons = self.array("bad_reason")
        found = pd.DataFrame({"sensor": names})
        found["reason"] = "" if reasons is None else [str(v) for v in reasons]
        for column in ("kind", "unit"):
            own = self.array(column)
            if own is None:
                # A dropped sensor left no kind behind; it had that of the others if they agree.
                every = table[column].unique()
                rest = str(every[0]) if len(every) == 1 else ""
                own = [table[column].get(name, rest) for name in names]
            found[column] = [str(v) for v in own]
        place = self.array("position")
        if place is None or place.shape != (len(names), 3):
            place = table[["x", "y", "z"]].reindex(names).to_numpy(float)
        found[["x", "y", "z"]] = place
        left_out, amplitude = self.array("left_out"), self.array("amplitude")
        found["left_out"] = "" if left_out is None else [str(v) for v in left_out]
        found["dropped"] = ~found["sensor"].isin(table.index) & (found["left_out"] == "")
        found["recorded"] = True if amplitude is None else np.isfinite(amplitude)
        return found

    def has(self, *arrays: str) -> bool:
        """Whether all these arrays were written; False where the store cannot be read."""
        with suppress(BraindecodePipeError, OSError):
            return all(name in self.qc for name in arrays)
        return False

    def array(self, name: str) -> np.ndarray | None:
        """An array of the quality group, None where it was not written."""
        return np.asarray(self.qc[name].values) if name in self.qc else None

    def need(self, name: str, what: str = "", hint: str = "") -> np.ndarray:
        """An array of the quality group.

        Raises
        ------
        IncompleteStoreError
            Where it was not written; quotes the steps and warnings that name ``hint``.
        """
        values = self.array(name)
        if values is None:
            said = [t for t in [*self.steps, *self.warnings] if hint and hint in t.lower()]
            raise IncompleteStoreError(
                f"{what or name} is missing", file=self.path.name,
                expected=f"the array {name} in the group qc",
                found="; ".join(said) or None,
            )  # fmt: skip
        return values

    @property
    def steps(self) -> list[str]:
        """What was done, in order."""
        return [str(s) for s in self.qc.attrs.get("steps") or self.attrs.get("steps") or []]

    @property
    def warnings(self) -> list[str]:
        return [str(w) for w in self.qc.attrs.get("warnings") or []]

    @property
    def is_response(self) -> bool:
        return "event" in self.root.dims

    @property
    def time(self) -> np.ndarray | None:
        """Times of the samples [s] of a continuous recording."""
        if self.is_response or "time" not in self.root.coords:
            return None
        return np.asarray(self.root["time"].values, float)

    @property
    def good_share(self) -> float:
        """Share of samples, or of epochs, that are good; NaN where nothing says so."""
        for name in ("event_good", "time_good"):
            if name in self.root.coords:
                return float(np.mean(np.asarray(self.root[name].values, bool)))
        return float(self.qc.attrs.get("good_share", np.nan))

    @property
    def seconds(self) -> float:
        """Duration of a continuous recording, or of one epoch [s]; NaN without time."""
        if "time" not in self.root.dims or not self.attrs.get("sfreq"):
            return float("nan")
        return self.root.sizes["time"] / float(self.attrs["sfreq"])

    @cached_property
    def bad_spans(self) -> list[tuple[float, float]]:
        """Spans of a continuous recording that are marked as bad [s]."""
        time = self.time
        if time is None or "time_good" not in self.root.coords:
            return []
        return runs(time, ~np.asarray(self.root["time_good"].values, bool))

    def spans(self) -> pd.DataFrame | None:
        """The drop log: onset [s], duration [s], reason; None where it was not written."""
        columns = [self.array(f"span_{name}") for name in ("onset", "duration", "reason")]
        if any(column is None for column in columns):
            return None
        onset, duration, reason = columns
        return pd.DataFrame(
            {
                "onset": onset.astype(float),
                "duration": duration.astype(float),
                "reason": [str(v) or "no reason given" for v in reason],
            }
        )

    @cached_property
    def lag(self) -> Any | None:
        """The response lag, or None where there is nothing to see."""
        from braindecode_pipe.fitting.envelopes import stimulus_envelopes
        from braindecode_pipe.fitting.lag import recording_lag

        plan = self.study.plan
        envelopes = stimulus_envelopes(plan, self.study.inputs.data)
        return recording_lag(open_signal(self.path), plan, self.name, envelopes)


def runs(time: np.ndarray, flag: np.ndarray) -> list[tuple[float, float]]:
    """Start and stop [s] of every run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, flag.astype(np.int8), 0]))
    return [(float(time[a]), float(time[b - 1])) for a, b in zip(edges[::2], edges[1::2])]
