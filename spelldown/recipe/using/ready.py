"""What a search needs besides the run: language models, the mean context; told before the work."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from spelldown.errors import RecipeError
from spelldown.recipe.language.internal import learn_mean_context
from spelldown.search.search import BeamSettings, SearchSettings
from spelldown.training.run.run_folder import RunFolder

if TYPE_CHECKING:
    from spelldown.recipe.run import Run

TUNED = "tuned.json"  # in a run's tuning folder: what its search.yaml was found with
WEIGHED = {"lm": "lm_weight", "rescore_lm": "rescore_weight", "ilm": "ilm_weight"}


def make_ready(run: Run, search: SearchSettings) -> None:
    """Brings together what a search needs: language models, and the mean context.

    So what is not there is told before the work. Raises RecipeError where something is named that
    has no weight, LanguageModelError for a language model that is not there or does not fit,
    DataError where the mean context has to be reckoned and its corpus cannot be used.
    """
    if not isinstance(search, BeamSettings):
        return
    told = search.model_dump()
    problems = [
        f"search.{named} is {told[named]} and search.{weight} is 0, so that it would change "
        f"nothing; give a weight, or let `spelldown tune {run.folder}` find it"
        for named, weight in WEIGHED.items()
        if told[named] not in (None, "none") and not told[weight]
    ]
    problems += [
        f"search.{weight} is {told[weight]:g} and there is no search.{named} that it would weigh"
        for named, weight in WEIGHED.items()
        if told[named] in (None, "none") and told[weight]
    ]
    if problems:
        raise RecipeError("this search cannot be meant", problems)
    if search.ilm == "mean":
        recognizer = run.transcriber.recognizer
        learn_mean_context(recognizer, run.recipe, run.vocabulary, run.folder, run.state)
    run.transcriber.language_models(search)


def notes_on_search(folder: RunFolder, epoch: int) -> tuple[str, ...]:
    """Whether a tuned search was found for the weights that are in use."""
    if not folder.search.is_file():
        return ()
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((folder.tuning / TUNED).read_text(encoding="utf-8"))
        if record["epoch"] != epoch:
            return (
                f"{folder.search} was tuned with the weights of epoch {record['epoch']}, and those "
                f"in use are of epoch {epoch}: spelldown tune {folder} finds it anew",
            )
    return ()
