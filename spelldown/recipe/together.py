"""One run by all processes that torchrun started, or by one alone.

The first process reads the recipe, has the run's folder and leads; the others are told what they
need, read the corpus for themselves and train along. Only the first needs to see the run's folder;
all must see the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import RunError
from spelldown.recipe import run as runs
from spelldown.recipe.parts import build_parts, learning_of
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.repairing import to_try
from spelldown.training.parallel.linked import joined
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.trackers.kinds import tracker_named
from spelldown.training.run.tracking import tracker_for
from spelldown.training.trainer import Outcome, Trainer


@dataclass(frozen=True)
class Trained:
    """Where a run was trained, how it ended, and by how many processes."""

    folder: Path
    outcome: Outcome
    processes: int


def train(
    page: Path,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    trackers: Sequence[str] = (),
) -> Trained | None:
    """Trains the recipe of a page in a new folder. None on all processes but the first.

    folder: runs/NAME-1, NAME-2 ... if not told; trackers: kinds of them that the recipe is given
    besides its own. Processes that torchrun has started again, since one was lost, go on with the
    run that they had begun.
    """
    with joined() as ranks:
        if not ranks.first:
            follow(ranks)
            return None
        with ranks.leading():
            recipe = _tracked(read_recipe(page, overrides), trackers)
            begun = _begun(ranks, recipe.name, folder)
            if begun is None:
                place = runs.new_folder(recipe.name) if folder is None else runs.free_folder(folder)
                return Trained(place.path, runs.start(recipe, place, ranks=ranks), ranks.count)
            tracker = tracker_for()
            tracker.message(f"all processes were started again: going on with {begun}")
            return Trained(begun.path, runs.resume(begun.path, tracker, ranks), ranks.count)


def resume(path: Path, memory: str | None = None) -> Trained | None:
    """Goes on with the run in a folder, by the recipe saved with it; as `train` otherwise.

    memory: another limit than the recipe's (training.memory)
    """
    with joined() as ranks:
        if not ranks.first:
            follow(ranks)
            return None
        with ranks.leading():
            return Trained(path, runs.resume(path, ranks=ranks, memory=memory), ranks.count)


def follow(ranks: Ranks) -> None:
    """Trains along with the first process, from what it tells to the run's end."""
    while told := ranks.hear():
        trainer = _along(told, ranks)
        if told.resuming:
            trainer.resume()
        if trainer.fit().ending != "unaligned" or told.recipe.training.unaligned != "repair":
            return


def _along(told: runs.Told, ranks: Ranks) -> Trainer:
    """The trainer of a process that is not the first."""
    recipe = told.recipe
    parts = build_parts(recipe, Vocabulary.from_json(told.vocabulary))
    return Trainer(
        RunFolder(told.folder),
        parts.recognizer,
        parts.train,
        parts.dev,
        parts.vocabulary,
        learning_of(recipe),
        recipe.search,
        seed=recipe.seed,
        remedies=to_try(recipe),
        ranks=ranks,
    )


def _tracked(recipe: Recipe, kinds: Sequence[str]) -> Recipe:
    """The recipe with these trackers, each once."""
    there = {settings.kind for settings in recipe.trackers}
    more = tuple(tracker_named(kind) for kind in dict.fromkeys(kinds) if kind not in there)
    return recipe.model_copy(update={"trackers": (*recipe.trackers, *more)})


def _begun(ranks: Ranks, name: str, folder: Path | None) -> RunFolder | None:
    """The run that these processes had begun before torchrun started them again, if they had."""
    if not ranks.restarted or ranks.launch is None:
        return None
    places = [folder] if folder is not None else sorted(runs.RUNS.glob(f"{name}-*"))
    for place in map(RunFolder, places):
        if any(start.get("launch") == ranks.launch for start in place.starts()):
            if not place.recipe.is_file():
                raise RunError(f"{place} was begun by these processes, but holds no recipe.yaml")
            return place
    return None
