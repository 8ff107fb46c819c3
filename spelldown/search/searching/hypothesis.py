"""What search finds, and what it can be done over.

Anything that can `start(memory)` and `step(symbols, state)`: the recognizer, an exported model, a
language model, or a toy in a test. Nothing is kept between calls, so that every kind of search
shares one step.

Which symbols: `<pad>` and `<sos>` are never spelled, since neither can follow in a reference;
`<eos>` ends an utterance and is not part of its symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """What one utterance was spelled as.

    symbols:   without `<sos>` and `<eos>`
    score:     by which hypotheses are ranked; for greedy search the natural logarithm of the
               probability of the symbols and, if it came, of `<eos>`
    ended:     whether `<eos>` came before the limit
    weights:   attention, (H, L, T') float32 on the CPU, T' real listener frames only; a step for
               each symbol, and the last for `<eos>` if it came. None if they were not kept
    parts:     what the score is made of, weighted, so that they add up to it
    log_probs: the speller's logarithm of each symbol's probability, and of `<eos>` if it came
    nbest:     the other hypotheses of the utterance, from better to worse
    """

    symbols: tuple[int, ...]
    score: float
    ended: bool
    weights: Tensor | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    log_probs: tuple[float, ...] = ()
    nbest: tuple[Hypothesis, ...] = ()


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


@runtime_checkable
class Sharing(Protocol):
    """A state whose hypotheses can share what was heard of their utterance, and copy none of it."""

    def share(self, most: int, /) -> Self:
        """The same state of one hypothesis an utterance, of which there may be `most`."""
        ...

    def forget(self, kept: Tensor, /) -> Self:
        """The same hypotheses, all of utterances `kept` (U,), rising: the others are forgotten."""
        ...
