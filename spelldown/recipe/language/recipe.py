"""The recipe of an LSTM language model: one page like a recognizer's, with fewer sections."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from spelldown.data.loading.texts import TextBatchingSettings
from spelldown.model.language import LSTMSettings
from spelldown.recipe.reading.checking import Clash
from spelldown.recipe.reading.overrides import override
from spelldown.recipe.reading.page import Page, read_page
from spelldown.recipe.reading.places import place_of_model
from spelldown.recipe.reading.whole import Whole
from spelldown.recipe.rules import clashes
from spelldown.training.language.settings import ReadingSettings
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.optimizer import AdamSettings, OptimizerSettings
from spelldown.training.learning.schedule import CosineRate, ScheduleSettings


class LanguageRecipe(Whole):
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

    @classmethod
    def impossible(cls, sections: Mapping[str, Any]) -> Iterable[Clash]:
        """What a recognizer's recipe forbids of the sections that a language model's has too."""
        shared = {name: sections[name] for name in ("schedule", "averaging") if name in sections}
        if "training" in sections:
            shared["training"] = sections["training"].as_training()
        return clashes({**shared, "augment": None})


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
    _fit_warmup(page.data)
    name = "the language model" if path is None else str(path)
    return LanguageRecipe.of_page(page, f"{name} cannot be trained")


def _fit_warmup(data: dict[str, Any]) -> None:
    """Of a page that says how many epochs and nothing of the schedule, half of them warm up, where
    the usual schedule would warm up over all."""
    usual, training = LanguageRecipe().schedule, data.get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    if "schedule" in data or not isinstance(usual, CosineRate) or not isinstance(epochs, int):
        return
    if 1 <= epochs <= usual.warmup:
        data["schedule"] = {**usual.model_dump(), "warmup": epochs / 2}
