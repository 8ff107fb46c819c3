"""Lengths and masks: which frames are real.

Every padded tensor in this room travels with its lengths. A mask is True where a frame is real.
Work is done on the real frames alone: `Real` takes them out of their padding as rows and puts them
back between zeros. Norms and activations take the rows as they are, one utterance after the other;
`Joined` and `Stairs` lay them out for convolutions and for recurrent layers.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

FLIGHTS = 8  # at most: more would save little padding and make small, slow products
SHORTEST_FLIGHT = 16  # parts of the longest utterance; a shorter flight costs more than it saves
ROUND = 64  # layouts for convolutions are multiples of so many strides: kernels for few shapes


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


class Real:
    """The real frames of one padded batch, as rows (N, D) without padding.

    mask (B, T): True for real frames; any two leading dimensions do.
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = mask.shape
        self.places = mask.flatten().nonzero().squeeze(1)

    def after(self, lengths: Tensor, stride: int) -> Real:
        """The real frames after a layer that moves on by `stride`, leaving these lengths."""
        return self if stride == 1 else Real(mask_of(lengths, -(-self.shape[1] // stride)))

    @property
    def owners(self) -> Tensor:
        """Which utterance (N,) each row belongs to."""
        return self.places // self.shape[1]

    def rows(self, frames: Tensor) -> Tensor:
        """Frames (B, T, D) -> rows (N, D) of the real ones, utterance after utterance."""
        rows: Tensor = _Take.apply(frames.reshape(-1, frames.shape[2]), self.places)
        return rows

    def frames(self, rows: Tensor) -> Tensor:
        """Rows (N, D) -> frames (B, T, D), zero wherever a frame is padding."""
        frames: Tensor = _Put.apply(rows, self.places, self.shape[0] * self.shape[1])
        return frames.view(*self.shape, rows.shape[1])


class Joined:
    """Utterances end to end with silence between them: a convolution over them hears no padding.

    A layout (S, D) of the rows (N, D) that `Real` gives, for a kernel that sees `reach` frames to
    either side and moves on by `stride`. After each utterance come `reach` rows of silence or more,
    and each begins at a multiple of the stride, so that all of them are heard as they are alone.
    """

    def __init__(self, lengths: Tensor, reach: int, stride: int) -> None:
        slots, left = reduced(lengths + reach, stride), reduced(lengths, stride)
        starts = slots.cumsum(0) - slots
        counts = torch.stack([slots.sum(), lengths.sum(), left.sum()])
        total, entering, leaving = counts.tolist()  # one wait for a GPU, not three
        self.total = stride * -(-total // ROUND) * ROUND
        self.entered = _places(stride * starts, lengths, entering)
        self.left = _places(starts, left, leaving)

    def enter(self, rows: Tensor) -> Tensor:
        """Rows (N, D) -> (S, D), end to end."""
        joined: Tensor = _Put.apply(rows, self.entered, self.total)
        return joined

    def leave(self, heard: Tensor) -> Tensor:
        """What a convolution made of it (S / stride, E) -> rows (M, E) of the reduced lengths."""
        rows: Tensor = _Take.apply(heard, self.left)
        return rows


class Stairs:
    """Utterances side by side, step after step, as a recurrent layer takes them.

    Such a layer cannot skip padding, so utterances stand longest first, and time is cut into
    `flights` (steps, utterances) that leave out those that have ended: (S, D) holds the steps of
    one flight after the other, each step the frames of its utterances. What padding is left comes
    after an utterance's own frames. A batch of one length has one flight. Backwards, each
    utterance starts from its own last frame, whatever the batch was padded to.
    """

    def __init__(self, lengths: Tensor) -> None:
        ordered = sorted(lengths.tolist())
        device = lengths.device
        self.flights = flights_of(ordered, device)
        bases = []  # where each step begins
        self.total = 0
        for steps, utterances in self.flights:
            bases.append(self.total + utterances * torch.arange(steps, device=device))
            self.total += steps * utterances
        starts = torch.cat(bases)
        total = sum(ordered)  # told, so that a GPU is not waited for again
        order = lengths.argsort(descending=True, stable=True).argsort()
        rank = order.repeat_interleave(lengths, output_size=total)
        step = _places(torch.zeros_like(lengths), lengths, total)
        self.ahead = starts[step] + rank
        last = lengths.repeat_interleave(lengths, output_size=total) - 1
        self.back = starts[last - step] + rank

    def climb(self, rows: Tensor, backwards: bool) -> Tensor:
        """Rows (N, D) of real frames -> (S, D), each utterance in the direction asked for."""
        stairs: Tensor = _Put.apply(rows, self.back if backwards else self.ahead, self.total)
        return stairs

    def descend(self, stairs: Tensor, backwards: bool) -> Tensor:
        """(S, D), heard in this direction -> rows (N, D) in the utterances' own order."""
        rows: Tensor = _Take.apply(stairs, self.back if backwards else self.ahead)
        return rows


def flights_of(lengths: list[int], device: torch.device) -> list[tuple[int, int]]:
    """(steps, utterances) of each flight, for lengths in rising order.

    Off the processor one flight goes all the way: a call for each, with its weights laid out anew,
    costs more there than padding does.
    """
    batch, longest = len(lengths), lengths[-1]
    if device.type != "cpu":
        return [(longest, batch)]
    ends = [lengths[-(-batch * (i + 1) // FLIGHTS) - 1] for i in range(FLIGHTS)]
    flights, start = [], 0
    for end in sorted(set(ends)):
        least = longest // SHORTEST_FLIGHT
        if end == longest or (end - start >= least and longest - end >= least):
            flights.append((end - start, batch - bisect_right(lengths, start)))
            start = end
    return flights


def _places(starts: Tensor, lengths: Tensor, total: int) -> Tensor:
    """Places (N,) of every frame of utterances that begin at `starts`, one after the other.

    total: N, the sum of their lengths
    """
    shifts = (starts - lengths.cumsum(0) + lengths).repeat_interleave(lengths, output_size=total)
    return shifts + torch.arange(len(shifts), device=shifts.device)


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
