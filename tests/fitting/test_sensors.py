"""Layout of sensors in the plane."""

import numpy as np

from braindecode_pipe.fitting.sensors import plane_layout


def test_vertex_is_in_the_middle_and_ear_to_ear_is_a_line():
    layout = plane_layout(np.array([[0, 0, 0.1], [0.1, 0, 0], [-0.1, 0, 0], [0, 0.1, 0.0]]))
    assert np.allclose(layout[0], 0.5)
    assert np.allclose(layout[1] - 0.5, 0.5 - layout[2])
    assert np.allclose(layout[1], [0.5 + 0.375, 0.5])
    assert np.allclose(layout[3], [0.5, 0.5 + 0.375])


def test_unit_does_not_matter_and_nothing_leaves_the_margin():
    position = np.random.default_rng(0).normal(size=(200, 3))
    layout = plane_layout(position)
    assert np.allclose(layout, plane_layout(position * 1e3), atol=1e-6)
    assert np.allclose(layout, plane_layout(position * 1e-13), atol=1e-6)
    assert layout.min() >= -0.2 and layout.max() <= 1.2


def test_one_sensor_does_not_move_when_others_come():
    position = np.random.default_rng(0).normal(size=(20, 3))
    assert np.array_equal(plane_layout(position)[:5], plane_layout(position[:5]))


def test_sensor_without_position_is_nan_beside_others_and_on_a_circle_alone():
    position = np.array([[0, 0, 0.1], [np.nan] * 3])
    assert np.isnan(plane_layout(position)[1]).all()
    circle = plane_layout(np.full((4, 3), np.nan))
    assert np.isfinite(circle).all()
    assert len({tuple(p) for p in circle.round(6)}) == 4
