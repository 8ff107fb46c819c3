"""Runs: a recipe trained in a folder, taken up again, and used."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spelldown.data.checks import Problem
from spelldown.data.frontend import Frontend
from spelldown.data.vocabulary import Vocabulary, describe_unknown
from spelldown.errors import (
    CheckpointError,
    LanguageModelError,
    RecipeError,
    RunError,
    SpelldownError,
    TrainingError,
)
from spelldown.recipe.estimate import with_budget
from spelldown.recipe.language.pretraining import Pretraining, pretraining_of
from spelldown.recipe.parts import build_parts, build_recognizer, learning_of
from spelldown.recipe.reading.page import read_page
from spelldown.recipe.recipe import ROOT, Recipe, read_recipe
from spelldown.recipe.repairing import repair, settle, to_try
from spelldown.recipe.using.ready import (
    make_ready,
    notes_on_models,
    notes_on_search,
    notes_on_weights,
)
from spelldown.recipe.using.trained_on import write_trained_on
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.run.checkpoint import load_weights, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.trackers.kinds import hold_installed, with_trackers
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

    `epoch` is the one that they come from, `state` what their checkpoint says. `notes`: what its
    user should know, such as a search that was tuned for other weights.
    """

    folder: RunFolder
    recipe: Recipe
    vocabulary: Vocabulary
    transcriber: Transcriber
    epoch: int
    state: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What the first of several processes tells the others of the run that it begins."""

    folder: Path
    recipe: Recipe
    vocabulary: str
    resuming: bool


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


def start(
    recipe: Recipe,
    folder: RunFolder,
    tracker: Tracker | None = None,
    ranks: Ranks | None = None,
) -> Outcome:
    """Trains a recipe from the beginning in a free folder.

    The resolved recipe is written first, so that a run can be resumed whenever it is killed. If
    the corpus cannot be used, nothing is left behind. `ranks`: the processes that train along, of
    which this is the first; the others are told what they need (`spelldown.recipe.together`).
    """
    tracker, ranks = tracker or tracker_for(), ranks or Ranks()
    if folder.repairs.exists():  # it has begun before, and is to begin anew
        return resume(folder.path, tracker, ranks)
    with folder.held():
        write_whole(folder.recipe, recipe.as_yaml())
        folder.note_start(launch=ranks.launch)
        try:
            device_for(recipe.training.device)  # is it there? Later, a vocabulary would be left
            hold_installed(recipe.trackers)
            trainer, pretraining = _trainer(recipe, folder, tracker, None, ranks)
        except SpelldownError:
            for file in (folder.recipe, folder.environment, folder.lock):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # others may have put something into it
                folder.path.rmdir()
            raise
        return _trained(recipe, trainer, pretraining, tracker)


def resume(
    path: Path,
    tracker: Tracker | None = None,
    ranks: Ranks | None = None,
    memory: str | None = None,
) -> Outcome:
    """Goes on with the run in a folder from its last checkpoint, by the recipe saved with it.

    Nothing in the folder is touched while another process trains there, but RunError raised.
    `ranks` as in `start`. memory: another limit than the recipe's (training.memory).
    """
    tracker, ranks = tracker or tracker_for(), ranks or Ranks()
    folder, _ = _opened(path)
    with folder.held():
        settle(folder)
        _, recipe = _opened(path, () if memory is None else (f"training.memory='{memory}'",))
        vocabulary = _vocabulary(folder) if folder.vocabulary.exists() else None
        trainer, pretraining = _trainer(recipe, folder, tracker, vocabulary, ranks, resuming=True)
        folder.note_start(launch=ranks.launch)
        if not trainer.resume() and pretraining is None:
            tracker.message("nothing was learnt before it stopped: beginning anew")
        return _trained(recipe, trainer, pretraining, tracker)


def _trained(
    recipe: Recipe, trainer: Trainer, pretraining: Pretraining | None, tracker: Tracker
) -> Outcome:
    """Trains, and begins anew with one remedy more as often as attention does not align, if the
    recipe asks for that."""
    folder, ranks = trainer.run, trainer.ranks
    while True:
        outcome, history = _fit(trainer, pretraining, tracker), trainer.history
        if outcome.ending != "unaligned" or recipe.training.unaligned != "repair":
            return outcome
        del trainer, pretraining  # the next ones need their memory
        vocabulary = _vocabulary(folder)
        with ranks.leading() as tell:
            repaired = repair(recipe, folder, vocabulary, history, tracker)
            if repaired is None:
                tell(None)
                return outcome
        recipe = repaired
        trainer, pretraining = _trainer(recipe, folder, tracker, vocabulary, ranks)


def _fit(trainer: Trainer, pretraining: Pretraining | None, tracker: Tracker) -> Outcome:
    """Trains the speller beforehand, if that is asked for and not yet done, and then the whole."""
    if pretraining is not None:
        outcome = pretraining.run(trainer.recognizer, trainer.run, tracker)
        if outcome.ending == "interrupted":
            return outcome
    return trainer.fit()


def _trainer(
    recipe: Recipe,
    folder: RunFolder,
    tracker: Tracker,
    vocabulary: Vocabulary | None,
    ranks: Ranks,
    resuming: bool = False,
) -> tuple[Trainer, Pretraining | None]:
    """The trainer, and what comes before it unless that is done already."""
    with ranks.leading() as tell:
        if ranks.count > 1 and recipe.batching.lengths == "padded":
            raise TrainingError(
                "batching.lengths: padded cannot be trained by several processes: each would pad "
                "its share of a batch to another length, and the update would depend on how many "
                "they are. Train it by one process, or with lengths: real"
            )
        parts = build_parts(recipe, vocabulary)
        if recipe.batching.frames == "auto":
            recipe = with_budget(recipe, folder, parts, tracker)
        beforehand = None if newest(folder.last) else pretraining_of(parts)
        told = Told(folder.path, recipe, parts.vocabulary.to_json(), resuming)
        tell(told)
    for name, batches in (("train", parts.train), ("dev", parts.dev)):
        tracker.message(f"{name}: {batches.utterances} utterances, {batches.hours:.2f} h")
        for more in batches.added:
            heard = ", ".join(f"{more.share(epoch):.0%}" for epoch in (1, recipe.training.epochs))
            tracker.message(
                f"  of these, {len(more.cuts)} utterances are from {more.name}: {heard} of them "
                "are heard in the first and the last epoch"
            )
    if unlearnt := _unlearnt(parts.dev.said().values(), parts.vocabulary):
        tracker.message(unlearnt)
    if parts.problems:
        tracker.message(f"left out: {len(parts.problems)} problems, listed in {folder.left_out}")
    weights = sum(weight.numel() for weight in parts.recognizer.parameters())
    tracker.message(f"{recipe.name}: {weights / 1e6:.2f} million weights, run folder {folder}")
    if vocabulary is None:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder.vocabulary, parts.vocabulary.to_json())
        write_trained_on(folder, {"train": parts.train.said(), "dev": parts.dev.said()})
        if parts.problems:
            write_whole(folder.left_out, listed(parts.problems))
    trainer = Trainer(
        folder,
        parts.recognizer,
        parts.train,
        parts.dev,
        parts.vocabulary,
        learning_of(recipe),
        recipe.search,
        seed=recipe.seed,
        tracker=with_trackers(
            tracker, recipe.trackers, folder.path, recipe.model_dump(mode="json")
        ),
        remedies=to_try(recipe),
        ranks=ranks,
    )
    return trainer, beforehand


def _unlearnt(said: Iterable[str | None], vocabulary: Vocabulary) -> str:
    """What is said in the dev part that cannot be spelled, since the training part lacks it."""
    unknown = [found for text in said if (found := vocabulary.unknown(text or ""))]
    if not unknown:
        return ""
    told = describe_unknown(sorted(set().union(*unknown)), vocabulary)
    return f"dev: {len(unknown)} utterances have {told}; they count as errors, not in the loss"


def listed(problems: Sequence[Problem]) -> str:
    """Utterances that were left out, a line each."""
    return "".join(f"{problem}\n" for problem in problems)


def load_run(path: Path, overrides: Sequence[str] = (), *, tuned: bool = True) -> Run:
    """The trained run in a folder, with the weights of its best validation.

    `overrides` may change where its data lies, how it searches and what it runs on. tuned: search
    as `spelldown tune` found it best (search.yaml in the folder), if it was called, and not as the
    recipe says. Raises RunError for a folder without a trained run, and LanguageModelError for a
    language model that is not there or does not fit.
    """
    fixed = [text for text in overrides if not text.startswith(CHANGEABLE)]
    if fixed:
        raise RecipeError(
            "a trained run cannot be changed here",
            [f"{text}: only {_changeable()}" for text in fixed],
        )
    folder, recipe = _opened(path, overrides, tuned)
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
        recognizer,
        Frontend(recipe.frontend),
        vocabulary,
        recipe.search,
        recipe.training.precision,
        lengths=recipe.batching.lengths,
    )
    epoch = int(state["epoch"])
    run = Run(folder, recipe, vocabulary, transcriber, epoch, state)
    try:
        make_ready(run, recipe.search)
    except LanguageModelError as error:
        named = any(text.startswith(("search.lm=", "search.rescore_lm=")) for text in overrides)
        if named or not (tuned and folder.search.is_file()):
            raise
        summary = f"{error.summary} ({folder.search} asks for it; --untuned passes that over)"
        raise LanguageModelError(summary, error.problems) from None
    notes = notes_on_search(folder, epoch, recipe.search) if tuned else ()
    said = any(text.startswith("search.") for text in overrides)
    if not (tuned and folder.search.is_file()):
        notes += notes_on_weights(recipe.search)
    elif said and _opened(path, (), tuned)[1].search.kind == recipe.search.kind:
        notes += (  # another kind of search keeps none of its weights
            f"what was said of the search is laid over {folder.search}, which tuning wrote; "
            "--untuned lays it over the recipe's own",
            *notes_on_weights(recipe.search),
        )
    return replace(run, notes=(*notes, *notes_on_models(run)))


def _changeable() -> str:
    return ", ".join(name.rstrip("=.") for name in CHANGEABLE)


def _opened(
    path: Path, overrides: Sequence[str] = (), tuned: bool = False
) -> tuple[RunFolder, Recipe]:
    folder = RunFolder(path)
    if not folder.recipe.is_file():
        raise RunError(f"{path} holds no run: there is no {folder.recipe}{_runs_nearby(path)}")
    overrides = [*folder.changes(), *overrides]
    over = folder.search if tuned and folder.search.is_file() else None
    if over is not None and (others := sorted(set(read_page(over, ROOT).data) - {"search"})):
        raise RunError(
            f"{over}: only `search` may stand there, found {', '.join(others)}; mend it, delete it "
            "(the recipe's search is then used) or pass it over with --untuned"
        )
    return folder, read_recipe(folder.recipe, overrides, over)


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
