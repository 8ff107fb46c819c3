"""Runs: a recipe trained in a folder, taken up again, and used."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spelldown.data.checks import Problem
from spelldown.data.frontend import Frontend
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import CheckpointError, RecipeError, RunError, SpelldownError
from spelldown.recipe.parts import build_parts, build_recognizer, learning_of, remedies_in_use
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.training.run.checkpoint import load_weights, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker, tracker_for
from spelldown.training.trainer import Outcome, Trainer
from spelldown.training.update import device_for
from spelldown.writing import write_whole

RUNS = Path("runs")
CHANGEABLE = ("data.", "search.", "training.device=", "training.precision=")
"""Overrides that a trained run can take: where its data lies, how it searches, where it runs."""


@dataclass(frozen=True)
class Run:
    """A trained run, ready to be used: the recognizer has its best weights.

    `epoch` is the one that they come from.
    """

    folder: RunFolder
    recipe: Recipe
    vocabulary: Vocabulary
    transcriber: Transcriber
    epoch: int


def new_folder(name: str, runs: Path = RUNS) -> RunFolder:
    """The folder `runs/<name>-<n>` with the lowest n that nothing has yet; made, and so taken."""
    number = 1
    while True:
        path = runs / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path)


def free_folder(path: Path) -> RunFolder:
    """The folder at `path` for a new run. Raises RunError if there is something else in it."""
    folder = RunFolder(path)
    if folder.recipe.exists():
        raise RunError(
            f"{path} holds a run already. To go on with it: spelldown train --resume {path}; "
            "or choose another folder with --run"
        )
    if path.exists() and (not path.is_dir() or any(map(folder.is_content, path.iterdir()))):
        raise RunError(f"{path} is not an empty folder; choose another one with --run")
    return folder


def start(recipe: Recipe, folder: RunFolder, tracker: Tracker | None = None) -> Outcome:
    """Trains a recipe from the beginning in a free folder.

    The resolved recipe is written first, so that a run can be resumed whenever it is killed. If
    the corpus cannot be used, nothing is left behind.
    """
    tracker = tracker or tracker_for()
    with folder.held():
        write_whole(folder.recipe, recipe.as_yaml())
        folder.note_start()
        try:
            device_for(recipe.training.device)  # is it there? Later, a vocabulary would be left
            trainer = _trainer(recipe, folder, tracker, None)
        except SpelldownError:
            for file in (folder.recipe, folder.environment, folder.lock):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # others may have put something into it
                folder.path.rmdir()
            raise
        return trainer.fit()


def resume(path: Path, tracker: Tracker | None = None) -> Outcome:
    """Goes on with the run in a folder from its last checkpoint, by the recipe saved with it.

    Nothing in the folder is touched while another process trains there, but RunError raised.
    """
    tracker = tracker or tracker_for()
    folder, recipe = _opened(path)
    with folder.held():
        vocabulary = _vocabulary(folder) if folder.vocabulary.exists() else None
        trainer = _trainer(recipe, folder, tracker, vocabulary)
        folder.note_start()
        if not trainer.resume():
            tracker.message("nothing was learnt before it stopped: beginning anew")
        return trainer.fit()


def _trainer(
    recipe: Recipe, folder: RunFolder, tracker: Tracker, vocabulary: Vocabulary | None
) -> Trainer:
    parts = build_parts(recipe, vocabulary)
    for name, batches in (("train", parts.train), ("dev", parts.dev)):
        tracker.message(f"{name}: {batches.utterances} utterances, {batches.hours:.2f} h")
        for more in batches.added:
            heard = ", ".join(f"{more.share(epoch):.0%}" for epoch in (1, recipe.training.epochs))
            tracker.message(
                f"  of these, {len(more.cuts)} utterances are from {more.name}: {heard} of them "
                "are heard in the first and the last epoch"
            )
    if parts.problems:
        tracker.message(f"left out: {len(parts.problems)} problems, listed in {folder.left_out}")
    weights = sum(weight.numel() for weight in parts.recognizer.parameters())
    tracker.message(f"{recipe.name}: {weights / 1e6:.2f} million weights, run folder {folder}")
    if vocabulary is None:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder.vocabulary, parts.vocabulary.to_json())
        if parts.problems:
            write_whole(folder.left_out, listed(parts.problems))
    return Trainer(
        folder,
        parts.recognizer,
        parts.train,
        parts.dev,
        parts.vocabulary,
        learning_of(recipe),
        recipe.search,
        seed=recipe.seed,
        tracker=tracker,
        remedies=remedies_in_use(recipe),
    )


def listed(problems: Sequence[Problem]) -> str:
    """Utterances that were left out, a line each."""
    return "".join(f"{problem}\n" for problem in problems)


def load_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """The trained run in a folder, with the weights of its best validation.

    `overrides` may change where its data lies, how it searches and what it runs on. Raises
    RunError for a folder without a trained run.
    """
    fixed = [text for text in overrides if not text.startswith(CHANGEABLE)]
    if fixed:
        raise RecipeError(
            "a trained run cannot be changed here",
            [f"{text}: only {_changeable()}" for text in fixed],
        )
    folder, recipe = _opened(path, overrides)
    if newest(folder.best) is None:
        raise RunError(
            f"{path} has no trained weights yet: its first epoch is not over. "
            f"To go on with it: spelldown train --resume {path}"
        )
    vocabulary = _vocabulary(folder)
    recognizer = build_recognizer(recipe, len(vocabulary))
    state = load_weights(folder.best, recognizer)
    recognizer.to(device_for(recipe.training.device)).eval()
    transcriber = Transcriber(
        recognizer, Frontend(recipe.frontend), vocabulary, recipe.search, recipe.training.precision
    )
    return Run(folder, recipe, vocabulary, transcriber, int(state["epoch"]))


def _changeable() -> str:
    return ", ".join(name.rstrip("=.") for name in CHANGEABLE)


def _opened(path: Path, overrides: Sequence[str] = ()) -> tuple[RunFolder, Recipe]:
    folder = RunFolder(path)
    if not folder.recipe.is_file():
        raise RunError(f"{path} holds no run: there is no {folder.recipe}{_runs_nearby(path)}")
    return folder, read_recipe(folder.recipe, overrides)


def _vocabulary(folder: RunFolder) -> Vocabulary:
    try:
        return Vocabulary.from_json(folder.vocabulary.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder.vocabulary} cannot be read: {error.strerror}") from None


def _runs_nearby(path: Path) -> str:
    """`; runs in runs: an4-1, demo`, looking into the folder itself and its parent."""
    for place in (path, path.parent):
        runs = sorted(recipe.parent.name for recipe in place.glob("*/recipe.yaml"))
        if runs:
            return f"; runs in {place}: {', '.join(runs[:10])}"
    return ""
