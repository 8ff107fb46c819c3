"""Whose voice an utterance is, and how the frames of each voice are spread.

A sentence of half a second says little of the voice that speaks it: its mean is that of its few
sounds, and less that mean one letter looks much like another. The mean and the deviation over all
that a speaker says are those of the voice, the room and the microphone: per-speaker cepstral
normalisation, the custom in Kaldi's recipes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from lhotse.cut import Cut
from rich.console import Console
from rich.progress import track
from torch import Tensor

from spelldown.errors import DataError

SLOW_FROM = 2000  # utterances from which going through all frames takes long enough to be shown
PREFIX = "-"  # ends the speaker in file names such as 1089-134686-0000


@dataclass(frozen=True)
class Spread:
    """How the numbers of frames are spread, gathered frame by frame: in double precision, so that
    the order hardly matters.

    count: frames; total, squares: the sums (F,) of the numbers and of their squares
    """

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def none(cls, width: int) -> Self:
        """That of no frames, which others can be added to."""
        zeros = torch.zeros(width, dtype=torch.float64)
        return cls(0, zeros, zeros)

    def plus(self, frames: Tensor) -> "Spread":
        """With the frames (T, F) too."""
        more = frames.double()
        return Spread(
            self.count + len(more),
            self.total + more.sum(dim=0),
            self.squares + more.square().sum(dim=0),
        )

    @property
    def mean(self) -> Tensor:
        """The mean (F,), float32."""
        return (self.total / self.count).float()

    @property
    def deviation(self) -> Tensor:
        """The population's standard deviation (F,), float32."""
        centre = self.total / self.count
        return (self.squares / self.count - centre.square()).clamp_min(0).sqrt().float()


def speaker_of(cut: Cut) -> str | None:
    """Who speaks in an utterance; None where the corpus does not say, or several do."""
    speakers = {supervision.speaker for supervision in cut.supervisions}
    return speakers.pop() if len(speakers) == 1 else None


def speaker_in(name: str) -> str | None:
    """The speaker by whom a file is named, as 1089 in `1089-134686-0000`; None without a `-`."""
    speaker, dash, _ = name.partition(PREFIX)
    return speaker if dash and speaker else None


def speakers_of(own: Iterable[Cut], added: Iterable[Iterable[Cut]]) -> list[str | None]:
    """Who speaks in each utterance of a part, and of the corpora added to it: others there, though
    they may be called alike.

    Raises DataError if it is not known of a single one."""
    found = [speaker_of(cut) for cut in own]
    for number, cuts in enumerate(added):
        named = (speaker_of(cut) for cut in cuts)
        found += [None if name is None else f"{number}: {name}" for name in named]
    if not any(name is not None for name in found):
        raise DataError(
            "frontend.normalise_over: speaker, but of no utterance it is known who speaks; "
            "manifests and tables can say so, for arrays data.speaker: prefix reads it off their "
            "names, and normalise_over: utterance does without"
        )
    return found


def spreads(
    speakers: Sequence[str | None], frames: Callable[[int], Tensor | None]
) -> list[Spread | None]:
    """The spread of the speaker of each utterance, over all their utterances; None for nobody's.

    speakers: of each utterance; frames: those (T, F) of the utterance at a place, None if there are
    none. Each is asked for once. Shows its progress where there are many.
    """
    found: dict[str, Spread] = {}
    known = [place for place, speaker in enumerate(speakers) if speaker is not None]
    for place in track(
        known,
        "listening to each speaker",
        console=Console(stderr=True),
        transient=True,
        disable=len(known) < SLOW_FROM,
    ):
        more, speaker = frames(place), speakers[place]
        if more is not None and len(more) and speaker is not None:
            found[speaker] = found.get(speaker, Spread.none(more.shape[1])).plus(more)
    return [None if speaker is None else found.get(speaker) for speaker in speakers]
