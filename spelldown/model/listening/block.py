"""What every listener block is, and what several of them use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import Real, reduced


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

    def forward(self, frames: Tensor, real: Real | None = None) -> Tensor:
        """Frames (B, T, D), or the rows (N, D) of a batch's real ones.

        Each utterance has the same units dropped at every frame.
        """
        if not self.training or self.rate == 0:
            return frames
        keep, batch = 1 - self.rate, frames.shape[0] if real is None else real.shape[0]
        mask = frames.new_empty(batch, frames.shape[-1]).bernoulli_(keep).div_(keep)
        return frames * (mask[:, None] if real is None else mask[real.owners])


Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "relu6": functional.relu6,
}
