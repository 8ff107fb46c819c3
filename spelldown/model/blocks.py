"""The listener's blocks: (frames, lengths) -> (frames, lengths).

Every block promises the silence of padding: what it makes of an utterance does not depend on what
it was padded with or to. Frames come in zero beyond their length and go out zero beyond it.

To add a block: one class with its settings, one name in the union at the foot of this file.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import Real, mask_of, reduced, reversed_within, silence
from spelldown.model.normalisation import Norm, make_norm
from spelldown.model.precision import product_dtype
from spelldown.settings import Settings


class Block(nn.Module):
    """A part of the listener: knows the width it gives and by how much it shortens time."""

    output_width: int
    reduction: int = 1

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths after this block: shortened, rounded up, so that no frame is lost."""
        return reduced(lengths, self.reduction)


class LockedDropout(nn.Module):
    """Dropout of whole units for all of an utterance (Gal and Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, T, D), each utterance with the same units dropped at every frame."""
        if not self.training or self.rate == 0:
            return frames
        keep = 1 - self.rate
        mask = frames.new_empty(frames.shape[0], 1, frames.shape[2]).bernoulli_(keep)
        return frames * mask.div_(keep)


class _Convolution(nn.Module):
    """A 1-D convolution over (B, T, D) that hears silence beyond each utterance's end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's own convolutions

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = reduced(lengths, self.stride)
        if self.kernel == 1 and self.stride == 1:  # a linear map is quicker
            return functional.linear(frames, self.weight[:, :, 0]), lengths
        # An image of one row, channels last: the kernel reads (B, T, D) as it lies in memory.
        image = frames.transpose(1, 2)[:, :, None]
        image = functional.conv2d(
            image, self.weight[:, :, None], None, (1, self.stride), (0, self.kernel // 2),
            groups=self.groups,
        )
        return image[:, :, 0].transpose(1, 2), lengths


_ACTIVATIONS = {"gelu": functional.gelu, "relu": functional.relu, "relu6": functional.relu6}


class ConvSettings(Settings):
    """Convolutions over time, each with a norm, an activation and dropout."""

    kind: Literal["conv"] = "conv"
    widths: tuple[int, ...] = Field((128,), min_length=1, description="output width of each layer")
    kernel: int = Field(3, ge=1, description="frames each layer sees; odd")
    stride: int | tuple[int, ...] = Field(1, description="frames each layer moves on by")
    norm: Norm = Field("layer", description="layer, batch (over real frames only) or none")
    activation: Literal["gelu", "relu", "relu6"] = "gelu"
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout after each layer")

    @model_validator(mode="after")
    def _fits(self) -> ConvSettings:
        _check_convolution(self.kernel, self.widths, self.strides)
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        one_each = isinstance(self.stride, int)
        return (self.stride,) * len(self.widths) if one_each else self.stride  # type: ignore[return-value]

    def build(self, input_width: int) -> Conv:
        return Conv(self, input_width)


class Conv(Block):
    """Conv1d, norm, activation, dropout; once for each width."""

    def __init__(self, settings: ConvSettings, input_width: int) -> None:
        super().__init__()
        widths = (input_width, *settings.widths)
        self.layers = nn.ModuleList(
            _Convolution(i, o, settings.kernel, s, 1)
            for i, o, s in zip(widths, widths[1:], settings.strides, strict=False)
        )
        self.norms = nn.ModuleList(make_norm(settings.norm, width) for width in settings.widths)
        self.activation = _ACTIVATIONS[settings.activation]
        self.dropout = LockedDropout(settings.dropout)
        self.output_width = settings.widths[-1]
        self.reduction = math.prod(settings.strides)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            frames, lengths = layer(frames, lengths)
            real = Real(mask_of(lengths, frames.shape[1]))
            frames = self.dropout(real.frames(self.activation(norm(real.rows(frames)))))
        return frames, lengths


class MobileSettings(Settings):
    """Inverted residuals with depthwise convolutions: MobileNetV2 in one dimension.

    The course's seed calls it the mobile embedding. Each stage is (expansion, width, repeats,
    stride), as in Table 2 of Sandler et al. 2018; time is shortened by the product of strides.
    """

    kind: Literal["mobile"] = "mobile"
    width: int = Field(256, ge=1, description="width of the frames that it gives")
    stem: int = Field(32, ge=1, description="width of the first convolution")
    stages: tuple[tuple[int, int, int, int], ...] = Field(
        ((1, 32, 1, 1), (4, 64, 2, 2), (4, 128, 2, 2)), min_length=1,
        description="expansion, width, repeats and stride of each stage",
    )
    kernel: int = Field(3, ge=1, description="frames each depthwise convolution sees; odd")
    norm: Norm = "batch"
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> MobileSettings:
        numbers = tuple(number for stage in self.stages for number in stage)
        _check_convolution(self.kernel, numbers, numbers)
        return self

    def build(self, input_width: int) -> Mobile:
        return Mobile(self, input_width)


class Mobile(Block):
    """A stem, stages of inverted residuals, and a pointwise layer to the width asked for."""

    def __init__(self, settings: MobileSettings, input_width: int) -> None:
        super().__init__()
        kernel, norm = settings.kernel, settings.norm
        self.parts = nn.ModuleList([_Separable(input_width, settings.stem, kernel, 1, 0, norm)])
        width = settings.stem
        for expansion, output, repeats, stride in settings.stages:
            for repeat in range(repeats):
                pace = stride if repeat == 0 else 1
                self.parts.append(_Separable(width, output, kernel, pace, expansion, norm))
                width = output
        self.head = _Convolution(width, settings.width, 1, 1, 1)
        self.norm = make_norm(norm, settings.width)
        self.dropout = LockedDropout(settings.dropout)
        self.output_width = settings.width
        self.reduction = math.prod(stage[3] for stage in settings.stages)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            frames, lengths = part(frames, lengths)
        frames, lengths = self.head(frames, lengths)
        real = Real(mask_of(lengths, frames.shape[1]))
        frames = real.frames(functional.relu6(self.norm(real.rows(frames))))
        return self.dropout(frames), lengths


class _Separable(nn.Module):
    """Expand, convolve each unit by itself, contract; added to the input where shapes agree.

    An expansion of 0 is the stem: one full convolution with activation.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, norm: Norm
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        shapes = [(inputs, inner, 1, 1, 1)] if expansion > 1 else []
        if expansion:
            shapes += [(inner, inner, kernel, stride, inner), (inner, outputs, 1, 1, 1)]
        else:
            shapes = [(inputs, outputs, kernel, stride, 1)]
        self.layers = nn.ModuleList(_Convolution(*shape) for shape in shapes)
        self.norms = nn.ModuleList(make_norm(norm, shape[1]) for shape in shapes)
        self.linear_end = expansion > 0
        self.residual = expansion > 0 and stride == 1 and inputs == outputs

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        entered = frames
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            frames, lengths = layer(frames, lengths)
            real = Real(mask_of(lengths, frames.shape[1]))
            rows = norm(real.rows(frames))
            if not self.linear_end or i + 1 < len(self.layers):
                rows = functional.relu6(rows)
            frames = real.frames(rows)
        return (entered + frames if self.residual else frames), lengths


