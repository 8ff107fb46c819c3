"""Attention: where in the listener's output the speller looks while it writes one symbol.

Every kind projects the listener's output to keys and values once an utterance, and the speller's
state to a query at every step; they differ in how a query and a key give an energy:

| kind     | energy of frame t                    | source                                       |
|----------|--------------------------------------|----------------------------------------------|
| dot      | q . k_t / sqrt(width of a head)      | Vaswani et al. 2017, section 3.2             |
| cosine   | g q . k_t / (|q| |k_t|)              | Graves et al. 2014, section 3.3.1; g learned |
| additive | v . tanh(q + k_t)                    | Bahdanau et al. 2015, appendix A.1.2         |
| location | v . tanh(q + k_t + U (F * a)_t)      | Chorowski et al. 2015, section 2.1           |

With H heads the widths are shared out and the heads' contexts joined (no output projection: the
first cell's weights already are one). `location` sees where attention has been through a
convolution F over a: by default the sum of all earlier weights, so that what was spelled can be
told from what was not; Chorowski's own choice, the last step's weights, is `past: last`.

The arithmetic of a step is a *kernel*: one small object a batch, with a forward that autograd can
follow (`attend`) and a backward written out by hand for the unrolled loop (`backward`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import mask_of
from spelldown.model.precision import exact
from spelldown.model.spelling.kernels import (
    AdditiveKernel,
    CosineKernel,
    DotKernel,
    Kernel,
    LocationKernel,
)
from spelldown.model.spelling.sharing import Projected
from spelldown.settings import Settings


class _AttentionSettings(Settings):
    width: int = Field(128, ge=1, description="width of queries and keys, all heads together")
    values: int | None = Field(None, ge=1, description="width of the context; as `width` if null")
    heads: int = Field(1, ge=1, description="heads that look at different places at once")

    @model_validator(mode="after")
    def _heads_share_the_widths(self) -> _AttentionSettings:
        for name, width in (("width", self.width), ("values", self.context_width)):
            if width % self.heads:
                raise ValueError(f"{self.heads} heads cannot share a {name} of {width} evenly")
        return self

    @property
    def context_width(self) -> int:
        return self.values or self.width


class DotSettings(_AttentionSettings):
    """Scaled dot product (Vaswani et al. 2017)."""

    kind: Literal["dot"] = "dot"


class CosineSettings(_AttentionSettings):
    """Cosine of query and key, sharpened by a learned scale a head."""

    kind: Literal["cosine"] = "cosine"
    sharpness: float = Field(10.0, gt=0, description="the learned scale starts here")


class AdditiveSettings(_AttentionSettings):
    """A small network over query and key (Bahdanau et al. 2015)."""

    kind: Literal["additive"] = "additive"
    sharpness: float = Field(1.0, gt=0, description="scale that the learned vector starts with")


class LocationSettings(_AttentionSettings):
    """Additive, and aware of where it has looked (Chorowski et al. 2015)."""

    kind: Literal["location"] = "location"
    sharpness: float = Field(1.0, gt=0, description="scale that the learned vector starts with")
    channels: int = Field(10, ge=1, description="filters over the past attention")
    reach: int = Field(15, ge=1, description="listener frames the filters see to either side")
    past: Literal["all", "last"] = Field("all", description="the sum of all steps, or the last")


AttentionSettings = Annotated[
    DotSettings | CosineSettings | AdditiveSettings | LocationSettings,
    Field(discriminator="kind"),
]


class Attention(nn.Module):
    """Projections and learned energies of one kind of attention."""

    def __init__(self, settings: AttentionSettings, listener_width: int, query_width: int) -> None:
        super().__init__()
        self.settings = settings
        self.context_width = settings.context_width
        self.query = nn.Linear(query_width, settings.width, bias=False)
        self.key = nn.Linear(listener_width, settings.width)
        self.value = nn.Linear(listener_width, settings.context_width)
        heads, head_width = settings.heads, settings.width // settings.heads
        self.energy = nn.ParameterList()  # what the kernel learns besides the projections
        if isinstance(settings, CosineSettings):
            self.energy.append(torch.full((heads,), settings.sharpness))
        elif not isinstance(settings, DotSettings):
            vector = torch.empty(heads, head_width).uniform_(-1, 1)
            self.energy.append(vector * settings.sharpness / head_width**0.5)
        if isinstance(settings, LocationSettings):
            taps = 2 * settings.reach + 1
            bound = (heads * taps) ** -0.5
            filters = torch.empty(settings.channels, heads, taps).uniform_(-bound, bound)
            spread = torch.empty(settings.channels, settings.width).uniform_(-1, 1)
            self.energy.extend([filters, spread / settings.channels**0.5])

    @property
    def past(self) -> Literal["all", "last"]:
        """Which earlier weights the kernel is shown: only `location` looks at them."""
        return self.settings.past if isinstance(self.settings, LocationSettings) else "last"

    def project(self, frames: Tensor, lengths: Tensor) -> Projected:
        """Keys and values of the listener's output (B, T, D) with lengths (B,)."""
        heads = self.settings.heads
        keys = self.key(frames).unflatten(2, (heads, -1)).transpose(1, 2)
        values = self.value(frames).unflatten(2, (heads, -1)).transpose(1, 2)
        if isinstance(self.settings, CosineSettings):
            keys = functional.normalize(exact(keys), dim=3)
        return Projected(keys, values, mask_of(lengths, frames.shape[1]))

    def kernel(self, projected: Projected, parameters: tuple[Tensor, ...] | None = None) -> Kernel:
        """The arithmetic of this attention over one batch.

        `parameters` stand in for `energy` inside the unrolled loop, which differentiates by hand.
        """
        learned = tuple(self.energy) if parameters is None else parameters
        if isinstance(self.settings, LocationSettings):
            return LocationKernel(projected, *learned)
        if isinstance(self.settings, AdditiveSettings):
            return AdditiveKernel(projected, *learned)
        if isinstance(self.settings, CosineSettings):
            return CosineKernel(projected, *learned)
        return DotKernel(projected)
