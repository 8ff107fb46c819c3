"""The processes that train one recognizer together; one alone, unless torchrun started several.

They share the work of each update, and nothing else changes: the update's batches are those of one
process, each rank takes its part of each batch's utterances, losses are divided by the symbols of
the whole update, and gradients are added up. So all ranks hold the same weights, those of one
process up to rounding, where nothing is drawn by chance within an utterance's own computation
(dropout is) and no batch norm reckons over a batch.

Why not DistributedDataParallel: a gradient here is the sum of several backward passes, whose number
may differ from rank to rank (a batch that does not fit into memory is split), parts of the model
may rest (a CTC head whose share has faded out), and most of it comes from one hand-written backward
pass at the very end, so that there is little to hide the transfer behind. One sum over one flat
tensor says all of that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Thing = TypeVar("Thing")
Share = Callable[[int, Sequence[int]], list[int]]
"""Which of a batch's utterances are ours, by the batch's place in its epoch."""


class Ranks:
    """The processes of a training, seen from one of them. This is the one that is alone.

    rank: of this one, from 0; count: of all; launch: by what name torchrun knows them, that is
    kept over its restarts; restarted: whether torchrun has started them anew
    """

    rank, count = 0, 1
    launch: str | None = None
    restarted = False

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, shows and decides what is read from clocks."""
        return self.rank == 0

    def device_name(self, name: str) -> str:
        """The device that a setting means for this rank; `auto` and `cuda` are a GPU for each.

        Raises TrainingError if ranks would share a GPU.
        """
        return name

    def use(self, device: torch.device) -> None:
        """Gradients will be on this device; to be said by all before anything is summed."""
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what names no number means this one

    def of_utterances(self, place: int, batch: Sequence[int]) -> list[int]:
        """Our part of a batch in training: every `count`th utterance, so that all parts are of
        like lengths; who gets the odd one changes from batch to batch."""
        return list(batch[(self.rank + place) % self.count :: self.count])

    def of_batches(self, place: int, batch: Sequence[int]) -> list[int]:
        """Our part of a batch in validation: all of every `count`th batch."""
        return list(batch) if place % self.count == self.rank else []

    def any(self, wished: bool) -> bool:
        """Whether any rank wishes it."""
        return wished

    def totals(self, *numbers: int) -> list[int]:
        """Whole numbers added up over all ranks."""
        return list(numbers)

    def added(self, numbers: Tensor) -> Tensor:
        """A small tensor added up over all ranks."""
        return numbers

    def add_gradients(self, weights: Sequence[Tensor]) -> None:
        """Adds up the gradients of these weights over all ranks. A weight that has none on any
        rank keeps none."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Makes tensors the mean over all ranks, in place."""

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Makes tensors those of the first rank, in place."""

    def everyones(self, own: Thing) -> list[Thing]:
        """What each rank gives, in the order of ranks."""
        return [own]

    def from_first(self, make: Callable[[], Thing]) -> Thing:
        """What `make()` gives on the first rank, where alone it is called, for all.

        If it raises, the first rank raises that, and the others end.
        """
        if not self.first:
            heard: Thing = self.hear()
            return heard
        with self.leading() as tell:
            made = make()
            tell(made)
        return made

    @contextmanager
    def leading(self) -> Iterator[Callable[[object], None]]:
        """While the others wait to `hear()`: gives what tells them. If the first rank leaves by an
        error before it has told them anything, they end instead of waiting forever."""
        yield lambda told: None

    def hear(self) -> Any:
        """What the first rank tells. Ends this process if it failed."""
        raise AssertionError("nobody else is here")
