"""BrainTokenizer: any array of sensors to a short sequence of codes, and back.

Follows BrainOmni (arXiv 2505.18185, section 3; settings of the authors' code, OpenTSLab/BrainOmni,
MIT). Where this differs is said where it differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.quantizer import Quantized, ResidualQuantizer
from braindecode_pipe.networks.seanet import SeaNetDecoder, SeaNetEncoder, folded
from braindecode_pipe.networks.sensors import SensorEncoder, start_small, usable_sensors


@dataclass(frozen=True)
class Tokens:
    """Windows as tokens.

    Attributes
    ----------
    vectors : (batch, n_sources, n_steps, width), sums of codes
    codes : (batch, n_sources, n_steps, n_levels) int64
    """

    vectors: Tensor
    codes: Tensor


def spectral_errors(estimate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance of amplitudes, and of phases [rad], of two signals.

    Of the orthonormal Fourier transform under a Hamming window. A phase difference is the shorter
    way round the circle; the authors' code takes the difference of two angles in (-pi, pi].

    Parameters
    ----------
    estimate, target : (..., n_times) float32

    Returns
    -------
    amplitude, phase : (...)
    """
    window = torch.hamming_window(target.shape[-1], dtype=target.dtype, device=target.device)
    one, two = (torch.fft.rfft(window * x, norm="ortho") for x in (estimate, target))
    amplitude = (one.abs() - two.abs()).abs().mean(-1)
    return amplitude, (one * two.conj()).angle().abs().mean(-1)


def correlation(estimate: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation over the last axis; 0 where one of both is constant."""
    one, two = (x - x.mean(-1, keepdim=True) for x in (estimate, target))
    power = one.square().sum(-1) * two.square().sum(-1)
    sound = power > 0
    return torch.where(sound, (one * two).sum(-1), 0.0) / torch.where(sound, power, 1.0).sqrt()


def standardized(x: Tensor) -> Tensor:
    """``x (..., n_times)`` with mean 0 and standard deviation 1 (n - 1); constants become 0."""
    x = x - x.mean(-1, keepdim=True)
    spread = x.std(-1, keepdim=True)
    return x / torch.where(spread > 0, spread, 1.0)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Gather(nn.Module):
    """Features of sensors to features of latent sources, by attention over the sensors.

    Queries are learned, keys are ``W_k (x + s)``, values ``W_v x``, with ``s`` the embedding of the
    sensor. Both products are moved to the other side, ``q . W_k (x + s) = W_k^T q . (x + s)`` and
    ``sum_c a_c W_v x_c = W_v sum_c a_c x_c``, so that their cost does not grow with the number of
    sensors. The bias of the keys cancels in the softmax.
    """

    def __init__(self, width: int, n_sources: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.sources = nn.Parameter(torch.randn(n_sources, width))
        self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, sensors: Tensor, mask: Tensor) -> Tensor:
        """Features of sources ``(batch, n_steps, n_sources, width)``.

        Parameters
        ----------
        x : (batch, n_sensors, n_steps, width)
        sensors : (batch or 1, n_sensors, width)
        mask : (batch, n_sensors) bool, at least one True in each row
        """
        heads, width = self.n_heads, x.shape[-1]
        size = width // heads
        queries = self.sources.view(-1, heads, size)
        queries = torch.einsum("qhd,hdw->qhw", queries, self.key.weight.view(heads, size, width))
        keys = (x + sensors[:, :, None].to(x.dtype)).transpose(1, 2)
        queries = queries.flatten(0, 1).to(keys.dtype).expand(*keys.shape[:2], -1, -1)
        mixed = scaled_dot_product_attention(
            queries, keys, x.transpose(1, 2), attn_mask=mask[:, None, None], scale=size**-0.5
        ).unflatten(2, (-1, heads))
        weight = self.value.weight.view(heads, size, width).to(mixed.dtype)
        values = torch.einsum("btqhw,hdw->btqhd", mixed, weight).flatten(-2)
        return self.out(values + self.value.bias)


class Spread(nn.Module):
    """Features of sources to features at sensors; the embeddings of the sensors are the queries."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, sensors: Tensor) -> Tensor:
        """``(batch, n_steps, n_sources, width)`` and sensors ``(batch or 1, n_sensors, width)``.

        To ``(batch, n_sensors, n_steps, width)``.
        """
        key, value = self.key_value(x).unflatten(-1, (2, self.n_heads, -1)).unbind(-3)
        query = sensors.to(key.dtype).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)[:, None]
        query = query.expand(*x.shape[:2], -1, -1, -1)
        out = scaled_dot_product_attention(query, key.transpose(2, 3), value.transpose(2, 3))
        return self.out(out.transpose(2, 3).flatten(-2)).transpose(1, 2)


