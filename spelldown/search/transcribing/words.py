"""When each word was said, from where attention looked while its letters were spelled.

At each letter attention looks at a few of the listener's frames. Those places should travel
forwards, but a space or a silent letter may look anywhere. So the places of all letters are chosen
together: one frame a letter, never backwards, where together they are looked at most,

    p_1 <= p_2 <= ... <= p_L   with the greatest   sum_i log max(a_i(p_i), FLOOR)

by dynamic programming (the monotonic path of the DTW that Whisper takes its times from: Radford et
al. 2022, openai/whisper `timing.py`; ours need not visit every frame). With several heads, the one
whose path is looked at most counts. A letter lasts from where its attention rises above half of
what it has at its place to where it falls below, no further than its neighbours' places; a word,
from its first letter's start to its last letter's end.

The times are as good as the attention. The listener's frames are some 20 to 80 ms long, its blocks
hear a little before and after each, and nothing in training asks attention to stand on a letter
rather than beside it: expect an error of about 0.1 s, more at a word's end than at its start. From
a recognizer that has not aligned, times mean nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor

from spelldown.search.transcribing.confidence import confidence, word_stretches

FLOOR = 1e-4  # of attention: less is as good as none, so that no stray letter bends the whole path
HALF = 0.5  # share of the attention at a letter's place that still belongs to the letter

Numbers = NDArray[numpy.float64]


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds from the recording's first sample.

    confidence: how sure the speller was of it, 0 to 1 (`confidence.py`); None if nobody knows
    """

    text: str
    start: float
    end: float
    confidence: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is not known."""
        found = asdict(self)
        if self.confidence is None:
            del found["confidence"]
        return found


def words_of(
    letters: Sequence[str],
    weights: Tensor,
    seconds_per_frame: float,
    seconds: float,
    offset: float = 0.0,
    log_probs: Sequence[float] = (),
) -> tuple[Word, ...]:
    """The words of a spelling, parted by spaces, with times in order that never overlap.

    letters: the text that each symbol adds: one character, or a piece of several
    weights: attention (H, L, T'), a row for each of them at least; rows beyond (`<eos>`) count not
    seconds: the utterance's length, which no word outlasts; offset: when it begins
    log_probs: of each symbol, and of `<eos>` if it came, for the words' confidence

    A script that does not part words by spaces gives one word.
    """
    if not letters:
        return ()
    spans = letter_spans(weights[:, : len(letters)])
    stretches = word_stretches(letters)
    found = [(text, spans[first][0], spans[last][1]) for text, first, last in stretches]
    words = _in_order(found, seconds_per_frame, seconds, offset)
    if not log_probs:
        return words
    sure = (confidence(log_probs, stretch) for stretch in stretches)
    return tuple(replace(word, confidence=one) for word, one in zip(words, sure, strict=True))


def _in_order(
    found: Sequence[tuple[str, int, int]], seconds_per_frame: float, seconds: float, offset: float
) -> tuple[Word, ...]:
    """Words whose frames overlap part in the middle of what they share."""
    starts = [min(first * seconds_per_frame, seconds) for _, first, _ in found]
    ends = [min(after * seconds_per_frame, seconds) for _, _, after in found]
    for place in range(1, len(found)):
        if ends[place - 1] > starts[place]:
            middle = (ends[place - 1] + starts[place]) / 2
            middle = max(middle, starts[place - 1])
            ends[place - 1] = starts[place] = middle
            ends[place] = max(ends[place], middle)
    return tuple(
        Word(text, offset + start, offset + end)
        for (text, _, _), start, end in zip(found, starts, ends, strict=True)
    )


def letter_spans(weights: Tensor) -> list[tuple[int, int]]:
    """The frames (first, one after the last) of each letter, from attention (H, L, T')."""
    heads = weights.double().numpy()
    paths = [_path(numpy.log(numpy.maximum(head, FLOOR))) for head in heads]
    best = max(range(len(heads)), key=lambda head: paths[head][1])
    places = paths[best][0]
    last = heads.shape[2] - 1
    before = [0, *places[:-1]]
    behind = [*places[1:], last]
    return [
        _around(row, *limits)
        for row, *limits in zip(heads[best], places, before, behind, strict=True)
    ]


def _path(log_weights: Numbers) -> tuple[list[int], float]:
    """A frame for each row of (L, T'), never backwards, with the greatest sum; and that sum."""
    steps, frames = log_weights.shape
    came_from = numpy.zeros((steps, frames), numpy.int64)
    total = log_weights[0]
    every = numpy.arange(frames)
    for step in range(1, steps):
        so_far = numpy.maximum.accumulate(total)
        came_from[step] = numpy.maximum.accumulate(numpy.where(total >= so_far, every, 0))
        total = so_far + log_weights[step]
    place = int(total.argmax())
    greatest = float(total[place])
    places = [place]
    for step in range(steps - 1, 0, -1):
        place = int(came_from[step, place])
        places.append(place)
    return places[::-1], greatest


def _around(row: Numbers, place: int, before: int, behind: int) -> tuple[int, int]:
    """The frames around a letter's place in which its attention is at least HALF as high."""
    least = HALF * row[place]
    first = place
    while first > before and row[first - 1] >= least:
        first -= 1
    last = place
    while last < behind and row[last + 1] >= least:
        last += 1
    return first, last + 1
