"""Blocks that listen forwards and backwards: BiLSTM and its pyramid."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import Real, in_groups, mask_of, reversed_within, silence
from spelldown.model.listening.block import Block, LockedDropout
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.model.precision import product_dtype
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
    """One direction of one layer, (B, T, I) -> (B, T, D), in the precision of products here.

    The weights are rounded on the way in, so that float32 masters get their gradients.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        dtype = product_dtype(frames)
        weights = [weight.to(dtype) for weight in self.parameters()]
        state = frames.new_zeros(1, frames.shape[0], self.hidden_size, dtype=dtype)
        with torch.autocast(frames.device.type, enabled=False):
            output: Tensor = torch.lstm(
                frames.to(dtype), (state, state), weights, True, 1, 0.0, self.training, False, True
            )[0]
        return output


class BiLSTM(Block):
    """LSTM layers in both directions, never packed.

    A packed sequence misses the processor's fused kernel and is several times slower. Padded
    frames come after an utterance's own, so the forward direction never hears them in time; the
    backward direction runs over a copy reversed within each length, and so does not either.
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
        self.batch_norm = settings.norm == "batch"

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = frames.to(product_dtype(frames))
        if self.batch_norm:  # its statistics are the whole batch's
            return self._listen(frames, lengths), lengths
        return in_groups(self._listen, frames, lengths), lengths

    def _listen(self, frames: Tensor, lengths: Tensor) -> Tensor:
        parts = zip(self.ahead, self.back, self.norms, self.dropouts, strict=True)
        for ahead, back, norm, dropout in parts:
            backwards = back(reversed_within(frames, lengths))
            frames = torch.cat([ahead(frames), reversed_within(backwards, lengths)], 2)
            if not isinstance(norm, nn.Identity):
                real = Real(mask_of(lengths, frames.shape[1]))
                frames = real.frames(norm(real.rows(frames)))
            frames = dropout(frames)
        return silence(frames, lengths)


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
