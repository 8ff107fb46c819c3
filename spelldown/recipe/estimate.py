"""What an epoch of a recipe takes on this machine, from measured updates."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from spelldown.data.batching import Batch, Batches
from spelldown.data.frontend import FRAMES_PER_SECOND, SECONDS_PER_FRAME, Frontend
from spelldown.data.vocabulary import EOS, SOS
from spelldown.model.precision import autocast, resolve_precision
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.parts import Parts
from spelldown.recipe.recipe import Recipe
from spelldown.search.search import greedy
from spelldown.training.guard.budget import largest_budget
from spelldown.training.guard.failing import give_back, is_out_of_memory
from spelldown.training.guard.fits import Doing
from spelldown.training.guard.guard import Guard
from spelldown.training.guard.limit import free_memory
from spelldown.training.learning.optimizer import build_optimizer
from spelldown.training.learning.teacher_forcing import feedback_at
from spelldown.training.memory import (
    forget_peak,
    keep_freed_memory,
    peak_gpu_memory,
    peak_memory,
)
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker
from spelldown.training.update import Manner, Updater, device_for
from spelldown.writing import write_whole

AVAILABLE = 0.8  # of the memory that is free, for whoever needs some meanwhile
SECONDS, LETTERS = 12, 180  # of a long utterance, where no corpus tells
BATCHES, ENOUGH = 200, 5.0  # of an epoch that are measured at the most, or their seconds


@dataclass(frozen=True)
class Estimate:
    """An update of the largest batch that the recipe makes, and others of an epoch, measured.

    utterances, frames, symbols: of that batch, each utterance as long as the longest
    seconds:       for the update, forward and backward; here and below as on a machine that nobody
                   else uses
    memory:        bytes that the process held at its highest (on a GPU: of its memory)
    epoch_seconds: training for an epoch, validation not included; None where the corpus is not
                   there to tell how much an epoch is
    validation_seconds: of the validation after it, where every utterance is spelled to the search's
                   limit as by a recognizer that knows nothing; None where it was not asked for
    """

    utterances: int
    frames: int
    symbols: int
    seconds: float
    memory: int
    device: str
    precision: str
    epoch_seconds: float | None
    epoch_batches: int | None
    validation_seconds: float | None = None


def estimate(
    recipe: Recipe, recognizer: Recognizer, train: Batches | None, dev: Batches | None = None
) -> Estimate:
    """Measures updates on synthetic frames of the recipe's sizes, and validation where `dev` is
    given.

    The recognizer is trained by it, and must not be used afterwards. `train` are the corpus's
    batches, which tell the longest utterance; None where it is not there.
    """
    frames, symbols = SECONDS * FRAMES_PER_SECOND, LETTERS
    if train is not None:
        frames, symbols = train.bounds().frames, train.bounds().symbols
    keep_freed_memory()  # as the trainer does
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    device = device_for(recipe.training.device)
    budget = recipe.batching.frames
    if budget == "auto":
        shapes = [(frames, symbols)] if train is None else train.shapes()
        budget = frame_budget(recipe, recognizer, shapes)
        for batches in (train, dev):
            if batches is not None:
                batches.hold_to(budget)
    utterances = min(recipe.batching.utterances, max(1, budget // frames))
    update = _Measured(recipe, recognizer, device)
    update.run(min(utterances, 2), frames // 4 + 1, symbols // 4 + 3)  # libraries warm up
    forget_peak(device)
    seconds = update.warm(utterances, frames, symbols)
    epoch = None if train is None else _epoch_seconds(update, train, recipe.training.epochs)
    validation = None if dev is None else _validation_seconds(recipe, recognizer, dev, device)
    return Estimate(
        utterances,
        frames,
        symbols,
        seconds,
        _peak(device),
        str(device),
        resolve_precision(recipe.training.precision, device),
        epoch,
        None if train is None else train.count(1),
        validation,
    )


def _epoch_seconds(update: "_Measured", train: Batches, epochs: int) -> float:
    """Seconds that the updates of an epoch take: of some of its batches, as many as can be measured
    in a moment. The first and the last epoch count alike: what they hear may move evenly."""

    def seconds(batch: Batch) -> float:
        assert batch.symbols is not None
        return update.warm(len(batch.ids), batch.frames.shape[1], batch.symbols.shape[1])

    return _mean_seconds(train, seconds) * (train.count(1) + train.count(epochs)) / 2


def _validation_seconds(
    recipe: Recipe, recognizer: Recognizer, dev: Batches, device: torch.device
) -> float:
    """Seconds of a validation, of some of its batches."""
    precision = resolve_precision(recipe.training.precision, device)
    each = recognizer.listener.reduction * SECONDS_PER_FRAME
    recognizer.eval()

    def seconds(batch: Batch) -> float:
        there, began = batch.to(device), _clock(device)
        with torch.inference_mode(), autocast(device, precision):
            memory = recognizer.listen(there.frames, there.lengths)
            greedy(recognizer, memory, recipe.search, seconds_per_frame=each, keep_weights=True)
        return _clock(device) - began

    return _mean_seconds(dev, seconds) * dev.count(1)


def _mean_seconds(batches: Batches, seconds: Callable[[Batch], float]) -> float:
    """Seconds of a batch, the mean over some of an epoch's, drawn by chance."""
    plan = batches.plan(1)
    told: list[float] = []
    for place in torch.randperm(len(plan), generator=torch.Generator().manual_seed(0)).tolist():
        told.append(seconds(Batch.of([batches.example(index, 1) for index in plan[place]])))
        if len(told) == BATCHES or sum(told) > ENOUGH:
            break
    return sum(told) / len(told)


