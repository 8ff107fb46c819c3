"""What a study's rows hear: every corpus read once before the first run, and how long an epoch is.

Nothing is trained before every corpus can be read, and every part is there that runs are scored on.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from spelldown.data.batching import Batches
from spelldown.data.corpora import partitions_of
from spelldown.errors import DataError
from spelldown.recipe.parts import build_parts, lasting
from spelldown.recipe.recipe import Recipe
from spelldown.recipe.using.evaluation import part_named


def corpora_of(recipes: Iterable[Recipe]) -> dict[str, Batches]:
    """Reads every corpus once, as each recipe would; the training batches, by what they rest on.

    Raises DataError for a corpus that cannot be used.
    """
    found: dict[str, Batches] = {}
    for recipe in recipes:
        key = corpus_of(recipe)
        if key not in found:
            try:
                found[key] = build_parts(recipe, caching=False).train
            except DataError as error:
                summary = f"no run was started: {error.summary}"
                raise DataError(summary, error.problems) from None
    return found


def corpus_of(recipe: Recipe) -> str:
    """What decides which utterances are heard, and in which batches; less the number of epochs, by
    which the shares of added corpora may go."""
    parts: list[Any] = [recipe.data, recipe.frontend, recipe.vocabulary, recipe.augment]
    parts += [recipe.batching, recipe.listener if recipe.loss.uses_ctc else None]
    return json.dumps([None if p is None else p.model_dump(mode="json") for p in parts])


def unknown_parts(recipes: Iterable[Recipe], parts: Sequence[str]) -> list[str]:
    """What is wrong with the parts that runs are to be scored on: those that no recipe's corpus
    has. Where some have it, the others' runs note that they do not."""
    wrong = [f"{part!r} is named more than once" for part in parts if parts.count(part) > 1]
    every = list(recipes)
    for part in parts:
        told = [_unknown(recipe, part) for recipe in every]
        if all(told):
            wrong.append(told[0])
    return list(dict.fromkeys(wrong))


def _unknown(recipe: Recipe, part: str) -> str:
    """Why a recipe has no such part; empty if it has."""
    try:
        partitions_of(recipe.data, part_named(recipe, part))
    except DataError as error:
        return error.summary.removesuffix("; choose another --split")
    return ""


def epochs_for(updates: int, recipe: Recipe, train: Batches) -> int:
    """As many epochs of a recipe as come nearest to so many updates; at least 1.

    train: its batches, or those of another number of epochs.
    """

    @cache
    def made(epochs: int) -> int:
        return _updates(recipe, train, epochs)

    epochs = 1
    for _ in range(3):  # two are enough, where the share of what is added moves evenly
        epochs = max(1, round(epochs * updates / made(epochs)))
    while True:
        further = epochs + 1 if made(epochs) < updates else max(1, epochs - 1)
        if abs(made(further) - updates) >= abs(made(epochs) - updates):
            return epochs
        epochs = further


def _updates(recipe: Recipe, train: Batches, epochs: int) -> int:
    """The updates of so many epochs. Where corpora are added every epoch may have its own number;
    else the first stands for all: augmentation and chance hardly change it."""

    def in_epoch(batches: Batches, epoch: int) -> int:
        return -(-batches.count(epoch) // recipe.optimizer.accumulate)

    if not recipe.data.also:
        return epochs * in_epoch(train, 1)
    length = recipe.training.model_copy(update={"epochs": epochs})
    mixed = lasting(recipe.model_copy(update={"training": length}), train)
    return sum(in_epoch(mixed, epoch) for epoch in range(1, epochs + 1))
