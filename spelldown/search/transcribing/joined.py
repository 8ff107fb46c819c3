"""Recordings of any length in, one result each out: cut, spelled in batches, and joined again.

The segments of all recordings go through one Transcriber, so that short files and the pieces of
long ones fill batches together. Only a few batches are read ahead.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy

from spelldown.data.frontend import SECONDS_PER_FRAME, ArraysFrontendSettings
from spelldown.data.loading.speakers import Spread
from spelldown.errors import AudioError, SpelldownError
from spelldown.search.search import GreedySettings, SearchSettings
from spelldown.search.transcribing.sound.pauses import PauseSettings, Segment, segments
from spelldown.search.transcribing.sound.streams import Recording, Samples
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import (
    ARRAYS,
    Alternative,
    Failure,
    Item,
    Transcript,
)
from spelldown.search.transcribing.words import Word

AHEAD = 3  # batches read ahead: ten minutes of speech
WHOLE = 60.0  # seconds of ready-made frames that greedy search spells to their end
LONGEST_FRAMES = (
    600.0  # seconds of ready-made frames, which are not cut, that are listened to at all
)


class Sound(Protocol):
    """What is heard as it comes, such as an open Recording or a microphone."""

    @property
    def rate(self) -> int: ...

    @property
    def incomplete(self) -> str: ...

    def blocks(self) -> Iterator[Samples]: ...


@dataclass(frozen=True)
class Source:
    """Something to transcribe: a file, or sound that is opened when its turn comes.

    name: what messages call it; channel: which to hear of a file, from 0; their mean if None
    spread: of ready-made frames, by what they are normalised; None for themselves
    """

    id: str
    sound: Path | Callable[[], AbstractContextManager[Sound]]
    name: str
    channel: int | None = None
    spread: Spread | None = None


@dataclass(frozen=True)
class SegmentHeard:
    """A stretch between two pauses, in seconds from the recording's beginning; see Transcript."""

    start: float
    end: float
    text: str
    score: float
    ended: bool
    words: tuple[Word, ...] = field(repr=False)
    parts: Mapping[str, float] = field(default_factory=dict)
    nbest: tuple[Alternative, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without its words and what is not known; times to the millisecond."""
        found = asdict(self)
        del found["words"]
        unknown = [name for name in ("parts", "nbest") if not found[name]]
        return _rounded({name: told for name, told in found.items() if name not in unknown})


@dataclass(frozen=True)
class Heard:
    """What was spelled of one input, or why nothing was (`error`, and then no text).

    score: of all segments together, see Transcript; ended: whether `<eos>` came before the
    search's limit, in all segments; seconds of sound; incomplete: what could not be read, empty
    if everything was
    """

    id: str
    text: str | None
    score: float | None = None
    ended: bool | None = None
    seconds: float | None = None
    segments: tuple[SegmentHeard, ...] = ()
    incomplete: str = ""
    error: str | None = None

    @property
    def endless(self) -> tuple[SegmentHeard, ...]:
        """Segments whose spelling did not end before the search's limit."""
        return tuple(segment for segment in self.segments if not segment.ended)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words in order, with times from the recording's beginning."""
        return tuple(word for segment in self.segments for word in segment.words)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is not known; times to the millisecond."""
        if self.error is not None:
            return {"id": self.id, "error": self.error}
        found = {name: getattr(self, name) for name in ("id", "text", "score", "ended", "seconds")}
        if self.incomplete:
            found["incomplete"] = self.incomplete
        found["words"] = [_rounded(word.as_dict()) for word in self.words]
        found["segments"] = [segment.as_dict() for segment in self.segments]
        return found

    def line(self) -> str:
        """The id and the text, with a tab between."""
        return f"{self.id}\t{self.text}"


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "start": round(found["start"], 3), "end": round(found["end"], 3)}


def heard(
    transcriber: Transcriber,
    sources: Iterable[Source],
    settings: PauseSettings,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Heard]:
    """What was spelled of each source, in their order, as they get ready.

    `progress` is told of seconds of sound that are done. What cannot be read has an `error`, or is
    `incomplete`; the rest goes on. Search is limited by seconds of speech alone where the recipe
    has such a limit: how many symbols its own sentences have says nothing about other recordings.
    """
    search = limited_by_seconds(transcriber.search, settings.longest)
    reader = _Reader(transcriber, sources, settings)
    results = transcriber.transcribe(reader.items(), times=True, pool_batches=AHEAD, search=search)
    for result in results:
        part, start, end = reader.asked.popleft()
        part.take(result, start, end)
        progress(end - part.told)
        part.told = end
        yield from reader.finished(progress)
    yield from reader.finished(progress)


def limited_by_seconds(search: SearchSettings, segment: float) -> SearchSettings:
    """The search with no limit but its own by the second, for segments of at most so many seconds.

    Frames in files are not cut into segments, and an hour of them might never end, so that there is
    a limit all the same: greedy search gets as many steps as `WHOLE` seconds; a beam, which keeps
    what each hypothesis attended to, as the longest segment.
    """
    by_second = search.longest_per_second
    if by_second is None:
        return search
    seconds = max(WHOLE, segment) if isinstance(search, GreedySettings) else segment
    longest = max(search.longest, math.ceil(by_second * seconds))
    return search.model_copy(update={"longest": longest})


class _Part:
    """One source's results so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.asked = 0  # segments that were given to the transcriber
        self.read_whole = False
        self.seconds = self.told = 0.0
        self.found: list[SegmentHeard] = []
        self.answered = 0
        self.wrong = ""

    def take(self, result: Transcript | Failure, start: float, end: float) -> None:
        """A segment's result; `end` is 0 where nobody knew before."""
        self.answered += 1
        if isinstance(result, Failure):
            error = result.error.replace(str(self.source.sound), self.source.name)
            self.wrong = self.wrong or error
            return
        end = end or start + result.seconds  # which was rounded to frames
        words = tuple(
            replace(word, start=min(word.start + start, end), end=min(word.end + start, end))
            for word in result.words or ()
        )
        self.seconds = self.seconds or end  # of arrays; of sound, its samples were counted
        self.found.append(
            SegmentHeard(
                start,
                end,
                result.text,
                result.score,
                result.ended,
                words,
                result.parts,
                result.nbest,
            )
        )

    def joined(self) -> Heard:
        if self.wrong and not self.found:
            return Heard(self.source.id, None, error=self.wrong)
        texts = [one.text for one in self.found]
        if len(texts) != 1:
            texts = [" ".join(text.strip() for text in texts if text.strip())]
        return Heard(
            self.source.id,
            texts[0],
            sum(one.score for one in self.found),
            all(one.ended for one in self.found),
            self.seconds,
            tuple(self.found),
            self.wrong,
        )


class _Reader:
    """Opens one source after the other and remembers whose segments were given out."""

    def __init__(
        self, transcriber: Transcriber, sources: Iterable[Source], settings: PauseSettings
    ) -> None:
        self.transcriber, self.sources, self.settings = transcriber, sources, settings
        frontend = transcriber.frontend.settings
        self.rate = None if isinstance(frontend, ArraysFrontendSettings) else frontend.sample_rate
        self.asked: deque[tuple[_Part, float, float]] = deque()
        self.parts: deque[_Part] = deque()

    def items(self) -> Iterator[Item]:
        for source in self.sources:
            part = _Part(source)
            self.parts.append(part)
            try:
                yield from self._items(source, part)
            except (SpelldownError, OSError) as error:
                part.wrong = str(error)
            part.read_whole = True

    def _items(self, source: Source, part: _Part) -> Iterator[Item]:
        path = source.sound
        if isinstance(path, Path):
            # Arrays come ready; a frontend of arrays says by itself that it takes nothing else.
            if self.rate is None or path.suffix.lower() in ARRAYS:
                if source.channel is not None and path.suffix.lower() in ARRAYS:
                    raise AudioError(f"{source.name}: features have no channels to choose from")
                seconds = seconds_of(path) or 0.0
                if seconds > LONGEST_FRAMES:
                    raise AudioError(
                        f"{source.name}: features of {seconds / 60:.0f} minutes. Features are not "
                        f"cut at pauses, and more than {LONGEST_FRAMES / 60:.0f} minutes are no "
                        "utterance: give the recording, or features of each sentence"
                    )
                item = Item(source.name, path, source.spread)
                yield self._asking(part, item, 0.0, seconds)
                return
            opened: AbstractContextManager[Sound] = Recording(path, source.name, source.channel)
        else:
            opened = path()
        assert self.rate is not None
        with opened as sound:
            blocks = _counted(sound, part)
            found = segments(blocks, sound.rate, self.rate, self.settings)
            for segment, item in self._normalised(source, found):
                yield self._asking(part, item, segment.start, segment.end)
            part.wrong = part.wrong or sound.incomplete

    def _normalised(
        self, source: Source, found: Iterable[Segment]
    ) -> Iterator[tuple[Segment, Item]]:
        """The segments as items, taken for one speaker's where that matters: normalised over all of
        a file, which is gone through twice, or over what was said so far if it is heard but once.
        """
        transcriber, path, spread = self.transcriber, source.sound, None
        by_speaker, twice = transcriber.frontend.by_speaker, isinstance(path, Path)
        if by_speaker and isinstance(path, Path):
            assert self.rate is not None
            with Recording(path, source.name, source.channel) as sound:
                first = segments(sound.blocks(), sound.rate, self.rate, self.settings)
                spread = transcriber.spread_of(Item(source.name, one.sound) for one in first)
        for segment in found:
            item = Item(source.name, segment.sound)
            if by_speaker and not twice:
                spread = transcriber.spread_of([item], spread)
            yield segment, replace(item, spread=spread)

    def _asking(self, part: _Part, item: Item, start: float, end: float) -> Item:
        part.asked += 1
        self.asked.append((part, start, end))
        return item

    def finished(self, progress: Callable[[float], None]) -> Iterator[Heard]:
        """The first sources' results, as long as nothing of them is still to come."""
        while self.parts and self.parts[0].read_whole:
            if self.parts[0].asked > self.parts[0].answered:
                return
            part = self.parts.popleft()
            progress(max(part.seconds - part.told, 0.0))
            yield part.joined()


def _counted(sound: Sound, part: _Part) -> Iterator[Samples]:
    samples = 0
    for block in sound.blocks():
        samples += len(block)
        part.seconds = samples / sound.rate
        yield block


def seconds_of(path: Path) -> float | None:
    """How long a file says it is, by its first bytes; None where it does not or cannot be read."""
    try:
        if path.suffix.lower() in ARRAYS:
            frames = numpy.load(path, mmap_mode="r", allow_pickle=False).shape[0]
            return float(frames * SECONDS_PER_FRAME)
        with Recording(path) as recording:
            return recording.seconds
    except (SpelldownError, OSError, ValueError, EOFError, IndexError):
        return None
