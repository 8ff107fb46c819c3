"""What an epoch of a recipe takes on this machine, from one measured update."""

import time
from dataclasses import dataclass

import torch

from spelldown.data.batching import Batch, Batches
from spelldown.data.frontend import FRAMES_PER_SECOND, Frontend
from spelldown.data.vocabulary import EOS, SOS
from spelldown.model.precision import resolve_precision
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.recipe import Recipe
from spelldown.training.learning.optimizer import build_optimizer
from spelldown.training.learning.teacher_forcing import feedback_at
from spelldown.training.memory import (
    forget_peak,
    keep_freed_memory,
    peak_gpu_memory,
    peak_memory,
)
from spelldown.training.update import Manner, Updater, device_for

SECONDS, LETTERS = 12, 180  # of a long utterance, where no corpus tells


@dataclass(frozen=True)
class Estimate:
    """One update of the largest batch that the recipe makes, measured, and what follows from it.

    utterances, frames, symbols: of that batch, each utterance as long as the longest
    seconds:       for the update, forward and backward
    memory:        bytes that the process held at its highest (on a GPU: of its memory)
    epoch_seconds: training for an epoch, validation not included; None where the corpus is not
                   there to tell how much an epoch is
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


def estimate(recipe: Recipe, recognizer: Recognizer, train: Batches | None) -> Estimate:
    """Measures an update on synthetic frames of the recipe's size.

    The recognizer is trained by it, and must not be used afterwards. `train` are the corpus's
    batches, which tell the longest utterance; None where it is not there.
    """
    frames, symbols = SECONDS * FRAMES_PER_SECOND, LETTERS
    if train is not None:
        frames, symbols = train.bounds().frames, train.bounds().symbols
    keep_freed_memory()  # as the trainer does
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    utterances = min(recipe.batching.utterances, max(1, recipe.batching.frames // frames))
    device = device_for(recipe.training.device)
    update = _Measured(recipe, recognizer, device)
    update.run(min(utterances, 2), frames // 4 + 1, symbols // 4 + 3)  # libraries warm up
    forget_peak(device)
    seconds = update.run(utterances, frames, symbols)
    share = None
    if train is not None:
        padded = train.hours_in(1) * 3600 * FRAMES_PER_SECOND / (1 - train.padding_share(1))
        share = padded / (utterances * frames)
    return Estimate(
        utterances,
        frames,
        symbols,
        seconds,
        _peak(device),
        str(device),
        resolve_precision(recipe.training.precision, device),
        None if share is None else share * seconds,
        None if train is None else train.count(1),
    )


class _Measured:
    """Updates as the trainer makes them, on frames that mean nothing."""

    def __init__(self, recipe: Recipe, recognizer: Recognizer, device: torch.device) -> None:
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
        began = time.perf_counter()
        self.updater.update([batch] * self.batches, self.manner)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - began) / self.batches


def _peak(device: torch.device) -> int:
    """Bytes at the highest, of the GPU where that is what trains; 0 if nobody can tell."""
    return (peak_gpu_memory(device) if device.type == "cuda" else peak_memory()) or 0
