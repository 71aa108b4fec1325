"""Heads, sensors and dipoles of the simulated people.

A head is a sphere (MNE's four-layer model for EEG; for MEG only its centre matters). Everything is
in MNE's head coordinates [m]; lead fields come from MNE's forward solution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.simulate.settings import Settings

# The sphere on which the electrodes of MNE's biosemi64 montage lie.
HEAD_CENTRE = np.array([0.0, 0.0, 0.0401])
HEAD_RADIUS = 0.095
_BRAIN_RADIUS = 0.078
N_BACKGROUND = 150
_N_SCALP = 120
_COILS = ((-0.5, 0.8, 0.3), (0.5, 0.8, 0.3), (-0.8, -0.5, 0.0), (0.8, -0.5, 0.0))
_AREAS = {  # block of the latent code -> directions from the centre of the head, dipoles in each
    "visual": (((-0.25, -0.9, 0.1), 8), ((0.25, -0.9, 0.1), 8)),
    "auditory": (((-0.95, -0.1, 0.1), 4), ((0.95, -0.1, 0.1), 4)),
    "semantic": (((-0.8, -0.45, -0.2), 5), ((0.8, -0.45, -0.2), 5), ((-0.6, 0.6, 0.2), 2)),
}


@dataclass(frozen=True)
class Dipoles:
    """Positions [m], head coordinates, and unit orientations: (n_dipoles, 3) each."""

    position: np.ndarray
    orientation: np.ndarray


@dataclass(frozen=True)
class Head:
    """Dipoles of one person.

    Attributes
    ----------
    evoked : dipoles that respond to stimuli, grouped by ``evoked_block``
    background : dipoles of ongoing activity
    eyes : two dipoles, forwards and up, that blink: lids slide over a cornea that is positive
    shift : (3,) place of the head in the MEG helmet relative to its usual one [m]
    """

    evoked: Dipoles
    evoked_block: np.ndarray
    background: Dipoles
    eyes: Dipoles
    shift: np.ndarray


def make_head(settings: Settings, subject: str) -> Head:
    """Dipoles of one person: everybody's, moved by 4 mm and turned by 15 degrees at random."""
    group, person = settings.rng("head"), settings.rng("head", subject)
    directions, blocks = [], []
    for block, areas in _AREAS.items():
        for direction, n in areas:
            directions.append(np.array(direction) + 0.25 * group.standard_normal((n, 3)))
            blocks += [block] * n
    direction = _unit(np.concatenate(directions))
    depth = group.uniform(0.75, 0.95, (len(direction), 1)) * _BRAIN_RADIUS
    position = depth * direction + 0.004 * person.standard_normal(direction.shape)
    radius = np.linalg.norm(position, axis=1, keepdims=True)
    position *= np.minimum(1.0, 0.97 * _BRAIN_RADIUS / radius)
    orientation = _unit(group.standard_normal(direction.shape))
    orientation = _unit(orientation + 0.26 * person.standard_normal(direction.shape))

    spread = _unit(person.standard_normal((N_BACKGROUND, 3)))
    spread *= _BRAIN_RADIUS * np.cbrt(person.uniform(0.1, 0.9, (N_BACKGROUND, 1)))
    eyes = np.array([[-0.03, 0.08, -0.035], [0.03, 0.08, -0.035]])
    return Head(
        evoked=Dipoles(HEAD_CENTRE + position, orientation),
        evoked_block=np.array(blocks),
        background=Dipoles(HEAD_CENTRE + spread, _unit(person.standard_normal(spread.shape))),
        eyes=Dipoles(HEAD_CENTRE + eyes, np.array([[0.0, 0.8, 0.6]] * 2)),
        shift=0.002 * np.clip(person.standard_normal(3), -2, 2),
    )