def _clock(device: torch.device) -> float:
    """Seconds since some moment; without a GPU those of this thread, so that time which others have
    of the machine does not count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time()


def frame_budget(recipe: Recipe, recognizer: Recognizer, shapes: Sequence[tuple[int, int]]) -> int:
    """The most padded frames of a batch that fit into memory, found by updates of a copy.

    shapes: as of `Batches.shapes`. Fits means within training.memory; without one, into the GPU, or
    into what of the machine's memory nobody else uses now. Takes about a minute at most.
    """
    device = device_for(recipe.training.device)
    memory = recipe.training.memory
    if memory is None and device.type == "cpu":
        memory = f"{int(AVAILABLE * free_memory()) >> 20}MiB"
    guard = _Strict(device, memory=memory)
    update = _Measured(recipe, copy.deepcopy(recognizer), device, guard)

    def fits(utterances: int, frames: int, symbols: int) -> bool:
        guard.now(0)
        try:
            update.run(utterances, frames, symbols)
        except _TooLarge:
            return False
        except Exception as error:  # before the guard could see to it
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            give_back(device)
        return True

    with guard:
        return largest_budget(fits, shapes, recipe.batching.utterances)


def with_budget(recipe: Recipe, folder: RunFolder, parts: Parts, tracker: Tracker) -> Recipe:
    """The recipe with the frame budget that fits, to which the parts' batches are held from now on.

    It is found once, and kept in the run's folder.
    """
    found: Any = None
    with suppress(OSError, ValueError):
        found = json.loads(folder.budget.read_text(encoding="utf-8"))["frames"]
    if not isinstance(found, int):
        tracker.message("finding the largest frame budget that fits: a minute at most")
        began = time.monotonic()
        found = frame_budget(recipe, parts.recognizer, parts.train.shapes())
        seconds = round(time.monotonic() - began, 1)
        write_whole(folder.budget, json.dumps({"frames": found, "seconds": seconds}) + "\n")
        tracker.message(f"batches of up to {found} frames fit, found in {seconds:.0f} s")
    for batches in (parts.train, parts.dev):
        batches.hold_to(found)
    batching = recipe.batching.model_copy(update={"frames": found})
    return recipe.model_copy(update={"batching": batching})


class _TooLarge(Exception):
    """An update that does not fit."""


class _Strict(Guard):
    """Splits nothing."""

    def __init__(self, device: torch.device, memory: str | None) -> None:
        super().__init__(device, memory=memory)
        self.fits.failed = self._failed  # type: ignore[method-assign]

    def _failed(self, part: Batch, doing: Doing = "training") -> None:
        raise _TooLarge


class _Measured:
    """Updates as the trainer makes them, on frames that mean nothing."""

    def __init__(
        self,
        recipe: Recipe,
        recognizer: Recognizer,
        device: torch.device,
        guard: Guard | None = None,
    ) -> None:
        self.device, self.vocabulary = device, recognizer.vocabulary
        self.width = Frontend(recipe.frontend).output_width
        recognizer.to(device).train()
        self.updater = Updater(
            recognizer,
            build_optimizer(recognizer, recipe.optimizer),
            recipe.loss,
            recipe.optimizer.clip,
            recipe.training.precision,
            device,
            guard=guard,
        )
        ctc = max(recipe.loss.ctc_weight, recipe.loss.ctc_weight_end)
        self.manner = Manner(
            rate=recipe.optimizer.rate,
            ctc_weight=ctc if recipe.loss.uses_ctc else 0.0,
            feedback=feedback_at(recipe.teacher_forcing, 0.9),
            weight_noise=recipe.training.weight_noise,
            seed=0,
        )
        self.batches = recipe.optimizer.accumulate

    def warm(self, utterances: int, frames: int, symbols: int) -> float:
        """Seconds that one batch of an update takes when there was one of its shape before, for
        which libraries prepare themselves."""
        return min(self.run(utterances, frames, symbols) for _ in range(2))

    def run(self, utterances: int, frames: int, symbols: int) -> float:
        """Seconds that one batch of an update takes."""
        text = torch.randint(EOS + 1, self.vocabulary, (utterances, symbols))
        text[:, 0], text[:, -1] = SOS, EOS
        batch = Batch(
            ids=tuple(map(str, range(utterances))),
            frames=torch.randn(utterances, frames, self.width),
            lengths=torch.full((utterances,), frames),
            symbols=text,
            symbol_lengths=torch.full((utterances,), symbols),
            texts=None,
        )
        began = _clock(self.device)
        self.updater.update([batch] * self.batches, self.manner)
        return (_clock(self.device) - began) / self.batches


def _peak(device: torch.device) -> int:
    """Bytes at the highest, of the GPU where that is what trains; 0 if nobody can tell."""
    return (peak_gpu_memory(device) if device.type == "cuda" else peak_memory()) or 0
