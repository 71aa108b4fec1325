"""Response shapes and regressors of single events, beside Nilearn's."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor

from braindecode_pipe.preprocess import hrf


@pytest.mark.parametrize(("first_time", "t_r", "n"), [(0, 2.0, 120), (6, 1.333, 90), (0, 0.72, 80)])
@pytest.mark.parametrize("name", ["spm", "glover"])
def test_regressors_equal_nilearn(name, first_time, t_r, n):
    frame_times = first_time + t_r * np.arange(n)
    rng = np.random.default_rng(0)
    # Before the first volume, after the last one, and two at one time.
    onset = np.r_[frame_times[0] - 20, frame_times[-1] + 5, 30, 30, rng.uniform(0, n * t_r, 20)]
    duration = rng.choice([0.0, 0.5, 3.0, 15.0], len(onset))
    alone = [([a], [d], [1.0]) for a, d in zip(onset, duration)]
    expected = np.hstack([compute_regressor(event, name, frame_times)[0] for event in alone])
    found = hrf.regressors(onset, duration, hrf.canonical(name, frame_times), frame_times)
    assert found.shape == (n, len(onset))
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    assert not found[:, 1].any()


@pytest.mark.parametrize("t_r", [0.8, 2.0])
def test_library_has_twenty_shapes_with_the_peaks_that_it_names(t_r):
    frame_times = t_r * np.arange(100)
    shapes = hrf.library(frame_times)
    fine = t_r / hrf.OVERSAMPLING
    peaks = [shape.values.argmax() * fine for shape in shapes]
    assert len(shapes) == 20 and len({shape.name for shape in shapes}) == 20
    np.testing.assert_allclose(peaks, np.repeat(hrf.PEAKS, 2), atol=2 * fine)
    values = np.stack([shape.values / np.linalg.norm(shape.values) for shape in shapes])
    likeness = values @ values.T
    assert np.diag(likeness, 2).min() > 0.95  # the next time to peak of the same width
    assert likeness[0, -1] < 0.6
    # Nilearn's two canonical shapes are near to one of the library.
    for name in ("spm", "glover"):
        canonical = hrf.canonical(name, frame_times).values
        assert (values @ canonical).max() > 0.98 * np.linalg.norm(canonical)


@pytest.mark.parametrize("duration", [0.0, 1.0, 12.0])
def test_with_peak_makes_the_response_of_an_event_peak_at_one(duration):
    frame_times = 0.1 * np.arange(600)
    for shape in hrf.library(frame_times)[::7]:
        scaled = hrf.with_peak(shape, duration, frame_times)
        course = hrf.regressors(np.array([5.0]), np.array([duration]), scaled, frame_times)
        assert course.max() == pytest.approx(1, abs=2e-3)


def test_response_energy_is_what_a_longer_recording_would_hold():
    frame_times = 2.0 * np.arange(100)
    kernel = hrf.canonical("glover", frame_times)
    onset, duration = np.array([20.0, 196.0]), np.ones(2)
    held = (hrf.regressors(onset, duration, kernel, frame_times) ** 2).sum(axis=0)
    whole = hrf.response_energy(onset, duration, kernel, frame_times)
    assert held[0] == pytest.approx(whole[0], rel=1e-6)
    assert held[1] < 0.05 * whole[1]
    assert whole[1] == pytest.approx(whole[0], rel=1e-6)
