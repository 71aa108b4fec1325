"""Videos by their frames, through any model of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braindecode_pipe.embed.acoustic import axis_settings
from braindecode_pipe.embed.interface import EmbeddingModel, Item, TimeAxis
from braindecode_pipe.embed.pictures import read_frames
from braindecode_pipe.embed.pooling import to_steps
from braindecode_pipe.errors import ModelError, StimulusError


class VideoModel(EmbeddingModel):
    """Mean over frames, or frames on the recording's time axis.

    Parameters
    ----------
    model : EmbeddingModel that reads pictures and gives one vector for each
    n_frames : int
        Frames of a video, evenly spaced.
    fps : float
        Rate of folders of frames [Hz]; animated files carry their own times.
    time_axis : TimeAxis, optional
        Steps from the onset of the video; None is the mean over frames.
    """

    reads = "video"

    def __init__(
        self,
        model: EmbeddingModel,
        *,
        n_frames: int = 8,
        fps: float = 0.0,
        time_axis: TimeAxis | None = None,
    ) -> None:
        if model.reads != "image" or n_frames < 1 or fps < 0:
            raise ModelError(
                "videos need a model of pictures",
                expected="a model that reads pictures, frames of at least 1, fps of at least 0",
                found=f"a model that reads {model.reads}, frames = {n_frames}, fps = {fps}",
            )
        self.model, self.n_frames, self.fps, self.axis = model, n_frames, fps, time_axis
        self.packages = (*model.packages, *(p for p in ("pillow",) if p not in model.packages))
        self.cached = model.cached

    def fingerprint(self) -> dict[str, Any]:
        own = self.model.fingerprint()
        frames = {"frames": self.n_frames, "fps": self.fps}
        return {
            **own,
            "reads": "video",
            "processor": {**own.get("processor", {}), **frames},
            "time_axis": axis_settings(self.axis),
        }

    def step_times(self, n_steps: int) -> np.ndarray:
        return self.axis.times if self.axis else super().step_times(n_steps)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        return np.stack([self._vector(item) for item in items])

    def _vector(self, item: Item) -> np.ndarray:
        frames, times = read_frames(item, self.n_frames, self.fps)
        vectors = self.model.encode([Item(item.name, frame) for frame in frames])
        if vectors.ndim != 2:
            raise ModelError(
                "the frames of a video need one vector each", expected="cls, mean or patch_mean",
                found="a vector for every patch",
            )  # fmt: skip
        if self.axis is None:
            return vectors.mean(0)
        if isinstance(item.value, list) and not self.fps:
            times = np.arange(len(frames)) / 4  # probes: a picture every 250 ms
        if not np.isfinite(times).all():
            raise StimulusError(
                f"{item.name}: the times of the frames are not known", file=str(item.value),
                expected="a rate, or an animated file with times", found="fps = 0",
                remedy="[embed.<table>] fps = ...",
            )  # fmt: skip
        return to_steps(times, vectors, self.axis.times, self.axis.sfreq)
