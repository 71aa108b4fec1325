"""What a tokenizer keeps of its signals: use of codes, errors by kind and band, its sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braindecode_pipe.networks.quantizer import usage
from braindecode_pipe.networks.sensors import usable_sensors
from braindecode_pipe.networks.tokenizer import BrainTokenizer, standardized

BANDS = (
    ("delta", 1.0, 4.0),
    ("theta", 4.0, 8.0),
    ("alpha", 8.0, 13.0),
    ("beta", 13.0, 30.0),
    ("gamma", 30.0, 80.0),
)


class CodeCounts:
    """How often each code of each level occurred, added up over blocks."""

    def __init__(self, n_levels: int, codebook_size: int) -> None:
        self.counts = np.zeros((n_levels, codebook_size), np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Count ``codes (..., n_levels)``."""
        for level, row in enumerate(self.counts):
            row += np.bincount(codes[..., level].ravel(), minlength=len(row))

    def table(self) -> pd.DataFrame:
        """level (from 1), codes, used (share of the codebook), perplexity: see ``usage``."""
        n = self.counts.sum(1)
        numbers = np.repeat(np.arange(self.counts.shape[1])[None], len(n), 0)
        rows = []
        for level, (count, number) in enumerate(zip(self.counts, numbers)):
            codes = torch.from_numpy(np.repeat(number, count))[:, None]
            found = usage(codes, len(count))
            rows.append((level + 1, int(n[level]), float(found.used), float(found.perplexity)))
        return pd.DataFrame(rows, columns=["level", "codes", "used", "perplexity"])


class Rebuilding:
    """Errors of rebuilt signals by kind of sensor and band, added up over blocks.

    ``error = sum |F(x - y)|^2 / sum |F x|^2`` over the frequencies of a band, windows and sensors
    of a kind: 0 for a perfect copy, 1 for silence. ``x`` is standardised per sensor and window,
    since that is all that the codes are asked to keep; sensors that are flat or not finite within
    a window do not count.

    Parameters
    ----------
    kinds : word of each sensor
    sfreq : [Hz]
    """

    def __init__(self, kinds: Sequence[str], sfreq: float) -> None:
        self.kinds, self.sfreq = np.asarray(kinds, object), sfreq
        self.names = list(dict.fromkeys(map(str, kinds)))
        self.bands = [b for b in BANDS if b[1] < sfreq / 2]
        self.power = np.zeros((2, len(self.names), len(self.bands) + 1))

    def add(self, original: Tensor, rebuilt: Tensor) -> None:
        """Windows ``(n, n_sensors, n_times)``, ``original`` standardised or not."""
        keep = usable_sensors(original)
        target = standardized(torch.where(keep[..., None], original, 0.0)).double()
        residual = torch.where(keep[..., None], target - rebuilt.double(), 0.0)
        freq = np.fft.rfftfreq(original.shape[-1], 1 / self.sfreq)
        for which, values in enumerate((residual, target)):
            power = torch.fft.rfft(values).abs().square().sum(0).numpy()
            for i, name in enumerate(self.names):
                own = power[self.kinds == name].sum(0)
                self.power[which, i, -1] += own[1:].sum()
                for j, (_, low, high) in enumerate(self.bands):
                    self.power[which, i, j] += own[(freq >= low) & (freq < high)].sum()

    def table(self) -> pd.DataFrame:
        """kind, band, low [Hz], high [Hz], error; NaN where a band holds nothing."""
        rows = []
        bands = [*self.bands, ("all", 0.0, self.sfreq / 2)]
        for i, name in enumerate(self.names):
            for j, (band, low, high) in enumerate(bands):
                residual, target = self.power[:, i, j]
                error = residual / target if target > 0 else float("nan")
                rows.append((name, band, low, min(high, self.sfreq / 2), float(error)))
        return pd.DataFrame(rows, columns=["kind", "band", "low", "high", "error"])


@torch.no_grad()
def source_patterns(
    network: BrainTokenizer, vectors: Tensor, geometry: Tensor, kinds: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """What each latent source adds to each sensor.

    Signals are rebuilt with all sources and with one held at its mean; the difference is what the
    source adds. Its pattern is the leading left singular vector over sensors, times the root mean
    square over time of that component, with the largest value positive.

    Parameters
    ----------
    vectors : (n, n_sources, n_steps, width), tokens of some windows
    geometry, kinds : of the sensors

    Returns
    -------
    patterns : (n_sources, n_sensors), in standard deviations of a sensor
    share : (n_sources,) mean square of what a source adds, over that of the rebuilt signals
    """
    whole = network.decode(vectors, geometry, kinds).double()
    power = float(whole.square().sum()) or 1.0
    patterns, shares = [], []
    for source in range(vectors.shape[1]):
        without = vectors.clone()
        without[:, source] = vectors[:, source].mean((0, 1))
        part = whole - network.decode(without, geometry, kinds).double()
        flat = part.transpose(0, 1).flatten(1)
        values, directions = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
        pattern = directions[:, -1] * values[-1].clamp_min(0).sqrt()
        patterns.append(pattern * torch.sign(pattern[pattern.abs().argmax()]))
        shares.append(float(part.square().sum()) / power)
    return torch.stack(patterns).cpu().numpy(), np.array(shares)
