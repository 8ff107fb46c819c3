"""Lengths and masks: which frames are real.

Every padded tensor in this room travels with its lengths. A mask is True where a frame is real.
Work on single frames (norms, activations) is done on the real ones alone: `Real` takes them out
of their padding as rows and puts them back between zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

GROUPS = 3  # more would save little padding and make small, slow matrices
WORTH_GROUPING = 0.15  # share of padding from which grouping costs less than it saves


def mask_of(lengths: Tensor, longest: int) -> Tensor:
    """The mask (B, T) of real frames, for lengths (B,) and T = `longest`."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def silence(frames: Tensor, lengths: Tensor) -> Tensor:
    """Frames (B, T, D) with every padded frame set to zero.

    A fill, not a product: a padded frame that became infinite must not turn into NaN.
    """
    return frames.masked_fill(~mask_of(lengths, frames.shape[1])[:, :, None], 0)


def reduced(lengths: Tensor, stride: int) -> Tensor:
    """Lengths after keeping every `stride`-th frame: rounded up, so that no frame is lost."""
    return (lengths + stride - 1).div(stride, rounding_mode="floor")


def reversed_within(frames: Tensor, lengths: Tensor) -> Tensor:
    """Frames (B, T, D) with each utterance's real frames in reverse order, padding left in place.

    A recurrent layer run over this copy hears the utterance from its own last frame, whatever
    the batch was padded to; applied twice, it gives the frames back.
    """
    batch, longest, width = frames.shape
    steps = torch.arange(longest, device=frames.device)
    ends = lengths[:, None]
    order = torch.where(steps < ends, ends - 1 - steps, steps)
    order = order + longest * torch.arange(batch, device=frames.device)[:, None]
    rows: Tensor = _Swap.apply(frames.reshape(-1, width), order.flatten())
    return rows.view(frames.shape)


def in_groups(
    listen: Callable[[Tensor, Tensor], Tensor], frames: Tensor, lengths: Tensor
) -> Tensor:
    """`listen(frames, lengths)` for utterances of similar length together.

    A recurrent layer cannot skip padding, so where padding is much of a batch (B, T, D) it is cut
    into GROUPS by length, each as long as its own longest. The trainer's buckets hardly ever need
    it; batches of a fixed count do. `listen` keeps time as it is: (B, T, D) -> (B, T, E).
    """
    batch, longest, _ = frames.shape
    padded = 1 - float(lengths.sum()) / (batch * longest)
    if padded < WORTH_GROUPING or batch < 2 * GROUPS:
        return listen(frames, lengths)
    order = lengths.argsort(descending=True)
    parts = []
    for rows in order.chunk(GROUPS):
        heard = listen(frames[rows, : int(lengths[rows[0]])], lengths[rows])
        parts.append(functional.pad(heard, (0, 0, 0, longest - heard.shape[1])))
    return torch.cat(parts)[order.argsort()]


class Real:
    """The real frames of one padded batch, as rows (N, D) without padding.

    mask (B, T): True for real frames; any two leading dimensions do.
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = mask.shape
        self.places = mask.flatten().nonzero().squeeze(1)

    def rows(self, frames: Tensor) -> Tensor:
        """Frames (B, T, D) -> rows (N, D) of the real ones, utterance after utterance."""
        rows: Tensor = _Take.apply(frames.reshape(-1, frames.shape[2]), self.places)
        return rows

    def frames(self, rows: Tensor) -> Tensor:
        """Rows (N, D) -> frames (B, T, D), zero wherever a frame is padding."""
        frames: Tensor = _Put.apply(rows, self.places, self.shape[0] * self.shape[1])
        return frames.view(*self.shape, rows.shape[1])


class _Swap(torch.autograd.Function):
    """Rows in another order that is its own inverse: the gradient is swapped the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(len(gradient), -1).index_select(0, ctx.saved_tensors[0]), None


class _Take(torch.autograd.Function):
    """Some rows, each once; the others' gradient is zero."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.total = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = gradient.new_zeros(ctx.total, gradient.shape[1])
        return whole.index_copy_(0, ctx.saved_tensors[0], gradient), None


class _Put(torch.autograd.Function):
    """Rows put into their places among zeros."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(total, rows.shape[1]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None
