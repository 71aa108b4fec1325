"""What a sensor is to a network: where it is, where it points, and what it measures.

The sensor encoder of BrainOmni (arXiv 2505.18185, section 3.1); shapes and normalisation are those
of the authors' code (OpenTSLab/BrainOmni, MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError

# Three physical quantities, numbered as in the published weights. Contacts inside the head measure
# what electrodes on it do, a potential, and share its number: the weights know only three.
KINDS = {"eeg": 0, "seeg": 0, "ecog": 0, "dbs": 0, "mag": 1, "grad": 2}
POTENTIAL = 0
N_KINDS = 3


def kind_codes(kinds: Sequence[str]) -> Tensor:
    """Numbers ``(n_sensors,)`` int64 of mne's words for kinds of sensors.

    Raises
    ------
    ModelError
        For kinds without a number, such as reference magnetometers, voxels and parcels.
    """
    unknown = sorted({str(kind) for kind in kinds} - set(KINDS))
    if unknown:
        raise ModelError(
            "these sensors cannot be told to the network",
            expected=" | ".join(KINDS),
            found=", ".join(unknown),
            remedy="leave them out",
        )
    return torch.tensor([KINDS[str(kind)] for kind in kinds], dtype=torch.int64)


def normalize_positions(positions: Tensor, kinds: Tensor, mask: Tensor | None = None) -> Tensor:
    """Positions about their centre and in units of their spread, EEG and MEG apart.

    ``p <- (p - mean p) / sqrt(3 mean |p - mean p|^2)`` over the sensors whose position is known.
    Potentials are one group, magnetometers and gradiometers the other. Where all of a group are
    in one place, as with a single sensor, the result is zero. Positions that are missing (NaN)
    stay missing and count for nothing.

    Parameters
    ----------
    positions : (..., n_sensors, 3), any unit
    kinds : (..., n_sensors) int64, see :func:`kind_codes`
    mask : (..., n_sensors) bool, optional
        True where a sensor exists; others are as good as missing.

    Returns
    -------
    (..., n_sensors, 3)
    """
    known = torch.isfinite(positions).all(-1)
    if mask is not None:
        known = known & mask
    result = torch.full_like(positions, torch.nan)
    for group in (kinds == POTENTIAL, kinds != POTENTIAL):
        own = (known & group)[..., None]
        n = own.sum(-2, keepdim=True).clamp_min(1)
        centre = torch.where(own, positions, 0).sum(-2, keepdim=True) / n
        centred = torch.where(own, positions - centre, 0)
        # Lengths are taken of numbers near one: squares of tiny units would vanish.
        largest = centred.abs().amax((-2, -1), keepdim=True)
        largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        centred = centred / largest
        size = (3 * centred.square().sum((-2, -1), keepdim=True) / n).sqrt()
        scaled = centred / torch.where(size > 0, size, torch.ones_like(size))
        result = torch.where(own, scaled, result)
    return result


def sensor_geometry(
    positions: Tensor, orientations: Tensor, kinds: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Geometry ``(..., n_sensors, 6)`` that :class:`SensorEncoder` takes; without NaN.

    Positions are normalised first. A missing position becomes zero, the centre of the sensors of
    its group: such sensors still count, but by their kind only, and cannot be told apart. Missing
    orientations become zero, which is what electrodes have, and others get length 1.

    Parameters
    ----------
    positions, orientations : (..., n_sensors, 3); NaN where unknown
    kinds : (..., n_sensors) int64
    mask : (..., n_sensors) bool, optional
    """
    length = orientations.norm(dim=-1, keepdim=True)
    sound = torch.isfinite(length) & (length > 0)
    direction = torch.where(sound, orientations / torch.where(sound, length, 1.0), 0.0)
    places = torch.nan_to_num(normalize_positions(positions, kinds, mask))
    return torch.cat([places, direction], dim=-1)


def usable_sensors(x: Tensor) -> Tensor:
    """Sensors ``(...)`` bool whose signal ``x (..., n_times)`` is finite and not constant."""
    low, high = x.amin(-1), x.amax(-1)
    return torch.isfinite(low) & torch.isfinite(high) & (high > low)


def normalize_signal(x: Tensor, kinds: Tensor, mask: Tensor | None = None) -> Tensor:
    """Signals without what all sensors of a kind share, in units of their common spread.

    Kind by kind: the mean over sensors is taken off every sample, and all are divided by one
    standard deviation over sensors and samples (preprocessing of BrainOmni, per window). What a
    single sensor shares with itself is not taken off; its mean over time is. Sensors that are not
    usable, and all of a kind without any spread, become zero.

    Parameters
    ----------
    x : (..., n_sensors, n_times), any unit
    kinds : (..., n_sensors) int64
    mask : (..., n_sensors) bool, optional
        True where a sensor exists.
    """
    usable = usable_sensors(x)
    if mask is not None:
        usable = usable & mask
    result = torch.zeros_like(x)
    for kind in range(N_KINDS):
        own = (usable & (kinds == kind))[..., None]
        n = own.sum(-2, keepdim=True)
        part = torch.where(own, x, 0)
        largest = part.abs().amax((-2, -1), keepdim=True)
        part = part / torch.where(largest > 0, largest, torch.ones_like(largest))
        shared = part.sum(-2, keepdim=True) / n.clamp_min(1)
        shared = torch.where(n > 1, shared, part.sum(-2, keepdim=True).mean(-1, keepdim=True))
        part = torch.where(own, part - shared, 0)
        count = (n * x.shape[-1]).clamp_min(1)
        mean = part.sum((-2, -1), keepdim=True) / count
        spread = torch.where(own, part - mean, 0).square().sum((-2, -1), keepdim=True) / count
        spread = torch.where(spread > 0, spread, torch.ones_like(spread)).sqrt()
        result = torch.where(own, part / spread, result)
    return result


class SensorEncoder(nn.Module):
    """Embedding of sensors from position, orientation and kind.

    ``s = rms(h + ff(h))``, ``h = W_2 selu(W_1 [p, o]) + k``: a layer to half of the width, one to
    the whole, the embedding ``k`` of the kind, a feed-forward part of four times the width, and
    root-mean-square normalisation with a gain. 560,512 parameters at width 256.

    Parameters
    ----------
    width : int
    n_kinds : int
    """

    def __init__(self, width: int = 256, n_kinds: int = N_KINDS) -> None:
        super().__init__()
        self.place = nn.Sequential(
            nn.Linear(6, width // 2), nn.SELU(), nn.Linear(width // 2, width)
        )
        self.kind = nn.Embedding(n_kinds, width)
        self.feedforward = FeedForward(width)
        self.norm = RMSNorm(width)
        self.apply(start_small)

    def forward(self, geometry: Tensor, kinds: Tensor) -> Tensor:
        """``(..., n_sensors, 6)`` and ``(..., n_sensors)`` int64 to ``(..., n_sensors, width)``."""
        x = self.place(geometry) + self.kind(kinds)
        return self.norm(x + self.feedforward(x))


class FeedForward(nn.Sequential):
    """``W_2 selu(W_1 x)`` of four times the width, with dropout."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(width, 4 * width),
            nn.SELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )


class RMSNorm(nn.Module):
    """``g x / sqrt(mean x^2 + eps)`` over the last axis, in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same shape and type."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        wide = wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (self.weight * wide).to(x.dtype)


def start_small(layer: nn.Module) -> None:
    """Linear layers and embeddings start at a standard deviation of 0.02, biases at 0."""
    if isinstance(layer, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)
