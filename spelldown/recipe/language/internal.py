"""The mean context of a trained run, for its internal language model (`search.ilm: mean`).

What the speller is told of the speech, averaged over all letters of the training part as they were
said, without augmentation. It is reckoned when it is first asked for, and kept in the run's folder
for the weights that it belongs to.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from lhotse import CutSet
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spelldown.data.batching import Batch
from spelldown.data.corpora import read_part
from spelldown.data.vocabulary import PAD, Vocabulary
from spelldown.errors import DataError
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.speller import Feedback
from spelldown.recipe.parts import build_batches, checked_part
from spelldown.recipe.recipe import Recipe
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.update import device_of
from spelldown.training.validation import spread
from spelldown.writing import write_whole

FILE, NAME = "context.safetensors", "mean"
HEARD = 400  # utterances, evenly over the part: the mean of 20,000 letters moves little more
SLOW_FROM = 10  # batches: they show their progress


def learn_mean_context(
    recognizer: Recognizer,
    recipe: Recipe,
    vocabulary: Vocabulary,
    folder: RunFolder,
    state: object,
) -> None:
    """Sets `recognizer.mean_context`, from the run's folder or from the training part.

    state: what tells the weights apart, such as the state of the checkpoint that they come from;
    what was kept for others is reckoned anew. Raises DataError if the corpus is needed and cannot
    be used. Shows its progress where that takes a while.
    """
    place, key = folder.path / FILE, repr(state)
    mean = _kept(place, key)
    if mean is None:
        mean = _reckoned(recognizer, recipe, vocabulary)
        with suppress(OSError):  # a folder that cannot be written to is no reason to stop
            write_whole(place, save({NAME: mean}, {"weights": key}))
    recognizer.mean_context = mean.to(device_of(recognizer))


def mean_context(
    recognizer: Recognizer, batches: Iterable[Batch], precision: Precision = "float32"
) -> Tensor:
    """The mean (C,) float32 of the contexts at every symbol said, `<eos>` included, on the CPU.

    With teacher forcing, and the recognizer as it is: put it into `eval()` first.
    """
    device, speller = device_of(recognizer), recognizer.speller
    total = torch.zeros(speller.attention.context_width, dtype=torch.float64, device=device)
    count = 0
    with torch.inference_mode(), autocast(device, precision):
        for batch in batches:
            assert batch.symbols is not None
            there = batch.to(device)
            assert there.symbols is not None
            memory = recognizer.listen(there.frames, there.lengths)
            _, weights, _ = speller(memory.frames, memory.lengths, there.symbols, Feedback())
            values = speller.attention.project(memory.frames, memory.lengths).values
            said = there.symbols[:, 1:] != PAD
            # Of all symbols together: how much each frame was looked at, then one product.
            looked = (weights.double() * said[:, None, :, None]).sum(2)  # (B, H, T)
            total += torch.einsum("bht,bhtc->hc", looked, values.double()).flatten()
            count += int((batch.symbols[:, 1:] != PAD).sum())
    return (total / count).float().cpu()


def _reckoned(recognizer: Recognizer, recipe: Recipe, vocabulary: Vocabulary) -> Tensor:
    try:
        part = checked_part(
            recipe, read_part(recipe.data, recipe.data.train), vocabulary, recognizer, training=True
        )
    except DataError as error:
        raise DataError(
            "the mean context (search.ilm: mean) is reckoned from the training part, which cannot "
            f"be used: {error.summary}; name its folder by data.root=..., or choose ilm zero",
            error.problems,
        ) from error
    cuts = list(part.cuts)
    chosen = [cuts[place] for place in sorted(spread(len(cuts), HEARD))]
    part = replace(part, cuts=CutSet.from_cuts(chosen))
    batches = build_batches(recipe, part, vocabulary, training=False)
    heard = track(
        batches.epoch(1),
        "listening for the mean context (search.ilm: mean)",
        total=batches.count(1),
        console=Console(stderr=True),
        transient=True,
        disable=batches.count(1) < SLOW_FROM,
    )
    training = recognizer.training
    recognizer.eval()
    try:
        return mean_context(recognizer, heard, recipe.training.precision)
    finally:
        recognizer.train(training)


def _kept(place: Path, key: str) -> Tensor | None:
    """What is kept for these weights; None if nothing is, or it cannot be read."""
    try:
        with safe_open(place, "pt") as file:
            if (file.metadata() or {}).get("weights") != key:
                return None
            mean: Tensor = file.get_tensor(NAME)
            return mean
    except (OSError, SafetensorError):
        return None
