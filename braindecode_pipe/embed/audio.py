"""Sounds: reading any piece of a file as one channel, resampling, cutting into windows."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from braindecode_pipe.embed.interface import Item
from braindecode_pipe.errors import StimulusError

# Tables round their times: so much beyond the end of a file is its end.
_SLACK_S = 0.005
# 93 min at 48 kHz: silence compresses to nothing, so the size of a file says nothing.
MOST_SAMPLES = 1 << 28
_TAPS, _BETA, _ROLLOFF = 64, 9.0, 0.955


@dataclass(frozen=True)
class Clip:
    """A piece of sound: of a file, or samples that are already in memory.

    Attributes
    ----------
    path : path or None
    onset, offset : float or None
        The stimulus inside the file [s]; None is the file's beginning or end.
    samples : (n_samples,) or (n_samples, n_channels) float array, or None
        In place of a file.
    sfreq : float or None
        Rate of ``samples`` [Hz].
    start, stop : float or None
        Span of the file that may be heard [s], as where a split cuts it; None is no limit.
    """

    path: Path | None = None
    onset: float | None = None
    offset: float | None = None
    samples: np.ndarray | None = None
    sfreq: float | None = None
    start: float | None = None
    stop: float | None = None


@dataclass(frozen=True)
class Sound:
    """An opened sound; ``read(start, stop)`` gives raw samples, ``mono`` one channel in [-1, 1].

    Attributes
    ----------
    sfreq : float [Hz]
    n_samples : int
    read : (start, stop) -> (n,) or (n, n_channels) array
    name, path : for messages
    """

    sfreq: float
    n_samples: int
    read: Callable[[int, int], np.ndarray]
    name: str
    path: Path | None

    @property
    def duration(self) -> float:
        """Length [s]."""
        return self.n_samples / self.sfreq

    def mono(self, start: int, stop: int) -> np.ndarray:
        """Samples ``start`` to ``stop``, channels averaged: (n,) float32."""
        if stop - start > MOST_SAMPLES:
            raise StimulusError(
                f"{self.name}: the sound is too long to be read at once",
                file=self.path,
                expected=f"at most {MOST_SAMPLES / self.sfreq / 60:.0f} min",
                found=f"{(stop - start) / self.sfreq / 60:.0f} min",
                remedy="cut it into stimuli with file_column and onset_column",
            )
        samples = self.read(start, stop)
        wave = _to_float(samples)
        if wave.ndim == 2:
            wave = wave.mean(1)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise StimulusError(
                f"{self.name}: no usable samples",
                file=self.path,
                expected="finite samples, (n_samples,) or (n_samples, n_channels)",
                found=f"shape {samples.shape}" if wave.ndim != 1 else "NaN or infinity",
            )
        return wave.astype(np.float32)

    def position(self, seconds: float) -> int:
        """Sample at a time; a time just beyond the end is the end."""
        sample = round(seconds * self.sfreq)
        beyond = self.n_samples < sample <= self.n_samples + _SLACK_S * self.sfreq
        return self.n_samples if beyond else sample

    def span(self, onset: float | None, offset: float | None) -> tuple[int, int]:
        """Samples of a piece in seconds; :class:`StimulusError` when it is not there or empty."""
        start = 0 if onset is None else self.position(onset)
        stop = self.n_samples if offset is None else self.position(offset)
        if 0 <= start < stop <= self.n_samples:
            return start, stop
        whole = not onset and offset is None
        raise StimulusError(
            f"{self.name}: " + ("the sound is empty" if whole else "no such piece of the sound"),
            file=self.path,
            expected="at least one sample" if whole else f"a piece of 0 to {self.duration:.3f} s",
            found="0 samples" if whole
            else f"{start / self.sfreq:.3f} to {stop / self.sfreq:.3f} s",
        )  # fmt: skip


def open_audio(item: Item) -> Sound:
    """The sound that the :class:`Clip` of an item lies in.

    WAV (8, 16, 24, 32 bit, float) is read by SciPy, mapped where that can be; other formats need
    the optional package ``soundfile``.

    Raises
    ------
    StimulusError
        The file is missing, truncated, of an unknown format; samples without their rate.
    """
    clip: Clip = item.value
    if clip.samples is not None:
        samples, sfreq = np.asarray(clip.samples), clip.sfreq
        if not sfreq or not np.isfinite(sfreq) or sfreq <= 0:
            raise StimulusError(
                f"{item.name}: samples without their rate",
                expected="sfreq [Hz]",
                found=repr(sfreq),
                remedy="embed(..., sfreq=16000)",
            )
        return Sound(float(sfreq), len(samples), lambda a, b: samples[a:b], item.name, None)
    if clip.path is None or not clip.path.is_file():
        raise StimulusError(
            f"{item.name}: the sound is missing", file=clip.path, expected="a file",
            found="nothing",
        )  # fmt: skip
    stat = clip.path.stat()
    try:
        sfreq, n_samples, read = _open(clip.path, stat.st_size, stat.st_mtime_ns)
    except StimulusError as error:
        raise StimulusError(
            f"{item.name}: {error.message}", file=clip.path, expected=error.expected,
            found=error.found, remedy=error.remedy,
        ) from error  # fmt: skip
    return Sound(sfreq, n_samples, read, item.name, clip.path)


def read_audio(item: Item) -> tuple[np.ndarray, float]:
    """One channel of sound in [-1, 1], (n_samples,) float32, and its rate [Hz].

    Parameters
    ----------
    item : Item
        Its value is a :class:`Clip`; the piece from its onset to its offset is read.

    Raises
    ------
    StimulusError
        The file is missing, truncated, of an unknown format, empty, holds NaN, or ends before the
        piece does.
    """
    sound = open_audio(item)
    return sound.mono(*sound.span(item.value.onset, item.value.offset)), sound.sfreq


@lru_cache(maxsize=2)
def _open(
    path: Path, size: int, mtime_ns: int
) -> tuple[float, int, Callable[[int, int], np.ndarray]]:
    if path.suffix.lower() in (".wav", ".wave"):
        samples, sfreq = _open_wav(path)
        return sfreq, len(samples), lambda a, b: samples[a:b]
    return _open_soundfile(path)


def _open_wav(path: Path) -> tuple[np.ndarray, float]:
    from scipy.io import wavfile

    def read(mmap: bool) -> tuple[float, np.ndarray]:
        with warnings.catch_warnings():
            # A file that ends early is only a warning there; chunks of metadata are none of ours.
            warnings.filterwarnings("ignore", message="Chunk .*not understood")
            warnings.filterwarnings("error", category=wavfile.WavFileWarning, message="Reached EOF")
            return wavfile.read(path, mmap=mmap)

    try:
        try:
            sfreq, samples = read(mmap=True)
        except ValueError as error:
            if "mmap" not in str(error):
                raise
            # 24-bit samples cannot be mapped; a mapping beyond the end of the file fails again.
            sfreq, samples = read(mmap=False)
    except (
        wavfile.WavFileWarning, ValueError, OSError, EOFError, RuntimeError, struct.error
    ) as error:  # fmt: skip
        raise _undecodable(error, "a whole WAV file") from error
    return samples, float(sfreq)


def _open_soundfile(path: Path) -> tuple[float, int, Callable[[int, int], np.ndarray]]:
    try:
        import soundfile
    except ImportError:
        raise StimulusError(
            "this format of sound needs another package",
            expected="a WAV file",
            found=path.suffix or "no suffix",
            remedy="pip install 'braindecode-pipe[audio]', or convert the files to WAV",
        ) from None
    try:
        info = soundfile.info(path)
    except (RuntimeError, OSError) as error:
        raise _undecodable(error, "a whole sound file") from error

    def read(start: int, stop: int) -> np.ndarray:
        try:
            samples, _ = soundfile.read(path, start=start, stop=stop, dtype="float32")
        except (RuntimeError, OSError) as error:
            raise _undecodable(error, "a whole sound file", path) from error
        if len(samples) < stop - start:
            raise _undecodable(
                f"it ends after {start + len(samples)} of {info.frames} samples",
                "a whole sound file", path,
            )  # fmt: skip
        return samples

    return float(info.samplerate), int(info.frames), read


def _undecodable(error: object, expected: str, path: Path | None = None) -> StimulusError:
    return StimulusError(
        "the sound cannot be decoded", file=path, expected=expected,
        found=str(error) or type(error).__name__,
    )  # fmt: skip


def _to_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples / np.float64(2 ** (8 * samples.dtype.itemsize - 1))
    return samples.astype(np.float64)


@lru_cache(maxsize=16)
def _ratio(sfreq: float, target: float) -> Fraction:
    return Fraction(target / sfreq).limit_denominator(4096)


@lru_cache(maxsize=4)
def _low_pass(fastest: int) -> np.ndarray:
    from scipy.signal import firwin

    return firwin(2 * _TAPS * fastest + 1, _ROLLOFF / fastest, window=("kaiser", _BETA))


def resample(wave: np.ndarray, sfreq: float, target: float) -> np.ndarray:
    """``wave`` at the rate ``target`` [Hz]; unchanged at equal rates.

    Polyphase, with a Kaiser-windowed sinc of 64 crossings a side (beta = 9, -6 dB at 0.955 of the
    lower Nyquist rate): flat to 0.91 of it, 90 dB down above it. Sample 0 stays at time 0.
    """
    from scipy.signal import resample_poly

    ratio = _ratio(sfreq, target)
    if ratio == 1:
        return wave
    up, down = ratio.numerator, ratio.denominator
    return resample_poly(wave.astype(float), up, down, window=_low_pass(max(up, down)))


def n_resampled(n_samples: int, sfreq: float, target: float) -> int:
    """Samples that :func:`resample` makes of ``n_samples``."""
    ratio = _ratio(sfreq, target)
    return math.ceil(n_samples * ratio.numerator / ratio.denominator)


def read_resampled(
    sound: Sound, span: tuple[int, int], target: float, start: int, stop: int
) -> np.ndarray:
    """Samples ``start`` to ``stop`` of ``resample(sound.mono(*span))``, without reading all of it.

    Only samples inside ``span`` are read. The result equals that of resampling the whole span.
    """
    ratio = _ratio(sound.sfreq, target)
    up, down = ratio.numerator, ratio.denominator
    n = span[1] - span[0]
    if ratio == 1:
        return sound.mono(span[0] + start, span[0] + stop)
    margin = math.ceil(_TAPS * max(up, down) / up) + 1
    # Only starts at a multiple of ``down`` lie on the grid of output samples.
    first = max(0, (start * down // up - margin) // down * down)
    last = min(n, math.ceil(stop * down / up) + margin)
    wave = resample(sound.mono(span[0] + first, span[0] + last), sound.sfreq, target)
    offset = start - first // down * up
    return wave[offset : offset + stop - start].astype(np.float32)


def windows_of(n: int, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Windows of ``size`` samples over ``n``, and the part of each that is its own.

    Windows begin every ``size - overlap`` samples; the last one is moved back to end at ``n``, so
    that all have one length. Where two overlap, the border is in the middle of what they share: a
    sample belongs to the window in which it is farther from an edge.

    Returns
    -------
    list of (start, stop, own_start, own_stop); one window of length ``n`` where ``n <= size``
    """
    if n <= size:
        return [(0, n, 0, n)]
    step = size - overlap
    starts = [*range(0, n - size, step), n - size]
    borders = [(a + b + size) // 2 for a, b in zip(starts, starts[1:])]
    return [
        (start, start + size, own, end)
        for start, own, end in zip(starts, [0, *borders], [*borders, n])
    ]
