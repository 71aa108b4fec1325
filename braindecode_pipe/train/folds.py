"""What a decoder of one fold is given: windows, targets, groups; of the test, windows only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from braindecode_pipe.errors import DataError, LeakageError, SplitError, StimulusError
from braindecode_pipe.fitting.delay import DelayEstimate, estimate_delay
from braindecode_pipe.fitting.inputs import InputScaling, InputTransform, fit_inputs
from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.fitting.sensors import stack_positions
from braindecode_pipe.fitting.views import kept
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan, check_disjoint, seen_tests, tested_within
from braindecode_pipe.store import Signal, open_signal, open_store
from braindecode_pipe.train.linear import LINEAR
from braindecode_pipe.train.people import sensors_of
from braindecode_pipe.train.repeats import AverageView, joined_groups, repeats_of


@dataclass(frozen=True)
class Targets:
    """The embedding of one target's stimuli.

    Attributes
    ----------
    ids : stimulus -> row of ``values``
    values : (n_stimuli, n_steps * n_features), step by step
    n_steps : int
    attrs : attributes of the store
    """

    ids: dict[str, int]
    values: np.ndarray
    n_steps: int
    attrs: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Targets:
        """Read an embedding store."""
        dataset = open_store(path)
        values = np.asarray(dataset["embedding"].values, np.float64)
        ids = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}
        n_steps = values.shape[1] if values.ndim == 3 else 1
        return cls(ids, values.reshape(len(values), -1), n_steps, dict(dataset.attrs))

    def of(self, stimuli: np.ndarray) -> np.ndarray:
        """Rows ``(n, n_features)`` of some stimuli."""
        missing = sorted({str(s) for s in stimuli} - set(self.ids))
        if missing:
            raise StimulusError(
                "events show stimuli without embedding",
                expected="every stimulus of the plan in the table",
                found=", ".join(missing[:5]) + (" ..." if len(missing) > 5 else ""),
                remedy="run the stage embed again",
            )
        return self.values[[self.ids[str(s)] for s in stimuli]]


@dataclass(frozen=True)
class Fold:
    """Training, validation and test windows of one fold.

    Attributes
    ----------
    windows : Windows of all events of the fold that show a stimulus of the target
    fit, test : positions in ``windows.events`` with a valid window; ``fit`` holds training and
        validation
    validation : (n_fit,) bool
    stimuli, groups : (n_fit,) text
    column : of the event table, with the stimuli of the target
    delay : float [s]
    estimate : DelayEstimate or None
    data_origin : origins of the recordings used
    inputs : what scales and whitens the windows, fitted on those of the training, or None
    trials : first row -> rows that are averaged, of ``fit`` and ``test``; None: single windows
    """

    windows: Windows
    fit: np.ndarray
    test: np.ndarray
    validation: np.ndarray
    stimuli: np.ndarray
    groups: np.ndarray
    column: str
    delay: float
    estimate: DelayEstimate | None
    data_origin: set[str]
    inputs: InputTransform | None = None
    trials: Mapping[int, np.ndarray] | None = None

    def text(self, column: str, rows: np.ndarray) -> np.ndarray:
        """A column of the event table as text."""
        return self.windows.events[column].astype(str).to_numpy(object)[rows]

    def read(self, rows: np.ndarray, moved: bool = False) -> Any:
        """Windows of some rows: an array, or a view where that would be over 1 GiB.

        Windows that are to be ``moved`` in time stay a view.
        """
        view: Any = self.windows.view(rows)
        if self.trials is not None:
            view = AverageView(self.windows, [self.trials[row] for row in rows])
        return view if moved else kept(view)

    def averaged(self) -> Fold:
        """The fold with windows of one stimulus averaged, per person and role.

        An average stands under the first of its events.
        """
        who = self.windows.subject_index(self.fit)
        train = repeats_of(self.fit, who, self.stimuli, self.validation)
        test = repeats_of(self.test, self.windows.subject_index(self.test),
                          self.text(self.column, self.test))  # fmt: skip
        place = {row: i for i, row in enumerate(self.fit.tolist())}
        kept = np.array([place[row] for row in train])
        within = {i: np.array([place[r] for r in rows]) for i, rows in zip(kept, train.values())}
        return replace(
            self,
            fit=self.fit[kept],
            test=np.array(list(test)),
            validation=self.validation[kept],
            stimuli=self.stimuli[kept],
            groups=joined_groups(within, self.groups, self.stimuli),
            trials={**train, **test},
        )

    def single(self, rows: np.ndarray) -> np.ndarray:
        """All windows that some rows were made of."""
        if self.trials is None:
            return rows
        return np.concatenate([self.trials[row] for row in rows])

    @property
    def trials_per_query(self) -> list[int]:
        """How many windows each query of the test is made of."""
        return [1 if self.trials is None else len(self.trials[row]) for row in self.test]

    def layout(self, rows: np.ndarray, kind: Literal["plane", "space"]) -> dict[str, Any]:
        """Keyword arguments of ``BrainDecoder.fit`` about people and sensors."""
        return {
            "subjects": self.windows.subject_index(rows),
            "positions": stack_positions(self.windows.sensors.values(), kind),
            "masks": self.windows.masks,
            "sensors": sensors_of(self.windows),
        }


def open_signals(paths: Mapping[str, Path], recordings: Iterable[str]) -> dict[str, Signal]:
    """Signals of those recordings that have a store, in the order given.

    The folds of a study read the same stores: a process keeps what it has opened, for as long as
    the marker of the store is the same file.
    """
    opened = {}
    for name in dict.fromkeys(map(str, recordings)):
        if name in paths:
            path = Path(paths[name])
            marker = path / "COMMITTED"
            state = marker.stat() if marker.exists() else None
            version = (0, 0) if state is None else (state.st_ino, state.st_mtime_ns)
            opened[name] = _open(path, version)
    return opened


@lru_cache(maxsize=256)
def _open(path: Path, version: tuple[int, int]) -> Signal:
    return open_signal(path)


def read_fold(
    plan: StudyPlan, fold: int, target: str, window: WindowSection, signals: Mapping[str, Path],
    scaling: InputScaling | None = None, piece: tuple[float, float] | None = None,
) -> Fold:  # fmt: skip
    """Open the recordings of a fold and place its windows, or a ``piece`` [s] of each.

    The response delay, where asked for, is estimated from the events of training and validation
    alone; events of the test that lie in the same recordings are cut out of it. What scales or
    whitens windows is fitted on those of the training alone, on single ones also where repeats
    are averaged.

    Raises
    ------
    LeakageError
        When an event is in training and in the test.
    SplitError
        When no usable window is left to train on or to test.
    """
    column = f"stimulus_{target}"
    if column not in plan.events:
        raise DataError(
            "the plan has no such target",
            expected=", ".join(c[9:] for c in plan.events if c.startswith("stimulus_")),
            found=target,
        )
    role = plan.role[fold]
    shown = (plan.events[column].astype(str) != "").to_numpy()
    rows = np.flatnonzero(
        shown & np.isin(role, [ROLES[r] for r in ("train", "validation", "test")])
    )
    events = plan.events.iloc[rows].reset_index(drop=True)
    opened = open_signals(signals, events["recording"])
    check_fits(plan, fold, opened, window)
    estimate = None
    delay = window.delay
    if delay == "estimate":
        estimate = _estimate(plan, role, opened, window.delay_max)
        delay = estimate.delay
    windows = Windows(opened, events, window, float(delay), piece)
    is_test = role[rows] == ROLES["test"]
    fit, test = windows.rows(np.flatnonzero(~is_test)), windows.rows(np.flatnonzero(is_test))
    ids = events["event"].astype(str).to_numpy(object)
    check_disjoint(ids[fit], ids[test], f"training of fold {plan.folds['fold'].iloc[fold]}")
    for name, part in (("training", fit[role[rows[fit]] == ROLES["train"]]), ("test", test)):
        if not len(part):
            raise SplitError(
                f"no usable {name} window in fold {plan.folds['fold'].iloc[fold]}",
                expected="at least one event with a valid window",
                found=str(windows.dropped or "no event"),
                remedy="look at [train.windows] and at what [preprocess] rejects",
            )
    validation = role[rows[fit]] == ROLES["validation"]
    stimuli = events[column].astype(str).to_numpy(object)[fit]
    inputs = fit_inputs(windows, fit[~validation], stimuli[~validation], scaling, window.whiten)
    found = Fold(
        windows=windows.transformed(inputs),
        fit=fit,
        test=test,
        validation=validation,
        stimuli=stimuli,
        groups=events["group"].astype(str).to_numpy(object)[fit],
        column=column,
        delay=float(delay),
        estimate=estimate,
        data_origin={str(s.attrs["data_origin"]) for s in opened.values()},
        inputs=inputs,
    )
    return found.averaged() if window.repeats == "average" else found


def check_fits(
    plan: StudyPlan, fold: int, opened: Mapping[str, Signal], window: WindowSection
) -> None:
    """Refuse recordings on whose tested windows something was fitted, by what they say.

    Preprocessing, and the tokenizer of tokens.

    Raises
    ------
    LeakageError
        Naming the events.
    """
    for name, signal in opened.items():
        met = tested_within(plan, name, signal.attrs.get("fit_extents", ()), window.extent, fold)
        check_disjoint(met, met, f"preprocessing of {name}")
        if seen := signal.attrs.get("tokenizer_seen"):
            content = plan.recordings.set_index("recording").loc[name, "content_hash"]
            extent = tuple(signal.attrs["token_extent"])
            met = seen_tests(plan, {str(content): seen}, extent, fold)
            check_disjoint(met, met, f"the tokenizer of {name}")


def _estimate(
    plan: StudyPlan, role: np.ndarray, opened: Mapping[str, Any], delay_max: float
) -> DelayEstimate:
    seen = plan.events[np.isin(role, [ROLES["train"], ROLES["validation"]])]
    hidden = plan.events[np.isin(role, [ROLES["test"], ROLES["purged"]])]
    own = {r: opened[r] for r in dict.fromkeys(seen["recording"]) if r in opened}
    return estimate_delay(own, seen, delay_max, hidden)


def fit_normalizer(
    kind: str, components: int, targets: Targets, data: Fold, decoder: str
) -> Normalizer:
    """The normaliser of a fold, from the stimuli of the events that its decoder is fitted on.

    These are the training events, and for linear decoders those of validation, too, on which they
    train. Were these left out, the intercept of ridge would be the difference of the two means: a
    constant that outweighs what strong penalties leave of the responses, so that every query gets
    the same answer. Stimuli that only other events show have no part in it.

    Raises
    ------
    DataError
        PCA whitening of embeddings with steps.
    """
    if kind == "whiten" and targets.n_steps > 1:
        raise DataError(
            "an embedding with steps cannot be whitened",
            expected="one vector per stimulus",
            found=f"{targets.n_steps} steps",
            remedy='normalize = "zscore", or pooling = "mean"',
        )
    fitted = data.stimuli if decoder in LINEAR else data.stimuli[~data.validation]
    trained = np.array(sorted(set(fitted)), object)
    return Normalizer.fit(kind, targets.of(trained), list(trained), components)


def check_seen(plan: StudyPlan, fold: int, fit_ids: np.ndarray) -> str:
    """Hash of the scope of a fold, after a look that the fit stays inside it."""
    scope = plan.scope(fold)
    outside = sorted(set(map(str, fit_ids)) - set(scope.events))
    if outside:
        raise LeakageError(
            "a fit saw events outside its scope",
            expected="training and validation events only",
            found=", ".join(outside[:10]),
        )
    return scope.hash()