class BrainTokenizer(nn.Module):
    """Sensors to codes of latent sources that all devices share.

    Every sensor's window goes through the same convolutions; ``n_sources`` queries gather the
    sensors by attention over what they say and what they are (:class:`SensorEncoder`); each step
    of each source is quantised. The way back mirrors it: the sensors that are asked for query the
    sources. 2 s at 256 Hz become 16 x 8 tokens of 4 codes. 5,050,338 parameters; the codebooks are
    buffers.

    Signals are expected as :func:`~braindecode_pipe.networks.sensors.normalize_signal` gives them,
    sensors as ``sensor_geometry`` does. Sensors that are masked, flat or not finite within a window
    are left out of that window, and are rebuilt like any other. The order of sensors does not
    matter, nor does their number. A window without any sensor gives the tokens of nothing.

    Parameters
    ----------
    window : int, samples of a window, a multiple of the product of ``ratios``
    width, n_sources, n_heads : int
    n_filters, ratios, kernel : see :class:`SeaNetEncoder`
    n_levels, codebook_size, gradient : see :class:`ResidualQuantizer`
    hidden : float
        Share of sensors that are hidden from the encoder when losses are computed.
    noise : float, standard deviation of what is added to the signals in training
    """

    # What the columns of the losses are.
    terms = ("time", "correlation", "amplitude", "phase", "commitment")

    def __init__(
        self,
        window: int = 512,
        width: int = 256,
        n_sources: int = 16,
        n_heads: int = 4,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 4, 2),
        kernel: int = 5,
        n_levels: int = 4,
        codebook_size: int = 512,
        gradient: str = "rotation",
        hidden: float = 0.25,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= hidden < 1:
            raise ModelError(
                "some sensors must be seen", expected="0 <= hidden < 1", found=str(hidden)
            )
        if width % n_heads:
            raise ModelError(
                "attention heads share the width",
                expected=f"a divisor of width = {width}",
                found=f"n_heads = {n_heads}",
            )
        self.window, self.hidden, self.noise = window, hidden, noise
        self.sensors = SensorEncoder(width)
        self.encoder = SeaNetEncoder(width, n_filters, ratios, kernel)
        self.gather = Gather(width, n_sources, n_heads)
        self.quantizer = ResidualQuantizer(width, n_levels, codebook_size, gradient)
        self.spread = Spread(width, n_heads)
        self.decoder = SeaNetDecoder(width, n_filters, ratios, kernel)
        if window % self.encoder.hop or window // self.encoder.hop <= kernel // 2:
            raise ModelError(
                "the window does not fit the convolutions",
                expected=f"a multiple of {self.encoder.hop} samples, "
                f"more than {kernel // 2 * self.encoder.hop}",
                found=str(window),
            )
        self.gather.apply(start_small)
        self.spread.apply(start_small)

    @property
    def steps_per_window(self) -> int:
        """Tokens of a source per window."""
        return self.window // self.encoder.hop

    def encode(
        self,
        x: Tensor,
        geometry: Tensor,
        kinds: Tensor,
        mask: Tensor | None = None,
        overlap: float = 0.0,
    ) -> Tokens:
        """Tokens of signals.

        Parameters
        ----------
        x : (batch, n_sensors, n_times)
            ``n_times`` is that of a whole number of windows; NaN is allowed.
        geometry : (n_sensors, 6) or (batch, n_sensors, 6)
        kinds : (n_sensors) or (batch, n_sensors) int64
        mask : (batch, n_sensors) bool, optional
            True where a sensor takes part.
        overlap : float in [0, 1), share of a window that the next one repeats

        Raises
        ------
        ModelError
            When shapes do not fit, or windows do not fill ``n_times``.
        """
        windows, keep = self._windows(x, mask, overlap)
        sensors = self._embedded(x, geometry, kinds)
        quantized = self._quantized(windows, sensors, keep)
        return Tokens(*(v.flatten(2, 3).contiguous() for v in (quantized.vectors, quantized.codes)))

    def decode(self, tokens: Tensor, geometry: Tensor, kinds: Tensor) -> Tensor:
        """Signals ``(batch, n_sensors, n_times)`` of any sensors, standardised window by window.

        Parameters
        ----------
        tokens : (batch, n_sources, n_steps, width) vectors, or (..., n_levels) codes
        geometry, kinds : see :meth:`encode`
        """
        if not tokens.is_floating_point():
            tokens = self.quantizer.decode(tokens)
        batch = len(tokens)
        tokens = tokens.unflatten(2, (-1, self.steps_per_window))
        sensors = self.sensors(geometry, kinds)
        sensors = sensors if sensors.ndim == 3 else sensors[None]
        signals = self._decoded(tokens, sensors.expand(batch, -1, -1))
        return signals.transpose(1, 2).flatten(2)

    def forward(
        self, x: Tensor, geometry: Tensor, kinds: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Losses ``(batch, 5)`` of rebuilding all sensors from some; see :attr:`terms`.

        A share of the sensors is hidden from the encoder: drawn anew in training, else every
        fourth (for a share of 0.25). An item with a single sensor hides none. Targets are
        standardised per sensor and window. Parameters as for :meth:`encode`, windows apart.
        """
        windows, keep = self._windows(x, mask, 0.0)
        sensors = self._embedded(x, geometry, kinds)
        seen = keep & ~self._hide(keep.any(1))[:, None]
        noisy = windows
        if self.training and self.noise:
            noisy = windows + self.noise * torch.randn_like(windows)
        quantized = self._quantized(noisy, sensors, seen)
        # (batch, n_windows, n_sensors, window); spectra are not computed in half precision.
        estimate = _wide(self._decoded(quantized.vectors, sensors))
        target = standardized(_wide(windows))
        amplitude, phase = spectral_errors(estimate, target)
        time = (estimate - target).abs().mean(-1)
        errors = torch.stack([time, correlation(estimate, target), amplitude, phase], -1)
        counted = keep[..., None]
        n = counted.sum((1, 2)).clamp_min(1)
        means = torch.where(counted, errors, 0.0).sum((1, 2)) / n
        commitment = quantized.commitment.flatten(1).mean(1, keepdim=True)
        return torch.cat([means, commitment], dim=1)

    @staticmethod
    def combine(means: Tensor) -> Tensor:
        """The loss of the means over a batch of what :meth:`forward` gives.

        ``L1 + exp(-r) + amplitude + phase / 2 + commitment`` (arXiv 2505.18185, section 3.1; the
        weights are those of the authors' code).
        """
        time, r, amplitude, phase, commitment = means.unbind(-1)
        return time + torch.exp(-r) + amplitude + 0.5 * phase + commitment

    def _windows(self, x: Tensor, mask: Tensor | None, overlap: float) -> tuple[Tensor, Tensor]:
        """``(batch, n_windows, n_sensors, window)`` without NaN, and which of them count."""
        stride = round(self.window * (1 - overlap))
        if x.ndim != 3 or stride < 1 or x.shape[2] < self.window or (
            x.shape[2] - self.window
        ) % stride:  # fmt: skip
            raise ModelError(
                "signals do not fill whole windows",
                expected=f"(batch, n_sensors, {self.window} + k * {stride})",
                found=str(tuple(x.shape)),
                remedy="cut or pad them in time",
            )
        windows = x.unfold(2, self.window, stride).transpose(1, 2)
        keep = usable_sensors(windows)
        if mask is not None:
            keep = keep & mask[:, None]
        return torch.where(keep[..., None], windows, 0.0), keep

    def _embedded(self, x: Tensor, geometry: Tensor, kinds: Tensor) -> Tensor:
        """Embeddings ``(batch, n_sensors, width)``, computed once where all items share them."""
        shape = geometry.shape[:-1]
        if geometry.shape[-1] != 6 or shape not in (x.shape[1:2], x.shape[:2]):
            raise ModelError(
                "sensors do not fit the signals",
                expected=f"{(x.shape[1], 6)} or {(*x.shape[:2], 6)}",
                found=str(tuple(geometry.shape)),
            )
        if not torch.isfinite(geometry).all():
            raise ModelError(
                "places of sensors are not finite",
                expected="what sensor_geometry gives",
                found="NaN or infinity",
                remedy="sensor_geometry puts missing places at the centre",
            )
        return self.sensors(geometry, kinds).expand(len(x), -1, -1)

    def _quantized(self, windows: Tensor, sensors: Tensor, keep: Tensor) -> Quantized:
        """Of ``(batch, n_windows, n_sensors, window)``: ``(batch, n_sources, n_windows, n_steps)``.

        Only sensors that count go through the convolutions.
        """
        batch, n = windows.shape[:2]
        rows, kept = windows.reshape(-1, self.window), keep.flatten()
        with self._weights():
            if bool(kept.all()):
                features = self.encoder(rows)
            else:
                some = self.encoder(rows[kept])
                features = some.new_zeros(len(rows), *some.shape[1:])
                features = features.index_put((kept,), some)
        features = features.unflatten(0, (batch * n, -1))
        # A window without sensors looks at features that are all zero.
        mask = (keep | ~keep.any(-1, keepdim=True)).flatten(0, 1)
        sensors = sensors[:, None].expand(-1, n, -1, -1).flatten(0, 1)
        sources = self.gather(features, sensors, mask)
        return self.quantizer(sources.unflatten(0, (batch, n)).permute(0, 3, 1, 2, 4))

    def _decoded(self, vectors: Tensor, sensors: Tensor) -> Tensor:
        """``(batch, n_sources, n_windows, n_steps, width)`` to windows of sensors."""
        batch, _, n = vectors.shape[:3]
        steps = vectors.permute(0, 2, 3, 1, 4).flatten(1, 2)
        features = self.spread(steps, sensors).unflatten(2, (n, -1)).transpose(1, 2)
        with self._weights():
            rows = self.decoder(features.flatten(0, 2))
        return rows.view(batch, n, -1, self.window)

    def _weights(self) -> AbstractContextManager:
        return nullcontext() if torch.is_grad_enabled() else folded(self)

    def _hide(self, present: Tensor) -> Tensor:
        """Which of the sensors ``(batch, n_sensors)`` that are present are hidden."""
        n = present.sum(1, keepdim=True)
        if self.training:
            order = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
            rank = order.argsort(1).argsort(1)
            many = (n * self.hidden).long().clamp_min(int(self.hidden > 0))
            many = torch.where(n > 1, many, 0)
            return present & (rank < many)
        number = present.cumsum(1)
        before, after = ((k * self.hidden).floor() for k in (number - 1, number))
        first = (number == 1) & (n > 1) & (n * self.hidden < 1) & (self.hidden > 0)
        return present & ((after > before) | first)
