"""Signal-space separation of MEG (Taulu and Kajola 2005, J. Appl. Phys. 97) block by block.

:func:`mne.preprocessing.maxwell_filter` takes a whole recording into memory. Its temporal
extension (tSSS; Taulu and Simola 2006, Phys. Med. Biol. 51) works on windows of ``st_duration_s``
that overlap by half and begin at multiples of half a window: blocks that begin there too, and are
read with half a window of context on both sides, give the same samples. Without temporal extension
and movement SSS is one matrix.

Bad MEG channels take no part in the expansion and come out of it repaired. The head is not moved
to another place (no destination). Channels that are not MEG pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess.extras import warnings_into
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import MaxwellSection

if TYPE_CHECKING:
    import mne

# A block holds so many half windows beside its context, fewer where they would exceed the bytes.
_MOST_HOPS, _BLOCK_BYTES = 6, 96 * 2**20
# Length of half a "window" where there is none: blocks of SSS with movement [s].
_PLAIN_HOP_S = 5.0
_STEP_S = 0.1


class _Source(Protocol):
    info: mne.Info
    n_times: int
    breaks: list[tuple[int, int]]

    def read(self, start: int, stop: int) -> np.ndarray: ...


class MaxwellSource:
    """A recording after SSS or tSSS, to be read anywhere.

    Reading in ascending order filters every block once; a block stays in memory until another is
    asked for.

    Parameters
    ----------
    source : recording to filter, all MEG channels of the helmet, in SI units
        ``info["bads"]`` are left out of the expansion.
    section : MaxwellSection
    log : Log
    head_pos : (n, 10), optional
        Head positions as of :func:`head_positions`, times relative to the first sample.
    calibration, cross_talk : files of the site, optional
    path : the recording, for messages

    Attributes
    ----------
    info : of the result, MEG channels are no longer bad
    n_times, breaks : those of ``source``; inside of breaks the samples are the recorded ones

    Raises
    ------
    DataError : no MEG in the device frame, no digitised head and no origin
    """

    def __init__(
        self,
        source: _Source,
        section: MaxwellSection,
        log: Log,
        *,
        head_pos: np.ndarray | None = None,
        calibration: Path | None = None,
        cross_talk: Path | None = None,
        path: Path | None = None,
    ) -> None:
        self._source, self._log, self._path = source, log, path
        self.n_times, self.breaks = source.n_times, source.breaks
        self._head_pos = head_pos
        self._sfreq = float(source.info["sfreq"])
        _check_geometry(source.info, section, path)
        self._arguments: dict[str, Any] = {
            "origin": "auto" if section.origin is None else section.origin,
            "int_order": section.int_order,
            "ext_order": section.ext_order,
            "coord_frame": section.coord_frame,
            "calibration": None if calibration is None else str(calibration),
            "cross_talk": None if cross_talk is None else str(cross_talk),
            "bad_condition": "warning",
        }
        self._st = section.st_duration_s
        self._st_correlation = section.st_correlation
        # An even number of samples: Hann windows of an odd one do not add up to a constant.
        self._hop = max(1, round((self._st or 2 * _PLAIN_HOP_S) * self._sfreq / 2))
        self._n_window = 0 if self._st is None else 2 * self._hop
        unit = self._filter(np.eye(len(source.info["ch_names"])), 0, False)
        self.info = unit.info
        self._matrix = unit.get_data() if self._st is None and head_pos is None else None
        self._segments = _segments(self.n_times, self.breaks)
        self._kept: tuple[int, np.ndarray] = (-1, np.empty((0, 0)))
        self._tell(section)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples ``start`` to ``stop``, (n_channels, stop - start) [SI unit]."""
        if self._matrix is not None and not self.breaks:
            return self._matrix @ self._source.read(start, stop)
        out = np.asarray(self._source.read(start, stop), float).copy()
        for first, last in self._segments:
            at = max(first, start)
            while at < min(last, stop):
                low, high = self._bounds(at, first, last)
                until = min(high, stop)
                if self._matrix is not None:
                    until = min(last, stop)
                    out[:, at - start : until - start] = (
                        self._matrix @ out[:, at - start : until - start]
                    )
                else:
                    block = self._block(low, high, first, last)
                    out[:, at - start : until - start] = block[:, at - low : until - low]
                at = until
        return out

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All of the recording in order as (first sample, samples), every block filtered once."""
        at = 0
        for first, last in [*self._segments, (self.n_times, self.n_times)]:
            if at < first:
                yield at, self.read(at, first)
            at = first
            while at < last:
                stop = self._bounds(at, first, last)[1]
                yield at, self.read(at, stop)
                at = stop

    def _n_hops(self) -> int:
        per_hop = 8 * len(self.info["ch_names"]) * self._hop
        return max(1, min(_MOST_HOPS, _BLOCK_BYTES // per_hop - 2))

    def _bounds(self, at: int, first: int, last: int) -> tuple[int, int]:
        """The block that holds sample ``at`` of a segment."""
        n = self._hop * self._n_hops()
        low = first + (at - first) // n * n
        # MNE's last window takes what is left over: so does the last block, which may therefore
        # begin before the place where a whole window still fits.
        while low > first and low + self._n_window > last:
            low -= n
        high = low + n
        return low, last if high + self._n_window > last else high

    def _block(self, low: int, high: int, first: int, last: int) -> np.ndarray:
        if self._kept[0] != low:
            start = max(first, low - self._hop * self._context(low))
            stop = last if high == last else min(last, high + self._hop)
            temporal = self._st is not None and last - first >= self._n_window
            data = self._source.read(start, stop)
            filtered = self._filter(data, start, temporal).get_data()
            self._kept = (low, filtered[:, low - start : high - start])
        return self._kept[1]

    def _context(self, low: int) -> int:
        """Half windows to read before a block: one, or up to the head position before that."""
        if self._head_pos is None:
            return 1
        times = self._head_pos[:, 0] * self._sfreq
        before = times[times <= low - self._hop]
        gap = (low - before[-1]) / self._hop if len(before) else 1
        return int(np.clip(np.ceil(gap), 1, 2 * _MOST_HOPS))

    def _filter(self, data: np.ndarray, start: int, temporal: bool) -> Any:
        import mne

        raw = mne.io.RawArray(np.asarray(data, float), self._source.info.copy(), verbose="error")
        position = None
        if self._head_pos is not None:
            position = _cut_positions(self._head_pos, start, raw.n_times, self._sfreq)
        with warnings_into(self._log, "Maxwell filter"):
            try:
                filtered = mne.preprocessing.maxwell_filter(
                    raw,
                    st_duration=self._n_window / self._sfreq if temporal else None,
                    st_correlation=self._st_correlation,
                    st_overlap=True,
                    mc_interp="hann",
                    head_pos=position,
                    **self._arguments,
                )
            except (RuntimeError, ValueError, OSError) as error:
                raise DataError(
                    "the Maxwell filter cannot be applied",
                    file=self._path,
                    expected="a MEG recording with the geometry of its coils, uncompensated",
                    found=str(error).strip().splitlines()[0],
                    remedy="leave preprocess.emeg.maxwell out, or correct its settings",
                ) from error
        return filtered.pick(self._source.info["ch_names"], verbose="error")

    def _tell(self, section: MaxwellSection) -> None:
        kind = "SSS" if self._st is None else (
            f"tSSS ({self._st:g} s, correlation {section.st_correlation:g})"
        )  # fmt: skip
        used = [name for name in ("calibration", "cross_talk") if self._arguments[name]]
        if self._head_pos is not None:
            used.append(f"{len(self._head_pos)} head positions")
        repaired = sorted(set(self._source.info["bads"]) - set(self.info["bads"]))
        text = f"Maxwell filter: {kind}, {section.coord_frame} frame"
        text += f", with {', '.join(used)}" if used else ""
        self._log.steps.append(text + (f"; repaired {', '.join(repaired)}" if repaired else ""))
        if not used:
            self._log.warnings.append("Maxwell filter without fine calibration and cross-talk")
        short = [s for s in self._segments if self._st and s[1] - s[0] < self._n_window]
        if short:
            self._log.warnings.append(
                f"{len(short)} stretches shorter than {self._st:g} s: SSS without its temporal "
                "extension"
            )


def _segments(n_times: int, breaks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    segments, at = [], 0
    for start, stop in [*sorted(breaks), (n_times, n_times)]:
        if start > at:
            segments.append((at, start))
        at = max(at, stop)
    return segments


def _cut_positions(head_pos: np.ndarray, start: int, n_times: int, sfreq: float) -> np.ndarray:
    """Head positions of a block: those inside, the last before it and the first behind."""
    time = head_pos[:, 0] - start / sfreq
    low = max(0, int(np.searchsorted(time, 0.5 / sfreq)) - 1)
    high = int(np.searchsorted(time, n_times / sfreq)) + 1
    cut = head_pos[low:high].copy()
    cut[:, 0] = time[low:high]
    # MNE starts with the Info's own position where none is given for the first sample.
    cut[0, 0] = max(0.0, cut[0, 0]) if start == 0 else 0.0
    return cut


def _check_geometry(info: Any, section: MaxwellSection, path: Path | None) -> None:
    import mne
    from mne.io.constants import FIFF

    coils = [
        ch for ch in info["chs"] if int(ch["kind"]) == FIFF.FIFFV_MEG_CH and ch["loc"][:3].any()
    ]
    frames = {int(ch["coord_frame"]) for ch in coils}
    if not coils or frames != {int(FIFF.FIFFV_COORD_DEVICE)}:
        raise DataError(
            "no Maxwell filter: no MEG channels in the frame of the device",
            file=path,
            expected="MEG channels with positions in the device frame",
            found=f"{len(coils)} MEG channels with positions",
            remedy="leave preprocess.emeg.maxwell out",
        )
    if section.coord_frame == "head" and info["dev_head_t"] is None:
        raise DataError(
            "no Maxwell filter: the place of the head in the device is not known",
            file=path,
            expected="a transformation from device to head",
            found="none",
            remedy='set maxwell.coord_frame = "meg" and maxwell.origin',
        )
    if section.origin is None and section.coord_frame == "head":
        try:
            mne.bem.fit_sphere_to_headshape(info, verbose="error")
        except (RuntimeError, ValueError) as error:
            raise DataError(
                "no Maxwell filter: no digitised head to find its centre",
                file=path,
                expected="four or more points of the head's shape, or an origin",
                found=str(error).strip().splitlines()[0],
                remedy="set preprocess.emeg.maxwell.origin, for instance [0, 0, 0.04]",
            ) from error
    if section.movement == "chpi" and section.coord_frame != "head":
        raise DataError(
            "head movement needs the head frame",
            file=path,
            expected='maxwell.coord_frame = "head"',
            found=section.coord_frame,
            remedy='set maxwell.coord_frame = "head", or movement = "none"',
        )


# -- head movement


def head_positions(raw: Any, log: Log, path: Path | None = None) -> np.ndarray:
    """Head positions from continuous HPI coils, by MNE, about ten a second.

    Amplitudes of the coils in short windows, their places, and the rigid movement that fits them
    (:mod:`mne.chpi`). The recording is read window by window.

    Parameters
    ----------
    raw : Raw, loaded or not, with all MEG channels and the channel that tells when coils are on
    log : Log
    path : the recording, for messages

    Returns
    -------
    (n, 10) as :func:`mne.chpi.compute_head_pos`: time [s] relative to the first sample, rotation
    (quaternion without its real part), translation [m], goodness of fit, error, velocity

    Raises
    ------
    DataError : no continuous HPI, or no position could be fitted
    """
    import mne

    try:
        mne.chpi.get_chpi_info(raw.info, on_missing="raise", verbose="error")
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(
            "no continuous head position",
            file=path,
            expected="HPI coils that were on during the recording (cHPI)",
            found=str(error).strip().splitlines()[0],
            remedy='set preprocess.emeg.maxwell.movement = "none"',
        ) from error
    with warnings_into(log, "head movement"):
        try:
            amplitudes = mne.chpi.compute_chpi_amplitudes(raw, t_step_min=_STEP_S)
            places = mne.chpi.compute_chpi_locs(raw.info, amplitudes, too_close="warning")
            position = mne.chpi.compute_head_pos(raw.info, places)
        except (RuntimeError, ValueError) as error:
            position, problem = np.empty((0, 10)), str(error).strip().splitlines()[0]
        else:
            problem = "no fit of 98 % or more"
    if not len(position):
        raise DataError(
            "no head position could be fitted",
            file=path,
            expected="three or more coils that fit the digitised ones",
            found=problem,
            remedy='set preprocess.emeg.maxwell.movement = "none"',
        )
    position = position.copy()
    position[:, 0] -= raw.first_samp / float(raw.info["sfreq"])
    moved = np.linalg.norm(position[:, 4:7] - np.median(position[:, 4:7], axis=0), axis=1)
    log.steps.append(
        f"{len(position)} head positions from cHPI: at most {1000 * moved.max():.1f} mm from the "
        "median place"
    )
    return position


def head_variables(position: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
    """``head_time`` [s] and ``head_position`` (head_time, 6) for the QC group.

    Three translations of the device relative to the head [m] and a rotation vector [rad].
    """
    from mne.chpi import head_pos_to_trans_rot_t
    from scipy.spatial.transform import Rotation

    translation, rotation, time = head_pos_to_trans_rot_t(position)
    vector = Rotation.from_matrix(rotation).as_rotvec()
    return {
        "head_time": ("head_time", np.asarray(time, float)),
        "head_position": (("head_time", "head_axis"), np.column_stack([translation, vector])),
    }
