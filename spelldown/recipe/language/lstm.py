"""An LSTM language model, trained in its folder like any run.

The folder of a language model holds what a run's does (recipe.yaml, metrics.jsonl, checkpoints),
and once it is trained what `spelldown.model.language` loads. The same call goes on with what was
stopped or killed, and ends with the same weights, bit for bit on a processor.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from spelldown.data.loading.texts import TextBatches
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import LanguageModelError, RecipeError, RunError
from spelldown.model.language import KIND, PAGE, WEIGHTS, build_lstm
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.recipe.language.recipe import LanguageRecipe, read_language_recipe
from spelldown.training.language.trainer import ReadingTrainer
from spelldown.training.language.validation import TextValidation
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.settings import Learning
from spelldown.training.run.checkpoint import load_weights, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker, tracker_for
from spelldown.training.trainer import Outcome
from spelldown.training.update import device_for
from spelldown.writing import write_whole


def train_lstm(
    recipe: LanguageRecipe,
    train: Iterable[str],
    held_out: Iterable[str],
    vocabulary: Vocabulary,
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
    tracker: Tracker | None = None,
    go_on: str = "the same command again",
) -> Outcome:
    """Trains a language model on the sentences of `train` in a folder, or goes on with it there.

    held_out: other sentences, which judge it after every epoch. about: what else its page is to
    tell, such as the texts and their hash. go_on: the command that goes on, for a message.
    If the outcome is not "interrupted", the folder holds a language model ready for use.

    Raises DataError for texts that the vocabulary cannot spell or that are empty, RunError for a
    folder with a run of another recipe, vocabulary or text, or one that another process trains in.
    """
    run, tracker = RunFolder(folder), tracker or tracker_for()
    device_for(recipe.training.device)  # is it there?
    learning = TextBatches(map(vocabulary.encode, train), recipe.batching, recipe.seed)
    judging = TextBatches(map(vocabulary.encode, held_out), recipe.batching, training=False)
    with run.held():
        _hold_same(run, recipe, vocabulary)
        model = build_lstm(recipe.model, vocabulary.symbols, recipe.seed)
        trainer = ReadingTrainer(
            run, model, learning, judging, vocabulary, learning_of(recipe),
            seed=recipe.seed, tracker=tracker, go_on=go_on,
        )  # fmt: skip
        write_whole(run.recipe, recipe.as_yaml())
        write_whole(run.vocabulary, vocabulary.to_json())
        run.note_start()
        _tell(tracker, model, learning, judging, run)
        if trainer.resume():
            at = trainer.progress
            tracker.message(f"going on after {at.updates} updates, in epoch {at.epoch}")
        outcome = trainer.fit()
        if outcome.ending != "interrupted":
            _keep(run, recipe, trainer, about or {})
    return outcome


def learning_of(recipe: LanguageRecipe) -> Learning:
    """The sections of a language model's recipe that the trainer takes."""
    return Learning(
        loss=LossSettings(label_smoothing=recipe.label_smoothing),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        averaging=recipe.averaging,
        training=recipe.training.as_training(),
    )


def _hold_same(run: RunFolder, recipe: LanguageRecipe, vocabulary: Vocabulary) -> None:
    """Raises RunError unless the folder is free, or holds a run of this recipe and vocabulary."""
    if not run.recipe.exists():
        there = run.path.iterdir() if run.path.is_dir() else ()
        if any(map(run.is_content, there)):
            raise RunError(f"{run} is not an empty folder; choose another one")
        return
    other = f"{run} holds a run already, and of another"
    advice = "to go on with it, call for what it was begun with; or choose another folder"
    try:
        before = read_language_recipe(run.recipe)
    except RecipeError as error:
        raise RunError(f"{other} kind; choose another folder") from error
    if before != recipe:
        was, now = before.model_dump(), recipe.model_dump()
        changed = ", ".join(name for name in was if was[name] != now[name])
        raise RunError(f"{other} recipe ({run.recipe}: {changed} differ); {advice}")
    known = run.vocabulary.read_text(encoding="utf-8") if run.vocabulary.exists() else None
    if known is not None and Vocabulary.from_json(known) != vocabulary:
        raise RunError(f"{other} vocabulary ({run.vocabulary}); {advice}")


def _tell(
    tracker: Tracker,
    model: CharacterModel,
    learning: TextBatches,
    judging: TextBatches,
    run: RunFolder,
) -> None:
    for name, batches in (("train", learning), ("held out", judging)):
        tracker.message(f"{name}: {batches.utterances:,} sentences, {batches.symbols:,} symbols")
    weights = sum(weight.numel() for weight in model.parameters())
    tracker.message(f"LSTM language model: {weights / 1e6:.2f} million weights, folder {run}")


def _keep(
    run: RunFolder, recipe: LanguageRecipe, trainer: ReadingTrainer, about: Mapping[str, Any]
) -> None:
    """Writes the language model with the weights of the best validation beside the run.

    Its page comes last: what has a page is whole.
    """
    if newest(run.best) is None:
        raise LanguageModelError(
            f"{run}: no validation of this language model gave a finite loss; a lower rate "
            f"(optimizer.rate={recipe.optimizer.rate / 3:.1g}) may help"
        )
    reader = trainer.reader
    state = load_weights(run.best, reader)
    validation: TextValidation = trainer.validation
    found = validation.run(reader)
    assert found is not None
    page = {
        "kind": KIND,
        "symbols": list(reader.model.symbols),
        "model": recipe.model.model_dump(mode="json"),
        "perplexity": found.perplexity,
        "epoch": state["epoch"],
        **about,
    }
    weights = {name: tensor.cpu() for name, tensor in reader.model.state_dict().items()}
    write_whole(run.path / WEIGHTS, save(weights))
    write_whole(run.path / PAGE, json.dumps(page, ensure_ascii=False, indent=2) + "\n")