class BiLSTMSettings(Settings):
    """Bidirectional LSTM layers; the output is twice as wide as one direction."""

    kind: Literal["bilstm"] = "bilstm"
    width: int = Field(256, ge=1, description="width of one direction")
    layers: int = Field(1, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout after each layer")
    norm: Norm = Field("none", description="norm after each layer")

    def build(self, input_width: int) -> BiLSTM:
        return BiLSTM(self, input_width)


class BiLSTM(Block):
    """LSTM layers in both directions, never packed.

    A packed sequence misses the processor's fused kernel and is several times slower. Padded
    frames come after an utterance's own, so the forward direction never hears them in time; the
    backward direction runs over a copy reversed within each length, and so does not either.
    """

    def __init__(self, settings: BiLSTMSettings, input_width: int) -> None:
        super().__init__()
        self.output_width = 2 * settings.width
        widths = [input_width] + [self.output_width] * (settings.layers - 1)
        self.ahead = nn.ModuleList(nn.LSTM(i, settings.width, batch_first=True) for i in widths)
        self.back = nn.ModuleList(nn.LSTM(i, settings.width, batch_first=True) for i in widths)
        self.norms = nn.ModuleList(make_norm(settings.norm, self.output_width) for _ in widths)
        self.dropout = LockedDropout(settings.dropout)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = frames.to(product_dtype(frames))
        for ahead, back, norm in zip(self.ahead, self.back, self.norms, strict=True):
            backwards = _run_lstm(back, reversed_within(frames, lengths))
            frames = torch.cat([_run_lstm(ahead, frames), reversed_within(backwards, lengths)], 2)
            if not isinstance(norm, nn.Identity):
                real = Real(mask_of(lengths, frames.shape[1]))
                frames = real.frames(norm(real.rows(frames)))
            frames = self.dropout(frames)
        return silence(frames, lengths), lengths


class PyramidSettings(Settings):
    """Pyramidal BiLSTM (Chan et al. 2016, section 3.1): joins neighbouring frames, then listens."""

    kind: Literal["pyramid"] = "pyramid"
    width: int = Field(256, ge=1, description="width of one direction")
    layers: int = Field(1, ge=1, description="BiLSTM layers after the joining")
    join: int = Field(2, ge=2, description="neighbouring frames joined into one")
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout after each layer")
    norm: Norm = Field("none", description="norm after each layer")

    def build(self, input_width: int) -> Pyramid:
        return Pyramid(self, input_width)


class Pyramid(Block):
    """Joins `join` neighbouring frames into one wide frame and runs a BiLSTM over them."""

    def __init__(self, settings: PyramidSettings, input_width: int) -> None:
        super().__init__()
        inner = BiLSTMSettings(
            width=settings.width, layers=settings.layers, dropout=settings.dropout,
            norm=settings.norm,
        )
        self.lstm = BiLSTM(inner, settings.join * input_width)
        self.reduction = settings.join
        self.output_width = self.lstm.output_width

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        missing = -frames.shape[1] % self.reduction
        frames = functional.pad(frames, (0, 0, 0, missing))  # the last frame may join silence
        joined = frames.unflatten(1, (-1, self.reduction)).flatten(2)
        output: tuple[Tensor, Tensor] = self.lstm(joined, self.output_lengths(lengths))
        return output


class TransformerSettings(Settings):
    """Transformer encoder layers (Vaswani et al. 2017, section 3.1), norm after each part.

    A linear layer comes first where the width changes; `positions` adds sinusoids once.
    """

    kind: Literal["transformer"] = "transformer"
    width: int | None = Field(None, ge=1, description="width of the frames; as it comes if null")
    layers: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(2, ge=1, description="inner width, in multiples of the width")
    activation: Literal["gelu", "relu"] = "relu"
    dropout: float = Field(0.1, ge=0, lt=1)
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
            frames = functional.dropout(frames, self.dropout, self.training)
        for layer in self.layers:
            frames = layer(frames, lengths)
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
        self.activation = _ACTIVATIONS[settings.activation]

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        mask = mask_of(lengths, frames.shape[1])[:, None, None, :]  # who may be looked at
        parts = self.project(frames).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        query, key, value = parts
        heard = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=rate)
        real = Real(mask_of(lengths, frames.shape[1]))  # from here on frame by frame
        heard = real.rows(heard.transpose(1, 2).flatten(2))
        rows = self.norms[0](real.rows(frames) + self._drop(self.join(heard)))
        inner = self._drop(self.activation(self.wide(rows)))
        return real.frames(self.norms[1](rows + self._drop(self.narrow(inner))))

    def _drop(self, frames: Tensor) -> Tensor:
        return functional.dropout(frames, self.rate, self.training)


