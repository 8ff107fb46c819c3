"""Utterances in batches: length buckets under a frame budget, the same again for a seed and epoch.

    Cut -> Example (frames and symbols of one utterance) -> Batch (padded, with lengths)

Everything random about an utterance comes from a generator seeded by (seed, epoch, utterance), and
everything random about the order from (seed, epoch). So any batch of any epoch can be made again
by itself, in this process or in a worker, and a resumed run needs no state from here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from lhotse import CutSet
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from spelldown.data.augment import Augment
from spelldown.data.checks import text_of
from spelldown.data.frontend import Frontend
from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary
from spelldown.errors import DataError
from spelldown.settings import Settings

# What a further batch may cost, in frames of padding saved: the first that keeps padding low is
# taken. Batches of a few utterances make noisy steps, so training stops where validation goes on.
TRAINING_COSTS = (1200, 600, 300, 150)
VALIDATION_COSTS = (*TRAINING_COSTS, 75, 40)


class BatchingSettings(Settings):
    """How utterances are put together. A batch closes at whichever limit comes first.

    frames: padded frames a batch, utterances times the longest; an utterance longer than that
        makes a batch of its own.
    utterances: utterances a batch.
    shortest_first_epochs: so many first epochs run from the shortest batch to the longest; later
        ones in a drawn order.
    padding: share of padding to stay under; some batches are then made smaller than the limits
        allow, within reason: a training part of few utterances keeps more. 1 fills every batch.
    jitter: lengths count up to this share more or less in sorting, by chance, so that batches
        differ from epoch to epoch. It costs about as much padding.
    workers: processes that prepare batches; 0 prepares them in the training process.
    cache_megabytes: frames kept in memory, before augmentation, so that a small corpus is read
        and analysed once (without workers only: their memory ends with the epoch).
    """

    frames: int = Field(12000, ge=1)
    utterances: int = Field(32, ge=1)
    padding: float = Field(0.03, ge=0, le=1)
    shortest_first_epochs: int = Field(0, ge=0)
    jitter: float = Field(0.005, ge=0, lt=1)
    workers: int = Field(0, ge=0)
    cache_megabytes: int = Field(512, ge=0)


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

    frames (B, T, F) float32, zeros after each utterance's `lengths` (B,) int64. symbols (B, L)
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
    def of(cls, examples: Sequence[Example]) -> Self:
        """The batch of these utterances, in their order."""
        symbols = [e.symbols for e in examples if e.symbols is not None]
        texts = tuple(e.text for e in examples if e.text is not None)
        spelled = len(symbols) == len(texts) == len(examples)
        return cls(
            ids=tuple(e.id for e in examples),
            frames=pad_sequence([e.frames for e in examples], batch_first=True),
            lengths=torch.tensor([len(e.frames) for e in examples]),
            symbols=pad_sequence(symbols, True, PAD) if spelled else None,
            symbol_lengths=torch.tensor([len(s) for s in symbols]) if spelled else None,
            texts=texts if spelled else None,
        )

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


@dataclass(frozen=True)
class Bounds:
    """The longest an utterance of a part can be: frames (speed change included) and symbols.

    Symbols count `<sos>` and `<eos>`; 0 where no utterance has a transcript.
    """

    frames: int
    symbols: int


class Batches:
    """A part of a corpus as batches, epoch by epoch (from 1).

    In training: length buckets in a drawn order, with `augment`. Otherwise: sorted by length,
    unaugmented, the same in every epoch. Raises DataError for a part without utterances, and in
    training for one without transcripts.
    """

    def __init__(
        self,
        cuts: CutSet,
        frontend: Frontend,
        augment: Augment | None,
        vocabulary: Vocabulary,
        settings: BatchingSettings,
        seed: int = 0,
        training: bool = True,
    ) -> None:
        self.settings, self.seed, self.training = settings, seed, training
        self.frontend, self.vocabulary = frontend, vocabulary
        self.augment = augment if training else None
        self._cuts = list(cuts)
        if not self._cuts:
            raise DataError("a part without utterances makes no batches")
        self._texts = [text_of(cut) for cut in self._cuts]
        if training and None in self._texts:
            wordless = self._cuts[self._texts.index(None)].id
            raise DataError(f"utterance {wordless} has no transcript; training needs them all")
        self._frames = np.array([frontend.count(cut) for cut in self._cuts])
        self._last_plan: tuple[int, list[list[int]]] = (0, [])
        self._cache: dict[int, Tensor] = {}
        self._cache_left = 0 if settings.workers else settings.cache_megabytes * 2**20

    @property
    def utterances(self) -> int:
        """How many utterances an epoch has."""
        return len(self._cuts)

    @property
    def hours(self) -> float:
        """Hours of speech an epoch has, before any change of speed."""
        return float(sum(cut.duration for cut in self._cuts)) / 3600

    def bounds(self) -> Bounds:
        """The longest utterance's frames and symbols, for estimates of memory."""
        symbols = max((len(text) + 2 for text in self._texts if text is not None), default=0)
        frames = int(self._frames.max())
        return Bounds(self.augment.most_frames(frames) if self.augment else frames, symbols)

    def contents(self) -> dict[str, Any]:
        """What the part holds, in its order: counts, and digests of ids, frame counts and texts."""
        said = {
            "ids": [cut.id for cut in self._cuts],
            "frame counts": self._frames.tolist(),
            "texts": self._texts,
        }
        digests = {name: hashlib.sha256(repr(of).encode()).hexdigest() for name, of in said.items()}
        return {"utterances": len(self._cuts), "frames": int(self._frames.sum()), **digests}

    def plan(self, epoch: int) -> list[list[int]]:
        """The utterances of each batch, by place in the part; by seed and epoch alone."""
        if self._last_plan[0] != epoch:
            self._last_plan = (epoch, self._new_plan(epoch))
        return self._last_plan[1]

    def _new_plan(self, epoch: int) -> list[list[int]]:
        lengths = self._lengths(epoch)
        if not self.training:
            return self._buckets(np.argsort(lengths, kind="stable"), lengths)
        random = self._random(epoch)
        stretch = 1 + self.settings.jitter * random.uniform(-1, 1, len(lengths))
        plan = self._buckets(np.argsort(lengths * stretch, kind="stable"), lengths)
        if epoch > self.settings.shortest_first_epochs:
            plan = [plan[place] for place in random.permutation(len(plan))]
        return plan

    def count(self, epoch: int) -> int:
        """How many batches the epoch has."""
        return len(self.plan(epoch))

    def padding_share(self, epoch: int) -> float:
        """The share of the epoch's padded frames that are padding, 0 to 1."""
        return _padding_share(self.plan(epoch), self._lengths(epoch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from the one at `start` on, exactly as an unbroken epoch has them.

        Draws nothing from torch's own random numbers.
        """
        plan = self.plan(epoch)[start:]
        return iter(
            DataLoader(
                _Epoch(self, epoch),
                batch_sampler=plan,
                collate_fn=Batch.of,
                num_workers=min(self.settings.workers, len(plan)),
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # it would draw a seed from the global one
            )
        )

    def example(self, index: int, epoch: int) -> Example:
        """The utterance at `index`, augmented as in that epoch when training."""
        frames = self._static(index)
        if self.augment is None or not self.augment.active(epoch):
            frames = self.frontend.finish(frames)
        else:
            random = self._random(epoch, index)
            frames = self.frontend.finish(self.augment.perturb(frames, random))
            frames = self.augment.mask(frames, random)
        text, symbols = self._texts[index], None
        if text is not None:
            symbols = torch.tensor([SOS, *self.vocabulary.encode(text), EOS])
        return Example(self._cuts[index].id, frames, symbols, text)

    def _static(self, index: int) -> Tensor:
        if index in self._cache:
            return self._cache[index]
        frames = self.frontend.static(self._cuts[index])
        if frames.nbytes <= self._cache_left:
            self._cache_left -= frames.nbytes
            self._cache[index] = frames
        return frames

    def _random(self, *key: int) -> Generator:
        return np.random.default_rng(SeedSequence(self.seed, spawn_key=key))

    def _lengths(self, epoch: int) -> NDArray[np.int64]:
        """Frames of every utterance as they will be in that epoch.

        Augmentation foretells them; a plan by the lengths before it would end with three times the
        padding.
        """
        augment = self.augment
        if augment is None or augment.settings.speed is None or not augment.active(epoch):
            return self._frames
        return np.array(
            [
                augment.frames_after(frames, self._random(epoch, index))
                for index, frames in enumerate(self._frames.tolist())
            ]
        )

    def _buckets(self, order: NDArray[np.intp], lengths: NDArray[np.int64]) -> list[list[int]]:
        """Neighbours in `order` put together, within the limits and the wanted padding."""
        for cost in TRAINING_COSTS if self.training else VALIDATION_COSTS:
            batches = cheapest_cuts(lengths[order], self.settings, cost)
            plan = [order[start:end].tolist() for start, end in batches]
            if _padding_share(plan, lengths) <= self.settings.padding:
                break
        return plan


def cheapest_cuts(
    lengths: NDArray[np.int64], settings: BatchingSettings, cost: int
) -> list[tuple[int, int]]:
    """Where to cut a row of utterances into batches: (start, end) of each, in order.

    Of all ways within the limits, the one with the fewest padded frames when each batch counts
    `cost` frames more (dynamic programming over the place of the last cut). On AN4 with its
    speeds changed, 30 batches so cut hold 2.8 % padding; 29 filled to their limits hold 3.5 %.
    """
    count = len(lengths)
    best = np.full(count + 1, np.inf)  # of the first so many utterances
    best[0] = 0
    sizes = np.zeros(count + 1, dtype=np.int64)  # of the last batch among them
    choices = np.arange(1, settings.utterances + 1)
    for end in range(1, count + 1):
        most = min(settings.utterances, end)
        start = end - most
        # Entry k: a last batch of k + 1 utterances.
        padded = np.maximum.accumulate(lengths[start:end][::-1]) * choices[:most]
        total = best[start:end][::-1] + padded + cost
        total[1:][padded[1:] > settings.frames] = np.inf
        sizes[end] = 1 + (size := int(total.argmin()))
        best[end] = total[size]
    cuts: list[tuple[int, int]] = []
    while count:
        cuts.append((count - int(sizes[count]), count))
        count -= int(sizes[count])
    return cuts[::-1]


def _padding_share(plan: list[list[int]], lengths: NDArray[np.int64]) -> float:
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in plan)
    return 1 - int(lengths.sum()) / padded


class _Epoch(Dataset[Example]):
    """One epoch's utterances, as DataLoader wants them."""

    def __init__(self, batches: Batches, epoch: int) -> None:
        self.batches, self.epoch = batches, epoch

    def __getitem__(self, index: int) -> Example:
        return self.batches.example(index, self.epoch)
