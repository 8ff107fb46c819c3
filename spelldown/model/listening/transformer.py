"""Transformer encoder layers as a block."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.dropout import drop
from spelldown.model.lengths import Real, mask_of
from spelldown.model.listening.block import ACTIVATIONS, Activation, Block
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.settings import Settings


class TransformerSettings(Settings):
    """Transformer encoder layers (Vaswani et al. 2017, section 3.1), norm after each part.

    A linear layer comes first where the width changes; `positions` adds sinusoids once.
    """

    kind: Literal["transformer"] = "transformer"
    width: int | None = Field(None, ge=1, description="width of the frames; as it comes if null")
    layers: int = Field(1, ge=1, description="layers, one above the other")
    heads: int = Field(4, ge=1, description="heads that share the width evenly")
    feed_forward: int = Field(2, ge=1, description="inner width, in multiples of the width")
    activation: Literal["gelu", "relu"] = Field("relu", description="inside the feed-forward part")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="of positions, attention, inner units and both parts' outputs"
    )
    norm: Norm = Field("layer", description="layer, batch (as the seed) or none")
    positions: bool = Field(True, description="add sinusoidal positions before the first layer")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TransformerSettings:
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"{self.heads} heads cannot share a width of {self.width} evenly")
        return self

    def build(self, input_width: int) -> Transformer:
        return Transformer(self, input_width)


class Transformer(Block):
    """Self-attention over real frames only, then feed-forward; residuals and norms after each."""

    def __init__(self, settings: TransformerSettings, input_width: int) -> None:
        super().__init__()
        width = settings.width or input_width
        if width % settings.heads:
            raise ValueError(f"{settings.heads} heads cannot share a width of {width} evenly")
        change = width != input_width
        self.enter = nn.Linear(input_width, width) if change else nn.Identity()
        self.layers = nn.ModuleList(_EncoderLayer(settings, width) for _ in range(settings.layers))
        self.positions = settings.positions
        self.dropout = settings.dropout
        self.output_width = width

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.enter(frames)
        if self.positions:
            frames = frames + sinusoids(frames.shape[1], self.output_width, frames.device)
            frames = drop(frames, self.dropout, self.training)
        mask = mask_of(lengths, frames.shape[1])
        real = Real(mask)
        for layer in self.layers:
            frames = layer(frames, mask, real)
        return frames, lengths


class _EncoderLayer(nn.Module):
    def __init__(self, settings: TransformerSettings, width: int) -> None:
        super().__init__()
        self.heads = settings.heads
        self.rate = settings.dropout
        self.project = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.wide = nn.Linear(width, settings.feed_forward * width)
        self.narrow = nn.Linear(settings.feed_forward * width, width)
        self.norms = nn.ModuleList(make_norm(settings.norm, width) for _ in range(2))
        self.activation: Activation = ACTIVATIONS[settings.activation]

    def forward(self, frames: Tensor, mask: Tensor, real: Real) -> Tensor:
        """Frames (B, T, D), of which those of `mask` (B, T) may be looked at; `real` has them."""
        parts = self.project(frames).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        query, key, value = parts
        heard = functional.scaled_dot_product_attention(
            query, key, value, mask[:, None, None, :], dropout_p=rate
        )
        heard = real.rows(heard.transpose(1, 2).flatten(2))  # from here on frame by frame
        rows = self.norms[0](real.rows(frames) + self._drop(self.join(heard)))
        inner = self._drop(self.activation(self.wide(rows)))
        return real.frames(self.norms[1](rows + self._drop(self.narrow(inner))))

    def _drop(self, frames: Tensor) -> Tensor:
        return drop(frames, self.rate, self.training)


def sinusoids(frames: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (T, D): sines in even columns, cosines in odd (Vaswani, section 3.5)."""
    place = torch.arange(frames, device=device, dtype=torch.float32)[:, None]
    pace = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    waves = torch.stack([(place * pace).sin(), (place * pace).cos()], 2)
    return waves.flatten(1)[:, :width]
