"""Random search: draw some transcriptions of each utterance, and keep the likeliest of them.

Every symbol is drawn from the speller's distribution, sharpened or flattened by a temperature. What
is drawn is then ranked by its probability without the temperature, over its length to a power, as
short ones would win otherwise. (The speller says the same of a symbol when asked again, so these
probabilities are noted on the way.)

The first draw always takes the likeliest symbol, so that the result is never ranked below that of
greedy search, and one draw is greedy search.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from spelldown.data.vocabulary import EOS
from spelldown.search.searching.greedy import spell
from spelldown.search.searching.hypothesis import Hypothesis, MemoryT, Sharing, Spells, StateT
from spelldown.search.searching.limits import LimitSettings, step_limits


class RandomSettings(LimitSettings):
    """Draw several transcriptions at random and keep the likeliest for its length."""

    kind: Literal["random"] = "random"
    draws: int = Field(16, ge=1, le=4096, description="transcriptions drawn of each utterance")
    temperature: float = Field(
        0.5, ge=0.01, description="below 1 draws likelier symbols, above 1 more surprising ones"
    )
    length_power: float = Field(
        1.0, ge=0, le=2, description="ranked by log-probability / symbols to this power"
    )
    seed: int = Field(1, ge=0, lt=2**32, description="of what is drawn")


@torch.inference_mode()
def random_search(
    recognizer: Spells[MemoryT, StateT],
    memory: MemoryT,
    settings: RandomSettings,
    *,
    seconds_per_frame: float | None = None,
    keep_weights: bool = False,
) -> list[Hypothesis]:
    """The best of several drawn transcriptions of each utterance; all distinct ones in `nbest`.

    All of all utterances are drawn together. The n-th draw of every utterance is made by the same
    numbers, on every device, so that an utterance is spelled the same alone and in any batch.

    Raises ValueError if `longest_per_second` is set and `seconds_per_frame` is not given.
    """
    lengths, draws = memory.lengths, settings.draws
    limits = step_limits(lengths, settings, seconds_per_frame)
    if len(limits) == 0:
        return []
    state = recognizer.start(memory)
    if isinstance(state, Sharing):
        state = state.share(draws)
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(draws)
    drawing = _Drawing(settings)
    found = spell(
        recognizer, state.select(rows), lengths[rows], limits[rows], drawing, keep_weights
    )
    return [_best(found[i : i + draws], settings) for i in range(0, len(found), draws)]


class _Drawing:
    """Draws symbols: the largest of log-probability / temperature + Gumbel noise is a draw from
    the softmax of the former (Gumbel 1954)."""

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(settings.seed)

    def __call__(self, log_probs: Tensor, rows: Tensor, step: int) -> Tensor:
        spellable = log_probs[:, EOS:].float()  # <pad> and <sos> stand before <eos>
        uniform = torch.rand(self.settings.draws, spellable.shape[1], generator=self.generator)
        noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        noise[0] = 0.0
        drawn = noise.to(spellable.device, non_blocking=True)[rows % self.settings.draws]
        return spellable.div(self.settings.temperature).add_(drawn).argmax(1) + EOS


def _best(drawn: list[Hypothesis], settings: RandomSettings) -> Hypothesis:
    """The best of an utterance's draws, with the others that differ behind it."""
    ranked = {}
    for one in drawn:
        score = one.score / len(one.log_probs) ** settings.length_power
        ranked[one.symbols, one.ended] = replace(one, score=score, parts={"attention": score})
    best = sorted(ranked.values(), key=lambda one: (one.ended, one.score), reverse=True)
    return replace(best[0], nbest=tuple(best[1:]))
