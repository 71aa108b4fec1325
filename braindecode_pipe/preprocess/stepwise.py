"""Filter and resample step by step, with MNE's and scipy's own calls: the reference.

``engine = "mne"``. The samples lie in a scratch file as float64, channel after channel; memory
holds the few channels that are worked on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braindecode_pipe.preprocess.blocks import Source, per_block
from braindecode_pipe.preprocess.scratch import Scratch, slices


def copy_source(source: Source, samples: Scratch) -> None:
    """Put all samples of a source into ``samples`` (n_channels, n_times) float64."""
    for part in slices(source.n_times, per_block(len(samples))):
        samples.write(0, part.start, source.read(part.start, part.stop))


def filter_rows(
    samples: Scratch,
    sfreq: float,
    breaks: Sequence[tuple[int, int]],
    lines: list[float],
    l_freq: float | None,
    h_freq: float | None,
) -> None:
    """``mne.io.Raw.notch_filter`` and ``filter`` in place, as many channels at a time as fit.

    Both stop at the breaks.
    """
    import mne

    if not lines and l_freq is None and h_freq is None:
        return
    onset = [start / sfreq for start, _ in breaks]
    duration = [(stop - start) / sfreq for start, stop in breaks]
    words = ["BAD_ACQ_SKIP" if stop > start else "EDGE boundary" for start, stop in breaks]
    for rows in samples.row_blocks():
        info = mne.create_info(rows.stop - rows.start, sfreq, "misc")
        raw = mne.io.RawArray(samples.read(rows), info, verbose="error")
        raw.set_annotations(mne.Annotations(onset, duration, words), emit_warning=False)
        if lines:
            raw.notch_filter(lines, picks="all", verbose="warning")
        if l_freq is not None or h_freq is not None:
            raw.filter(l_freq, h_freq, picks="all", verbose="warning")
        samples.write(rows.start, 0, raw.get_data())


def resample_rows(samples: Scratch, up: int, down: int, result: Scratch) -> np.ndarray:
    """Resample channel after channel into ``result`` float32, less a level per channel.

    Returns
    -------
    (n_channels,) the levels: medians, float64
    """
    level = np.zeros(len(samples))
    for i, row in enumerate(samples):
        row = resample(row, up, down)
        level[i] = np.median(row)
        result.write(i, 0, (row - level[i])[None])
    return level


def resample(values: np.ndarray, up: int, down: int) -> np.ndarray:
    """Polyphase resampling along the last axis by the exact ratio ``up / down``.

    ``mne.Raw.resample`` rounds the length first and stretches time to fit it, by up to half a
    sample over the recording; here sample ``k`` stays at ``k * down / up`` input samples.
    """
    from scipy.signal import resample_poly

    return values if up == down else resample_poly(values, up, down, axis=-1, padtype="line")
