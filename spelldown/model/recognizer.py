"""The recognizer: listen, attend and spell (Chan et al. 2016), with an auxiliary CTC head.

The CTC head (Graves et al. 2006) reads letters off the listener's output without the speller. It
gives the listener a gradient before attention has found its way (Kim et al. 2017); <pad> is its
blank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.listening.listener import Listener, ListenerSettings
from spelldown.model.precision import exact
from spelldown.model.spelling.attention import AttentionSettings
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.model.spelling.speller import Feedback, Speller, SpellerSettings, SpellerState
from spelldown.settings import Settings

BLANK = 0  # <pad>, which no transcript contains


class CTCSettings(Settings):
    """The auxiliary head on the listener."""

    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the projection")


@dataclass(frozen=True)
class Memory:
    """What the listener heard: frames (B, T, D), zero beyond lengths (B,)."""

    frames: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Spelled:
    """What the recognizer makes of frames and a reference (B, L).

    logits (B, L-1, V): the i-th predicts symbols[:, i+1]. weights (B, H, L-1, T): attention,
    without gradient. fed (B, L-1): the symbols that were fed back. memory_lengths (B,).
    ctc_logits (B, T, V), or None without a CTC head.
    """

    logits: Tensor
    weights: Tensor
    fed: Tensor
    memory_lengths: Tensor
    ctc_logits: Tensor | None


class Recognizer(nn.Module):
    """A listener, a speller that attends to it, and perhaps a CTC head."""

    def __init__(
        self,
        listener: ListenerSettings,
        attention: AttentionSettings,
        speller: SpellerSettings,
        ctc: CTCSettings | None,
        *,
        input_width: int,
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.listener = Listener(listener, input_width)
        self.speller = Speller(speller, attention, self.listener.output_width, vocabulary)
        self.ctc = None if ctc is None else nn.Linear(self.listener.output_width, vocabulary)
        self.ctc_dropout = 0.0 if ctc is None else ctc.dropout
        self.vocabulary, self.heads = vocabulary, attention.heads
        self.mean_context: Tensor | None  # (C,), of `without_listening`; no part of a checkpoint
        self.register_buffer("mean_context", None, persistent=False)

    def listen(self, frames: Tensor, lengths: Tensor) -> Memory:
        """The listener's output for frames (B, T, F) with lengths (B,)."""
        return Memory(*self.listener(frames, lengths))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """How many of the listener's frames come of so many frames each, (B,)."""
        return self.listener.output_lengths(lengths)

    def without_listening(
        self, kind: Literal["zero", "mean"], mean: Tensor | None = None
    ) -> CharacterModel:
        """The internal language model: what the speller writes when it hears nothing.

        Asked like any language model, by `start(rows)` and `step`. kind: the context is zero, or
        its `mean` (C,) over training, after the first input (`spelling.character_model`); without
        one that is told, `mean_context`. Raises ValueError where there is none.
        """
        if kind == "mean":
            mean = self.mean_context if mean is None else mean
            if mean is None:
                raise ValueError("the mean context is not known: set recognizer.mean_context")
            mean = mean.to(self.speller.embedding.weight)
        return CharacterModel.of(self.speller, kind, mean).train(self.training)

    def start(self, memory: Memory) -> SpellerState:
        """The speller's state before the first symbol."""
        return self.speller.start(memory.frames, memory.lengths)

    def step(self, symbols: Tensor, state: SpellerState) -> tuple[Tensor, SpellerState]:
        """Log-probabilities (B, V) of what follows `symbols` (B,), and the state after them."""
        return self.speller.step(symbols, state)

    def ctc_logits(self, memory: Memory) -> Tensor | None:
        """The CTC head's logits (B, T, V); None without a head."""
        if self.ctc is None:
            return None
        frames = functional.dropout(memory.frames, self.ctc_dropout, self.training)
        logits: Tensor = self.ctc(frames)
        return logits

    def forward(
        self, frames: Tensor, lengths: Tensor, symbols: Tensor, feedback: Feedback | None = None
    ) -> Spelled:
        """Listen to frames (B, T, F), and spell along the reference symbols (B, L) from <sos>."""
        memory = self.listen(frames, lengths)
        logits, weights, fed = self.speller(
            memory.frames, memory.lengths, symbols, feedback or Feedback()
        )
        ctc = self.ctc_logits(memory)
        return Spelled(
            exact(logits), weights, fed, memory.lengths, None if ctc is None else exact(ctc)
        )
