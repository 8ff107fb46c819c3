"""Listen, attend and spell as a textbook writes it: the yardstick of `training_speed.py`.

The seed's row 6 with packed sequences, one LSTMCell at a time under autograd, everything in
float32. It is right, and it is slow; it takes its weights from our recognizer, so that the two
can be held to the same loss and the same gradients.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from spelldown.model.listening.convolution import Conv
from spelldown.model.listening.normalisation import BatchNorm
from spelldown.model.listening.recurrence import Pyramid
from spelldown.model.listening.transformer import Transformer, sinusoids
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.cell import Cell
from spelldown.model.spelling.speller import Speller

Kind = TypeVar("Kind", bound=nn.Module)


class TextbookRecognizer(nn.Module):
    """Row 6 from the weights of `ours`, with the same dropout rates (locked, as the seed)."""

    def __init__(self, ours: Recognizer) -> None:
        super().__init__()
        blocks = list(ours.listener.blocks)
        self.conv = _Convolutions(_as(Conv, blocks[0]))
        self.pyramids = nn.ModuleList(_Pyramid(_as(Pyramid, block)) for block in blocks[1:4])
        self.transformer = _Encoder(_as(Transformer, blocks[4]))
        self.speller = _Speller(ours.speller)

    def forward(self, frames: Tensor, lengths: Tensor, symbols: Tensor) -> Tensor:
        """Logits (B, L-1, V)."""
        frames = self.conv(frames, lengths)
        for pyramid in self.pyramids:
            frames, lengths = pyramid(frames, lengths)
        frames = self.transformer(frames, lengths)
        logits: Tensor = self.speller(frames, lengths, symbols)
        return logits


def _as(kind: type[Kind], module: nn.Module) -> Kind:
    """The module as what it is: torch's lists of modules do not tell."""
    assert isinstance(module, kind), f"{kind.__name__} expected, found {type(module).__name__}"
    return module


def _real(lengths: Tensor, longest: int) -> Tensor:
    return torch.arange(longest, device=lengths.device)[None] < lengths[:, None]


class _MaskedBatchNorm(nn.Module):
    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        norm = _as(BatchNorm, ours)
        self.norm = nn.BatchNorm1d(len(norm.weight))
        self.norm.load_state_dict(
            {"weight": norm.weight, "bias": norm.bias, "running_mean": norm.running_mean,
             "running_var": norm.running_variance}, strict=False,
        )  # fmt: skip

    def forward(self, frames: Tensor, real: Tensor) -> Tensor:
        output = torch.zeros_like(frames)
        output[real] = self.norm(frames[real])
        return output


class _Convolutions(nn.Module):
    def __init__(self, ours: Conv) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for layer in ours.layers:
            weight = layer.get_parameter("weight")
            outputs, inputs, kernel = weight.shape
            conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            conv.load_state_dict({"weight": weight})
            self.layers.append(conv)
        self.norms = nn.ModuleList(_MaskedBatchNorm(norm) for norm in ours.norms)
        self.dropout = ours.dropout

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        real = _real(lengths, frames.shape[1])
        for conv, norm in zip(self.layers, self.norms, strict=True):
            frames = conv(frames.transpose(1, 2)).transpose(1, 2)
            frames = self.dropout(functional.gelu(norm(frames, real)) * real[:, :, None])
        return frames


