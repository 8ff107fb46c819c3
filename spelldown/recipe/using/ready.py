"""What a search needs besides the run: language models, the mean context; told before the work."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from spelldown.errors import RecipeError
from spelldown.recipe.language.internal import learn_mean_context
from spelldown.search.language.language_model import identity
from spelldown.search.search import BeamSettings, SearchSettings
from spelldown.training.run.run_folder import RunFolder

if TYPE_CHECKING:
    from spelldown.recipe.run import Run

TUNED = "tuned.json"  # in a run's tuning folder: what its search.yaml was found with
LANDSCAPE = "landscape.html"  # there too: what was tried, whether or not anything was found
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
        f"nothing; give a weight, let `spelldown tune {run.folder}` find it, or leave it out: "
        f"search.{named}={'none' if named == 'ilm' else 'null'}"
        for named, weight in WEIGHED.items()
        if told[named] not in (None, "none") and not told[weight]
    ]
    problems += [
        f"search.{weight} is {told[weight]:g} and there is no search.{named} that it would weigh: "
        f"name it by --{named.replace('_', '-')}"
        for named, weight in WEIGHED.items()
        if told[named] in (None, "none") and told[weight]
    ]
    if search.ctc_weight and run.transcriber.recognizer.ctc is None:
        problems.append(
            f"search.ctc_weight is {search.ctc_weight:g}, and {run.folder} was trained without a "
            "CTC head (ctc: null in its recipe): 0 leaves the score to the speller"
        )
    if problems:
        raise RecipeError("this search cannot be meant", problems)
    if search.ilm == "mean":
        recognizer = run.transcriber.recognizer
        learn_mean_context(recognizer, run.recipe, run.vocabulary, run.folder, run.state)
    run.transcriber.language_models(search)


def language_models_of(search: SearchSettings) -> dict[str, str]:
    """The language models that a search asks, by their whole paths: which they are."""
    if not isinstance(search, BeamSettings):
        return {}
    paths = [Path(path).absolute() for path in (search.lm, search.rescore_lm) if path]
    return {str(path): identity(path) for path in paths}


def notes_on_search(folder: RunFolder, epoch: int, search: SearchSettings) -> tuple[str, ...]:
    """Whether a tuned search was found for what is in use: the weights, and the language models.

    search: that is in use, laid over the tuned one perhaps.
    """
    if not folder.search.is_file():
        return ()
    notes = []
    anew = f"spelldown tune {folder} finds it anew"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        record = json.loads((folder.tuning / TUNED).read_text(encoding="utf-8"))
        if record["epoch"] != epoch:
            notes.append(
                f"{folder.search} was tuned with the weights of epoch {record['epoch']}, and those "
                f"in use are of epoch {epoch}: {anew}"
            )
        used = language_models_of(search)
        notes += [
            f"the language model {path} has been made anew since {folder.search} was tuned with "
            f"it: {anew}"
            for path, known in record.get("language_models", {}).items()
            if used.get(path, known) != known
        ]
    return tuple(notes)


def notes_on_weights(search: SearchSettings) -> tuple[str, ...]:
    """Whether a language model shortens texts: it takes something off for every letter."""
    if not isinstance(search, BeamSettings) or not (search.lm_weight or search.rescore_weight):
        return ()
    if search.ctc_weight or search.length_bonus > 0 or search.length_power or search.ilm_weight:
        return ()
    return (
        "a language model takes something off for every letter, so that texts get short: give it "
        "a second judge (--ctc 0.3) or a bonus for letters (--length-bonus 0.5) beside it",
    )


def notes_on_models(run: Run) -> tuple[str, ...]:
    """Which symbols the language models of a run's search know nothing of."""
    models = run.transcriber.language_models(run.transcriber.search)
    lacking = dict.fromkeys(getattr(model, "missing", "") for model in models.values())
    return tuple(filter(None, lacking))
