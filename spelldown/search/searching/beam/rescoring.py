"""The n-best ranked anew by a language model that is too slow to be asked at every step."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.vocabulary import EOS, SOS
from spelldown.search.language.language_model import LanguageModel
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
    for one, log_prob in zip(flat, read(model, flat, device).tolist(), strict=True):
        steps = len(one.symbols) + one.ended
        part = settings.rescore_weight * log_prob / steps**settings.length_power
        parts = {**one.parts, "rescoring": part}
        ranked.append(replace(one, score=one.score + part, parts=parts))
    rest = iter(ranked)
    again = [[next(rest) for _ in each] for each in found]
    return [sorted(each, key=lambda one: (one.ended, one.score), reverse=True) for each in again]


def read(model: LanguageModel, found: Sequence[Hypothesis], device: torch.device) -> Tensor:
    """What a language model gives each hypothesis (N,), with `<eos>` where it came, float64."""
    texts = [torch.tensor([*one.symbols, *[EOS] * one.ended]) for one in found]
    lengths = torch.tensor([len(text) for text in texts], device=device)
    symbols = pad_sequence(texts, batch_first=True, padding_value=EOS).to(device)
    state = model.start(len(texts), device)
    fed = torch.full((len(texts),), SOS, device=device)
    total = torch.zeros(len(texts), dtype=torch.float64, device=device)
    for step, said in enumerate(symbols.t()):
        log_probs, state = model.step(fed, state)
        given = log_probs.gather(1, said[:, None]).squeeze(1).double()
        total += torch.where(lengths > step, given, 0.0)
        fed = said
    return total
