"""The guard that keeps a run going where memory is short.

A part of the work that does not fit is split, and what it was part of is made again from its
beginning: the same seed, no gradient, statistics as they were. So an update is a function of the
weights, the batches, its seed and the parts that they are cut into, however often it failed before.

What an update of parts shares with that of the whole: its loss, and its gradient up to rounding,
since each part's loss is divided by the symbols of the whole update. What it does not: which units
dropout silences and which symbols are drawn (other numbers of the same stream), and batch norm,
which hears each part by itself, in statistics as in gradients, as it does with
optimizer.accumulate.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import torch

from spelldown.data.batching import Batch
from spelldown.errors import DoesNotFitError
from spelldown.training.guard.failing import give_back, is_out_of_memory
from spelldown.training.guard.fits import Doing, Fits
from spelldown.training.guard.limit import Fence, held_to
from spelldown.training.guard.worker import Worker
from spelldown.training.memory import keep_few_kernels

Made = TypeVar("Made")

WORTH_A_RETRY = 16 << 20
"""Bytes regained after a failure from which on the same is tried again before it is split."""
RETRIES = (4, 1)
"""At most so often; on the processor, and on a GPU."""


class Guard:
    """Holds training to a memory limit while it is entered, and splits what does not fit.

    path:   where it is kept what did not fit; None keeps nothing
    memory: the limit, such as 6GB; None for what there is
    tell:   what is learnt, for people
    """

    def __init__(
        self,
        device: torch.device,
        path: Path | None = None,
        memory: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device, self.memory = device, memory
        keep_few_kernels()
        self.fits = Fits(path, _place(device, memory), tell)
        self.fence = Fence()
        self._stack, self._worker = ExitStack(), Worker()

    def __enter__(self) -> Self:
        self.fence = self._stack.enter_context(held_to(self.memory, self.device))
        if self.memory is not None and self.device.type == "cpu":
            with self.fence.eased():
                self._worker.begin(anyway=True)
        return self

    def __exit__(self, *problem: object) -> None:
        self.fence = Fence()
        self._stack.close()
        self._worker.close()

    def now(self, update: int, place: int = 0) -> None:
        """Says what is made next: an update, counted from 0, or a validation's batch after it."""
        self.fits.now = (update, place)
        self.fence.settle()

    def make(
        self,
        batches: Sequence[Batch],
        doing: Doing,
        attempt: Callable[[], AbstractContextManager[None]],
        make: Callable[[Batch], Made],
    ) -> list[Made]:
        """What `make` gives for each part of the batches, all of which fit.

        attempt: the context in which all parts are made. If one does not fit it is left by an
                 error, to undo what was done, and entered again, to begin anew.

        Raises DoesNotFitError if an utterance alone does not fit.
        """
        retries = 0
        while True:
            parts = [part for batch in batches if len(batch)
                     for part in self.fits.parts(batch, doing)]  # fmt: skip
            made = self._worker.run(partial(self._made, parts, attempt, make))
            if isinstance(made, list):
                return made
            # A GPU's memory may be there, but in pieces, which are joined now. On the processor the
            # limit may have been reached by addresses that nothing will use: kernels for shapes
            # that are met for the first time.
            regained = give_back(self.device) + self.fence.settle()
            with self.fence.eased():
                self._worker.begin()
            if regained >= WORTH_A_RETRY and retries < RETRIES[self.device.type == "cuda"]:
                retries += 1
            else:
                retries = 0
                self.fits.failed(made, doing)

    def _made(
        self,
        parts: Sequence[Batch],
        attempt: Callable[[], AbstractContextManager[None]],
        make: Callable[[Batch], Made],
    ) -> list[Made] | Batch:
        """What all parts gave, or the one that did not fit. Nothing of it is held any more then."""
        made: list[Made] = []
        failed = parts[0] if parts else None
        try:
            with attempt():
                for failed in parts:
                    made.append(make(failed))
        except Exception as error:
            if failed is None or not is_out_of_memory(error):
                raise
            self._worker.failed(error)
        else:
            return made
        return failed

    def loading(self, anew: Callable[[], Iterator[Made]]) -> Iterator[Made]:
        """What an iterator gives; if memory runs out in it, all is given back and it is made anew.

        anew: makes the iterator of what is still to come. Twice in a row is an error.
        """
        coming, failed = anew(), False
        while True:
            try:
                loaded = next(coming, None)
                failed = False
            except Exception as error:
                if failed or not is_out_of_memory(error):
                    raise
                failed = True
            if failed:
                give_back(self.device)
                coming = anew()
            elif loaded is None:
                return
            else:
                yield loaded

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes the optimizer's step whole or not at all; once more if memory ran out in it.

        Raises DoesNotFitError if there is not enough for the step itself.
        """
        for _ in range(2):
            try:
                before = _Before(optimizer)
                try:
                    optimizer.step()
                except Exception:
                    before.put_back()
                    raise
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return
            give_back(self.device)
        raise DoesNotFitError(
            f"what the optimizer remembers of each weight does not fit into memory beside the "
            f"weights ({self.fits.where}), and no smaller batch can help. Give it more memory "
            "(training.memory, if that is the limit), or take a smaller recognizer or "
            "optimizer.kind=sgd"
        )


class _Before:
    """An optimizer and its weights as they were before a step.

    Fused steps ask for all memory that they need before they change a weight, so that only what
    they remember must be kept, by reference; others change weight by weight, and are copied.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.state = {weight: dict(held) for weight, held in optimizer.state.items()}
        whole = not all(group.get("fused") for group in optimizer.param_groups)
        tensors = [
            each
            for held in self.state.values()
            for each in held.values()
            if torch.is_tensor(each) and (whole or each.ndim == 0)
        ]
        if whole:
            tensors += [weight for group in optimizer.param_groups for weight in group["params"]]
        self.copies = [(tensor, tensor.detach().clone()) for tensor in tensors]

    @torch.no_grad()
    def put_back(self) -> None:
        self.optimizer.state.clear()
        self.optimizer.state.update(self.state)
        for tensor, kept in self.copies:
            tensor.copy_(kept)


def _place(device: torch.device, memory: str | None) -> str:
    """The device and its limit, as lessons name them."""
    name = "processor"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{name}, {memory} of it" if memory is not None else name
