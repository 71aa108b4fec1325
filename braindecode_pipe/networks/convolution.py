"""The convolutional encoders of Defossez et al. and Benchetrit et al. for sensors in time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.blocks import (
    ResidualBlock,
    SpatialAttention,
    SubjectLayer,
    TimePool,
    activation,
)
from braindecode_pipe.networks.normalization import recomputed


class FrontEnd(nn.Module):
    """Sensors to channels that all people share: attention, 1x1 convolution, layer per person.

    ``y = M_s^T (W A x + b)`` with ``A`` the attention weights of a layout, ``W, b`` the 1x1
    convolution and ``M_s`` the matrix of person ``s`` (arXiv 2208.12266, section 2.3). The three
    are linear and follow one another, so they are multiplied out once for each pair of layout and
    person in the batch, and the samples pass through a single product.

    Parameters: see :class:`ConvEncoder`. ``n_out`` is the number of channels that come out.
    """

    def __init__(
        self,
        n_subjects: int,
        *,
        n_virtual: int,
        n_sensors: int,
        n_fourier: int,
        spatial_dropout: float,
        margin: float,
        merger: bool,
        initial: bool,
        subject_layer: bool,
        subject_embedding: int,
    ) -> None:
        super().__init__()
        if not merger and n_sensors < 1:
            raise ModelError(
                "without the merger the number of sensors is fixed",
                expected="n_sensors >= 1",
                found=str(n_sensors),
            )
        n_in = n_virtual if merger else n_sensors
        self.attention = (
            SpatialAttention(n_virtual, n_fourier, spatial_dropout, margin) if merger else None
        )
        self.initial = nn.Conv1d(n_in, n_virtual, 1) if initial else None
        width = n_virtual if initial else n_in
        self.subjects = SubjectLayer(width, n_subjects) if subject_layer else None
        self.embedding = nn.Embedding(n_subjects, subject_embedding) if subject_embedding else None
        self.n_out = width + subject_embedding

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, subject: Tensor) -> Tensor:
        """``(batch, n_sensors, n_times)`` to ``(batch, n_out, n_times)``."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if self.attention is None:
            # Missing sensors weigh nothing, as they do behind the attention.
            x = x * mask[..., None]
            x = x if self.initial is None else self.initial(x)
            x = x if self.subjects is None else self.subjects(x, subject)
        else:
            matrix, shift = self.folded(positions, mask, subject)
            x = matrix @ x
            x = x if shift is None else x + shift[..., None]
        if self.embedding is not None:
            code = self.embedding(subject)[..., None].expand(-1, -1, x.shape[-1])
            x = torch.cat([x, code], dim=1)
        return x

    def folded(
        self, positions: Tensor, mask: Tensor, subject: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The one matrix of each item ``(batch, n_channels, n_sensors)``, and its shift."""
        positions = positions.expand(len(mask), -1, -1) if positions.ndim == 2 else positions
        key = torch.cat(
            [
                torch.nan_to_num(positions, nan=-1.0).flatten(1),
                mask.to(positions.dtype),
                subject[:, None].to(positions.dtype),
            ],
            dim=1,
        )
        _, which = torch.unique(key, dim=0, return_inverse=True)
        # The first item of each kind stands for all of its kind.
        first = torch.full((int(which.max()) + 1,), len(which), device=which.device)
        items = torch.arange(len(which), device=which.device)
        first = first.scatter_reduce(0, which, items, reduce="amin")
        matrix, shift = self.attention.weights(positions[first], mask[first]), None
        if self.initial is not None:
            matrix = self.initial.weight[..., 0] @ matrix
            shift = self.initial.bias.expand(len(first), -1)
        if self.subjects is not None:
            own = self.subjects.matrices[subject[first]].transpose(1, 2)
            matrix = own @ matrix
            shift = None if shift is None else (own @ shift[..., None])[..., 0]
        return matrix[which], None if shift is None else shift[which]


def _blocks(n_in: int, hidden: int, depth: int, kernel: int, cycle: int, **settings) -> nn.Module:
    """``depth`` residual blocks, dilated 1, 2, 4, ... in cycles, every second one gated."""
    glu = settings.pop("glu")
    return nn.Sequential(
        *(
            ResidualBlock(
                n_in if k == 0 else hidden,
                hidden,
                kernel,
                dilation=2 ** (k % cycle),
                glu=glu and k % 2 == 1,
                **settings,
            )
            for k in range(depth)
        )
    )


def _through(blocks: nn.Sequential, x: Tensor, again: bool) -> Tensor:
    for block in blocks:
        x = recomputed(block, x) if again else block(x)
    return x


def _person(x: Tensor, subject: Tensor | None) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64, device=x.device) if subject is None else subject


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
        See :class:`~braindecode_pipe.networks.blocks.SpatialAttention`.
    dropout : float
        In the blocks and before the head; 0 in the paper.
    pool : {"none", "mean", "affine", "attention", "steps"}
        See :class:`~braindecode_pipe.networks.blocks.TimePool`.
    n_times, n_steps : int
        For ``affine`` and ``steps``.
    merger, initial, subject_layer, head, glu, skip : bool
        The paper's ablations: without the attention over positions (``n_sensors`` is then fixed),
        the first 1x1 convolution, the subject layer, the two last convolutions (one remains), the
        gates, the residual sums. ``spatial_dropout=0`` is another of them.
    subject_embedding : int
        Length of a learned vector per person that is appended to the channels; the ablation in
        place of the subject layer has 64.
    nonlinearity : {"gelu", "relu"}
    n_sensors : int
        Only without ``merger``.
    recompute : bool
        Less memory for a third more work: see
        :func:`~braindecode_pipe.networks.normalization.recomputed`.
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
        pool: Literal["none", "mean", "affine", "attention", "steps"] = "none",
        n_times: int = 0,
        n_steps: int = 0,
        merger: bool = True,
        initial: bool = True,
        subject_layer: bool = True,
        subject_embedding: int = 0,
        head: bool = True,
        glu: bool = True,
        skip: bool = True,
        nonlinearity: Literal["gelu", "relu"] = "gelu",
        n_sensors: int = 0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.front = FrontEnd(
            n_subjects, n_virtual=n_virtual, n_sensors=n_sensors, n_fourier=n_fourier,
            spatial_dropout=spatial_dropout, margin=margin, merger=merger, initial=initial,
            subject_layer=subject_layer, subject_embedding=subject_embedding,
        )  # fmt: skip
        self.blocks = _blocks(
            self.front.n_out, hidden, depth, kernel, dilation_cycle,
            glu=glu, dropout=dropout, skip=skip, nonlinearity=nonlinearity,
        )  # fmt: skip
        width = hidden if depth else self.front.n_out
        self.pool = TimePool(pool, n_times, n_steps, n_features=width)
        self.head = (
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 1),
                activation(nonlinearity),
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
        positions : (batch, n_sensors, n_axes) or (n_sensors, n_axes), layout in [0, 1], in the
            plane or in space; NaN where a sensor has no position: it is left out like one that is
            masked
        mask : (batch, n_sensors) bool, True where a sensor is present; default all
        subject : (batch,) int64; default 0

        Returns
        -------
        ``(batch, n_out)``, or ``(batch, n_out, n_times or n_steps)`` with ``pool`` none or steps
        """
        x = self.front(x, positions, mask, _person(x, subject))
        x = self.pool(_through(self.blocks, x, self.recompute and self.training))
        if x.ndim == 2:
            return self.head(x.unsqueeze(-1)).squeeze(-1)
        return self.head(x)


class ImageEncoder(nn.Module):
    """Encoder of pictures by Benchetrit et al. 2024 (arXiv 2310.19812, section 2.3).

    The front end of Defossez et al. -> ``depth`` residual blocks, dilated 1, 2, 4, 8, every second
    one gated -> 1x1 convolution, GELU, 1x1 convolution to ``n_backbone`` -> temporal aggregation
    -> a linear head for the contrastive loss and, with ``two_heads``, another for the squared
    error. With 4 people, 181 samples and 768 features it has 6,424,472 parameters, 7,998,104 with
    both heads. The gated convolutions are not dilated, as in the authors' code.

    Parameters
    ----------
    n_out, n_subjects : int
    n_times : int
        Samples of a window, for ``pool="affine"``.
    n_backbone : int
        Features before the heads.
    pool : {"affine", "mean", "attention"}
        See :class:`~braindecode_pipe.networks.blocks.TimePool`.
    two_heads : bool
    others : see :class:`ConvEncoder`
    """

    def __init__(
        self,
        n_out: int,
        n_subjects: int = 1,
        *,
        n_times: int,
        n_virtual: int = 270,
        hidden: int = 320,
        depth: int = 4,
        kernel: int = 3,
        n_backbone: int = 2048,
        n_fourier: int = 2048,
        dilation_cycle: int = 5,
        spatial_dropout: float = 0.2,
        margin: float = 0.2,
        dropout: float = 0.0,
        pool: Literal["affine", "mean", "attention"] = "affine",
        two_heads: bool = True,
        subject_layer: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.front = FrontEnd(
            n_subjects, n_virtual=n_virtual, n_sensors=0, n_fourier=n_fourier,
            spatial_dropout=spatial_dropout, margin=margin, merger=True, initial=True,
            subject_layer=subject_layer, subject_embedding=0,
        )  # fmt: skip
        self.blocks = _blocks(
            n_virtual, hidden, depth, kernel, dilation_cycle, glu=True, dropout=dropout
        )
        width = hidden if depth else n_virtual
        self.widen = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1), nn.GELU(), nn.Conv1d(2 * width, n_backbone, 1)
        )
        self.pool = TimePool(pool, n_times, n_features=n_backbone)
        self.contrastive = nn.Linear(n_backbone, n_out)
        self.regression = nn.Linear(n_backbone, n_out) if two_heads else None

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """Windows, as in :class:`ConvEncoder`, to estimates.

        Returns
        -------
        (batch, n_out), or (batch, 2, n_out) with both heads: for retrieval, for regression
        """
        x = self.front(x, positions, mask, _person(x, subject))
        x = _through(self.blocks, x, self.recompute and self.training)
        x = self.pool(self.widen(x))
        if self.regression is None:
            return self.contrastive(x)
        return torch.stack([self.contrastive(x), self.regression(x)], dim=1)
