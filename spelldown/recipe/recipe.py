"""A recipe: one experiment as typed settings, read from one page and checked whole."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from spelldown.data.augmenting.frames import AugmentSettings
from spelldown.data.batching import BatchingSettings
from spelldown.data.corpora import CorpusSettings
from spelldown.data.frontend import FrontendSettings
from spelldown.data.vocabulary import CourseVocabularySettings, VocabularySettings
from spelldown.errors import RecipeError
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import CTCSettings
from spelldown.model.spelling.attention import AttentionSettings, LocationSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.recipe.reading.checking import Clash
from spelldown.recipe.reading.overrides import override
from spelldown.recipe.reading.page import Page, merged, read_page
from spelldown.recipe.reading.places import place_of_model
from spelldown.recipe.reading.whole import Whole
from spelldown.recipe.rules import clashes
from spelldown.search.search import GreedySettings, SearchSettings
from spelldown.training.language.settings import PretrainingSettings
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import AdamSettings, OptimizerSettings
from spelldown.training.learning.schedule import ConstantRate, ScheduleSettings
from spelldown.training.learning.settings import TrainingSettings
from spelldown.training.learning.teacher_forcing import ConstantForcing, TeacherForcingSettings
from spelldown.training.run.trackers.kinds import TrackerSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # it becomes a folder's name


class Recipe(Whole):
    """One experiment, whole: from the corpus to the search.

    Each section's settings stand beside the component that they are for; all are frozen, and two
    recipes that are equal describe the same run.
    """

    name: str = Field(
        pattern=NAME,
        examples=["an4", "my-corpus.2"],
        description="what runs are called: runs/NAME-1, ...",
    )
    seed: int = Field(1, ge=0, lt=2**32, description="of all that is drawn by chance")
    data: CorpusSettings
    frontend: FrontendSettings
    augment: AugmentSettings | None = Field(None, description="changes in training; null for none")
    batching: BatchingSettings = BatchingSettings()
    vocabulary: VocabularySettings = CourseVocabularySettings()
    listener: ListenerSettings
    attention: AttentionSettings = LocationSettings()
    speller: SpellerSettings = SpellerSettings()
    ctc: CTCSettings | None = Field(None, description="CTC head on the listener; null for none")
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = AdamSettings()
    schedule: ScheduleSettings = ConstantRate()
    teacher_forcing: TeacherForcingSettings = ConstantForcing()
    averaging: AveragingSettings = NoAveraging()
    pretraining: PretrainingSettings | None = Field(
        None, description="the speller learns to write from text beforehand; null for not"
    )
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings = GreedySettings()
    trackers: tuple[TrackerSettings, ...] = Field(
        (), description="programs that keep the run's numbers too, beside metrics.jsonl"
    )

    @classmethod
    def impossible(cls, sections: Mapping[str, Any]) -> Iterable[Clash]:
        return clashes(sections)


ROOT = place_of_model(Recipe)


def read_recipe(
    path: Path | str, overrides: Sequence[str] = (), over: Path | None = None
) -> Recipe:
    """The recipe of the page at `path`, with `section.key=value` overrides laid over it.

    A page may name a `base:` that it builds on (`page.read_page`). Nothing is loaded or built.
    over: a page with some sections that is laid over the first, below the overrides.
    Raises RecipeError with everything that is wrong: wrong keys, kinds, types and ranges,
    impossible combinations, keys given twice, overrides that lead nowhere; each with its path, the
    file and line, and the nearest right key.
    """
    page = read_page(Path(path), ROOT)
    if "recipe" in page.data and page.data.keys() & {"rows", "axes"}:
        raise RecipeError(f"{path} is a study, of many runs: spelldown study {path}")
    if over is not None:
        page = merged(page, read_page(over, ROOT), ROOT)
    for text in overrides:
        override(page, text, ROOT)
    return recipe_of(page, str(path))


def recipe_of(page: Page, name: str) -> Recipe:
    """The recipe that a page makes; RecipeError, which calls it `name`, if it makes none."""
    return Recipe.of_page(page, f"{name} cannot be run")
