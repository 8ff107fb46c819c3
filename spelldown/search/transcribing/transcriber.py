"""Recordings or arrays in, texts out: what `evaluate`, `transcribe` and a server share.

Utterances are spelled in batches of similar length, yet come back in the order in which they were
asked for. So that any number can be transcribed in bounded memory, only a pool of them is held and
sorted at a time. An utterance that cannot be read becomes a Failure in its place, and the rest
goes on.
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.checks import read_array
from spelldown.data.frontend import SECONDS_PER_FRAME, Frontend
from spelldown.data.recordings import read_audio
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError, SpelldownError
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Recognizer
from spelldown.search.search import GreedySettings, Hypothesis, greedy
from spelldown.search.transcribing.words import Word, words_of

BATCH_FRAMES = 20_000  # padded frames a batch: 200 s of speech
BATCH_UTTERANCES = 64
POOL_BATCHES = 16  # batches' worth of utterances that are sorted by length together

ARRAYS = (".npy",)  # endings of files with features; all others are taken for audio


@dataclass(frozen=True)
class Waveform:
    """Samples in memory: (N,) or (channels, N), float in [-1, 1], at `sample_rate` Hz."""

    samples: Tensor
    sample_rate: int


@dataclass(frozen=True)
class Item:
    """An utterance to transcribe.

    source: a file (`.npy` with static frames (T, width), else audio), a lhotse cut, samples, or
            static frames (T, width) in memory: as the frontend takes them, before deltas
    """

    id: str
    source: Path | Cut | Waveform | Tensor


@dataclass(frozen=True)
class Transcript:
    """What an utterance was spelled as.

    score:   natural logarithm of the probability of the spelling; see Hypothesis
    ended:   whether the speller ended it by itself
    seconds: how long the utterance is
    letters: the text that each symbol adds, with `<eos>` if it came
    weights: attention (H, L, T') on the CPU, a row for each of the L letters; None if not kept
    seconds_per_frame: of the listener's frames, T' in `weights`
    words:   when each word was said, from the attention; None if not asked for
    """

    id: str
    text: str
    score: float
    ended: bool
    seconds: float
    letters: tuple[str, ...]
    weights: Tensor | None
    seconds_per_frame: float
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be transcribed, and why."""

    id: str
    error: str


def named(id: str, error: str) -> str:
    """What went wrong, with the id before it unless it begins so: ids may be whole paths."""
    return error if error.startswith(f"{id}: ") else f"{id}: {error}"


class Transcriber:
    """Transcribes with a trained recognizer, on the device that it is on.

    The recognizer is put into evaluation mode each time. `batch_frames` and `batch_utterances`
    bound a batch: padded frames, utterances; an utterance longer than that is a batch by itself.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        frontend: Frontend,
        vocabulary: Vocabulary,
        search: GreedySettings | None = None,
        precision: Precision = "auto",
        *,
        batch_frames: int = BATCH_FRAMES,
        batch_utterances: int = BATCH_UTTERANCES,
    ) -> None:
        self.recognizer, self.frontend, self.vocabulary = recognizer, frontend, vocabulary
        self.search, self.precision = search or GreedySettings(), precision
        self.batch_frames, self.batch_utterances = batch_frames, batch_utterances
        self.seconds_per_frame = recognizer.listener.reduction * SECONDS_PER_FRAME

    def transcribe(
        self,
        items: Iterable[Item],
        keep_weights: bool = False,
        *,
        times: bool = False,
        pool_batches: int | None = None,
        search: GreedySettings | None = None,
    ) -> Iterator[Transcript | Failure]:
        """One Transcript or Failure for each item, in the items' order, as they get ready.

        Reads `items` a pool of `pool_batches` ahead (POOL_BATCHES): more of them waste less on
        padding, fewer hold less in memory and give results sooner. keep_weights: keep the
        attention, for pictures. times: say when each word was said. search: instead of its own.
        """
        most = (pool_batches or POOL_BATCHES) * self.batch_frames
        pool: list[tuple[str, Tensor | Failure]] = []
        held = 0
        for item in items:
            frames = self._frames(item)
            pool.append((item.id, frames))
            held += 0 if isinstance(frames, Failure) else len(frames)
            if held >= most:
                yield from self._pool(pool, keep_weights, times, search)
                pool, held = [], 0
                _give_back()
        yield from self._pool(pool, keep_weights, times, search)

    def _frames(self, item: Item) -> Tensor | Failure:
        """The item's finished frames (T, F), or why there are none."""
        try:
            static = self._static(item)
            if len(static) == 0:
                raise DataError("no frames")
            if not bool(torch.isfinite(static).all()):
                raise DataError("numbers that are not finite")
            return self.frontend.finish(static)
        except (SpelldownError, OSError, ValueError) as error:
            message = str(error)
            name = item.id if isinstance(item.source, Waveform) else str(item.source)
            named = not isinstance(item.source, Path | Waveform) or name in message
            return Failure(item.id, message if named else f"{name}: {message}")

    def _static(self, item: Item) -> Tensor:
        source = item.source
        if isinstance(source, Waveform):
            return self.frontend.of_samples(source.samples, source.sample_rate, name=item.id)
        if isinstance(source, Tensor):
            return self._fitting(source)
        if not isinstance(source, Path):
            return self.frontend.static(source)
        if source.suffix.lower() not in ARRAYS:
            samples, rate = read_audio(source)
            return self.frontend.of_samples(samples, rate, name=str(source))
        array = read_array(source)
        if array.dtype.kind not in "fiu":
            raise DataError(f"numbers of type {array.dtype}; floating point expected")
        with numpy.errstate(over="ignore"):  # infinities are told of, by name
            array = array.astype(numpy.float32)
        return self._fitting(torch.from_numpy(array))

    def _fitting(self, frames: Tensor) -> Tensor:
        """Ready-made static frames as float32. Raises DataError if they are not (T, width)."""
        width = self.frontend.width
        if frames.dim() != 2 or frames.shape[1] != width:
            raise DataError(f"shape {tuple(frames.shape)}; (frames, {width}) expected")
        return frames.float()

    def _pool(
        self,
        pool: Sequence[tuple[str, Tensor | Failure]],
        keep_weights: bool,
        times: bool,
        search: GreedySettings | None,
    ) -> Iterator[Transcript | Failure]:
        """The results of a pool in its order, spelled in batches from long to short."""
        results: list[Any] = [found for _, found in pool]
        frames = {place: found for place, (_, found) in enumerate(pool)
                  if isinstance(found, Tensor)}  # fmt: skip
        for places in self._batches(frames):
            inputs = [frames[place] for place in places]
            spelled = self._spell(inputs, search or self.search, keep_weights or times)
            for place, hypothesis in zip(places, spelled, strict=True):
                done = self._transcript(pool[place][0], frames[place], hypothesis)
                done = self._timed(done) if times else done
                results[place] = done if keep_weights else replace(done, weights=None)
        yield from results

    def _batches(self, frames: dict[int, Tensor]) -> list[list[int]]:
        """Places grouped by similar length within both limits, the longest first."""
        batches: list[list[int]] = []
        longest = 0
        for place in sorted(frames, key=lambda place: -len(frames[place])):
            room = batches and len(batches[-1]) < self.batch_utterances
            if not room or (len(batches[-1]) + 1) * longest > self.batch_frames:
                batches.append([])
                longest = len(frames[place])
            batches[-1].append(place)
        return batches

    @torch.inference_mode()
    def _spell(
        self, frames: Sequence[Tensor], search: GreedySettings, keep_weights: bool
    ) -> list[Hypothesis]:
        device = next(self.recognizer.parameters()).device
        self.recognizer.eval()
        lengths = torch.tensor([len(one) for one in frames], device=device)
        padded = pad_sequence(list(frames), batch_first=True).to(device)
        with autocast(device, self.precision):
            memory = self.recognizer.listen(padded, lengths)
            return greedy(
                self.recognizer,
                memory,
                search,
                seconds_per_frame=self.seconds_per_frame,
                keep_weights=keep_weights,
            )

    def _transcript(self, id: str, frames: Tensor, found: Hypothesis) -> Transcript:
        letters = self.vocabulary.letters(found.symbols)
        return Transcript(
            id=id,
            text=self.vocabulary.decode(found.symbols),
            score=found.score,
            ended=found.ended,
            seconds=len(frames) * SECONDS_PER_FRAME,
            letters=(*letters, *(["<eos>"] if found.ended else [])),
            weights=found.weights,
            seconds_per_frame=self.seconds_per_frame,
        )

    def _timed(self, done: Transcript) -> Transcript:
        letters = done.letters[: len(done.letters) - done.ended]
        if done.weights is None or not letters:
            return replace(done, words=())
        words = words_of(letters, done.weights, done.seconds_per_frame, done.seconds)
        return replace(done, words=words)


def _give_back() -> None:
    """Returns memory to the system that only lies between what is in use.

    Batches are of ever other shapes, and so leave gaps: a hundred MiB of them after an hour of
    speech. Only glibc has and needs this; elsewhere nothing is done.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
