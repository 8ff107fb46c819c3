"""Recordings, cut where nobody speaks into utterances that a recognizer can spell.

    recording -> blocks -> detector -> stretches of speech -> segments with a little room around

Every recording is listened to, however short: what is said in it does not depend on how much was
recorded around it. Only what lies between the last cut and the newest sample is held. Where nobody
pauses for `longest` seconds, the cut falls on the quietest place, and may go through a word.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy
import torch
from pydantic import Field, model_validator

from spelldown.data.recordings import WINDOW_SECONDS
from spelldown.search.transcribing.sound.activity import Detector, Flags, Kind, detector
from spelldown.search.transcribing.sound.streams import Samples, resampled
from spelldown.search.transcribing.transcript import Waveform
from spelldown.settings import Settings

BRIEFEST = 0.08  # seconds of speech below which it was a click
QUIET = 0.1  # seconds over which the quietest place is sought
SPARED = 0.5  # seconds before `longest` in which no cut falls, so that no scrap is left over


class PauseSettings(Settings):
    """Where recordings are cut."""

    kind: Kind = Field(
        "auto",
        description="what finds pauses: silero (extra `pauses`), energy, or whichever is there",
    )
    longest: float = Field(
        20.0, ge=2, description="seconds that no segment is longer than, pause or not"
    )
    pause: float = Field(0.3, ge=0.05, description="seconds without speech at which it is cut")
    room: float = Field(
        0.1,
        ge=0,
        description="seconds kept before and after the speech, for what a detector hears too late; "
        "at most half a pause",
    )

    @model_validator(mode="after")
    def _pauses_are_shorter(self) -> "PauseSettings":
        if self.pause > self.longest:
            raise ValueError(
                f"a pause of {self.pause:g} s is longer than the longest segment, "
                f"{self.longest:g} s"
            )
        return self


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording: when it begins, in seconds, and its samples."""

    start: float
    sound: Waveform

    @property
    def end(self) -> float:
        """Seconds from the recording's beginning."""
        return self.start + self.sound.samples.shape[-1] / self.sound.sample_rate


def segments(
    blocks: Iterable[Samples], rate: int, ours: int, settings: PauseSettings
) -> Iterator[Segment]:
    """The stretches of a recording in which somebody speaks, in order; they never overlap.

    They come at `ours`, the frontend's rate, with silence left out: perhaps nothing at all. A scrap
    too brief for a frame is a segment as it is, at its own `rate`, for the frontend to refuse.
    """
    coming = iter(blocks)
    head: list[Samples] = []
    held = 0
    for block in coming:
        head.append(block)
        held += len(block)
        if held >= WINDOW_SECONDS * rate:
            break
    else:
        if held:
            yield Segment(0.0, _waveform(numpy.concatenate(head), rate))
        return
    yield from _cut(resampled(_chain(head, coming), rate, ours), ours, settings)


def _chain(head: list[Samples], coming: Iterator[Samples]) -> Iterator[Samples]:
    while head:
        yield head.pop(0)
    yield from coming


def _cut(blocks: Iterator[Samples], rate: int, settings: PauseSettings) -> Iterator[Segment]:
    cutter = _Cutter(rate, settings, detector(settings.kind, rate))
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class _Cutter:
    """Takes samples, gives segments; holds what may still be needed.

    Places are counted in samples from the recording's beginning: `held` begins at `first`;
    `begun` is where the stretch in progress starts, `voiced` where its speech ended so far, and
    `free` where the segment before ended.
    """

    def __init__(self, rate: int, settings: PauseSettings, detector: Detector) -> None:
        self.rate, self.detector = rate, detector
        self.longest, self.spared = round(settings.longest * rate), round(SPARED * rate)
        self.pause = round(settings.pause * rate)
        self.room = min(round(settings.room * rate), self.pause // 2)
        self.briefest = round(BRIEFEST / detector.hop)
        self.held: list[Samples] = []
        self.first = self.free = self.voiced = self.hops = 0
        self.begun: int | None = None
        self.spoken = 0  # hops of speech in the stretch

    def push(self, block: Samples) -> Iterator[Segment]:
        if len(block):
            self.held.append(block)
            yield from self._follow(self.detector.push(block))
            self._forget()

    def finish(self) -> Iterator[Segment]:
        yield from self._follow(self.detector.finish())
        if self.begun is not None:
            yield from self._close()

    def _follow(self, flags: Flags) -> Iterator[Segment]:
        for speech in flags.tolist():
            begins, ends = self._place(self.hops), self._place(self.hops + 1)
            self.hops += 1
            if speech:
                if self.begun is None:
                    self.begun, self.spoken = max(self.free, begins - self.room), 0
                self.voiced = ends
                self.spoken += 1
            elif self.begun is not None and ends - self.voiced >= self.pause:
                yield from self._close()
            if self.begun is not None and ends - self.begun >= self.longest:
                yield self._break(self.begun)

    def _place(self, hop: int) -> int:
        return round(hop * self.detector.hop * self.rate)

    def _close(self) -> Iterator[Segment]:
        """Ends the stretch in progress, with a little room behind it."""
        assert self.begun is not None
        begun, self.begun = self.begun, None
        end = min(self.voiced + self.room, begun + self.longest)
        if self.spoken >= self.briefest:
            self.free = end
            yield self._segment(begun, end)

    def _break(self, begun: int) -> Segment:
        """Ends the stretch at the quietest place of its second half; the rest goes on."""
        from_, to = begun + self.longest // 2, begun + self.longest - self.spared
        sound = self._samples(from_, to).astype(numpy.float64)
        window = max(1, round(QUIET * self.rate))
        sums = numpy.concatenate(([0.0], numpy.cumsum(sound**2)))
        place = from_ + int(numpy.argmin(sums[window:] - sums[:-window])) + window // 2
        self.begun, self.free = place, place
        self.spoken = self.briefest  # what goes on was speech already
        if self.voiced <= place:
            self.begun = None
        return self._segment(begun, place)

    def _segment(self, start: int, end: int) -> Segment:
        samples = self._samples(start, end)
        return Segment(start / self.rate, _waveform(samples, self.rate))

    def _samples(self, start: int, end: int) -> Samples:
        held = numpy.concatenate(self.held)
        self.held = [held]
        return held[start - self.first : end - self.first]

    def _forget(self) -> None:
        """Lets go of blocks that no segment can need any more."""
        needed = self._place(self.hops) - self.room if self.begun is None else self.begun
        while self.held and self.first < needed:
            gone = min(needed - self.first, len(self.held[0]))
            self.held[0] = self.held[0][gone:]
            self.first += gone
            if not len(self.held[0]):
                self.held.pop(0)


def _waveform(samples: Samples, rate: int) -> Waveform:
    return Waveform(torch.from_numpy(samples.copy()), rate)
