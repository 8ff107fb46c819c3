"""Recordings or arrays in, texts out: what `evaluate`, `transcribe` and a server share.

Utterances are spelled in batches of similar length, yet come back in the order in which they were
asked for. So that any number can be transcribed in bounded memory, only a pool of them is held and
sorted at a time. An utterance that cannot be read becomes a Failure in its place, and the rest
goes on.
"""

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.checks import read_array
from spelldown.data.frontend import SECONDS_PER_FRAME, Frontend
from spelldown.data.loading.batch import Lengths, told
from spelldown.data.loading.speakers import Spread, spreads
from spelldown.data.recordings import read_audio
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError, SpelldownError
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.search.language.language_model import LanguageModel, load_language_model
from spelldown.search.search import BeamSettings, GreedySettings, Hypothesis, SearchSettings, search
from spelldown.search.transcribing.transcript import (
    ARRAYS,
    Alternative,
    Failure,
    Item,
    Transcript,
    Waveform,
)
from spelldown.search.transcribing.words import words_of

BATCH_FRAMES = 20_000  # padded frames a batch: 200 s of speech
BATCH_UTTERANCES = 64
POOL_BATCHES = 16  # batches' worth of utterances that are sorted by length together


@dataclass(frozen=True)
class Listened:
    """What the listener made of utterances, kept so that they can be searched again and again.

    ids of all; failures by place; frames of the others by place; batches: places, and the memory
    of them, on the recognizer's device.
    """

    ids: tuple[str, ...]
    failures: Mapping[int, Failure]
    frames: Mapping[int, int]
    batches: tuple[tuple[tuple[int, ...], Memory], ...]


