"""Means over several runs, and whether one way of spelling is better than another.

Both are given 95 % percentile bootstrap intervals (Bisani and Ney 2004, as in metrics.py). A draw
takes utterances anew, the same for all runs and ways, and where there are several runs, runs too:
so an interval holds what other utterances and what other seeds would change. Three seeds are few to
draw from; such an interval is rather too short than too long. A difference is taken within each
draw, hence between the same utterances spelled by the same runs, and is far better known than
either of its sides.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy
from numpy.typing import NDArray

from spelldown.search.metrics import DRAWS, Interval, Scores

MEASURES = ("distance", "cer", "wer")
Verdict = Literal["better", "worse", "not known"]


@dataclass(frozen=True)
class MeanScores:
    """The mean measures of several runs over the same utterances.

    runs: the scores of each, one at least. Raises ValueError unless all have the same utterances.
    """

    runs: tuple[Scores, ...]

    def __post_init__(self) -> None:
        ids = [[one.id for one in scores.each] for scores in self.runs]
        if not ids or any(each != ids[0] for each in ids):
            raise ValueError("one set of scores at least, and the same utterances in all of them")

    def mean(self, measure: str) -> float:
        """The mean of a measure over the runs."""
        return float(numpy.mean([getattr(scores, measure) for scores in self.runs]))

    def interval(self, measure: str) -> Interval:
        """The 95 % interval of a measure's mean."""
        return _interval(self.draws[:, MEASURES.index(measure)])

    @cached_property
    def draws(self) -> NDArray[numpy.float64]:
        """Each draw's mean measures, (DRAWS, 3) in the order of MEASURES; the same every time."""
        table = numpy.array([_counts(scores) for scores in self.runs])  # (runs, utterances, 6)
        runs, utterances, _ = table.shape
        random = numpy.random.default_rng(0)
        times = random.multinomial(utterances, numpy.full(utterances, 1 / utterances), size=DRAWS)
        shares = numpy.ones((DRAWS, 1))
        if runs > 1:
            shares = random.multinomial(runs, numpy.full(runs, 1 / runs), size=DRAWS) / runs
        sums = numpy.einsum("du,rum->drm", times.astype(numpy.float64), table, optimize=True)
        rates = sums[..., 0::2] / numpy.maximum(sums[..., 1::2], 1)
        means: NDArray[numpy.float64] = numpy.einsum("dr,drm->dm", shares, rates)
        return means

    def difference(self, other: "MeanScores", measure: str) -> tuple[float, Interval]:
        """How much more of a measure this has than `other`, with its interval.

        Raises ValueError unless both have the same utterances and as many runs.
        """
        if len(self.runs) != len(other.runs):
            raise ValueError(f"{len(self.runs)} runs against {len(other.runs)}: as many are needed")
        if [one.id for one in self.runs[0].each] != [one.id for one in other.runs[0].each]:
            raise ValueError("the same utterances are needed on both sides")
        column = MEASURES.index(measure)
        drawn = self.draws[:, column] - other.draws[:, column]
        return self.mean(measure) - other.mean(measure), _interval(drawn)

    def verdict(self, other: "MeanScores", measure: str) -> Verdict:
        """Whether this is better than `other`: not known where the interval holds 0."""
        _, (low, high) = self.difference(other, measure)
        return "better" if high < 0 else "worse" if low > 0 else "not known"


def _interval(drawn: NDArray[numpy.float64]) -> Interval:
    low, high = numpy.percentile(drawn, [2.5, 97.5])
    return Interval(float(low), float(high))


def _counts(scores: Scores) -> list[tuple[int, ...]]:
    """Of each utterance the errors and the units of each of MEASURES."""
    return [
        (one.distance, 1, one.characters.edits, one.characters.length,
         one.words.edits, one.words.length)
        for one in scores.each
    ]  # fmt: skip
