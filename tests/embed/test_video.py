"""Videos by their frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from braindecode_pipe.embed import build_model, embed
from braindecode_pipe.embed.interface import Item, TimeAxis
from braindecode_pipe.embed.pictures import read_frames
from braindecode_pipe.errors import ModelError, StimulusError


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(10)]


@pytest.fixture
def folder(tmp_path, frames):
    (tmp_path / "film").mkdir()
    for k, frame in enumerate(frames):
        frame.save(tmp_path / "film" / f"{k:03d}.png")
    (tmp_path / "film" / "notes.txt").write_text("no frame")
    return tmp_path / "film"


def test_frames_are_spread_evenly(folder, frames):
    found, times = read_frames(Item("i", folder), 4, fps=5.0)
    chosen = [int((k + 0.5) * 10 / 4) for k in range(4)]
    for frame, k in zip(found, chosen, strict=True):
        np.testing.assert_array_equal(np.asarray(frame), np.asarray(frames[k]))
    np.testing.assert_allclose(times, [(k + 0.5) / 5 for k in chosen])
    every, _ = read_frames(Item("i", folder), 50)
    assert len(every) == 10


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_animated_files_carry_their_times(tmp_path, frames, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"film.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:4], duration=[100, 200, 100, 400],
                   **options)  # fmt: skip
    found, times = read_frames(Item("i", path), 4)
    np.testing.assert_allclose(times, [0.05, 0.2, 0.35, 0.6], atol=1e-9)
    if suffix != "gif":
        for frame, expected in zip(found, frames):
            np.testing.assert_array_equal(np.asarray(frame), np.asarray(expected))


def test_videos_are_the_mean_of_their_frames_or_steps(folder, frames):
    each = embed(frames, "pixels")
    mean = embed([folder], "pixels", kind="video", n_frames=10)
    np.testing.assert_allclose(mean[0], each.mean(0), atol=1e-6)
    axis = TimeAxis(20.0, 0.0, 1.0)
    steps = embed([folder], "pixels", kind="video", n_frames=10, fps=10.0, time_axis=axis)
    middles = (np.arange(10) + 0.5) / 10
    naive = [[np.interp(t, middles, each[:, f]) for f in range(3)] for t in axis.times]
    np.testing.assert_allclose(steps[0][:, :3], naive, atol=1e-5)


def test_videos_go_through_networks(tiny, folder, frames):
    each = embed(frames, str(tiny / "dinov2"), pooling="patch_mean")
    found = embed([folder], str(tiny / "dinov2"), kind="video", n_frames=10, pooling="patch_mean")
    np.testing.assert_allclose(found[0], each.mean(0), atol=1e-5)
    model = build_model(str(tiny / "clip"), kind="video", n_frames=2)
    assert model.reads == "video" and model.fingerprint()["processor"]["frames"] == 2
    assert model.encode(model.probes()).shape == (3, 12)


def test_f31_endless_animations_are_refused(tmp_path, frames, monkeypatch):
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr("braindecode_pipe.embed.pictures.MOST_FRAMES", 5)
    with pytest.raises(StimulusError, match=r"too many frames(.|\n)*found: 10"):
        read_frames(Item("i", tmp_path / "a.gif"), 4)


def test_what_is_no_video_is_named(tmp_path, tiny, folder):
    (tmp_path / "none").mkdir()
    with pytest.raises(StimulusError, match="a video without frames"):
        embed([tmp_path / "none"], "pixels", kind="video")
    with pytest.raises(StimulusError, match="the file is missing"):
        embed([tmp_path / "gone"], "pixels", kind="video")
    (folder / "004.png").write_bytes(b"no picture")
    with pytest.raises(StimulusError, match=r"cannot be decoded(.|\n)*004.png"):
        embed([folder], "pixels", kind="video", n_frames=10)
    with pytest.raises(StimulusError, match=r"times of the frames are not known(.|\n)*fps"):
        embed([folder], "pixels", kind="video", n_frames=2, time_axis=TimeAxis(2.0, 0.0, 1.0))
    with pytest.raises(ModelError, match=r"need a model of pictures(.|\n)*reads text"):
        embed([folder], str(tiny / "bert"), kind="video")
    with pytest.raises(ModelError, match="the frames of a video need one vector each"):
        embed([folder], str(tiny / "vit"), kind="video", pooling="patches", n_frames=2)