def sinusoids(frames: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (T, D): sines in even columns, cosines in odd (Vaswani, section 3.5)."""
    place = torch.arange(frames, device=device, dtype=torch.float32)[:, None]
    pace = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    waves = torch.stack([(place * pace).sin(), (place * pace).cos()], 2)
    return waves.flatten(1)[:, :width]


def _run_lstm(lstm: nn.LSTM, frames: Tensor) -> Tensor:
    """One direction of one layer, (B, T, I) -> (B, T, D), in the precision of products here.

    The weights are rounded on the way in, so that float32 masters get their gradients.
    """
    dtype = product_dtype(frames)
    weights = [weight.to(dtype) for weight in lstm._flat_weights]
    state = frames.new_zeros(1, frames.shape[0], lstm.hidden_size, dtype=dtype)
    with torch.autocast(frames.device.type, enabled=False):
        output: Tensor = torch.lstm(
            frames.to(dtype), (state, state), weights, True, 1, 0.0, lstm.training, False, True
        )[0]
    return output


def _check_convolution(kernel: int, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; an odd one keeps frames centred")
    if len(strides) != len(widths):
        raise ValueError(f"{len(strides)} strides for {len(widths)} layers; give one or one each")
    if min(widths + strides) < 1:
        raise ValueError("widths and strides must be 1 or more")


BlockSettings = Annotated[
    ConvSettings | MobileSettings | BiLSTMSettings | PyramidSettings | TransformerSettings,
    Field(discriminator="kind"),
]
