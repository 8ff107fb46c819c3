"""A recipe: one experiment as typed settings, read from one page and checked whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, model_validator

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
from spelldown.recipe.reading.checking import Checked, check_sections
from spelldown.recipe.reading.overrides import override
from spelldown.recipe.reading.page import Page, Problem, merged, read_page
from spelldown.recipe.reading.places import place_of_model
from spelldown.recipe.rules import clashes
from spelldown.search.search import GreedySettings, SearchSettings
from spelldown.settings import Settings
from spelldown.training.language.settings import PretrainingSettings
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import AdamSettings, OptimizerSettings
from spelldown.training.learning.schedule import ConstantRate, ScheduleSettings
from spelldown.training.learning.settings import TrainingSettings
from spelldown.training.learning.teacher_forcing import ConstantForcing, TeacherForcingSettings
from spelldown.training.run.trackers.kinds import TrackerSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # it becomes a folder's name


class Recipe(Settings):
    """One experiment, whole: from the corpus to the search.

    Each section's settings stand beside the component that they are for; all are frozen, and two
    recipes that are equal describe the same run.
    """

    name: str = Field(pattern=NAME, description="what runs are called: runs/NAME-1, ...")
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

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [f"{clash.path}: {clash.message}" for clash in clashes(sections)]
        if found:
            raise ValueError("; ".join(found))
        return self

    def as_yaml(self) -> str:
        """The resolved recipe, every key stated; `read_recipe` gives the same recipe back."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
        )


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
    if over is not None:
        page = merged(page, read_page(over, ROOT), ROOT)
    for text in overrides:
        override(page, text, ROOT)
    return recipe_of(page, str(path))


def recipe_of(page: Page, name: str) -> Recipe:
    """The recipe that a page makes; RecipeError, which calls it `name`, if it makes none."""
    checked = check_sections(page.data, Recipe)
    problems = [*page.problems, *checked.problems, *_impossible(checked)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        texts = [problem.text(page.origins) for problem in problems]
        raise RecipeError(f"{name} cannot be run: {count}", texts)
    return Recipe(**checked.sections)


def _impossible(checked: Checked) -> list[Problem]:
    found = []
    for clash in clashes(checked.sections):
        if checked.trusts(clash):
            keys = tuple(int(key) if key.isdecimal() else key for key in clash.path.split("."))
            found.append(Problem(keys, clash.message))
    return found
