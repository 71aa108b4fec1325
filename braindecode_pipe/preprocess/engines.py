"""Two ways to filter, combine and resample a recording: one streaming pass, or step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.preprocess import filtering, stepwise
from braindecode_pipe.preprocess.blocks import Source, fill, pieces_of
from braindecode_pipe.preprocess.filtering import Branch, Kernel
from braindecode_pipe.preprocess.scratch import Scratch, slices
from braindecode_pipe.preprocess.steps import Log, edges
from braindecode_pipe.recipe import EmegSection

Observer = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class FilterPlan:
    """What filters and resampling a recording gets.

    Attributes
    ----------
    l_freq, h_freq : edges of the band-pass [Hz], None where there is none
    lines : frequencies that are notched [Hz]
    kernel : Kernel, all of it in one
    sfreq_in, sfreq : rate [Hz] before and after
    """

    l_freq: float | None
    h_freq: float | None
    lines: list[float]
    kernel: Kernel
    sfreq_in: float
    sfreq: float

    @property
    def half_length_s(self) -> float:
        """How far an output sample reaches on either side, all kernels together [s]."""
        return self.kernel.half / self.sfreq_in

    @property
    def resampler(self) -> str:
        """What resamples, in words; "none" when nothing does."""
        if self.kernel.up == self.kernel.down:
            return "none"
        return (f"polyphase FIR (Kaiser, beta 5), exact ratio {self.kernel.up}/{self.kernel.down}, "
                "sample k at k * down / up: no drift")  # fmt: skip


def plan_filter(section: EmegSection, sfreq: float, duration_s: float, log: Log) -> FilterPlan:
    """Design the kernels for a recording at ``sfreq`` [Hz].

    Raises
    ------
    RecipeError : edges that cross, or lines too near to each other
    """
    l_freq, h_freq, lines = edges(section, sfreq / 2, log)
    lines = lines if section.line_removal == "notch" else []
    target = section.sfreq
    if target is not None and target > sfreq:
        log.warnings.append(f"rate kept at {sfreq:g} Hz: {target:g} Hz would add no information")
    up, down = filtering.ratio_of(target, sfreq, duration_s)
    try:
        taps = filtering.notches(sfreq, lines) + filtering.band_pass(sfreq, l_freq, h_freq)
    except ValueError as error:
        raise RecipeError(
            "no filter has these edges",
            expected="edges and lines further apart than their transition bands",
            found=f"l_freq {l_freq}, h_freq {h_freq}, notch at {lines} Hz at {sfreq:g} Hz: "
            + str(error).splitlines()[0],
            remedy="correct preprocess.emeg.notch, l_freq or h_freq",
        ) from error
    rate = sfreq if up == down else float(target)
    return FilterPlan(l_freq, h_freq, lines, Kernel(taps, up, down), sfreq, rate)


def log_filter(plan: FilterPlan, engine: str, log: Log) -> None:
    """Say in ``log.steps`` what a plan does."""
    how = "one pass, float32" if engine == "fast" else "mne"
    if plan.lines:
        log.steps.append("notch at " + ", ".join(f"{f:g}" for f in plan.lines) + " Hz")
    if plan.l_freq is not None or plan.h_freq is not None:
        log.steps.append(
            f"band-pass {plan.l_freq or 0:g} to {plan.h_freq or plan.sfreq_in / 2:g} Hz "
            f"(zero-phase FIR, {how})"
        )
    if plan.kernel.up != plan.kernel.down:
        log.steps.append(
            f"resampled from {plan.sfreq_in:g} to {plan.sfreq:g} Hz "
            f"(polyphase {plan.kernel.up}/{plan.kernel.down})"
        )


@dataclass(frozen=True)
class Lines:
    """Line noise as a few time courses: ``x - mixing @ (taps[0] * ... * (unmixing @ x))``.

    Attributes
    ----------
    mixing : (n_out, n_lines), what the time courses add to the final channels
    unmixing : (n_lines, n_in), of the channels as they are read
    taps : symmetric kernels at the input's rate
    """

    mixing: np.ndarray
    unmixing: np.ndarray
    taps: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Spatial:
    """What combines channels: ``matrix @ x``, less line noise.

    Attributes
    ----------
    matrix : (n_out, n_in)
    lines : sequence of Lines
    """

    matrix: np.ndarray
    lines: Sequence[Lines] = field(default_factory=tuple)


class FastEngine:
    """Filters and resamples in one streaming pass in float32; combines channels afterwards.

    Space and time commute, and at the output's rate there are fewer samples to combine.

    Parameters
    ----------
    plan : FilterPlan
    out : Path
        The store to be written; scratch files lie beside it.
    """

    def __init__(self, plan: FilterPlan, out: Path) -> None:
        self.plan, self.out = plan, out

    def start(
        self, source: Source, result: Scratch, offset: np.ndarray, observe: Observer | None
    ) -> None:
        """Filter every channel of ``source``, less ``offset``, into ``result``.

        ``observe`` sees all samples on the way; see :func:`filtering.run_pieces`.
        """
        pieces = pieces_of(source.n_times, source.breaks)
        branch = Branch(self.plan.kernel, _writer(result))
        filtering.run_pieces(source, pieces, [branch], offset, observe)

    def finish(
        self, source: Source, spatial: Spatial, result: Scratch, offset: np.ndarray
    ) -> np.ndarray:
        """Combine the rows of ``result`` in place; returns the level to add to each row."""
        with ExitStack() as stack:
            result.mix(spatial.matrix, *_line_rows(source, spatial, self.plan.kernel, offset,
                                                   self.out, stack))  # fmt: skip
        return (spatial.matrix @ offset) * self.plan.kernel.gain


class StepwiseEngine:
    """Combines, then filters by MNE and resamples by scipy, in float64; the reference."""

    def __init__(self, plan: FilterPlan, out: Path) -> None:
        self.plan, self.out = plan, out

    def start(
        self, source: Source, result: Scratch, offset: np.ndarray, observe: Observer | None
    ) -> None:
        """Only observe: MNE's filters want whole channels."""
        if observe is not None:
            pieces = pieces_of(source.n_times, source.breaks)
            observe_all(source, pieces, offset, observe)

    def finish(
        self, source: Source, spatial: Spatial, result: Scratch, offset: np.ndarray
    ) -> np.ndarray:
        """Put the filtered rows into ``result``; returns the level to add to each row."""
        plan = self.plan
        with ExitStack() as stack:
            shape = (len(offset), source.n_times)
            samples = stack.enter_context(Scratch(self.out, shape))
            stepwise.copy_source(source, samples)
            samples.mix(spatial.matrix, *_line_rows(source, spatial, Kernel(), offset, self.out,
                                                    stack))  # fmt: skip
            stepwise.filter_rows(
                samples, plan.sfreq_in, source.breaks, plan.lines, plan.l_freq, plan.h_freq
            )
            result.shape = (len(samples), result.shape[1])
            return stepwise.resample_rows(samples, plan.kernel.up, plan.kernel.down, result)


