from __future__ import annotations

import mne
import numpy as np
import pytest

from braindecode_pipe.simulate import Settings
from braindecode_pipe.simulate.forward import (
    HEAD_CENTRE,
    HEAD_RADIUS,
    Dipoles,
    eye_field,
    lead_field,
    make_head,
    sensor_info,
)

SETTINGS = Settings()


@pytest.fixture(scope="module")
def head():
    return make_head(SETTINGS, "01")


def sensor_positions(info):
    points = np.array([ch["loc"][:3] for ch in info["chs"]])
    trans = info["dev_head_t"]
    return points if trans is None else mne.transforms.apply_trans(trans, points)


def radial(points):
    offset = np.asarray(points, float) - HEAD_CENTRE
    return offset / np.linalg.norm(offset, axis=1, keepdims=True)


@pytest.mark.parametrize("subject", ["01", "02", "03", "04"])
def test_meg_sensors_are_outside_the_head_and_dipoles_inside(subject):
    head = make_head(SETTINGS, subject)
    info = sensor_info(SETTINGS, "meg", head)
    assert info.get_channel_types().count("mag") == 102 and len(info.ch_names) == 306
    distance = np.linalg.norm(sensor_positions(info) - HEAD_CENTRE, axis=1)
    assert distance.min() > HEAD_RADIUS + 0.008
    for dipoles in (head.evoked, head.background):
        depth = np.linalg.norm(dipoles.position - HEAD_CENTRE, axis=1)
        assert depth.max() < 0.9 * HEAD_RADIUS
        np.testing.assert_allclose(np.linalg.norm(dipoles.orientation, axis=1), 1, atol=0.01)
    eyes = np.linalg.norm(head.eyes.position - HEAD_CENTRE, axis=1)
    assert (eyes > 0.9 * HEAD_RADIUS).all() and (eyes < HEAD_RADIUS).all()


def test_blinks_are_seen_at_the_forehead_and_hardly_elsewhere(head):
    info = sensor_info(SETTINGS, "eeg", head)
    field = dict(zip(info.ch_names, eye_field(info, head.eyes).sum(1)))
    peak = field["Fp1"]
    assert peak > 0 and field["Fp2"] == pytest.approx(peak, rel=1e-3)
    assert max(field.values()) == pytest.approx(peak, rel=1e-3)
    assert field["Fz"] < 0.3 * peak and abs(field["Cz"]) < 0.1 * peak
    outside = [name for name in field if not name.startswith(("Fp", "AF"))]
    assert max(abs(field[name]) for name in outside) < 0.5 * peak


def test_eyes_without_bone_in_front_obey_the_formula_of_a_homogeneous_sphere(head):
    """``V = p . grad0 N / (4 pi sigma)``, N the Neumann function of a sphere at its surface:
    ``N = 2 / |r - r0| - ln(R - r . r0 / R + |r - r0|) / R``.
    """
    info = sensor_info(SETTINGS, "eeg", head)
    found = eye_field(info, head.eyes)[:, 0]
    source, moment = head.eyes.position[0] - HEAD_CENTRE, head.eyes.orientation[0]
    outward = radial(sensor_positions(info))
    away = HEAD_RADIUS * outward - source
    distance = np.linalg.norm(away, axis=1)[:, None]
    slope = 2 * away / distance**3 + (away / distance + outward) / (
        HEAD_RADIUS * (HEAD_RADIUS - outward @ source + distance[:, 0])[:, None]
    )
    expected = slope @ moment / (4 * np.pi * 0.33)
    # A potential is known up to a constant.
    difference = found - found.mean() - (expected - expected.mean())
    assert np.abs(difference).max() < 0.02 * np.abs(expected).max()


def test_meg_has_a_digitised_head(head):
    info = sensor_info(SETTINGS, "meg", head)
    kinds = [int(point["kind"]) for point in info["dig"]]
    assert kinds.count(1) == 3 and kinds.count(2) == 4 and kinds.count(4) == 120
    radius, origin, _ = mne.bem.fit_sphere_to_headshape(info, units="m", verbose="error")
    assert radius == pytest.approx(HEAD_RADIUS, abs=5e-4)
    np.testing.assert_allclose(origin, HEAD_CENTRE, atol=1e-3)


def test_electrodes_are_on_the_sphere(head):
    info = sensor_info(SETTINGS, "eeg", head)
    distance = np.linalg.norm(sensor_positions(info) - HEAD_CENTRE, axis=1)
    np.testing.assert_allclose(distance, HEAD_RADIUS, atol=2e-4)
    assert len(info.ch_names) == 64


def test_fewer_sensors_are_spread_over_the_head(head):
    few = Settings(n_eeg=16, n_meg=30)
    assert len(sensor_info(few, "eeg", head).ch_names) == 16
    info = sensor_info(few, "meg", head)
    assert info.get_channel_types() == ["grad", "grad", "mag"] * 10
    assert np.ptp(sensor_positions(info), axis=0).min() > 0.08


def test_lead_field_is_linear_and_of_plausible_size(head):
    info = sensor_info(SETTINGS, "eeg", head)
    field = lead_field(info, head.evoked)
    assert field.shape == (64, 36)
    turned = lead_field(info, Dipoles(head.evoked.position, -head.evoked.orientation))
    np.testing.assert_allclose(turned, -field, atol=1e-6 * np.abs(field).max())
    # 10 nAm of a shallow source make between 0.05 and 10 microvolts.
    assert 5e-8 < 1e-8 * np.abs(field).max() < 1e-5


def test_radial_dipoles_are_silent_in_meg(head):
    info = sensor_info(SETTINGS, "meg", head)
    position = head.evoked.position
    outward = radial(position)
    across = np.cross(outward, [0.3, -0.5, 0.8])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    silent = np.abs(lead_field(info, Dipoles(position, outward))).max()
    assert silent < 1e-3 * np.abs(lead_field(info, Dipoles(position, across))).max()


def test_electrodes_over_a_radial_dipole_see_it_most(head):
    info = sensor_info(SETTINGS, "eeg", head)
    electrode = info.ch_names.index("Oz")
    direction = radial(sensor_positions(info)[[electrode]])
    field = lead_field(info, Dipoles(HEAD_CENTRE + 0.07 * direction, direction))
    assert field[:, 0].argmax() == electrode


def test_people_differ_a_little_and_are_the_same_in_all_modalities(head):
    again, other = make_head(SETTINGS, "01"), make_head(SETTINGS, "02")
    np.testing.assert_array_equal(again.evoked.position, head.evoked.position)
    moved = np.linalg.norm(other.evoked.position - head.evoked.position, axis=1)
    assert 0.001 < np.median(moved) < 0.02
    turned = np.einsum("di,di->d", other.evoked.orientation, head.evoked.orientation)
    assert 0.7 < np.median(turned) < 0.9999
    assert (other.evoked_block == head.evoked_block).all()
