"""Parts of networks: attention over sensors, subject layers, dilated residual blocks, pooling.

The parts follow Defossez et al. 2023 (arXiv 2208.12266, section 2.3); what differs is said where it
differs.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.normalization import BatchNorm1d


def fourier_features(positions: Tensor, n_features: int, margin: float = 0.2) -> Tensor:
    """Fourier features of sensor positions in the plane or in space.

    ``phi_kl(x, y) = 2 pi (k (x + m) + l (y + m)) / (1 + 2 m)``, ``k, l = 0 .. K - 1``; the result
    is ``[cos phi, sin phi]`` with ``n_features = 2 K^2`` (arXiv 2208.12266, section 2.3, eq. 3).
    The features have period ``1 + 2 m``, so positions in ``[-m, 1 + m]`` are told apart. Positions
    in space have a third term and ``n_features = 2 K^3``; that variant is ours.

    Parameters
    ----------
    positions : (..., 2) or (..., 3) in [0, 1]
    n_features : int, twice a square, or twice a cube
    margin : float, ``m`` above

    Returns
    -------
    (..., n_features)

    Raises
    ------
    ModelError
        When ``n_features`` is no such number.
    """
    n_axes = positions.shape[-1]
    n_waves = round((n_features / 2) ** (1 / n_axes))
    if n_waves < 1 or 2 * n_waves**n_axes != n_features:
        examples = ", ".join(str(2 * k**n_axes) for k in (1, 2, 3, 4))
        raise ModelError(
            "Fourier features come in cos/sin pairs over a regular grid of frequencies",
            expected=f"twice a {'square' if n_axes == 2 else 'cube'} number: {examples}, ...",
            found=str(n_features),
        )
    waves = torch.arange(n_waves, dtype=positions.dtype, device=positions.device)
    step = 2 * math.pi / (1 + 2 * margin)
    along = (positions + margin).mul(step)[..., None] * waves
    phase = along[..., 0, :]
    for axis in range(1, n_axes):
        phase = (phase[..., None] + along[..., axis, None, :]).flatten(-2)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def fourier_size(at_most: int, n_axes: int) -> int:
    """The largest number of :func:`fourier_features` for so many axes that is not above a limit."""
    n_waves = int((at_most / 2) ** (1 / n_axes) + 1e-9)
    return 2 * max(1, n_waves) ** n_axes


class SpatialAttention(nn.Module):
    """Sensors to virtual channels by attention over sensor positions.

    ``out_o(t) = sum_c a_oc x_c(t)``, ``a_o = softmax_c(z_o . phi(p_c))`` over the sensors that are
    present (arXiv 2208.12266, eq. 2-4). Missing sensors get weight exactly 0, so padding changes
    nothing, and the order of sensors does not matter.

    In training one disc (centre uniform over the unit square, radius ``dropout``) is drawn per
    forward pass and the sensors inside are left out. Where the disc would cover every sensor of an
    item, nothing is left out of that item (the published expression is NaN there).

    Parameters
    ----------
    n_virtual : int
        Virtual channels.
    n_fourier : int
        Fourier features per position: twice a square number for positions in the plane, twice a
        cube for positions in space.
    dropout : float
        Radius of the disc (ball) in units of the layout; 0 turns it off.
    margin : float
        Margin of the Fourier features.
    """

    def __init__(
        self, n_virtual: int, n_fourier: int = 2048, dropout: float = 0.2, margin: float = 0.2
    ) -> None:
        super().__init__()
        self.n_fourier, self.dropout, self.margin = n_fourier, dropout, margin
        self.heads = nn.Parameter(torch.randn(n_virtual, n_fourier) / math.sqrt(n_fourier))

    def weights(self, positions: Tensor, mask: Tensor) -> Tensor:
        """Attention weights ``(batch, n_virtual, n_sensors)``.

        Parameters
        ----------
        positions : (batch, n_sensors, n_axes) or (n_sensors, n_axes), in the plane or in space
        mask : (batch, n_sensors) bool, True where a sensor is present
        """
        positions = positions.expand(mask.shape[0], -1, -1) if positions.ndim == 2 else positions
        mask = mask & torch.isfinite(positions).all(-1)
        positions = torch.nan_to_num(positions)
        # People share a layout over many windows: the costly product is done once per layout.
        layouts, which = torch.unique(positions, dim=0, return_inverse=True)
        features = fourier_features(layouts, self.n_fourier, self.margin)
        scores = torch.einsum("of,lcf->loc", self.heads, features)[which]
        if self.training and self.dropout > 0:
            centre = torch.rand(positions.shape[-1], dtype=positions.dtype, device=positions.device)
            outside = (positions - centre).norm(dim=-1) > self.dropout
            left = mask & outside
            mask = torch.where(left.any(-1, keepdim=True), left, mask)
        scores = scores.masked_fill(~mask[:, None], -math.inf)
        # An item without any sensor has no maximum: its softmax would be NaN.
        scores = scores.masked_fill(~mask.any(-1)[:, None, None], 0.0)
        return scores.softmax(-1) * mask[:, None]

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, n_sensors, n_times)`` to ``(batch, n_virtual, n_times)``."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return self.weights(positions, mask) @ x


class SubjectLayer(nn.Module):
    """One linear map of the channels per person: ``x -> M_s^T x``, no bias.

    Start: standard normal divided by ``sqrt(n_channels)`` (arXiv 2208.12266, section 2.3).
    """

    def __init__(self, n_channels: int, n_subjects: int) -> None:
        super().__init__()
        start = torch.randn(n_subjects, n_channels, n_channels) / math.sqrt(n_channels)
        self.matrices = nn.Parameter(start)

    def forward(self, x: Tensor, subject: Tensor) -> Tensor:
        """``(batch, n_channels, n_times)`` and ``(batch,)`` int64 to the shape of ``x``."""
        return torch.einsum("bct,bcd->bdt", x, self.matrices[subject])


def activation(kind: Literal["gelu", "relu"]) -> nn.Module:
    """The non-linearity of a network by name."""
    known = {"gelu": nn.GELU, "relu": nn.ReLU}
    if kind not in known:
        raise ModelError("unknown non-linearity", expected=" | ".join(known), found=repr(kind))
    return known[kind]()


class ResidualBlock(nn.Module):
    """Dilated convolution, batch norm, GELU, residual sum, and optionally a gated convolution.

    The sum comes before the gate, and is left out where the widths differ. The gated convolution
    has the same kernel, no dilation, and twice the channels that GLU halves again.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 3,
        dilation: int = 1,
        glu: bool = False,
        dropout: float = 0.0,
        skip: bool = True,
        nonlinearity: Literal["gelu", "relu"] = "gelu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel, dilation=dilation, padding="same")
        self.norm = BatchNorm1d(n_out)
        self.activation = activation(nonlinearity)
        self.dropout = nn.Dropout(dropout)
        self.residual = skip and n_in == n_out
        self.gate = nn.Conv1d(n_out, 2 * n_out, kernel, padding="same") if glu else None

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_in, n_times)`` to ``(batch, n_out, n_times)``."""
        y = self.dropout(self.activation(self.norm(self.conv(x))))
        y = y + x if self.residual else y
        return y if self.gate is None else nn.functional.glu(self.gate(y), dim=1)


class TimePool(nn.Module):
    """What is left of the time axis.

    Parameters
    ----------
    kind : {"none", "mean", "affine", "attention", "steps"}
        ``none`` keeps time, ``mean`` averages it away, ``affine`` is a learned weighted sum over
        time plus a bias, shared by the features, ``attention`` a sum weighted by
        ``softmax_t(v . tanh(W x_t + b))`` (additive attention, Bahdanau et al. 2015, arXiv
        1409.0473); these three are the temporal aggregations of Benchetrit et al. 2024 (arXiv
        2310.19812, section 2.3). ``steps`` averages time down to ``n_steps`` equal parts.
    n_times : int, needed by ``affine``
    n_steps : int, needed by ``steps``
    n_features : int, needed by ``attention``
    n_hidden : int, width of ``attention``
    """

    def __init__(
        self,
        kind: Literal["none", "mean", "affine", "attention", "steps"] = "none",
        n_times: int = 0,
        n_steps: int = 0,
        n_features: int = 0,
        n_hidden: int = 256,
    ) -> None:
        super().__init__()
        needs = {"none": 1, "mean": 1, "affine": n_times, "attention": n_features, "steps": n_steps}
        if kind not in needs:
            raise ModelError(
                "unknown way to pool time", expected=" | ".join(needs), found=str(kind)
            )
        if needs[kind] < 1:
            raise ModelError(
                f"pooling {kind!r} needs a length",
                expected="n_times, n_features or n_steps >= 1",
                found="0",
            )
        self.kind, self.n_steps = kind, n_steps
        self.affine = nn.Linear(n_times, 1) if kind == "affine" else None
        self.score = (
            nn.Sequential(
                nn.Linear(n_features, n_hidden), nn.Tanh(), nn.Linear(n_hidden, 1, bias=False)
            )
            if kind == "attention"
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_features, n_times)`` to ``(batch, n_features[, n_times or n_steps])``."""
        if self.kind == "none":
            return x
        if self.kind == "mean":
            return x.mean(-1)
        if self.kind == "steps":
            return nn.functional.adaptive_avg_pool1d(x, self.n_steps)
        if self.score is not None:
            weight = self.score(x.transpose(1, 2)).softmax(dim=1)
            return (x @ weight).squeeze(-1)
        return self.affine(x).squeeze(-1)