class Transcriber:
    """Transcribes with a trained recognizer, on the device that it is on.

    The recognizer is put into evaluation mode each time. `batch_frames` and `batch_utterances`
    bound a batch: padded frames, utterances; an utterance longer than that is a batch by itself.
    `lengths`: what the recognizer is told of each, as it was trained (`batching.lengths`).
    """

    def __init__(
        self,
        recognizer: Recognizer,
        frontend: Frontend,
        vocabulary: Vocabulary,
        search: SearchSettings | None = None,
        precision: Precision = "auto",
        *,
        batch_frames: int = BATCH_FRAMES,
        batch_utterances: int = BATCH_UTTERANCES,
        lengths: Lengths = "real",
    ) -> None:
        self.recognizer, self.frontend, self.vocabulary = recognizer, frontend, vocabulary
        self.search, self.precision = search or GreedySettings(), precision
        self.batch_frames, self.batch_utterances = batch_frames, batch_utterances
        self.lengths: Lengths = lengths
        self.seconds_per_frame = recognizer.listener.reduction * SECONDS_PER_FRAME
        self._language_models: dict[str, LanguageModel] = {}

    def transcribe(
        self,
        items: Iterable[Item],
        keep_weights: bool = False,
        *,
        times: bool = False,
        pool_batches: int | None = None,
        search: SearchSettings | None = None,
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
            return self.frontend.finish(self._static(item), item.spread)
        except (SpelldownError, OSError, ValueError) as error:
            message = str(error)
            name = item.id if isinstance(item.source, Waveform) else str(item.source)
            named = not isinstance(item.source, Path | Waveform) or name in message
            return Failure(item.id, message if named else f"{name}: {message}")

    def by_speaker(self, items: Sequence[Item], speakers: Sequence[str | None]) -> list[Item]:
        """The items, each normalised over all that its speaker says in them, where the recognizer
        was trained so; as they are, where it was not.

        speakers: who speaks in each, None where nobody knows. Goes through all frames once more.
        """
        if not self.frontend.by_speaker:
            return list(items)
        found = spreads(speakers, lambda place: self._with_deltas(items[place]))
        return [replace(item, spread=one) for item, one in zip(items, found, strict=True)]

    def spread_of(self, items: Iterable[Item], before: Spread | None = None) -> Spread | None:
        """How the frames of all these items, and those `before`, are spread, whoever speaks; None
        if there are no frames."""
        found = before or Spread.none(self.frontend.output_width)
        for item in items:
            frames = self._with_deltas(item)
            found = found if frames is None else found.plus(frames)
        return found if found.count else None

    def _with_deltas(self, item: Item) -> Tensor | None:
        """The item's frames (T, F) as they are normalised; None where it has none."""
        try:
            return self.frontend.with_deltas(self._static(item))
        except (SpelldownError, OSError, ValueError):
            return None  # which is told when it is to be spelled

    def _static(self, item: Item) -> Tensor:
        """The item's static frames (T, width). Raises DataError for none, or none that are numbers,
        and what reading them raises."""
        static = self._read(item)
        if len(static) == 0:
            raise DataError("no frames")
        if not bool(torch.isfinite(static).all()):
            raise DataError("numbers that are not finite")
        return static

    def _read(self, item: Item) -> Tensor:
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
        search: SearchSettings | None,
    ) -> Iterator[Transcript | Failure]:
        """The results of a pool in its order, spelled in batches from long to short."""
        results: list[Any] = [found for _, found in pool]
        frames = {place: found for place, (_, found) in enumerate(pool)
                  if isinstance(found, Tensor)}  # fmt: skip
        for places in self._batches(frames):
            memory = self._listen([frames[place] for place in places])
            spelled = self._spell(memory, search or self.search, keep_weights or times)
            for place, hypothesis in zip(places, spelled, strict=True):
                done = self._transcript(pool[place][0], len(frames[place]), hypothesis)
                done = self._timed(done) if times else done
                results[place] = done if keep_weights else replace(done, weights=None)
        yield from results

    def listened(self, items: Iterable[Item]) -> Iterator[Listened]:
        """The listener's output for all items, a pool at a time, for `spelled`.

        Takes memory: of a listener 512 wide at 25 frames a second, 180 MB an hour of speech in
        float32 and half of that in bfloat16.
        """
        pool: list[tuple[str, Tensor | Failure]] = []
        held = 0
        for item in items:
            frames = self._frames(item)
            pool.append((item.id, frames))
            held += 0 if isinstance(frames, Failure) else len(frames)
            if held >= POOL_BATCHES * self.batch_frames:
                yield self._listened(pool)
                pool, held = [], 0
        if pool:
            yield self._listened(pool)

    def _listened(self, pool: Sequence[tuple[str, Tensor | Failure]]) -> Listened:
        found = dict(enumerate(frames for _, frames in pool))
        frames = {place: one for place, one in found.items() if isinstance(one, Tensor)}
        return Listened(
            tuple(id for id, _ in pool),
            {place: one for place, one in found.items() if isinstance(one, Failure)},
            {place: len(one) for place, one in frames.items()},
            tuple(
                (tuple(places), self._listen([frames[place] for place in places]))
                for places in self._batches(frames)
            ),
        )

    def spelled(
        self, listened: Listened, search: SearchSettings | None = None
    ) -> list[Transcript | Failure]:
        """What `transcribe` gives of the same utterances, without listening to them again."""
        results: dict[int, Transcript | Failure] = dict(listened.failures)
        for places, memory in listened.batches:
            spelled = self._spell(memory, search or self.search, keep_weights=False)
            for place, hypothesis in zip(places, spelled, strict=True):
                id, frames = listened.ids[place], listened.frames[place]
                results[place] = self._transcript(id, frames, hypothesis)
        return [results[place] for place in range(len(listened.ids))]

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
    def _listen(self, frames: Sequence[Tensor]) -> Memory:
        device = next(self.recognizer.parameters()).device
        self.recognizer.eval()
        lengths = torch.tensor([len(one) for one in frames], device=device)
        padded = pad_sequence(list(frames), batch_first=True).to(device)
        with autocast(device, self.precision):
            return self.recognizer.listen(padded, told(lengths, self.lengths))

    @torch.inference_mode()
    def _spell(
        self, memory: Memory, settings: SearchSettings, keep_weights: bool
    ) -> list[Hypothesis]:
        self.recognizer.eval()
        with autocast(memory.frames.device, self.precision):
            return search(
                self.recognizer,
                memory,
                settings,
                seconds_per_frame=self.seconds_per_frame,
                keep_weights=keep_weights,
                **self.language_models(settings),
            )

    def language_models(self, settings: SearchSettings) -> dict[str, LanguageModel]:
        """The language models that a search asks for, as `search` takes them; read once each.

        The speller's own with its context at the mean, too, where the recognizer knows the mean.
        Raises LanguageModelError for one that is not there, is broken or spells other symbols.
        """
        if not isinstance(settings, BeamSettings):
            return {}
        found: dict[str, LanguageModel] = {}
        asked = {"language_model": settings.lm, "rescoring_model": settings.rescore_lm}
        for name, path in asked.items():
            if path is not None:
                if path not in self._language_models:
                    self._language_models[path] = load_language_model(Path(path), self.vocabulary)
                found[name] = self._language_models[path]
        if settings.ilm == "mean" and self.recognizer.mean_context is not None:
            found["internal_model"] = self.recognizer.without_listening("mean")
        return found

    def _transcript(self, id: str, frames: int, found: Hypothesis) -> Transcript:
        letters = self.vocabulary.letters(found.symbols)
        return Transcript(
            id=id,
            text=self.vocabulary.decode(found.symbols),
            score=found.score,
            ended=found.ended,
            seconds=frames * SECONDS_PER_FRAME,
            letters=(*letters, *(["<eos>"] if found.ended else [])),
            weights=found.weights,
            seconds_per_frame=self.seconds_per_frame,
            log_probs=found.log_probs,
            parts=found.parts,
            nbest=tuple(
                Alternative(
                    self.vocabulary.decode(other.symbols), other.score, other.ended, other.parts
                )
                for other in found.nbest
            ),
        )

    def _timed(self, done: Transcript) -> Transcript:
        letters = done.letters[: len(done.letters) - done.ended]
        if done.weights is None or not letters:
            return replace(done, words=())
        words = words_of(
            letters,
            done.weights,
            done.seconds_per_frame,
            done.seconds,
            log_probs=done.log_probs,
        )
        return replace(done, words=words)


def _give_back() -> None:
    """Returns memory to the system that only lies between what is in use.

    Batches are of ever other shapes, and so leave gaps: a hundred MiB of them after an hour of
    speech. Only glibc has and needs this; elsewhere nothing is done.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
