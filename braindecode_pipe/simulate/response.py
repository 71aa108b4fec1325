"""What a stimulus evokes at the sensors of EEG and MEG.

``response_s(sensor, t) = gain * (common(sensor, t) + sum_k z_sk specific_k(sensor, t))``: linear in
the latent code ``z``. Every latent dimension drives three dipoles of its block, each with one
bump (a raised cosine) at a latency of its own: 100 ... 250 ms for what a stimulus looks or sounds
like, 220 ... 400 ms for what it means. Nothing lasts longer than ``RESPONSE_S``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.simulate.forward import Head, lead_field
from braindecode_pipe.simulate.latents import LatentCode, response_variance
from braindecode_pipe.simulate.noise import Noise
from braindecode_pipe.simulate.settings import RESPONSE_S, Settings

_LATENCY = {"visual": (0.10, 0.25), "auditory": (0.10, 0.25), "semantic": (0.22, 0.40)}
_COMMON = {"picture": "visual", "word": "auditory"}
_COMMON_BUMPS = ((0.10, 0.05, 1.0), (0.17, 0.06, -1.3), (0.27, 0.10, 0.8))  # peak, width, height
_COMMON_RATIO = 1.5  # root mean square of the common part over that of the specific part


@dataclass(frozen=True)
class Response:
    """Responses of one person, gain included.

    Attributes
    ----------
    specific : (N_LATENTS, n_sensors, n_times) [V, T or T/m per unit of the latent code]
    common : trial_type -> (n_sensors, n_times) [V, T or T/m]
    """

    specific: np.ndarray
    common: dict[str, np.ndarray]


def make_response(
    settings: Settings,
    modality: str,
    subject: str,
    head: Head,
    info,
    noise: Noise,
    latents: LatentCode,
) -> Response:
    """Responses of one person, scaled so that the ratio to ``noise`` is ``settings.snr``."""
    field = lead_field(info, head.evoked)
    time = np.arange(round(RESPONSE_S * settings.sfreq)) / settings.sfreq
    group, person = settings.rng("response"), settings.rng("response", subject)
    specific = np.stack(
        [
            _latent_response(
                field, head.evoked_block == block, _LATENCY[block], time, group, person
            )
            for block in latents.block
        ]
    )
    common, n_dipoles = {}, field.shape[1]
    bumps = sum(height * _bump(time, peak, width) for peak, width, height in _COMMON_BUMPS)
    for trial_type, block in _COMMON.items():
        moments = group.choice([-1.0, 1.0], n_dipoles) * group.uniform(0.7, 1.3, n_dipoles)
        moments *= head.evoked_block == block
        common[trial_type] = np.outer(field @ moments, bumps)

    good = noise.good
    snr = settings.snr_of(modality)
    variance = response_variance(specific, latents)[good].mean(1)
    ratio = np.sqrt((variance / noise.variance[good]).mean())
    for trial_type, part in common.items():
        size = np.sqrt(((part[good] ** 2).mean(1) / noise.variance[good]).mean())
        common[trial_type] = part * (_COMMON_RATIO * snr / size)
    return Response(snr / ratio * specific, common)


def _latent_response(field, inside, latencies, time, group, person) -> np.ndarray:
    """Response ``(n_sensors, n_times)`` to one dimension of the code."""
    dipoles = group.choice(np.flatnonzero(inside), 3, replace=False)
    weights = group.standard_normal(3) * np.exp(0.2 * person.standard_normal(3))
    centre = group.uniform(*latencies)
    peaks = centre + 0.02 * group.standard_normal(3) + 0.008 * person.standard_normal(3)
    # Nothing answers within 30 ms.
    widths = np.minimum(group.uniform(0.06, 0.12, 3), peaks - 0.03)
    courses = np.stack([_bump(time, p, w) for p, w in zip(peaks, widths)])
    return (field[:, dipoles] * weights) @ courses


def _bump(time: np.ndarray, peak: float, width: float) -> np.ndarray:
    """Raised cosine of height 1 that is zero beyond ``width`` from its ``peak`` [s]."""
    distance = np.clip((time - peak) / width, -1, 1)
    return 0.5 * (1 + np.cos(np.pi * distance))
