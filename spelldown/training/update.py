"""One update of the weights from one or several batches, or none if anything is not finite."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from numpy.random import SeedSequence
from torch import Tensor

from spelldown.data.batching import Batch
from spelldown.errors import LostRankError, TrainingError
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.speller import Feedback
from spelldown.training.guard.guard import Guard
from spelldown.training.learning.loss import LossSettings, spelling_loss
from spelldown.training.learning.optimizer import clip_gradient, set_rate, weight_noise
from spelldown.training.parallel.ranks import Ranks


@dataclass(frozen=True)
class Manner:
    """How one update is made: what the schedules say at this point of the run.

    seed: of all that is drawn by chance in it (dropout, coins, drawn symbols, noise)
    """

    rate: float
    ctc_weight: float
    feedback: Feedback
    weight_noise: float
    seed: int


@dataclass(frozen=True)
class Update:
    """What an update told. Sums over its batches; loss includes label smoothing and CTC.

    norm:    the gradient's, before clipping
    skipped: the loss or the gradient was not finite, and the weights stayed as they were
    """

    symbols: int
    utterances: int
    frames: int
    loss: float
    ce: float
    ctc: float
    ctc_left_out: int
    norm: float
    skipped: bool


class Updater:
    """Makes updates of a recognizer.

    Everything that an update draws by chance comes from its own seed, so that nothing that happens
    between two updates (a validation, a picture, a kill) can change what follows.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        optimizer: torch.optim.Optimizer,
        loss: LossSettings,
        clip: float | None,
        precision: Precision,
        device: torch.device,
        ranks: Ranks | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.ranks, self.guard = ranks or Ranks(), guard or Guard(device)
        self.recognizer, self.optimizer = recognizer, optimizer
        self.loss, self.clip, self.precision, self.device = loss, clip, precision, device
        self.weights = [weight for weight in recognizer.parameters() if weight.requires_grad]
        self.statistics = [b for b in recognizer.buffers() if b.is_floating_point()]

    def update(self, batches: Sequence[Batch], manner: Manner) -> Update:
        """One update from the batches together, which all must have symbols.

        With other ranks: from theirs and these, which may be empty. Raises LostRankError if one is
        gone; the weights are then as they were.
        """
        before = [buffer.clone() for buffer in self.statistics]
        try:
            return self._update(batches, manner, before)
        except LostRankError:
            self._restore(before)
            raise

    def _update(self, batches: Sequence[Batch], manner: Manner, before: list[Tensor]) -> Update:
        symbols, utterances, frames = self.ranks.totals(
            symbols_spelled(batches),
            sum(map(len, batches)),
            sum(int(batch.lengths.sum()) for batch in batches),
        )
        told = self.guard.make(
            batches,
            "training",
            lambda: self._attempt(manner, before),
            lambda part: self._backward(part, symbols, manner),
        )
        nothing = torch.zeros(4, dtype=torch.float64, device=self.device)
        sums = self.ranks.added(torch.stack(told).sum(0) if told else nothing)
        self.ranks.add_gradients(self.weights)
        self.ranks.average(self.statistics)
        norm = clip_gradient(self.weights, self.clip)
        # Whether to step must be known here: on a GPU this waits for all that was asked of it.
        loss, ce, ctc, left_out, length = torch.cat([sums, norm.double().view(1)]).tolist()
        healthy = all(map(math.isfinite, (loss, ce, ctc, length)))
        if healthy:
            set_rate(self.optimizer, manner.rate)
            self.guard.step(self.optimizer)
        else:
            self._restore(before)
        self.optimizer.zero_grad(set_to_none=True)
        return Update(
            symbols=symbols,
            utterances=utterances,
            frames=frames,
            loss=loss * (symbols if self.loss.reduction == "mean" else 1),
            ce=ce,
            ctc=ctc,
            ctc_left_out=int(left_out) if healthy else 0,
            norm=length,
            skipped=not healthy,
        )

    @contextmanager
    def _attempt(self, manner: Manner, statistics: list[Tensor]) -> Iterator[None]:
        """Within it gradients add up from nothing, by what the update's own seed draws."""
        self._restore(statistics)
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(manner.seed)
        try:
            with weight_noise(self.recognizer, manner.weight_noise):
                if self.ranks.rank:  # noise on the weights is everyone's, what else is drawn not
                    torch.manual_seed(update_seed(manner.seed, self.ranks.rank))
                yield
        except BaseException:
            self.optimizer.zero_grad(set_to_none=True)  # they take memory
            raise

    def _restore(self, statistics: list[Tensor]) -> None:
        """Takes back what a norm's running statistics have heard of an update that was not made."""
        for buffer, kept in zip(self.statistics, statistics, strict=True):
            buffer.copy_(kept)

    def _backward(self, batch: Batch, symbols_in_update: int, manner: Manner) -> Tensor:
        """Adds the batch's gradient; loss, ce, ctc and texts left out by CTC, (4,) float64."""
        there = batch.to(self.device)
        assert there.symbols is not None and batch.symbol_lengths is not None
        with autocast(self.device, self.precision):
            spelled = self.recognizer(there.frames, there.lengths, there.symbols, manner.feedback)
        losses = spelling_loss(
            spelled,
            there.symbols,
            batch.symbol_lengths,
            self.recognizer.output_lengths(batch.lengths),
            self.loss,
            ctc_weight=manner.ctc_weight,
            symbols_in_update=symbols_in_update,
        )
        losses.loss.backward()
        numbers = (losses.loss.detach(), losses.ce, losses.ctc, losses.ctc_left_out)
        return torch.stack([number.double() for number in numbers])


def device_for(name: str) -> torch.device:
    """The device that a setting means: `auto` is a GPU if there is one, else the processor.

    Raises TrainingError for a GPU that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    device = torch.device(name)
    if name == "cuda" and gpus:  # some of torch's functions want its number
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "cuda" and (device.index or 0) >= gpus:
        have = ", ".join(f"cuda:{number}" for number in range(gpus))
        there = f"no {name} here, only {have}" if gpus else "no GPU here"
        raise TrainingError(f"training.device: {there}; cpu or auto can be had")
    return device


def device_of(recognizer: Recognizer) -> torch.device:
    """Where the recognizer's weights are."""
    return next(recognizer.parameters()).device


def symbols_spelled(batches: Iterable[Batch]) -> int:
    """The symbols that batches ask to be spelled: `<eos>` counts, `<sos>` does not."""
    lengths = [batch.symbol_lengths for batch in batches]
    return sum(int((each - 1).sum()) for each in lengths if each is not None)


def update_seed(seed: int, updates: int) -> int:
    """The seed of the update after so many, unlike that of any other in this or another run."""
    return int(SeedSequence(seed, spawn_key=(updates,)).generate_state(1, "uint64")[0])


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches in groups of `size`; the last may be smaller."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
