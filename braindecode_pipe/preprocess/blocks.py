"""A recording read in blocks: what every step that streams takes, whatever file lies behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from braindecode_pipe.preprocess import scratch
from braindecode_pipe.preprocess.scratch import slices

if TYPE_CHECKING:
    import mne

# Descriptions of annotations (lower case, beginning) where samples are not neighbours in time.
_BREAKS = ("bad_acq_skip", "edge", "bad boundary", "boundary", "new segment")


class Source(Protocol):
    """Channels of a recording that can be read anywhere, in any order, as often as asked for.

    Attributes
    ----------
    info : mne.Info
        Of the channels that :meth:`read` gives, in their order.
    n_times : int
    breaks : list of (start, stop) [samples]
        Ascending and disjoint; what lies inside is no signal, and nothing is filtered across.
        ``start == stop`` is a cut that leaves out no sample.
    """

    info: mne.Info
    n_times: int
    breaks: list[tuple[int, int]]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples ``start`` to ``stop``, (n_channels, stop - start) float [SI unit]."""
        ...


def fill(source: Source, out: np.ndarray, start: int, stop: int, offset: np.ndarray) -> None:
    """Put ``x - offset`` into ``out`` (n_channels, stop - start) float32.

    The difference is taken at the precision of the source, so that a channel that lies far from
    zero loses nothing. A source may bring a faster ``fill(out, start, stop, offset)`` of its own.
    """
    own = getattr(source, "fill", None)
    if own is not None:
        own(out, start, stop, offset)
        return
    for part in slices(stop - start, per_block(len(out))):
        values = source.read(start + part.start, start + part.stop)
        np.subtract(values, offset[:, None], out=out[:, part], casting="same_kind")


def per_block(n_channels: int) -> int:
    """How many samples of ``n_channels`` fit into memory as float64, at least one."""
    return max(1, scratch.BLOCK_BYTES // (8 * max(1, n_channels)))


def pieces_of(
    n_times: int, breaks: Sequence[tuple[int, int]], mask: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """What lies between the breaks, and where ``mask`` (n_times,) bool is True, as (start, stop).

    >>> pieces_of(10, [(3, 5), (8, 8)])
    [(0, 3), (5, 8), (8, 10)]
    """
    pieces, at = [], 0
    for start, stop in [*sorted(breaks), (n_times, n_times)]:
        start, stop = max(0, min(start, n_times)), max(0, min(stop, n_times))
        if start > at:
            pieces.append((at, start))
        at = max(at, stop)
    return pieces if mask is None else [run for piece in pieces for run in _runs(mask, *piece)]


def _runs(mask: np.ndarray, start: int, stop: int) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask[start:stop], [0]]).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2]):
        yield start + int(first), start + int(last)


def breaks_of(annotations: Any, sfreq: float, n_times: int) -> list[tuple[int, int]]:
    """Breaks among annotations whose onsets count from the first sample.

    ``BAD_ACQ_SKIP``, ``EDGE ...``, ``BAD boundary``, ``boundary`` and ``New Segment``; those that
    overlap become one.
    """
    found = []
    for annotation in annotations:
        if annotation["description"].lower().startswith(_BREAKS):
            start = round(annotation["onset"] * sfreq)
            stop = start + round(annotation["duration"] * sfreq)
            start, stop = max(0, start), min(n_times, stop)
            if start < stop or 0 < start == stop < n_times:
                found.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
