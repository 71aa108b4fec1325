"""A small convolutional decoder: embedding to picture, with or without a blurred one beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braindecode_pipe.errors import ModelError

LOW = 8  # side of the blurred picture [pixels]


class PictureDecoder(nn.Module):
    """Picture of an embedding: a linear map to 4 x 4, then doubled until the side is reached.

    Its loss per example is the mean squared error of the pixels plus ``edges`` times the mean
    absolute error of the differences of neighbouring pixels. While it is trained, embeddings are
    mixed with others' noise, ``a e + sqrt(1 - a^2) n`` with ``a`` uniform between ``least`` and 1,
    so that it reads what a decoder of brains predicts and not only what a picture gives; the
    blurred picture is left out of half of the examples, so that it is not needed.

    Parameters
    ----------
    width : features of an embedding
    side : of the picture [pixels], 8 or more and a power of two
    channels : of the 4 x 4 map
    edges : weight of the second term
    least : smallest share of the embedding that training leaves

    Notes
    -----
    Embeddings are standardised by ``mean`` and ``scale``, which belong to the weights
    (:meth:`set_statistics`).
    """

    terms = ("pixels", "edges")

    def __init__(
        self,
        width: int,
        side: int = 64,
        channels: int = 64,
        edges: float = 0.1,
        least: float = 0.3,
    ) -> None:
        super().__init__()
        if side < 8 or side & (side - 1):
            raise ModelError(
                "a picture of this size cannot be decoded",
                expected="a side that is a power of two, 8 or more", found=str(side),
            )  # fmt: skip
        self.side, self.edges, self.least = side, edges, least
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("average", torch.zeros(3, side, side))
        self.first = nn.Linear(width, channels * 16)
        inputs, stages, size = channels, [], 4
        while size < side:
            size *= 2
            outputs = max(12, inputs * 3 // 4)
            # The blurred picture and whether it is there come in where sizes agree.
            extra = 4 if size == LOW else 0
            stages.append(nn.Conv2d(inputs + extra, outputs, 3, padding=1))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.last = nn.Conv2d(inputs, 3, 3, padding=1)

    def set_statistics(self, embeddings: Tensor, pictures: Tensor) -> None:
        """Take moments of the training embeddings (n, width) and the mean of their pictures.

        A feature that does not vary keeps scale 1. Pictures are decoded as what they differ by
        from the mean picture, in logits.
        """
        self.average.copy_(torch.logit(pictures.mean(0), eps=0.02))
        scale = embeddings.std(0, correction=0)
        self.mean.copy_(embeddings.mean(0))
        self.scale.copy_(torch.where(scale > 1e-6 * embeddings.abs().amax(0), scale, 1.0))

    def picture(self, embedding: Tensor, low: Tensor | None = None) -> Tensor:
        """(n, width) and (n, 3, 8, 8) or None -> (n, 3, side, side) in 0 to 1."""
        present = None if low is None else torch.ones(len(low), 1, 1, 1).to(low)
        return self._decode((embedding - self.mean) / self.scale, low, present)

    def _decode(self, standard: Tensor, low: Tensor | None, present: Tensor | None) -> Tensor:
        x = F.gelu(self.first(standard)).view(len(standard), -1, 4, 4)
        for stage in self.stages:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if x.shape[-1] == LOW:
                x = torch.cat([x, self._extra(x, low, present)], 1)
            x = F.gelu(stage(x))
        return torch.sigmoid(self.average + self.last(x))

    def _extra(self, x: Tensor, low: Tensor | None, present: Tensor | None) -> Tensor:
        if low is None or present is None:
            return x.new_zeros(len(x), 4, LOW, LOW)
        flag = present.expand(-1, 1, LOW, LOW)
        return torch.cat([(low - 0.5) * flag, flag], 1)

    def forward(self, embedding: Tensor, picture: Tensor) -> Tensor:
        """Terms (n, 2) of the examples of a batch; noise only while training."""
        standard = (embedding - self.mean) / self.scale
        present = picture.new_zeros(len(picture), 1, 1, 1)
        if self.training:
            share = self.least + (1 - self.least) * torch.rand(len(standard), 1)
            share = share.to(standard)
            noise = torch.randn(standard.shape).to(standard)
            standard = share * standard + (1 - share**2).sqrt() * noise
            present = (torch.rand(len(picture), 1, 1, 1) < 0.5).to(picture)
        low = F.adaptive_avg_pool2d(picture, LOW)
        made = self._decode(standard, low, present)
        error = made - picture
        pixels = (error**2).flatten(1).mean(1)
        steps = [(error.diff(dim=d)).abs().flatten(1).mean(1) for d in (2, 3)]
        return torch.stack([pixels, sum(steps) / 2], 1)

    def combine(self, means: Tensor) -> Tensor:
        """Loss of the mean terms of a batch."""
        return means[0] + self.edges * means[1]
