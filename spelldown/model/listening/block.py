"""What every listener block is, and what several of them use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.lengths import reduced


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


Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "relu6": functional.relu6,
}
