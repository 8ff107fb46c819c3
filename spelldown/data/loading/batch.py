"""One utterance, ready, and several of them padded side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.vocabulary import PAD

Lengths = Literal["real", "padded"]
"""What a recognizer is told: how long each utterance is, or how long all are with their padding."""


def told(lengths: Tensor, as_told: Lengths) -> Tensor:
    """The lengths (B,) that a recognizer is told of utterances padded to the longest of them."""
    return lengths if as_told == "real" else lengths.max().expand(len(lengths)).clone()


@dataclass(frozen=True)
class Example:
    """One utterance, ready: frames (T, F) float32; symbols (L,) int64, `<sos>` to `<eos>`.

    Symbols and text are None for an utterance without a transcript.
    """

    id: str
    frames: Tensor
    symbols: Tensor | None
    text: str | None


@dataclass(frozen=True)
class Batch:
    """Utterances padded to the longest of them.

    frames (B, T, F) float32, zeros after each utterance's `lengths` (B,) int64, or sooner where
    lengths are told `padded`. symbols (B, L)
    int64: `<sos> y1 .. yn <eos> <pad> ..`; `symbol_lengths` (B,) int64 count `<sos>` and `<eos>`.
    Symbols, their lengths and texts are None unless every utterance has a transcript.
    """

    ids: tuple[str, ...]
    frames: Tensor
    lengths: Tensor
    symbols: Tensor | None
    symbol_lengths: Tensor | None
    texts: tuple[str, ...] | None

    @classmethod
    def of(cls, examples: Sequence[Example], lengths: Lengths = "real") -> Self:
        """The batch of these utterances, in their order; `lengths` as they are to be told."""
        symbols = [e.symbols for e in examples if e.symbols is not None]
        texts = tuple(e.text for e in examples if e.text is not None)
        spelled = len(symbols) == len(texts) == len(examples)
        return cls(
            ids=tuple(e.id for e in examples),
            frames=pad_sequence([e.frames for e in examples], batch_first=True),
            lengths=told(torch.tensor([len(e.frames) for e in examples]), lengths),
            symbols=pad_sequence(symbols, True, PAD) if spelled else None,
            symbol_lengths=torch.tensor([len(s) for s in symbols]) if spelled else None,
            texts=texts if spelled else None,
        )

    @classmethod
    def empty(cls) -> Self:
        """The batch of no utterances."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls((), torch.zeros(0, 0, 0), none, torch.zeros(0, 0, dtype=torch.int64), none, ())

    def to(self, device: torch.device | str) -> Self:
        """The batch on `device`; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory (DataLoader calls this where there is a GPU)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> Self:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in found.items() if isinstance(v, Tensor)})

    def __len__(self) -> int:
        return len(self.ids)
