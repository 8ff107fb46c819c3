"""The recipe of an LSTM language model: one page like a recognizer's, with fewer sections."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from spelldown.data.loading.texts import TextBatchingSettings
from spelldown.errors import RecipeError
from spelldown.model.language import LSTMSettings
from spelldown.recipe.reading.checking import Clash, check_sections
from spelldown.recipe.reading.overrides import override
from spelldown.recipe.reading.page import Page, Problem, read_page
from spelldown.recipe.reading.places import place_of_model
from spelldown.recipe.rules import clashes
from spelldown.settings import Settings
from spelldown.training.language.settings import ReadingSettings
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.optimizer import AdamSettings, OptimizerSettings
from spelldown.training.learning.schedule import CosineRate, ScheduleSettings


class LanguageRecipe(Settings):
    """How an LSTM language model is built and trained; its texts and symbols are given apart."""

    seed: int = Field(1, ge=0, lt=2**32, description="of all that is drawn by chance")
    model: LSTMSettings = LSTMSettings()
    batching: TextBatchingSettings = TextBatchingSettings()
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each target that is spread over all symbols"
    )
    optimizer: OptimizerSettings = AdamSettings(rate=2e-3)
    schedule: ScheduleSettings = CosineRate(floor=0.05)
    averaging: AveragingSettings = NoAveraging()
    training: ReadingSettings = ReadingSettings()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [f"{clash.path}: {clash.message}" for clash in _clashes(sections)]
        if found:
            raise ValueError("; ".join(found))
        return self

    def as_yaml(self) -> str:
        """The resolved recipe, every key stated; `read_language_recipe` gives the same back."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
        )


ROOT = place_of_model(LanguageRecipe)


def read_language_recipe(
    path: Path | str | None = None, overrides: Sequence[str] = ()
) -> LanguageRecipe:
    """The recipe of the page at `path`, or the usual one, with `model.width=256` ... laid over it.

    Raises RecipeError with everything that is wrong, each with its place and the nearest right key.
    """
    page = Page() if path is None else read_page(Path(path), ROOT)
    for text in overrides:
        override(page, text, ROOT)
    checked = check_sections(page.data, LanguageRecipe)
    problems = [*page.problems, *checked.problems]
    for clash in _clashes(checked.sections):
        if checked.trusts(clash):
            problems.append(Problem(tuple(clash.path.split(".")), clash.message))
    if problems:
        name = "the language model" if path is None else str(path)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        texts = [problem.text(page.origins) for problem in problems]
        raise RecipeError(f"{name} cannot be trained: {count}", texts)
    return LanguageRecipe(**checked.sections)


def _clashes(sections: Mapping[str, Any]) -> Iterator[Clash]:
    """What a recognizer's recipe forbids of the sections that a language model's has too."""
    shared = {name: sections[name] for name in ("schedule", "averaging") if name in sections}
    if "training" in sections:
        shared["training"] = sections["training"].as_training()
    return clashes({**shared, "augment": None})
