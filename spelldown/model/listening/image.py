"""Convolutions over time and frequency: a spectrogram heard as an image."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spelldown.errors import SpelldownError
from spelldown.model.lengths import Joined, Real, mask_of, reduced
from spelldown.model.listening.block import ACTIVATIONS, Activation, Block, LockedDropout
from spelldown.model.listening.normalisation import Norm, make_norm
from spelldown.model.precision import product_dtype
from spelldown.settings import Settings


class Conv2dSettings(Settings):
    """Convolutions over time and mel bands, then a linear layer over all bands of a frame.

    A sound a little higher excites the same filters one band on: what is learnt from some voices
    holds for others. The front end of most recognizers since Deep Speech 2 (Amodei et al. 2016,
    section 3.5), here with strides for pooling, as in Dong et al. 2018 (Speech-Transformer).
    """

    kind: Literal["conv2d"] = "conv2d"
    width: int = Field(256, ge=1, description="width of the frames that it gives")
    maps: tuple[int, ...] = Field((32, 32), min_length=1, description="feature maps of each layer")
    kernel: int = Field(3, ge=1, description="frames, and bands, that each layer sees; odd")
    stride: int | tuple[int, ...] = Field(2, description="frames that each layer moves on by")
    band_stride: int | tuple[int, ...] = Field(2, description="bands that each layer moves on by")
    copies: int = Field(1, ge=1, description="of the bands in each frame: 3 with two differences")
    norm: Norm = Field("layer", description="layer, batch (over real frames only) or none")
    activation: Literal["gelu", "relu", "relu6"] = Field("gelu", description="after each norm")
    dropout: float = Field(0.0, ge=0, lt=1, description="locked dropout of what it gives")

    @model_validator(mode="after")
    def _fits(self) -> Conv2dSettings:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even; an odd one keeps frames centred")
        for name, strides in (("stride", self.strides), ("band_stride", self.band_strides)):
            if len(strides) != len(self.maps):
                raise ValueError(
                    f"{name}: {len(strides)} for {len(self.maps)} layers; give one or one each"
                )
        if min(self.maps + self.strides + self.band_strides) < 1:
            raise ValueError("maps and strides must be 1 or more")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        return self._one_each(self.stride)

    @property
    def band_strides(self) -> tuple[int, ...]:
        return self._one_each(self.band_stride)

    def _one_each(self, stride: int | tuple[int, ...]) -> tuple[int, ...]:
        return (stride,) * len(self.maps) if isinstance(stride, int) else stride

    def build(self, input_width: int) -> Conv2d:
        return Conv2d(self, input_width)


class Conv2d(Block):
    """Convolution, norm and activation, once for each number of maps; then the linear layer.

    A frame travels as a row of its bands, and each band as its maps: norms take the whole frame.
    """

    def __init__(self, settings: Conv2dSettings, input_width: int) -> None:
        super().__init__()
        if input_width % settings.copies:
            raise SpelldownError(
                f"frames of {input_width} numbers cannot be {settings.copies} copies of their "
                "bands; set listener's `copies` to 1 + frontend.deltas"
            )
        self.copies = settings.copies
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        bands, maps = input_width // settings.copies, settings.copies
        shapes = zip(settings.maps, settings.strides, settings.band_strides, strict=True)
        for wanted, stride, band_stride in shapes:
            layer = _ImageConvolution(maps, wanted, settings.kernel, stride, band_stride)
            bands, maps = layer.bands_after(bands), wanted
            self.layers.append(layer)
            self.norms.append(make_norm(settings.norm, bands * maps))
        self.head = nn.Linear(bands * maps, settings.width)
        self.activation: Activation = ACTIVATIONS[settings.activation]
        self.dropout = LockedDropout(settings.dropout)
        self.output_width = settings.width
        self.strides = settings.strides
        self.reduction = math.prod(settings.strides)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        real = Real(mask_of(lengths, frames.shape[1]))
        # copies come one after the other, (C x F); maps of a band stand together, (F x C)
        rows = real.rows(frames).unflatten(1, (self.copies, -1)).transpose(1, 2).flatten(1)
        for layer, norm, stride in zip(self.layers, self.norms, self.strides, strict=True):
            rows, lengths = layer(rows, lengths)
            real = real.after(lengths, stride)
            rows = self.activation(norm(rows))
        return real.frames(self.dropout(self.head(rows), real)), lengths


class _ImageConvolution(nn.Module):
    """A 2-D convolution over the real frames of a batch; it hears silence beyond each utterance."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bands: int) -> None:
        super().__init__()
        self.inputs, self.kernel, self.stride, self.band_stride = inputs, kernel, stride, bands
        made = nn.Conv2d(inputs, outputs, kernel, bias=False)  # drawn as torch's own are
        self.weight = made.weight

    def bands_after(self, bands: int) -> int:
        """How many of so many bands are left: rounded up, so that none is lost."""
        return -(-bands // self.band_stride)

    def forward(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N, bands x maps) with lengths (B,) -> rows (M, fewer bands x maps), and lengths."""
        product = product_dtype(rows)
        joined = Joined(lengths, self.kernel // 2, self.stride)
        long = joined.enter(rows.to(product)).unflatten(1, (-1, self.inputs))
        # one long utterance as an image, channels last: kernels read it as it lies in memory
        image = functional.conv2d(
            long.permute(2, 0, 1)[None],
            self.weight.to(product),
            stride=(self.stride, self.band_stride),
            padding=self.kernel // 2,
        )
        heard = image[0].permute(1, 2, 0).flatten(1)
        return joined.leave(heard), reduced(lengths, self.stride)
