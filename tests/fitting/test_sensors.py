"""Layout of sensors in the plane and in space."""

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import PositionError
from braindecode_pipe.fitting.sensors import (
    plane_layout,
    sensor_positions,
    space_layout,
    stack_positions,
)


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


def test_cube_has_one_scale_for_everybody():
    position = np.array([[0, 0, 0], [0.15, 0, 0], [0, -0.15, 0.03], [np.nan] * 3])
    layout = space_layout(position)
    assert np.allclose(layout[:3], [[0.5, 0.5, 0.5], [1, 0.5, 0.5], [0.5, 0, 0.6]])
    assert np.isnan(layout[3]).all()
    assert np.array_equal(space_layout(position[:2]), layout[:2])


def test_cube_refuses_what_would_be_taken_for_another_place():
    assert space_layout(np.array([[0.2, 0, 0]]))[0, 0] < 1.2
    for far in (0.22, -0.22, 150.0):
        with pytest.raises(PositionError, match='0.21 m[\\s\\S]*layout = "plane"'):
            space_layout(np.array([[0, 0, 0], [0, 0, far]]))


def test_cube_without_any_position_is_a_circle():
    unknown = np.full((4, 3), np.nan)
    assert np.array_equal(space_layout(unknown)[:, :2], plane_layout(unknown))
    assert np.array_equal(space_layout(unknown)[:, 2], np.full(4, 0.5, np.float32))


def test_positions_of_people_are_padded():
    tables = [pd.DataFrame({"x": [0.0] * n, "y": [0.03] * n, "z": [0.1] * n}) for n in (2, 3)]
    for layout, n_axes in (("plane", 2), ("space", 3)):
        stacked = stack_positions(tables, layout)
        assert stacked.shape == (2, 3, n_axes) and stacked.dtype == np.float32
        assert np.isnan(stacked[0, 2]).all() and np.isfinite(stacked[1]).all()
    assert np.isnan(sensor_positions(pd.DataFrame({"sensor": ["a"]}))).all()