def observe_all(
    source: Source, pieces: Sequence[tuple[int, int]], offset: np.ndarray, observe: Observer
) -> None:
    """Show every sample of the pieces to ``observe``, in order, less ``offset``, as float32."""
    n_block = max(1, filtering.BLOCK_BYTES // (8 * len(offset)))
    for start, stop in pieces:
        for part in slices(stop - start, n_block):
            values = np.empty((len(offset), part.stop - part.start), np.float32)
            fill(source, values, start + part.start, start + part.stop, offset)
            observe(start + part.start, values)


def _line_rows(
    source: Source, spatial: Spatial, kernel: Kernel, offset: np.ndarray, out: Path,
    stack: ExitStack,
) -> tuple[Scratch, np.ndarray] | tuple[()]:  # fmt: skip
    """Time courses of the line noise through ``kernel``, and their weights; () without any."""
    if not spatial.lines:
        return ()
    n_rows = sum(len(lines.unmixing) for lines in spatial.lines)
    shape = (n_rows, kernel.n_out(source.n_times))
    rows = stack.enter_context(Scratch(out, shape, np.float32, blank=True))
    branches, first = [], 0
    for lines in spatial.lines:
        branches.append(Branch(
            Kernel((*kernel.taps, *lines.taps), kernel.up, kernel.down), _writer(rows, first),
            lines.unmixing.astype(np.float32),
        ))  # fmt: skip
        first += len(lines.unmixing)
    pieces = pieces_of(source.n_times, source.breaks)
    filtering.run_pieces(source, pieces, branches, offset)
    return rows, -np.concatenate([lines.mixing for lines in spatial.lines], axis=1)


def _writer(result: Scratch, first: int = 0) -> Callable[[slice, int, np.ndarray], None]:
    return lambda rows, start, values: result.write(first + rows.start, start, values)
