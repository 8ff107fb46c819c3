"""The listener: a list of blocks from frames to what attention looks at."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from spelldown.model.lengths import silence
from spelldown.model.listening.block import Block, LockedDropout
from spelldown.model.listening.blocks import BlockSettings
from spelldown.settings import Settings


class ListenerSettings(Settings):
    """Blocks in the order in which frames pass through them."""

    blocks: tuple[BlockSettings, ...] = Field(
        min_length=1, description="what frames pass through, in this order"
    )
    input_dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout of coefficients")


class Listener(nn.Module):
    """Frames (B, T, F) and lengths (B,) through every block."""

    def __init__(self, settings: ListenerSettings, input_width: int) -> None:
        super().__init__()
        self.dropout = LockedDropout(settings.input_dropout)
        blocks: list[Block] = []
        width = input_width
        for block in settings.blocks:
            blocks.append(block.build(width))
            width = blocks[-1].output_width
        self.blocks = nn.ModuleList(blocks)
        self.output_width = width
        self.reduction = math.prod(block.reduction for block in blocks)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths (B,) of what `forward` gives for input lengths (B,)."""
        for block in self.blocks:
            lengths = block.output_lengths(lengths)  # type: ignore[operator]
        return lengths

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.dropout(silence(frames, lengths))
        for block in self.blocks:
            frames, lengths = block(frames, lengths)
        return frames, lengths
