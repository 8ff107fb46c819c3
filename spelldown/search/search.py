"""Search: from what the listener remembers to the symbols that were most likely said.

One door to every kind of search; each is in `searching/`.
"""

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field

from spelldown.errors import SearchError
from spelldown.model.recognizer import Memory
from spelldown.search.language.language_model import LanguageModel
from spelldown.search.searching.beam.beam import BeamSearch
from spelldown.search.searching.beam.ctc_prefix import CTCPrefix
from spelldown.search.searching.beam.ending import Ending
from spelldown.search.searching.beam.judges import Judge, Stepping, speller
from spelldown.search.searching.beam.rescoring import rescored
from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.greedy import GreedySettings, greedy
from spelldown.search.searching.hypothesis import Hypothesis
from spelldown.search.searching.limits import step_limits
from spelldown.search.searching.memory import utterances_at_once
from spelldown.search.searching.sampling import RandomSettings, random_search

__all__ = [
    "BeamSettings",
    "GreedySettings",
    "Hypothesis",
    "RandomSettings",
    "SearchSettings",
    "greedy",
    "search",
]

SearchSettings = Annotated[
    GreedySettings | RandomSettings | BeamSettings, Field(discriminator="kind")
]
"""What a recipe's `search` may say, told apart by `kind`."""


@torch.inference_mode()
def search(
    recognizer: Any,
    memory: Any,
    settings: GreedySettings | RandomSettings | BeamSettings,
    *,
    seconds_per_frame: float | None = None,
    keep_weights: bool = False,
    language_model: LanguageModel | None = None,
    rescoring_model: LanguageModel | None = None,
    internal_model: LanguageModel | None = None,
) -> list[Hypothesis]:
    """The best hypothesis of each utterance of a batch, in the batch's order.

    recognizer: anything with `start` and `step`, in `eval()`; `ctc_logits(memory)` is asked for
    with `ctc_weight`. seconds_per_frame: how much speech one of the listener's frames stands for;
    needed with limits by the second. keep_weights: keep the attention of every step.
    language_model, rescoring_model: read from `lm` and `rescore_lm`, with which they must come.
    internal_model: the speller's own, where `ilm` is `mean`; for `zero` it is made of the
    recognizer.

    An utterance is spelled the same alone and in any batch. If hypotheses of a whole batch would
    not fit into memory, its utterances are searched a few at a time.

    Raises SearchError for CTC scores of a recognizer without a CTC head, a language model that is
    wanted and not given, and more hypotheses of one utterance than memory has room for; ValueError
    for a limit by the second without `seconds_per_frame`.
    """
    common: Any = {"seconds_per_frame": seconds_per_frame, "keep_weights": keep_weights}
    if isinstance(settings, GreedySettings):
        return greedy(recognizer, memory, settings, **common)
    models = _models(recognizer, settings, language_model, rescoring_model, internal_model)
    found: list[Hypothesis] = []
    for part in _parts(recognizer, memory, settings, **common):
        if isinstance(settings, RandomSettings):
            found += random_search(recognizer, part, settings, **common)
        else:
            found += beam_search(recognizer, part, settings, models, **common)
    return found


def beam_search(
    recognizer: Any,
    memory: Any,
    settings: BeamSettings,
    models: dict[str, LanguageModel],
    *,
    seconds_per_frame: float | None,
    keep_weights: bool,
) -> list[Hypothesis]:
    """Beam search with all judges that the settings give a weight, as `search` says.

    models: by the name of their part of the score: lm, ilm, rescoring.
    """
    lengths, beam = memory.lengths, settings.beam
    others: list[Judge] = []
    if settings.ctc_weight:
        others.append(CTCPrefix(_ctc(recognizer, memory), lengths, settings.ctc_weight, beam))
    weights = {"lm": settings.lm_weight, "ilm": -settings.ilm_weight}
    for name, weight in weights.items():
        if name in models:
            state = models[name].start(len(lengths), lengths.device)
            others.append(Stepping(name, weight, models[name], state))
    most = beam if "rescoring" in models else settings.nbest
    ending = Ending(settings, lengths, seconds_per_frame, most)
    first = speller(recognizer, memory, 1 - settings.ctc_weight, beam)
    found = BeamSearch(first, others, settings, lengths, ending, keep_weights).run(most)
    if "rescoring" in models:
        found = rescored(found, models["rescoring"], settings, lengths.device)
    return [replace(best[0], nbest=tuple(best[1 : settings.nbest])) for best in found]


def _ctc(recognizer: Any, memory: Any) -> torch.Tensor:
    logits: torch.Tensor | None = recognizer.ctc_logits(memory)
    if logits is None:
        raise SearchError(
            "search.ctc_weight: this recognizer was trained without a CTC head; set it to 0, or "
            "train with a `ctc` section in the recipe"
        )
    return logits


def _models(
    recognizer: Any,
    settings: RandomSettings | BeamSettings,
    language_model: LanguageModel | None,
    rescoring_model: LanguageModel | None,
    internal_model: LanguageModel | None,
) -> dict[str, LanguageModel]:
    """The language models that have a weight, by the name of their part of the score."""
    if not isinstance(settings, BeamSettings):
        return {}
    if settings.ilm == "zero" and internal_model is None and settings.ilm_weight:
        internal_model = recognizer.without_listening("zero")
    wanted = {
        "lm": (settings.lm_weight, language_model, "lm_weight: name a language model, `lm`"),
        "rescoring": (
            settings.rescore_weight,
            rescoring_model,
            "rescore_weight: name a language model, `rescore_lm`",
        ),
        "ilm": (
            settings.ilm_weight if settings.ilm != "none" else 0.0,
            internal_model,
            "ilm: the mean context over training is not known of this run; use `zero`",
        ),
    }
    missing = [says for weight, model, says in wanted.values() if weight and model is None]
    if missing:
        raise SearchError("search." + "; search.".join(missing))
    return {name: model for name, (weight, model, _) in wanted.items() if weight and model}


def _parts(
    recognizer: Any,
    memory: Any,
    settings: RandomSettings | BeamSettings,
    seconds_per_frame: float | None,
    keep_weights: bool,
) -> list[Any]:
    """The batch in parts whose hypotheses fit into memory; whole, if it is no recognizer's."""
    if not isinstance(memory, Memory) or len(memory.lengths) == 0:
        return [memory]
    at_once = utterances_at_once(
        memory.frames,
        settings.beam if isinstance(settings, BeamSettings) else settings.draws,
        recognizer.vocabulary,
        steps=int(step_limits(memory.lengths, settings, seconds_per_frame).max()),
        heads=recognizer.heads if keep_weights else 0,
        ctc=isinstance(settings, BeamSettings) and settings.ctc_weight > 0,
    )
    return [
        Memory(frames, lengths)
        for frames, lengths in zip(
            memory.frames.split(at_once), memory.lengths.split(at_once), strict=True
        )
    ]
