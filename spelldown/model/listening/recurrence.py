"""Blocks that listen forwards and backwards: BiLSTM and its pyramid."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import Real, Stairs, mask_of
from spelldown.model.listening.block import Block, LockedDropout
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.model.precision import lend, product_dtype
from spelldown.settings import Settings


class _RecurrentSettings(Settings):
    width: int = Field(256, ge=1, description="width of one direction; the output has both")
    layers: int = Field(1, ge=1, description="LSTM layers, one above the other")
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout, the same at every frame")
    dropout_after: Literal["layer", "block"] = Field(
        "layer", description="whether each layer's output is dropped, or the last one's only"
    )
    norm: Norm = Field("layer", description="after each layer; without, deep ones hardly learn")


class BiLSTMSettings(_RecurrentSettings):
    """Bidirectional LSTM layers; the output is twice as wide as one direction."""

    kind: Literal["bilstm"] = "bilstm"

    def build(self, input_width: int) -> BiLSTM:
        return BiLSTM(self, input_width)


class _LSTM(nn.LSTM):
    """One direction of one layer over `Stairs`, in the precision of products here."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)

    def forward(  # type: ignore[override]
        self, stairs: Tensor, flights: list[tuple[int, int]]
    ) -> Tensor:
        """(S, I) -> (S, D). The state goes on from flight to flight, without those that ended."""
        dtype = product_dtype(stairs)
        lent = lend(dtype, len(flights), *self.parameters())
        parts = stairs.to(dtype).split([steps * rows for steps, rows in flights])
        hidden = cell = stairs.new_zeros(1, flights[0][1], self.hidden_size, dtype=dtype)
        heard = []
        with torch.autocast(stairs.device.type, enabled=False):
            for flight, (part, (steps, rows)) in enumerate(zip(parts, flights, strict=True)):
                weights = lent[4 * flight : 4 * flight + 4]
                output, hidden, cell = torch.lstm(
                    part.view(steps, rows, -1), (hidden[:, :rows], cell[:, :rows]), weights,
                    True, 1, 0.0, self.training, False, False,
                )  # fmt: skip
                heard.append(output.flatten(0, 1))
        return torch.cat(heard)


class BiLSTM(Block):
    """LSTM layers in both directions, never packed.

    A packed sequence misses the processor's fused kernel and is several times slower. What padding
    `Stairs` leave comes after an utterance's own frames in both directions, too late to be heard.
    """

    def __init__(self, settings: _RecurrentSettings, input_width: int) -> None:
        super().__init__()
        self.output_width = 2 * settings.width
        widths = [input_width] + [self.output_width] * (settings.layers - 1)
        self.ahead = nn.ModuleList(_LSTM(i, settings.width) for i in widths)
        self.back = nn.ModuleList(_LSTM(i, settings.width) for i in widths)
        self.norms = nn.ModuleList(make_norm(settings.norm, self.output_width) for _ in widths)
        between = settings.dropout if settings.dropout_after == "layer" else 0.0
        rates = [between] * (settings.layers - 1) + [settings.dropout]
        self.dropouts = nn.ModuleList(map(LockedDropout, rates))

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        real = Real(mask_of(lengths, frames.shape[1]))
        stairs = Stairs(lengths)
        rows = real.rows(frames.to(product_dtype(frames)))
        parts = zip(self.ahead, self.back, self.norms, self.dropouts, strict=True)
        for ahead, back, norm, dropout in parts:
            heard = []
            for lstm, backwards in ((ahead, False), (back, True)):
                steps = lstm(stairs.climb(rows, backwards), stairs.flights)
                heard.append(stairs.descend(steps, backwards))
            rows = dropout(norm(torch.cat(heard, 1)), real)
        return real.frames(rows), lengths


class PyramidSettings(_RecurrentSettings):
    """Pyramidal BiLSTM (Chan et al. 2016, section 3.1): joins neighbouring frames, then listens."""

    kind: Literal["pyramid"] = "pyramid"
    join: int = Field(2, ge=2, description="neighbouring frames joined into one")

    def build(self, input_width: int) -> Pyramid:
        return Pyramid(self, input_width)


class Pyramid(Block):
    """Joins `join` neighbouring frames into one wide frame and runs a BiLSTM over them."""

    def __init__(self, settings: PyramidSettings, input_width: int) -> None:
        super().__init__()
        self.lstm = BiLSTM(settings, settings.join * input_width)
        self.reduction = settings.join
        self.output_width = self.lstm.output_width

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        missing = -frames.shape[1] % self.reduction
        frames = functional.pad(frames, (0, 0, 0, missing))  # the last frame may join silence
        joined = frames.unflatten(1, (-1, self.reduction)).flatten(2)
        output: tuple[Tensor, Tensor] = self.lstm(joined, self.output_lengths(lengths))
        return output
