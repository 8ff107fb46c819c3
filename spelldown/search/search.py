"""Search: from what the listener remembers to the symbols that were most likely said.

Works over anything that can `start(memory)` and `step(symbols, state)`: the recognizer, an
exported model, or a toy in a test. Nothing is kept between calls, so that every kind of search
shares one step.

Which symbols: `<pad>` and `<sos>` are never spelled, since neither can follow in a reference;
`<eos>` ends an utterance and is not part of its symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.settings import Settings

SPARE = 1 / 8
"""Share of the rows held that must have ended before they are dropped. Dropping copies what the
listener remembers of all others, so doing it for every single row would cost more than it saves."""


class GreedySettings(Settings):
    """Spell the most likely symbol at every step."""

    kind: Literal["greedy"] = "greedy"
    longest: int = Field(600, ge=1)
    """Most steps an utterance is given; the step that ends it counts as one. As in the seed."""
    longest_per_second: float | None = Field(None, gt=0)
    """Most steps for each second of speech, none if null (the seed). English is read at 15 letters
    a second and hardly ever over 25, so 40 hurts nothing and stops a recognizer that has not
    aligned yet from spelling 600 letters into one second."""


SearchSettings = GreedySettings
"""What a recipe's `search` may say. Becomes a union told apart by `kind` when others join."""


@dataclass(frozen=True)
class Hypothesis:
    """What one utterance was spelled as.

    symbols: without `<sos>` and `<eos>`
    score:   natural logarithm of the probability of the symbols and, if it came, of `<eos>`
    ended:   whether `<eos>` came before the limit
    weights: attention, (H, L, T') float32 on the CPU, T' real listener frames only; a step for
             each symbol, and the last for `<eos>` if it came. None if they were not kept
    """

    symbols: tuple[int, ...]
    score: float
    ended: bool
    weights: Tensor | None = None


class Remembered(Protocol):
    """What the listener made of a batch: at least how many frames of each are real, (B,)."""

    @property
    def lengths(self) -> Tensor: ...


class State(Protocol):
    """Where the speller is in a batch, and what it last attended to, (B, H, T')."""

    @property
    def weights(self) -> Tensor: ...

    def select(self, rows: Tensor, /) -> Self: ...


MemoryT = TypeVar("MemoryT", bound=Remembered, contravariant=True)
StateT = TypeVar("StateT", bound=State)


class Spells(Protocol[MemoryT, StateT]):
    """Anything that search can be done over; the recognizer above all."""

    def start(self, memory: MemoryT, /) -> StateT: ...

    def step(self, symbols: Tensor, state: StateT, /) -> tuple[Tensor, StateT]: ...


@torch.inference_mode()
def greedy(
    recognizer: Spells[MemoryT, StateT],
    memory: MemoryT,
    settings: GreedySettings | None = None,
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
    device = limits.device
    state = recognizer.start(memory)
    rows = torch.arange(len(limits), device=device)  # which utterance each row held is
    live = torch.ones(len(limits), dtype=torch.bool, device=device)
    fed = torch.full_like(rows, SOS)
    taken: list[tuple[Tensor, Tensor, Tensor]] = []  # of each step: utterances, symbols, scores
    attended: list[Tensor] = []
    while True:
        log_probs, state = recognizer.step(fed, state)
        best, fed = log_probs[:, EOS:].float().max(dim=-1)  # <pad> and <sos> stand before <eos>
        fed = fed + EOS
        taken.append((rows, fed.masked_fill(~live, PAD), best.masked_fill(~live, 0.0)))
        if keep_weights:
            attended.append(state.weights)
        live = live & (fed != EOS) & (limits[rows] > len(taken))
        going = live.nonzero().squeeze(1)  # the step's one transfer: its size is needed here
        if len(going) == 0:
            break
        if len(going) <= (1 - SPARE) * len(rows):
            rows, fed, live, state = rows[going], fed[going], live[going], state.select(going)
    return _hypotheses(taken, attended, memory.lengths)


def step_limits(
    lengths: Tensor, settings: GreedySettings, seconds_per_frame: float | None
) -> Tensor:
    """The most steps each utterance is given, (B,) int64, at least 1, from its own length alone."""
    if settings.longest_per_second is None:
        return torch.full_like(lengths, settings.longest, dtype=torch.int64)
    if seconds_per_frame is None:
        raise ValueError(
            "search.longest_per_second needs seconds_per_frame: the seconds of speech that one "
            "of the listener's frames stands for (its reduction x 0.01)"
        )
    per_frame = settings.longest_per_second * seconds_per_frame
    steps = (lengths.double() * per_frame).ceil().long()
    return steps.clamp(min=1, max=settings.longest)


def _hypotheses(
    taken: Sequence[tuple[Tensor, Tensor, Tensor]], attended: Sequence[Tensor], lengths: Tensor
) -> list[Hypothesis]:
    """Puts the steps back together by utterance; everything leaves the device once."""
    symbols = torch.full((len(lengths), len(taken)), PAD, device=lengths.device)
    scores = torch.zeros(len(lengths), dtype=torch.float64, device=lengths.device)
    for step, (rows, chosen, score) in enumerate(taken):
        symbols[rows, step] = chosen
        scores[rows] += score.double()
    steps = (symbols != PAD).sum(1).tolist()
    weights = _weights_by_utterance([rows for rows, _, _ in taken], attended, steps, lengths)
    found = []
    for row, (spelled, score) in enumerate(zip(symbols.tolist(), scores.tolist(), strict=True)):
        spelled = spelled[: steps[row]]
        ended = spelled[-1] == EOS
        letters = tuple(spelled[:-1] if ended else spelled)
        found.append(Hypothesis(letters, score, ended, weights[row]))
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
