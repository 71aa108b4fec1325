"""Maps and figures: geometry against hand-made cases, pictures looked at by their pixels."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braindecode_pipe.report import figures, gallery, maps, wording


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"), float)


def centre_of(image: np.ndarray, colour: np.ndarray) -> tuple[float, float]:
    """Mean (x, y) of the pixels near ``colour``, as shares of the width and height."""
    y, x = np.nonzero(np.abs(image - colour).max(axis=2) < 30)
    return x.mean() / image.shape[1], y.mean() / image.shape[0]


def sensor_frame(position, kind, names=None, **columns):
    names = names or [f"s{i}" for i in range(len(position))]
    axes = dict(zip("xyz", np.asarray(position, float).T))
    return pd.DataFrame({"sensor": names, "kind": kind, **axes, **columns})


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
def test_flatten_is_azimuthal_and_equidistant(scale):
    position = scale * np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 1], [0, 0, -1]])
    expected = [[0, 0], [1, 0], [0, 1], [-0.5, 0]]
    flat = maps.flatten(position)
    np.testing.assert_allclose(flat[:4], expected, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(flat[4]), 2)


def test_planar_pairs_become_their_root_mean_square():
    rng = np.random.default_rng(0)
    place = rng.normal(size=(5, 3))
    position = np.repeat(place, 2, axis=0)
    row = rng.normal(size=(2, 10))
    values, centre = maps._combine_planar(maps.Values(row, ("a", "b"), "", True), position)
    naive = [[np.sqrt((r[2 * i] ** 2 + r[2 * i + 1] ** 2) / 2) for i in range(5)] for r in row]
    np.testing.assert_allclose(values.values, naive)
    np.testing.assert_allclose(centre, place)
    assert not values.signed


@pytest.mark.parametrize("sign", [1, -1])
def test_left_of_the_head_is_left_in_slices(sign):
    ijk = np.argwhere(np.ones((9, 7, 1)))
    affine = np.diag([sign * 3.0, 3.0, 3.0, 1.0])
    affine[0, 3] = -sign * 12.0
    x = ijk[:, 0] * affine[0, 0] + affine[0, 3]
    hot = (x < -6).astype(float)
    sensors = sensor_frame(ijk * 1.0, "voxel", i=ijk[:, 0], j=ijk[:, 1], k=ijk[:, 2])
    grid = maps.Grid((9, 7, 1), affine)
    figure = maps.slices(maps.Values(hot[None], ("hot",), "", True), sensors, grid, "caption")
    image = pixels(figure)
    body = image[:, : int(0.7 * image.shape[1])]  # without the colour bar
    red = np.array([103, 0, 31])
    assert centre_of(body, red)[0] < 0.35


def test_topomap_puts_the_peak_where_the_sensor_is():
    n = 40
    turn, z = np.arange(n) * 2.399963, 1 - 0.9 * (np.arange(n) + 0.5) / n
    position = np.c_[np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z] * 0.09
    values = np.exp(-((position - [-0.06, 0, 0.06]) ** 2).sum(axis=1) / 1e-3)[None]
    sensors = sensor_frame(position, "eeg")
    (figure,) = maps.sensor_maps(maps.Values(values, ("left",), "", True), sensors, "c", None)
    image = pixels(figure)
    red = centre_of(image[:, : int(0.68 * image.shape[1])], np.array([103, 0, 31]))
    assert red[0] < 0.45 and 0.3 < red[1] < 0.8


def test_maps_follow_the_kind_of_sensor():
    position = np.random.default_rng(0).normal(size=(12, 3))
    kinds = ["seeg"] * 6 + ["parcel"] * 6
    sensors = sensor_frame(position, kinds)
    sensors.loc[6:, ["x", "y", "z"]] = np.nan
    values = maps.Values(position.T, ("a", "b", "c"), "z", True)
    made = maps.sensor_maps(values, sensors, "caption.", None)
    assert [f.caption.split(":")[0] for f in made] == ["seeg", "parcel"]
    assert "no positions" in made[1].caption


def test_more_components_than_fit_are_said():
    position = np.random.default_rng(0).normal(size=(9, 3))
    values = maps.Values(np.ones((11, 9)), tuple("abcdefghijk"), "z", False)
    (figure,) = maps.sensor_maps(values, sensor_frame(position, "seeg"), "c.", None)
    assert "The first 8 of 11 maps are shown." in figure.caption


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
def test_maps_do_not_depend_on_the_unit(scale):
    values = maps.Values(scale * np.array([[0.0, 1.0, -2.0]]), ("a",), "", True)
    np.testing.assert_allclose(values.range, (-2 * scale, 2 * scale))
    assert maps.Values(np.zeros((1, 3)), ("a",), "", True).limit() == 1
    assert maps.Values(np.full((1, 3), np.nan), ("a",), "", True).limit() == 1


def test_volume_refuses_voxels_outside():
    with pytest.raises(IndexError):
        maps.volume(np.ones(1), np.array([[0, 0, 9]]), (2, 2, 2))


def test_rank_histogram_counts_ties_for_both_ranks(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "matplotlib.axes.Axes.bar", lambda self, x, heights, **_: drawn.update(heights=heights)
    )
    figures.ranks(np.array([1, 1, 1.5, 3]), np.full(4, 4), "alt", "caption")
    np.testing.assert_allclose(drawn["heights"], [2.5, 0.5, 1, 0])


def test_figures_survive_hard_inputs():
    nan = float("nan")
    row = {"label": "x" * 99, "value": 0.0, "ci_low": nan, "ci_high": nan, "chance": nan,
           "null": np.empty(0), "people": np.empty(0), "headline": True}  # fmt: skip
    assert figures.scores([row], True, "x", "alt", "caption").png
    assert figures.ranks(np.array([7.0, 2]), np.array([10, 40]), "alt", "caption").png
    log = pd.DataFrame({"epoch": [1], "train_loss": [nan]})
    assert figures.learning([log], "alt", "caption").png
    null = {"a": np.full(3, 0.5), "b": np.linspace(0, 1, 100)}
    assert figures.null_histograms(null, {"a": 0.5, "b": 1.0}, "alt", "caption").png


def test_thumbnail_is_small_on_white_and_refuses_giants(tmp_path, monkeypatch):
    Image.new("RGBA", (600, 300), (255, 0, 0, 0)).save(tmp_path / "a.png")
    jpeg = gallery.thumbnail(tmp_path / "a.png")
    image = Image.open(io.BytesIO(jpeg))
    assert image.size == (184, 92) and np.asarray(image).min() > 250
    monkeypatch.setattr(gallery, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="600 x 300 pixels are too many"):
        gallery.thumbnail(tmp_path / "a.png")


def test_numbers_are_written_the_same_everywhere():
    assert wording.score("top5", 0.7834) == "78.3 %"
    assert wording.score("auc", 0.7) == "0.700"
    assert wording.score("median_rank", 4.5) == "4.5"
    assert wording.score("top1", None) == wording.NOTHING == wording.plain(float("nan"))
    assert wording.interval("top1", 0.1, 0.25) == "10.0 – 25.0 %"
    assert wording.interval("top1", None, 0.25) == wording.NOTHING
    assert [wording.p_value(p) for p in (0.00049975, 1.0, 1e-6, None)] == [
        "0.0005", "1", "< 0.0001", wording.NOTHING,
    ]  # fmt: skip
    assert wording.metric_name("balanced_top5") == "Balanced top-5 accuracy"
    assert wording.metric_name("unheard_of") == "unheard_of"
    assert wording.similarity(-0.001) == "0.00" and wording.similarity(-0.2) == "−0.20"
    assert figures.decade(1e-11) == "10⁻¹¹" and figures.decade(3.0) == ""


def test_distinct_names_lose_what_they_share():
    names = [f"sub-01_task-see_run-{i:02d}_bold" for i in (1, 2, 11)]
    assert list(wording.distinct(names).values()) == ["run-01", "run-02", "run-11"]
    assert wording.distinct(["a_b"]) == {"a_b": "a_b"}
    assert wording.distinct([]) == {}
    assert len(set(wording.distinct(["a_x", "a_b_x", "a_c_x"]).values())) == 3
