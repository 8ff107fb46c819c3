"""Utterances in batches: length buckets under a frame budget, the same again for a seed and epoch.

    Cut -> Example (frames and symbols of one utterance) -> Batch (padded, with lengths)

Everything random about an utterance comes from a generator seeded by (seed, epoch, utterance), and
everything random about the order from (seed, epoch). So any batch of any epoch can be made again
by itself, in this process or in a worker, and a resumed run needs no state from here.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lhotse import CutSet
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader

from spelldown.data.augmenting.frames import Augment
from spelldown.data.checks import text_of
from spelldown.data.frontend import Change, Frontend
from spelldown.data.loading.ahead import ahead
from spelldown.data.loading.batch import Batch, Example, Lengths
from spelldown.data.loading.buckets import (
    TRAINING_COSTS,
    VALIDATION_COSTS,
    Bounds,
    bucketed,
    classes,
    padding_share,
)
from spelldown.data.loading.examples import Examples, together
from spelldown.data.loading.mixing import Added
from spelldown.data.loading.shards import Cached
from spelldown.data.loading.speakers import Spread, speakers_of, spreads
from spelldown.data.vocabulary import EOS, SOS, Vocabulary
from spelldown.errors import AudioError, DataError, SpelldownError
from spelldown.settings import Settings

__all__ = ["Batch", "Batches", "BatchingSettings", "Bounds", "Example"]

FOUND_LATE = (
    "what only decoding finds damaged cannot be left out in the midst of training. spelldown "
    "prepare finds such recordings; data.cache: half does before training begins, and leaves them "
    "out with data.problems: leave-out"
)
Share = Callable[[int, list[int]], list[int]]
SOUND = 1  # what is drawn for an utterance's sound is drawn apart from what is for its frames


class BatchingSettings(Settings):
    """How utterances are put together. A batch closes at whichever limit comes first.

    frames: padded frames a batch, utterances times the longest; an utterance longer than that
        makes a batch of its own. `auto`: the most that fits into training.memory, found before.
    utterances: utterances a batch.
    shortest_first_epochs: so many first epochs run from the shortest batch to the longest; later
        ones in a drawn order.
    padding: share of padding to stay under; some batches are then made smaller than the limits
        allow, within reason: a training part of few utterances keeps more. 1 fills every batch.
    jitter: lengths count up to this share more or less in sorting, by chance, so that batches
        differ from epoch to epoch. It costs about as much padding.
    lengths: what the recognizer is told of each utterance: its `real` length; or `padded`, that of
        its batch, so that nothing masks padding: the seed's fault, to be studied.
    workers: processes that prepare batches; 0 prepares them in the training process.
    ahead: batches made in advance, by each worker, or by a thread where there are none; 0 makes
        each when it is asked for.
    cache_megabytes: frames kept in memory, before augmentation, so that a small corpus is read
        and analysed once (without workers only: their memory ends with the epoch).
    """

    frames: Annotated[int, Field(ge=1)] | Literal["auto"] = 12000
    utterances: int = Field(32, ge=1)
    padding: float = Field(0.03, ge=0, le=1)
    shortest_first_epochs: int = Field(0, ge=0)
    jitter: float = Field(0.005, ge=0, lt=1)
    lengths: Lengths = "real"
    workers: int = Field(0, ge=0)
    ahead: int = Field(2, ge=0)
    cache_megabytes: int = Field(512, ge=0)

    @model_validator(mode="after")
    def _workers_work_ahead(self) -> "BatchingSettings":
        if self.workers and not self.ahead:
            raise ValueError("workers make batches in advance; ahead must be 1 or more")
        return self


class Batches:
    """A part of a corpus as batches, epoch by epoch (from 1).

    In training: length buckets in a drawn order, with `augment`, and with a drawn share of each of
    the corpora `added`. Otherwise: sorted by length, unaugmented, the same in every epoch; there a
    batch's symbols leave out what cannot be spelled, and its texts do not. `cached` has the static
    frames of all utterances, the added ones behind the part's own; `pinned` batches lie in
    page-locked memory, for a GPU. Raises DataError for a part without utterances, and in training
    for one without transcripts.
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
        added: Sequence[Added] = (),
        cached: Cached | None = None,
        pinned: bool = False,
    ) -> None:
        self.settings, self.seed, self.training = settings, seed, training
        self.frontend, self.vocabulary, self.cached = frontend, vocabulary, cached
        self.augment, self.added, self.pinned = augment if training else None, tuple(added), pinned
        self._cuts = list(cuts)
        self.own = len(self._cuts)
        if not self._cuts:
            raise DataError("a part without utterances makes no batches")
        self._cuts += [cut for one in self.added for cut in one.cuts]
        self._texts = [text_of(cut) for cut in self._cuts]
        if training and None in self._texts:
            wordless = self._cuts[self._texts.index(None)].id
            raise DataError(f"utterance {wordless} has no transcript; training needs them all")
        sound = self.augment.sound if self.augment else None
        self._frames = {
            speed: np.array([frontend.count(cut, speed) for cut in self._cuts])
            for speed in {1.0, *(sound.speeds if sound else ())}
        }
        self._last_plan: tuple[int, list[list[int]]] = (0, [])
        self._kept: dict[tuple[int, float], Tensor] = {}
        self._speakers: list[str | None] = []
        self._spreads: list[Spread | None] = []
        if frontend.by_speaker:
            self._speakers = speakers_of(self._cuts[: self.own], [one.cuts for one in self.added])
        held = cached is None and not settings.workers
        self._room_left = settings.cache_megabytes * 2**20 if held else 0

    @property
    def utterances(self) -> int:
        """How many utterances there are; added ones are not all heard in every epoch."""
        return len(self._cuts)

    @property
    def hours(self) -> float:
        """Hours of speech there are, before any change of speed."""
        return float(sum(cut.duration for cut in self._cuts)) / 3600

    def hours_in(self, epoch: int) -> float:
        """Hours of speech that an epoch has, before any change of speed."""
        return float(sum(self._cuts[index].duration for index in self.heard(epoch))) / 3600

    def bounds(self) -> Bounds:
        """The longest utterance's frames and symbols, for estimates of memory."""
        symbols = max((len(text) + 2 for text in self._texts if text is not None), default=0)
        frames = int(self._frames[1.0].max())
        return Bounds(self.augment.most_frames(frames) if self.augment else frames, symbols)

    def shapes(self) -> list[tuple[int, int]]:
        """The longest utterance of every class of length (`buckets.classes`): frames, symbols."""
        most = self.augment.most_frames if self.augment else int
        frames = [most(count) for count in self._frames[1.0].tolist()]
        return classes(frames, [len(text or "") + 2 for text in self._texts])

    def hold_to(self, frames: int) -> None:
        """Makes so many frames the budget of a batch, where the settings leave it open."""
        self.settings = self.settings.model_copy(update={"frames": frames})
        self._last_plan = (0, [])

    def said(self) -> dict[str, str | None]:
        """What is said in each of the part's utterances, by id."""
        return {cut.id: text for cut, text in zip(self._cuts, self._texts, strict=True)}

    def contents(self) -> dict[str, Any]:
        """What the part holds, in its order: counts, and digests of ids, frame counts and texts.

        Recordings of noise and of rooms count among the ids.
        """
        frames = self._frames[1.0]
        sound = self.augment.sound if self.augment else None
        said = {
            "ids": [*(cut.id for cut in self._cuts), *(sound.files() if sound else ())],
            "frame counts": frames.tolist(),
            "texts": self._texts,
            **({"speakers": self._speakers} if self._speakers else {}),
        }
        digests = {name: hashlib.sha256(repr(of).encode()).hexdigest() for name, of in said.items()}
        return {"utterances": len(self._cuts), "frames": int(frames.sum()), **digests}

    def know_speakers(self) -> None:
        """Gathers how each speaker's frames are spread, where they are normalised by that: once,
        from all frames. Raises DataError for any that cannot be read."""
        if self._speakers and not self._spreads:
            self._spreads = spreads(
                self._speakers, lambda place: self.frontend.with_deltas(self._static(place))
            )

    def heard(self, epoch: int) -> NDArray[np.intp]:
        """Which utterances an epoch has, by place: all of the part's own, and those drawn."""
        heard = [np.arange(self.own)]
        starts = accumulate((len(one.cuts) for one in self.added), initial=self.own)
        for number, (one, start) in enumerate(zip(self.added, starts, strict=False)):
            heard.append(start + one.drawn(epoch, self._random(epoch, 0, 0, number)))
        return np.concatenate(heard)

    def plan(self, epoch: int) -> list[list[int]]:
        """The utterances of each batch, by place in the part; by seed and epoch alone."""
        if self._last_plan[0] != epoch:
            self._last_plan = (epoch, self._new_plan(epoch))
        return self._last_plan[1]

    def _new_plan(self, epoch: int) -> list[list[int]]:
        heard, lengths = self.heard(epoch), self._lengths(epoch)
        frames = self.settings.frames
        assert frames != "auto", "to be found first, see hold_to"
        limits = (self.settings.utterances, frames, self.settings.padding)
        if not self.training:
            order = heard[np.argsort(lengths[heard], kind="stable")]
            return bucketed(order, lengths, *limits, VALIDATION_COSTS)
        random = self._random(epoch)
        stretch = 1 + self.settings.jitter * random.uniform(-1, 1, len(heard))
        order = heard[np.argsort(lengths[heard] * stretch, kind="stable")]
        plan = bucketed(order, lengths, *limits, TRAINING_COSTS)
        if epoch > self.settings.shortest_first_epochs:
            plan = [plan[place] for place in random.permutation(len(plan))]
        return plan

    def count(self, epoch: int) -> int:
        """How many batches the epoch has."""
        return len(self.plan(epoch))

    def padding_share(self, epoch: int) -> float:
        """The share of the epoch's padded frames that are padding, 0 to 1."""
        return padding_share(self.plan(epoch), self._lengths(epoch))

    def epoch(self, epoch: int, start: int = 0, share: Share | None = None) -> Iterator[Batch]:
        """The epoch's batches from the one at `start` on, exactly as an unbroken epoch has them.

        share: takes those utterances of each batch that this process is to have (from its place in
        the epoch and its plan), where several share the work; a batch may so become empty.
        Draws nothing from torch's own random numbers. Raises DataError for an utterance that cannot
        be read after all, when its batch is due.
        """
        self.know_speakers()  # here, and not in each worker
        plan, settings = self.plan(epoch)[start:], self.settings
        if share is not None:
            plan = [share(place, batch) for place, batch in enumerate(plan, start)]
        workers = min(settings.workers, len(plan))
        made: Iterator[Batch | SpelldownError] = iter(
            DataLoader(
                Examples(partial(self.example, epoch=epoch)),
                batch_sampler=plan,
                collate_fn=partial(together, settings.lengths),
                num_workers=workers,
                prefetch_factor=settings.ahead if workers else None,
                pin_memory=self.pinned,
                generator=torch.Generator(),  # it would draw a seed from the global one
            )
        )
        try:
            for batch in made if workers or not settings.ahead else ahead(made, settings.ahead):
                if isinstance(batch, SpelldownError):
                    raise batch
                yield batch
        finally:
            del made  # workers end with it, and not when an error's traceback is forgotten

    def quicker(self) -> str:
        """What would make batches come sooner, for people."""
        sound = self.augment.sound if self.augment else None
        advice = [f"batching.workers={self.settings.workers + 1} prepares more of them beside it"]
        if self.frontend.halves and self.cached is None and not (sound and sound.alters):
            advice.insert(0, "data.cache=half makes all frames once and keeps them on disk")
        return "; ".join(advice)

    def example(self, index: int, epoch: int) -> Example:
        """The utterance at `index`, augmented as in that epoch when training."""
        self.know_speakers()
        augment, spread = self.augment, self._spreads[index] if self._spreads else None
        if augment is None or not augment.active(epoch):
            frames = self.frontend.finish(self._static(index), spread)
        else:
            random = self._random(epoch, index)
            frames = augment.perturb(self._sounding(augment, index, epoch), random)
            frames = augment.mask(self.frontend.finish(frames, spread), random)
        text, symbols = self._texts[index], None
        if text is not None:
            known = text if self.training else self.vocabulary.spellable(text)
            symbols = torch.tensor([SOS, *self.vocabulary.encode(known), EOS])
        return Example(self._cuts[index].id, frames, symbols, text)

    def _sounding(self, augment: Augment, index: int, epoch: int) -> Tensor:
        """Static frames of an utterance whose recording is changed as in that epoch."""
        sound = augment.sound
        if sound is None:
            return self._static(index)
        random = self._random(epoch, index, SOUND)
        speed = sound.speed(random)
        if not sound.alters:
            return self._static(index, speed)
        return self._decoded(index, speed, partial(sound.changed, random=random))

    def _static(self, index: int, speed: float = 1.0) -> Tensor:
        if self.cached is not None:
            return self.cached.frames(index, speed)
        if (index, speed) in self._kept:
            return self._kept[index, speed].float()
        frames = self._decoded(index, speed)
        kept = frames.half() if self.frontend.halves else frames
        if kept.nbytes <= self._room_left:
            self._room_left -= kept.nbytes
            self._kept[index, speed] = kept
        return frames

    def _decoded(self, index: int, speed: float, change: Change | None = None) -> Tensor:
        try:
            return self.frontend.static(self._cuts[index], speed, change)
        except AudioError as error:
            raise AudioError(f"{error.summary}; {FOUND_LATE}", error.problems) from error

    def _random(self, *key: int) -> Generator:
        return np.random.default_rng(SeedSequence(self.seed, spawn_key=key))

    def _lengths(self, epoch: int) -> NDArray[np.int64]:
        """Frames of every utterance as they will be in that epoch, if it is heard.

        Augmentation foretells them; a plan by the lengths before it would end with three times the
        padding.
        """
        lengths, augment = self._frames[1.0], self.augment
        if augment is None or not augment.active(epoch):
            return lengths
        sound, heard = augment.sound, self.heard(epoch).tolist()
        lengths = lengths.copy()
        if sound is not None:
            for index in heard:
                speed = sound.speed(self._random(epoch, index, SOUND))
                lengths[index] = self._frames[speed][index]
        if augment.settings.speed is not None:
            for index in heard:
                random = self._random(epoch, index)
                lengths[index] = augment.frames_after(int(lengths[index]), random)
        return lengths
