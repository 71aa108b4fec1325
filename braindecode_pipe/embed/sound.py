"""Speech through a network of ``transformers``: wav2vec 2.0, HuBERT, WavLM, Whisper's encoder.

A *piece* of a file is what the network may hear: the stimulus itself, or all of the file between
two borders of the split. Pieces longer than a window are passed in windows that overlap, and each
frame is taken from the window in which it is farther from an edge. Windows are batched with others
of the same length only: padding would change what networks without a mask compute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.audio import (
    Clip,
    Sound,
    n_resampled,
    open_audio,
    read_resampled,
    windows_of,
)
from braindecode_pipe.embed.interface import Item, batches, fitting_batch
from braindecode_pipe.embed.pooling import mean_between, to_steps
from braindecode_pipe.errors import ModelError, StimulusError

if TYPE_CHECKING:
    from braindecode_pipe.embed.pretrained import PretrainedModel

# Frames kept at once, and the most that one stimulus may need.
_KEPT_BYTES, _MOST_BYTES = 256 << 20, 2 << 30


@dataclass(frozen=True)
class Frames:
    """Where the frames of a network lie: frame ``k`` is centred at sample ``k * step + centre``."""

    rate: int
    step: int
    centre: float
    shortest: int
    longest: int | None

    @classmethod
    def of(cls, model: PretrainedModel) -> Frames:
        """From strides and kernels of the network's configuration."""
        extractor = model.processor
        rate = int(extractor.sampling_rate)
        if model.config.model_type == "whisper":
            # Spectra are centred at multiples of the hop; the second convolution keeps every
            # second one.
            return cls(rate, 2 * extractor.hop_length, 0.0, 1, int(extractor.n_samples))
        step, field = 1, 1
        for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride):
            field += (kernel - 1) * step
            step *= stride
        return cls(rate, step, (field - 1) / 2, field, None)

    def count(self, n_samples: int) -> int:
        """Frames of so many samples."""
        if self.longest is not None:
            return -(-n_samples // self.step)
        return (n_samples - self.shortest) // self.step + 1


@dataclass(frozen=True)
class Piece:
    """What is heard for one item, and which of it is pooled.

    Attributes
    ----------
    key : what tells pieces apart
    sound : Sound
    span : samples of the file
    windows : see :func:`~braindecode_pipe.embed.audio.windows_of`, at the network's rate
    begin : time of the piece's first sample in the file [s]
    start, stop : time that is pooled [s] in the file
    onset : [s]
    """

    key: Any
    sound: Sound
    span: tuple[int, int]
    windows: list[tuple[int, int, int, int]]
    begin: float
    start: float
    stop: float
    onset: float

    def needed(self, frames: Frames) -> list[int]:
        """Windows whose own part meets the time that is pooled, one frame more on both sides."""
        first = (self.start - self.begin) * frames.rate - 2 * frames.step
        last = (self.stop - self.begin) * frames.rate + 2 * frames.step
        return [n for n, (*_, a, b) in enumerate(self.windows) if b > first and a < last]


def order(items: Sequence[Item]) -> list[int]:
    """By file, then by onset: neighbours share windows."""

    def place(number: int) -> tuple[str, float, int]:
        clip: Clip = items[number].value
        return str(clip.path or ""), clip.onset or 0.0, number

    return sorted(range(len(items)), key=place)


def encode(model: PretrainedModel, items: Sequence[Item]) -> np.ndarray:
    """(n_items, n_features), or (n_items, n_steps, n_features) with pooling "time"."""
    frames = Frames.of(model)
    rows: list[np.ndarray] = []
    for group in _groups(model, items, frames):
        heard = _hear(model, frames, group)
        for piece in group:
            rows.append(_pool(model, piece, frames, heard))
        # Neighbours in the next group read the same windows again.
        model.heard = heard
    return np.stack(rows)


def _groups(model: PretrainedModel, items: Sequence[Item], frames: Frames) -> Iterator[list[Piece]]:
    """Consecutive pieces whose frames fit into memory together."""
    width = 4 * int(getattr(model.config, "hidden_size", 1024))
    group: list[Piece] = []
    held = 0
    for item in items:
        piece = _piece(model, item, frames)
        size = sum(piece.windows[n][1] - piece.windows[n][0] for n in piece.needed(frames))
        cost = size // frames.step * width
        if cost > _MOST_BYTES:
            raise StimulusError(
                f"{item.name}: the sound is too long to be held at once",
                file=piece.sound.path,
                expected=f"at most {_MOST_BYTES // width * frames.step / frames.rate / 60:.0f} min",
                found=f"{(piece.stop - piece.start) / 60:.0f} min",
                remedy="cut it into stimuli with file_column and onset_column",
            )
        if group and held + cost > _KEPT_BYTES:
            yield group
            group, held = [], 0
        group.append(piece)
        held += cost
    if group:
        yield group


def _piece(model: PretrainedModel, item: Item, frames: Frames) -> Piece:
    clip: Clip = item.value
    sound = open_audio(item)
    low, high = sound.span(clip.start, clip.stop)
    start, stop = sound.span(clip.onset, clip.offset)
    onset = start / sound.sfreq
    if not low <= start < high:
        raise StimulusError(
            f"{item.name} lies outside of its part of the file", file=sound.path,
            expected=f"{low / sound.sfreq:.3f} to {high / sound.sfreq:.3f} s",
            found=f"{onset:.3f} s",
        )  # fmt: skip
    if model.pooling == "time":
        start = min(max(low, sound.position(onset + model.axis.tmin)), high - 1)
        stop = max(start + 1, sound.position(onset + model.axis.tmax))
    stop = min(stop, high)
    span = (low, high) if model.context == "file" else (start, stop)
    n = n_resampled(span[1] - span[0], sound.sfreq, frames.rate)
    if n < frames.shortest:
        raise StimulusError(
            f"{item.name}: the sound is too short for {model.name}",
            file=sound.path,
            expected=f"at least one frame of the model, {frames.shortest / frames.rate:.4f} s",
            found=f"{n / frames.rate:.4f} s",
        )
    size, overlap = round(model.window_s * frames.rate), round(model.overlap_s * frames.rate)
    if frames.longest is not None and size > frames.longest:
        size = frames.longest
        overlap = min(overlap, size // 2)
    return Piece(
        key=(_content(sound, clip), span),
        sound=sound,
        span=span,
        windows=windows_of(n, size, overlap),
        begin=span[0] / sound.sfreq,
        start=start / sound.sfreq,
        stop=stop / sound.sfreq,
        onset=onset,
    )


def _content(sound: Sound, clip: Clip) -> Any:
    """What tells sounds apart while a model is in memory."""
    if sound.path is not None:
        stat = sound.path.stat()
        return str(sound.path), stat.st_size, stat.st_mtime_ns
    samples = np.ascontiguousarray(clip.samples)
    return hashlib.sha256(samples.tobytes()).hexdigest(), samples.dtype.str, sound.sfreq


def _hear(model: PretrainedModel, frames: Frames, group: Sequence[Piece]) -> dict[Any, Any]:
    """(piece, window) -> its own frames (times [s] in the file, values)."""
    heard: dict[Any, Any] = {}
    missing: dict[int, dict[Any, tuple[Piece, int]]] = {}
    for piece in group:
        for number in piece.needed(frames):
            key = (piece.key, number)
            if key in model.heard:
                heard[key] = model.heard[key]
            elif key not in heard:
                begin, end, *_ = piece.windows[number]
                missing.setdefault(end - begin, {})[key] = (piece, number)
    for length, windows in missing.items():
        size = model.batch_size or _fitting(model, length)
        for batch in batches(list(windows.items()), size):
            values = _pass(model, frames, [pair for _, pair in batch], length)
            for (key, (piece, number)), one in zip(batch, values):
                begin, _, own, end = piece.windows[number]
                middle = begin + np.arange(len(one)) * frames.step + frames.centre
                mine = (middle >= own) & (middle < end)
                if len(piece.windows) == 1:
                    mine[:] = True
                heard[key] = (piece.begin + middle[mine] / frames.rate, one[mine])
    return heard


def _fitting(model: PretrainedModel, length: int) -> int:
    config = model.config
    if config.model_type == "whisper":
        return fitting_batch(4 * 1500 * config.d_model * (config.encoder_layers + 12))
    first = 4 * length // config.conv_stride[0] * config.conv_dim[0]
    states = 4 * length // 320 * config.hidden_size * (config.num_hidden_layers + 12)
    return fitting_batch(3 * first + states)


def _pass(
    model: PretrainedModel, frames: Frames, pairs: Sequence[tuple[Piece, int]], length: int
) -> np.ndarray:
    """(n, n_frames, n_features) of windows of one length."""
    waves = []
    for piece, number in pairs:
        begin, end, *_ = piece.windows[number]
        waves.append(read_resampled(piece.sound, piece.span, float(frames.rate), begin, end))
    given = model.processor(waves, sampling_rate=frames.rate, return_tensors="pt")
    name = "input_features" if frames.longest is not None else "input_values"
    values = model.average(model.states({name: given[name]})).numpy()
    expected = frames.count(length)
    # Whisper reads every window as 30 s; what lies behind the sound is silence that was added.
    if frames.longest is not None and values.shape[1] >= expected:
        values = values[:, :expected]
    if values.shape[1] != expected:
        raise ModelError(
            f"{model.name} gives another number of frames than its strides say",
            expected=str(expected), found=str(values.shape[1]),
        )  # fmt: skip
    return values


def _pool(
    model: PretrainedModel, piece: Piece, frames: Frames, heard: dict[Any, Any]
) -> np.ndarray:
    parts = [heard[piece.key, number] for number in piece.needed(frames)]
    times = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    if model.pooling == "time":
        return to_steps(times, values, piece.onset + model.axis.times, model.axis.sfreq)
    if model.context == "stimulus":
        return values.mean(0)
    return mean_between(times, values, piece.start, piece.stop)
