"""The convolutional encoder of Defossez et al. for sensors sampled in time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from braindecode_pipe.networks.blocks import (
    ResidualBlock,
    SpatialAttention,
    SubjectLayer,
    TimePool,
)


class ConvEncoder(nn.Module):
    """Encoder of Defossez et al. 2023 (arXiv 2208.12266, section 2.3 and figure 4).

    Attention over sensor positions -> 1x1 convolution -> one linear layer per person -> ``depth``
    residual blocks, dilated 1, 2, 4, 8, 16, 1, 2, ..., every second one gated -> 1x1 convolution,
    GELU, 1x1 convolution to ``n_out``. With 27 people and 1024 features out it has 9,565,054
    parameters, whatever the number of sensors.

    The published encoder keeps time (``pool="none"``). For targets that are one vector per
    stimulus, ``pool="mean"`` or ``"affine"`` takes time away before the last two convolutions, as
    a vector needs no time axis there.

    Parameters
    ----------
    n_out : int
        Features of the target.
    n_subjects : int
        People; each has a linear layer.
    n_virtual, hidden, depth, kernel, n_fourier : int
        Virtual channels, width and number of the blocks, kernel size, Fourier features.
    dilation_cycle : int
        Dilations are ``2 ** (block % dilation_cycle)``.
    spatial_dropout, margin : float
        See :class:`SpatialAttention`.
    dropout : float
        In the blocks and before the head; 0 in the paper.
    pool : {"none", "mean", "affine", "steps"}
        See :class:`TimePool`.
    n_times, n_steps : int
        For ``affine`` and ``steps``.
    initial, subject_layer, head, glu : bool
        Ablations: without the first 1x1 convolution, the subject layer, the two last
        convolutions (one remains), or the gates.
    """

    def __init__(
        self,
        n_out: int,
        n_subjects: int = 1,
        *,
        n_virtual: int = 270,
        hidden: int = 320,
        depth: int = 10,
        kernel: int = 3,
        n_fourier: int = 2048,
        dilation_cycle: int = 5,
        spatial_dropout: float = 0.2,
        margin: float = 0.2,
        dropout: float = 0.0,
        pool: Literal["none", "mean", "affine", "steps"] = "none",
        n_times: int = 0,
        n_steps: int = 0,
        initial: bool = True,
        subject_layer: bool = True,
        head: bool = True,
        glu: bool = True,
    ) -> None:
        super().__init__()
        self.attention = SpatialAttention(n_virtual, n_fourier, spatial_dropout, margin)
        self.initial = nn.Conv1d(n_virtual, n_virtual, 1) if initial else nn.Identity()
        self.subjects = SubjectLayer(n_virtual, n_subjects) if subject_layer else None
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    n_virtual if k == 0 else hidden,
                    hidden,
                    kernel,
                    dilation=2 ** (k % dilation_cycle),
                    glu=glu and k % 2 == 1,
                    dropout=dropout,
                )
                for k in range(depth)
            )
        )
        self.pool = TimePool(pool, n_times, n_steps)
        width = hidden if depth else n_virtual
        self.head = (
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 1),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Conv1d(2 * width, n_out, 1),
            )
            if head
            else nn.Conv1d(width, n_out, 1)
        )

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """Windows to estimates.

        Parameters
        ----------
        x : (batch, n_sensors, n_times)
        positions : (batch, n_sensors, 2) or (n_sensors, 2), layout in [0, 1]; NaN where a sensor
            has no position: it is left out like one that is masked
        mask : (batch, n_sensors) bool, True where a sensor is present; default all
        subject : (batch,) int64; default 0

        Returns
        -------
        ``(batch, n_out)``, or ``(batch, n_out, n_times or n_steps)`` with ``pool`` none or steps
        """
        x = self.initial(self.attention(x, positions, mask))
        if self.subjects is not None:
            if subject is None:
                subject = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            x = self.subjects(x, subject)
        x = self.pool(self.blocks(x))
        if x.ndim == 2:
            return self.head(x.unsqueeze(-1)).squeeze(-1)
        return self.head(x)
