"""Norms, over rows (N, D) of real frames: padding never reaches them."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.precision import exact

Norm = Literal["layer", "batch", "none"]


class FrameNorm(nn.LayerNorm):
    """Layer norm of each frame by itself (Ba et al. 2016), in float32."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(exact(rows)).to(rows.dtype)


class BatchNorm(nn.Module):
    """Batch norm over the real frames of a batch (Ioffe and Szegedy 2015).

    In training an utterance's frames do depend on its neighbours', as batch norm has it, but
    never on how far the batch is padded. Statistics are float32, whatever the rows are.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1, least_variance: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.momentum = momentum
        self.least_variance = least_variance
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D) with mean 0 and variance 1 a unit, then scaled and shifted as learned.

        A single frame has no variance to learn from: it is normalised by the running statistics.
        """
        # As an image of one column with channels last, the kernel walks along memory.
        image = rows.t()[None, :, :, None]
        learn = self.training and len(rows) > 1
        output = functional.batch_norm(
            image,
            self.running_mean,
            self.running_variance,
            self.weight,
            self.bias,
            learn,
            self.momentum,
            self.least_variance,
        )
        return output[0, :, :, 0].t()


def make_norm(kind: Norm, width: int) -> nn.Module:
    """The norm that a recipe asks for: rows (N, D) -> rows (N, D)."""
    if kind == "layer":
        return FrameNorm(width)
    return BatchNorm(width) if kind == "batch" else nn.Identity()
