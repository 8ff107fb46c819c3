"""Sentences in batches, for models that read and hear nothing: the same again for a seed and epoch.

A batch is the one that recognizers train on, with frames of no width: one for each symbol, so that
whatever is reckoned by frames (budgets, speeds, what fits into memory) is reckoned by symbols.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import SeedSequence
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.loading.batch import Batch
from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.errors import DataError
from spelldown.settings import Settings


class TextBatchingSettings(Settings):
    """How sentences are put together. A batch closes at whichever limit comes first."""

    symbols: int = Field(8192, ge=1)
    """Padded symbols a batch, sentences times the longest."""
    sentences: int = Field(32, ge=1, description="sentences a batch")
    longest: int = Field(1000, ge=2)
    """Longer sentences are cut into pieces of so many symbols; only the last ends with <eos>."""
    jitter: float = Field(0.1, ge=0, lt=1)
    """Lengths count up to this share more or less in sorting, by chance, so that batches differ
    from epoch to epoch."""


class TextBatches:
    """Sentences as batches, epoch by epoch (from 1).

    sentences: the symbols of each, without <sos> and <eos>; kept in two bytes a symbol. In training
    batches come in a drawn order, and otherwise sorted by length, the same in every epoch. Raises
    DataError if there are none; empty ones do not count.
    """

    def __init__(
        self,
        sentences: Iterable[Sequence[int]],
        settings: TextBatchingSettings,
        seed: int = 0,
        training: bool = True,
    ) -> None:
        self.settings, self.seed, self.training = settings, seed, training
        symbols, lengths = array("H"), array("q")
        for sentence in sentences:
            if sentence:
                _lay_down(sentence, settings.longest, symbols, lengths)
        if not lengths:
            raise DataError("no sentence to learn from: all texts are empty")
        self._symbols = np.frombuffer(symbols, np.uint16)
        self._lengths = np.frombuffer(lengths, np.int64)  # <sos> and, at its end, <eos> included
        self._ends = self._lengths.cumsum()
        self._last_plan: tuple[int, list[NDArray[np.intp]]] = (0, [])

    @property
    def utterances(self) -> int:
        """How many sentences there are; one that was cut counts as often as it has pieces."""
        return len(self._lengths)

    @property
    def symbols(self) -> int:
        """How many symbols are to be foretold in an epoch, <eos> included."""
        return len(self._symbols) - len(self._lengths)

    def contents(self) -> dict[str, Any]:
        """What there is, in its order: counts and digests, as a corpus' part has them."""
        said: dict[str, NDArray[Any]] = {"lengths": self._lengths, "texts": self._symbols}
        digests = {name: hashlib.sha256(of.tobytes()).hexdigest() for name, of in said.items()}
        return {"sentences": self.utterances, "symbols": len(self._symbols), **digests}

    def plan(self, epoch: int) -> list[NDArray[np.intp]]:
        """The sentences of each batch, by place; by seed and epoch alone."""
        if self._last_plan[0] != epoch:
            self._last_plan = (epoch, self._new_plan(epoch))
        return self._last_plan[1]

    def _new_plan(self, epoch: int) -> list[NDArray[np.intp]]:
        lengths = self._lengths.astype(np.float64)
        random = np.random.default_rng(SeedSequence(self.seed, spawn_key=(epoch,)))
        if self.training:
            lengths *= 1 + self.settings.jitter * random.uniform(-1, 1, len(lengths))
        order = np.argsort(lengths, kind="stable")
        plan = list(self._filled(order))
        return [plan[place] for place in random.permutation(len(plan))] if self.training else plan

    def _filled(self, order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Neighbours put together until a limit is reached; at least one a batch."""
        start, sizes = 0, np.arange(1, self.settings.sentences + 1)
        while start < len(order):
            longest = np.maximum.accumulate(
                self._lengths[order[start : start + self.settings.sentences]]
            )
            fits = int((longest * sizes[: len(longest)] <= self.settings.symbols).sum())
            yield order[start : start + max(1, fits)]
            start += max(1, fits)

    def count(self, epoch: int) -> int:
        """How many batches the epoch has."""
        return len(self.plan(epoch))

    def padding_share(self, epoch: int) -> float:
        """The share of the epoch's padded symbols that are padding, 0 to 1."""
        padded = sum(int(self._lengths[batch].max()) * len(batch) for batch in self.plan(epoch))
        return 1 - len(self._symbols) / padded

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from the one at `start` on, exactly as an unbroken epoch has them."""
        for places in self.plan(epoch)[start:]:
            symbols = [self._sentence(place) for place in places.tolist()]
            lengths = torch.tensor([len(one) for one in symbols])
            padded = pad_sequence(symbols, batch_first=True, padding_value=PAD)
            yield Batch(
                ids=tuple(f"sentence {place + 1}" for place in places.tolist()),
                frames=torch.empty(*padded.shape, 0),
                lengths=lengths,
                symbols=padded,
                symbol_lengths=lengths,
                texts=None,
            )

    def _sentence(self, place: int) -> Tensor:
        end = int(self._ends[place])
        return torch.from_numpy(
            self._symbols[end - int(self._lengths[place]) : end].astype(np.int64)
        )

    def quicker(self) -> str:
        """What would make batches come sooner, for people."""
        return "the machine is busy with something else"


def _lay_down(sentence: Sequence[int], longest: int, symbols: Any, lengths: Any) -> None:
    """Adds a sentence, in pieces if it is longer than `longest`."""
    for start in range(0, len(sentence), longest):
        piece = sentence[start : start + longest]
        ends = start + longest >= len(sentence)
        symbols.append(SOS)
        symbols.extend(piece)
        if ends:
            symbols.append(EOS)
        lengths.append(len(piece) + 1 + ends)
