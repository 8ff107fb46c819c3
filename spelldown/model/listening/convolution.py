"""Blocks that convolve over time: plain, and as a mobile network."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from spelldown.model.lengths import Joined, Real, mask_of, reduced
from spelldown.model.listening.block import ACTIVATIONS, Activation, Block, LockedDropout
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.model.precision import product_dtype
from spelldown.settings import Settings


class _Convolution(nn.Module):
    """A 1-D convolution over the real frames of a batch; it hears silence beyond each utterance."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's own convolutions

    def forward(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N, D) of real frames, with lengths (B,) -> rows (M, E), with reduced lengths."""
        if self.kernel == 1 and self.stride == 1:  # a linear map is quicker
            return functional.linear(rows, self.weight[:, :, 0]), lengths
        product = product_dtype(rows)
        joined = Joined(lengths, self.kernel // 2, self.stride)
        heard = _Convolve.apply(
            joined.enter(rows.to(product)), self.weight.to(product), self.stride, self.groups
        )
        return joined.leave(heard), reduced(lengths, self.stride)


class _Convolve(torch.autograd.Function):
    """Rows (S, I) of one long utterance, weight (O, I / groups, K) -> rows (S / stride, O).

    The weight's gradient is one product a tap: oneDNN's own takes three times as long over a
    single long utterance in float32, and as long in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.stride, ctx.groups = stride, groups
        reach = weight.shape[2] // 2
        heard = functional.conv2d(
            _image(rows), weight[:, :, None], None, (1, stride), (0, reach), groups=groups
        )
        return heard[0, :, 0].t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, weight = ctx.saved_tensors
        by_taps = ctx.groups == 1
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1] and not by_taps, False]
        d_rows = d_weight = None
        if any(wanted):
            d_image, d_taps, _ = torch.ops.aten.convolution_backward(
                _image(gradient.contiguous()), _image(rows), weight[:, :, None], None,
                [1, ctx.stride], [0, weight.shape[2] // 2], [1, 1], False, [0, 0], ctx.groups,
                wanted,
            )  # fmt: skip
            d_rows = d_image[0, :, 0].t() if wanted[0] else None
            d_weight = d_taps[:, :, 0] if wanted[1] else None
        if ctx.needs_input_grad[1] and by_taps:
            taps = [_seen(rows, tap - weight.shape[2] // 2, ctx.stride, gradient)
                    for tap in range(weight.shape[2])]  # fmt: skip
            d_weight = torch.stack(taps, 2)
        return d_rows, d_weight, None, None


def _image(rows: Tensor) -> Tensor:
    """Rows (S, D) as an image of one row, channels last: kernels read it as it lies in memory."""
    return rows[None, None].permute(0, 3, 1, 2)


def _seen(rows: Tensor, shift: int, stride: int, gradient: Tensor) -> Tensor:
    """Gradient (O, I) of the tap that sees the frame `shift` from where the kernel stands."""
    first = max(0, -(shift // stride))  # the first place from which it sees a frame at all
    seen = rows[first * stride + shift :: stride][: max(0, len(gradient) - first)]
    return gradient[first : first + len(seen)].t() @ seen


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
        self.strides = settings.strides
        self.reduction = math.prod(settings.strides)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        real = Real(mask_of(lengths, frames.shape[1]))
        rows = real.rows(frames)
        for layer, norm, stride in zip(self.layers, self.norms, self.strides, strict=True):
            rows, lengths = layer(rows, lengths)
            real = real.after(lengths, stride)
            rows = self.dropout(self.activation(norm(rows)), real)
        return real.frames(rows), lengths


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
        real = Real(mask_of(lengths, frames.shape[1]))
        rows = real.rows(frames)
        for part in self.parts:
            rows, lengths = part(rows, lengths)
        rows, lengths = self.head(rows, lengths)
        real = real.after(lengths, self.reduction)
        rows = self.dropout(functional.relu6(self.norm(rows)), real)
        return real.frames(rows), lengths


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

    def forward(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        entered = rows
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            rows, lengths = layer(rows, lengths)
            rows = norm(rows)
            if not self.linear_end or i + 1 < len(self.layers):
                rows = functional.relu6(rows)
        return (entered + rows if self.residual else rows), lengths


def _check_convolution(kernel: int, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; an odd one keeps frames centred")
    if len(strides) != len(widths):
        raise ValueError(f"{len(strides)} strides for {len(widths)} layers; give one or one each")
    if min(widths + strides) < 1:
        raise ValueError("widths and strides must be 1 or more")
