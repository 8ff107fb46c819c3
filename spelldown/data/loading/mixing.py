"""Corpora that training hears beside its own, a drawn share of each in every epoch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lhotse import CutSet
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class Added:
    """The utterances of an added corpus, and what share of them an epoch (from 1) has, 0 to 1."""

    name: str
    cuts: CutSet
    share: Callable[[int], float]

    def count(self, share: float) -> int:
        """How many of the utterances a share is."""
        return round(share * len(self.cuts))

    def drawn(self, epoch: int, random: Generator) -> NDArray[np.intp]:
        """The places of the utterances that the epoch has, in ascending order."""
        count = self.count(self.share(epoch))
        return np.sort(random.permutation(len(self.cuts))[:count])


@dataclass(frozen=True)
class Fading:
    """A share that moves evenly from `first`, in epoch 1, to `last`, in epoch `end`; then 0.

    gone: whether nothing is heard after `end`; else it stays at `last`.
    """

    first: float
    last: float
    end: int
    gone: bool

    def __call__(self, epoch: int) -> float:
        if epoch > self.end:
            return 0.0 if self.gone else self.last
        return self.first + (self.last - self.first) * (epoch - 1) / max(1, self.end - 1)
