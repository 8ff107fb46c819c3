"""The n-best ranked anew by a language model that is too slow to be asked at every step."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from spelldown.search.language.language_model import LanguageModel, log_probs_of
from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.hypothesis import Hypothesis


def rescored(
    found: Sequence[Sequence[Hypothesis]],
    model: LanguageModel,
    settings: BeamSettings,
    device: torch.device,
) -> list[list[Hypothesis]]:
    """The hypotheses of each utterance, with a part `rescoring` added to their scores, best first.

    All are read by the language model together. As the other parts, this one is divided by the
    length to `length_power`.
    """
    flat = [one for each in found for one in each]
    if not flat:
        return [list(each) for each in found]
    ranked = []
    ended = [one.ended for one in flat]
    read = log_probs_of(model, [one.symbols for one in flat], device, ended=ended)
    for one, log_prob in zip(flat, read, strict=True):
        steps = len(one.symbols) + one.ended
        part = settings.rescore_weight * log_prob / steps**settings.length_power
        parts = {**one.parts, "rescoring": part}
        ranked.append(replace(one, score=one.score + part, parts=parts))
    rest = iter(ranked)
    again = [[next(rest) for _ in each] for each in found]
    return [sorted(each, key=lambda one: (one.ended, one.score), reverse=True) for each in again]