def sensor_info(settings: Settings, modality: str, head: Head):
    """``mne.Info`` of the sensors: 64 electrodes (biosemi64) or 306 MEG channels (Neuromag).

    Fewer are spread evenly in the order of the montage. The MEG helmet sits so that no sensor is
    inside the head.
    """
    import mne

    if modality == "eeg":
        montage = mne.channels.make_standard_montage("biosemi64")
        rows = np.round(np.linspace(0, 63, settings.n_eeg)).astype(int)
        info = mne.create_info([montage.ch_names[i] for i in rows], settings.sfreq, "eeg")
        info.set_montage(montage)
    else:
        full = mne.channels.read_meg_canonical_info("neuromag")
        triplets = np.round(np.linspace(0, 101, settings.n_meg // 3)).astype(int)
        picks = (3 * triplets[:, None] + np.arange(3)).ravel()
        full = mne.pick_info(full, picks)
        types = full.get_channel_types()
        info = mne.create_info(full.ch_names, settings.sfreq, types)
        for new, old in zip(info["chs"], full["chs"]):
            for key in ("loc", "coil_type", "unit", "coord_frame", "kind"):
                new[key] = old[key]
        # 10 mm behind the helmet's origin: 14 mm between the sphere and the nearest sensor.
        offset = HEAD_CENTRE - [0.0, 0.01, 0.0] + head.shift
        info["dev_head_t"] = mne.transforms.Transform(
            "meg", "head", mne.transforms.translation(*offset)
        )
        info.set_montage(_digitised(settings))
    info["line_freq"] = settings.line_freq
    return info


def _digitised(settings: Settings):
    """What is digitised before a MEG recording: nasion and ears, coils, and points of the scalp.

    Nasion and ears are where MNE puts them for the electrodes, so that EEG and MEG agree. The
    points are those of a pen that is led over the upper head, each off by 1 mm.
    """
    import mne

    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, 1.0, "eeg")
    info.set_montage(montage)
    points = {point["ident"]: point["r"] for point in info["dig"] if point["kind"] == 1}
    rng = settings.rng("digitised")
    scalp = _unit(rng.standard_normal((_N_SCALP, 3)))
    scalp[:, 2] = np.abs(scalp[:, 2])
    scalp = HEAD_CENTRE + HEAD_RADIUS * scalp + 0.001 * rng.standard_normal(scalp.shape)
    coils = HEAD_CENTRE + HEAD_RADIUS * _unit(np.array(_COILS))
    return mne.channels.make_dig_montage(
        lpa=points[1], nasion=points[2], rpa=points[3], hpi=coils, hsp=scalp, coord_frame="head"
    )


def lead_field(info, dipoles: Dipoles) -> np.ndarray:
    """Field of unit dipoles at the sensors.

    Returns
    -------
    (n_sensors, n_dipoles) float64 [V/(Am), T/(Am) or T/m/(Am)]; EEG against infinity
    """
    return _field(info, dipoles, {})


def eye_field(info, eyes: Dipoles) -> np.ndarray:
    """:func:`lead_field` of sources in front of the skull.

    The potential is that of a homogeneous sphere: no bone lies between the eyes and the face.
    """
    # MNE asks for two layers; they are equal.
    return _field(info, eyes, {"relative_radii": (0.999, 1.0), "sigmas": (0.33, 0.33)})


def _field(info, dipoles: Dipoles, layers: dict) -> np.ndarray:
    import mne

    eeg = "eeg" in info.get_channel_types(unique=True)
    sphere = mne.make_sphere_model(
        HEAD_CENTRE,
        head_radius=HEAD_RADIUS if eeg else None,
        **(layers if eeg else {}),
        verbose="error",
    )
    source = mne.setup_volume_source_space(
        pos={"rr": dipoles.position, "nn": dipoles.orientation},
        sphere=(*HEAD_CENTRE, HEAD_RADIUS),
        sphere_units="m",
        verbose="error",
    )
    forward = mne.make_forward_solution(
        info, trans=None, src=source, bem=sphere, meg=not eeg, eeg=eeg, verbose="error"
    )
    n = len(dipoles.position)
    free = forward["sol"]["data"].reshape(len(info.ch_names), n, 3)
    return np.einsum("cdi,di->cd", free, dipoles.orientation)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
