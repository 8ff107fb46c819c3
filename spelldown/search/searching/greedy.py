"""Greedy search: the most likely symbol at every step."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.search.searching.hypothesis import Hypothesis, MemoryT, Sharing, Spells, StateT
from spelldown.search.searching.limits import LimitSettings, step_limits
from spelldown.search.searching.rows import held

SPARE = 1 / 8
"""Share of the rows held that must have ended before they are dropped. Dropping copies what the
listener remembers of all others, so doing it for every single row would cost more than it saves."""


class GreedySettings(LimitSettings):
    """Spell the most likely symbol at every step."""

    kind: Literal["greedy"] = "greedy"


@torch.inference_mode()
def greedy(
    recognizer: Spells[MemoryT, StateT],
    memory: MemoryT,
    settings: LimitSettings | None = None,
    *,
    seconds_per_frame: float | None = None,
    keep_weights: bool = False,
) -> list[Hypothesis]:
    """The most likely symbol at every step, for each utterance of a batch, in the batch's order.

    An utterance that has ended costs nothing more: its row is dropped. One transfer from the
    device a step, which asks who goes on. The recognizer is used as it is: put it into `eval()`
    first.

    seconds_per_frame: how much speech one of the listener's frames stands for; needed only with
                       `longest_per_second`
    keep_weights:      keep the attention of every step, for pictures and the alignment measure

    Raises ValueError if `longest_per_second` is set and `seconds_per_frame` is not given.
    """
    limits = step_limits(memory.lengths, settings or GreedySettings(), seconds_per_frame)
    if len(limits) == 0:
        return []
    state: Any = recognizer.start(memory)
    if isinstance(state, Sharing):
        state = state.share(1)  # then a row that is dropped copies nothing of the others
    return spell(recognizer, state, memory.lengths, limits, _likeliest, keep_weights)


def _likeliest(log_probs: Tensor, rows: Tensor, step: int) -> Tensor:
    return log_probs[:, EOS:].argmax(1) + EOS  # <pad> and <sos> stand before <eos>


def spell(
    model: Any,
    state: Any,
    lengths: Tensor,
    limits: Tensor,
    choose: Callable[[Tensor, Tensor, int], Tensor],
    keep_weights: bool,
) -> list[Hypothesis]:
    """Spells N rows from their state on, a symbol a step, each up to `<eos>` or its limit.

    lengths, limits (N,): listener frames, steps. choose: the next symbol (N',) of each row, given
    their log-probabilities (N', V), which rows are left (N',), and the step from 0 on.
    """
    rows = torch.arange(len(limits), device=limits.device)
    live = torch.ones_like(rows, dtype=torch.bool)
    fed = torch.full_like(rows, SOS)
    taken: list[tuple[Tensor, Tensor, Tensor]] = []  # of each step: rows, symbols, scores
    attended: list[Tensor] = []
    while True:
        log_probs, state = model.step(fed, state)
        fed = choose(log_probs, rows, len(taken))
        best = log_probs.gather(1, fed[:, None]).squeeze(1).float()
        taken.append((rows, fed.masked_fill(~live, PAD), best.masked_fill(~live, 0.0)))
        if keep_weights:
            attended.append(state.weights)
        live = live & (fed != EOS) & (limits[rows] > len(taken))
        count = int(live.sum())  # the step's one transfer
        if count == 0:
            break
        if count <= (1 - SPARE) * len(rows):
            going = live.logical_not().argsort(stable=True)[: held(count)].sort().values
            rows, fed, live, state = rows[going], fed[going], live[going], state.select(going)
    return _hypotheses(taken, attended, lengths)


def _hypotheses(
    taken: Sequence[tuple[Tensor, Tensor, Tensor]], attended: Sequence[Tensor], lengths: Tensor
) -> list[Hypothesis]:
    """Puts the steps back together by utterance; everything leaves the device once."""
    symbols = torch.full((len(lengths), len(taken)), PAD, device=lengths.device)
    scores = torch.zeros(symbols.shape, dtype=torch.float64, device=lengths.device)
    for step, (rows, chosen, score) in enumerate(taken):
        symbols[rows, step] = chosen
        scores[rows, step] = score.double()
    steps = (symbols != PAD).sum(1).tolist()
    weights = _weights_by_utterance([rows for rows, _, _ in taken], attended, steps, lengths)
    found = []
    for row, (spelled, each) in enumerate(zip(symbols.tolist(), scores.tolist(), strict=True)):
        spelled, each = spelled[: steps[row]], each[: steps[row]]
        ended = spelled[-1] == EOS
        letters = tuple(spelled[:-1] if ended else spelled)
        score = sum(each)
        parts = {"attention": score}
        found.append(Hypothesis(letters, score, ended, weights[row], parts, tuple(each)))
    return found


def _weights_by_utterance(
    rows: Sequence[Tensor], attended: Sequence[Tensor], steps: Sequence[int], lengths: Tensor
) -> list[Tensor] | list[None]:
    """Attention (H, steps, T') of each utterance, without padding, or None where not kept."""
    if not attended:
        return [None] * len(steps)
    _, heads, frames = attended[0].shape
    table = attended[0].new_zeros((len(steps), heads, len(attended), frames), dtype=torch.float32)
    for step, (utterances, weights) in enumerate(zip(rows, attended, strict=True)):
        table[utterances, :, step] = weights.float()
    table = table.cpu()
    return [
        table[row, :, : steps[row], :length].clone() for row, length in enumerate(lengths.tolist())
    ]
