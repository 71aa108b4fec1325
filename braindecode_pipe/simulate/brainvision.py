"""Writer of BrainVision files, version 1.0: header, markers, and float32 samples in microvolts."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_brainvision(
    header: Path,
    data: np.ndarray,
    ch_names: list[str],
    sfreq: float,
    markers: list[tuple[int, int]],
) -> None:
    """Write ``.vhdr``, ``.vmrk`` and ``.eeg``.

    Parameters
    ----------
    header : Path
        The ``.vhdr``; the other two lie beside it.
    data : (n_channels, n_times) [V]
    markers : list of (sample from 0, code 1 ... 999)
    """
    samples, marks = header.with_suffix(".eeg"), header.with_suffix(".vmrk")
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0",
        "",
        "[Common Infos]",
        "Codepage=UTF-8",
        f"DataFile={samples.name}",
        f"MarkerFile={marks.name}",
        "DataFormat=BINARY",
        "DataOrientation=MULTIPLEXED",
        f"NumberOfChannels={len(ch_names)}",
        f"SamplingInterval={1e6 / sfreq:.10g}",
        "",
        "[Binary Infos]",
        "BinaryFormat=IEEE_FLOAT_32",
        "",
        "[Channel Infos]",
        *(f"Ch{i}={name.replace(',', chr(92) + '1')},,1,µV" for i, name in enumerate(ch_names, 1)),
        "",
    ]
    header.write_text("\n".join(lines), encoding="utf-8", newline="\r\n")
    lines = [
        "Brain Vision Data Exchange Marker File, Version 1.0",
        "",
        "[Common Infos]",
        "Codepage=UTF-8",
        f"DataFile={samples.name}",
        "",
        "[Marker Infos]",
        "Mk1=New Segment,,1,1,0",
        *(f"Mk{i}=Stimulus,S{code:3d},{at + 1},1,0" for i, (at, code) in enumerate(markers, 2)),
        "",
    ]
    marks.write_text("\n".join(lines), encoding="utf-8", newline="\r\n")
    np.ascontiguousarray((data * 1e6).T, dtype="<f4").tofile(samples)
