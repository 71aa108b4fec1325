"""Sounds that play inside a page: short, one channel, of telephone quality."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from braindecode_pipe.embed.audio import Clip, open_audio, read_resampled
from braindecode_pipe.embed.interface import Item

SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
RATE = 8000  # Hz
LONGEST_S = 3.0


def excerpt(path: Path, onset: float | None, offset: float | None, name: str) -> bytes:
    """The first seconds of a piece of a sound file as a WAV file of at most 48 kB.

    At 8 kHz, 16 bit, one channel, at most 3 s; the largest sample is scaled to 0.9 of full scale,
    so that quiet recordings are heard. Silence stays silent.

    Parameters
    ----------
    path, onset, offset : the file and the piece inside it [s]; None is its beginning or end
    name : for messages

    Raises
    ------
    StimulusError
        The file is missing, cannot be read, or ends before the piece does.
    """
    sound = open_audio(Item(name, Clip(path=path, onset=onset, offset=offset)))
    start, stop = sound.span(onset, offset)
    stop = min(stop, start + int(np.ceil(LONGEST_S * sound.sfreq)))
    longest = int(LONGEST_S * RATE)
    n = min(longest, int(np.ceil((stop - start) * RATE / sound.sfreq)))
    samples = np.asarray(read_resampled(sound, (start, stop), float(RATE), 0, n), float)
    loudest = np.abs(samples).max(initial=0)
    if loudest > 0:
        samples = 0.9 * samples / loudest
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(32767 * samples).astype("<i2").tobytes())
    return buffer.getvalue()
