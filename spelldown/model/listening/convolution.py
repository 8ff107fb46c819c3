"""Blocks that convolve over time: plain, and as a mobile network."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import Real, mask_of, reduced
from spelldown.model.listening.block import ACTIVATIONS, Activation, Block, LockedDropout
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.settings import Settings


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
            image,
            self.weight[:, :, None],
            None,
            (1, self.stride),
            (0, self.kernel // 2),
            groups=self.groups,
        )
        return image[:, :, 0].transpose(1, 2), lengths


class ConvSettings(Settings):
    """Convolutions over time, each with a norm, an activation and dropout."""

    kind: Literal["conv"] = "conv"
    widths: tuple[int, ...] = Field((128,), min_length=1, description="output width of each layer")
    kernel: int = Field(3, ge=1, description="frames each layer sees; odd")
    stride: int | tuple[int, ...] = Field(1, description="frames each layer moves on by")
    norm: Norm = Field("layer", description="layer, batch (over real frames only) or none")
    activation: Literal["gelu", "relu", "relu6"] = Field("gelu", description="after each norm")
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
        self.activation: Activation = ACTIVATIONS[settings.activation]
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
        ((1, 32, 1, 1), (4, 64, 2, 2), (4, 128, 2, 2)),
        min_length=1,
        description="expansion, width, repeats and stride of each stage",
    )
    kernel: int = Field(3, ge=1, description="frames each depthwise convolution sees; odd")
    norm: Norm = Field("batch", description="layer, batch (over real frames only) or none")
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout of what it gives")

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


def _check_convolution(kernel: int, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; an odd one keeps frames centred")
    if len(strides) != len(widths):
        raise ValueError(f"{len(strides)} strides for {len(widths)} layers; give one or one each")
    if min(widths + strides) < 1:
        raise ValueError("widths and strides must be 1 or more")