class _Pyramid(nn.Module):
    def __init__(self, ours: Pyramid) -> None:
        super().__init__()
        lstm = ours.lstm
        self.layers = nn.ModuleList()
        for first, back in zip(lstm.ahead, lstm.back, strict=True):
            ahead = _as(nn.LSTM, first)
            layer = nn.LSTM(
                ahead.input_size, ahead.hidden_size, batch_first=True, bidirectional=True
            )
            weights = dict(ahead.state_dict())
            weights |= {f"{name}_reverse": value for name, value in back.state_dict().items()}
            layer.load_state_dict(weights)
            self.layers.append(layer)
        self.dropouts = lstm.dropouts

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if frames.shape[1] % 2:
            frames = functional.pad(frames, (0, 0, 0, 1))
        frames = frames.reshape(frames.shape[0], frames.shape[1] // 2, -1)
        lengths = (lengths + 1) // 2
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
            frames, _ = pad_packed_sequence(layer(packed)[0], batch_first=True)
            frames = dropout(frames)
        return frames, lengths


class _Encoder(nn.Module):
    def __init__(self, ours: Transformer) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        layer: Any
        for layer in ours.layers:
            attention = nn.MultiheadAttention(
                ours.output_width, layer.heads, layer.rate, batch_first=True
            )
            attention.load_state_dict({
                "in_proj_weight": layer.project.weight, "in_proj_bias": layer.project.bias,
                "out_proj.weight": layer.join.weight, "out_proj.bias": layer.join.bias,
            })  # fmt: skip
            part = nn.ModuleDict({"attention": attention})
            for name in ("wide", "narrow"):
                source = getattr(layer, name)
                part[name] = nn.Linear(source.in_features, source.out_features)
                part[name].load_state_dict(source.state_dict())
            part["norms"] = nn.ModuleList(_MaskedBatchNorm(norm) for norm in layer.norms)
            self.layers.append(part)
        self.rate = ours.dropout

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        real = _real(lengths, frames.shape[1])
        frames = self._drop(frames + sinusoids(frames.shape[1], frames.shape[2], frames.device))
        layer: Any
        for layer in self.layers:
            heard, _ = layer["attention"](
                frames, frames, frames, key_padding_mask=~real, need_weights=False
            )
            frames = layer["norms"][0](frames + self._drop(heard), real)
            inner = self._drop(functional.relu(layer["wide"](frames)))
            frames = layer["norms"][1](frames + self._drop(layer["narrow"](inner)), real)
        return frames

    def _drop(self, frames: Tensor) -> Tensor:
        return functional.dropout(frames, self.rate, self.training)


class _Speller(nn.Module):
    def __init__(self, ours: Speller) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*ours.embedding.weight.shape)
        self.embedding.load_state_dict(ours.embedding.state_dict())
        self.cells = nn.ModuleList()
        self.width = ours.settings.width
        for module in ours.cells:
            cell, width = _as(Cell, module), self.width
            inputs = cell.weight.shape[1] - width
            order = torch.arange(4 * width).view(4, width)[[0, 1, 3, 2]].flatten()  # i f g o
            book = nn.LSTMCell(inputs, width)
            book.load_state_dict({
                "weight_ih": cell.weight[order, :inputs], "weight_hh": cell.weight[order, inputs:],
                "bias_ih": cell.bias[order], "bias_hh": torch.zeros_like(cell.bias),
            })  # fmt: skip
            self.cells.append(book)
        attention = ours.attention
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads = attention.settings.heads
        self.distribution = ours.distribution
        self.rate = ours.settings.dropout

    def forward(self, frames: Tensor, lengths: Tensor, symbols: Tensor) -> Tensor:
        batch, longest, _ = frames.shape
        keys = self.key(frames).view(batch, longest, self.heads, -1).transpose(1, 2)
        values = self.value(frames).view(batch, longest, self.heads, -1).transpose(1, 2)
        hidden_padding = ~_real(lengths, longest)[:, None, None, :]
        states = [frames.new_zeros(2, batch, self.width) for _ in self.cells]
        context = frames.new_zeros(batch, self.value.out_features)
        masks = [self._mask(batch, self.width, frames) for _ in self.cells]
        logits = []
        for i in range(symbols.shape[1] - 1):
            inputs = torch.cat([self.embedding(symbols[:, i]), context], 1)
            for n, cell in enumerate(self.cells):
                hidden, memory = cell(inputs, (states[n][0], states[n][1]))
                states[n] = torch.stack([hidden, memory])
                inputs = hidden * masks[n]
            query = self.query(inputs).view(batch, self.heads, 1, -1)
            energies = query @ keys.transpose(2, 3) / keys.shape[3] ** 0.5
            weights = energies.masked_fill(hidden_padding, -torch.inf).softmax(3)
            context = (weights @ values).flatten(1)
            features = torch.cat([inputs, context], 1)
            logits.append(self.distribution(features, self.embedding.weight, self.training))
        return torch.stack(logits, 1)

    def _mask(self, batch: int, width: int, like: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return like.new_ones(batch, width)
        return like.new_empty(batch, width).bernoulli_(1 - self.rate) / (1 - self.rate)
