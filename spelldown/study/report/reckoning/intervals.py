"""How sure a number is, and whether two rows of a study differ.

A row is trained with several seeds. Its value is the mean over them, and its interval that of
Student's t: with two to five runs a bootstrap over seeds would be far too narrow (of two runs it
can only draw three means), while t is right if runs scatter normally, and says honestly how little
two runs tell.

Two rows are compared by the paired bootstrap of Bisani and Ney ("Bootstrap estimates for confidence
intervals in ASR performance evaluation", ICASSP 2004): utterances are drawn with replacement, the
same ones for both rows, and the difference of the two error rates is taken in every draw. That asks
whether the difference would hold for other utterances. Whether it would hold for other seeds is
asked too, which the paper has no need to: to each draw a Student-t value is added that is as wide
as the runs of both rows scatter (Welch's degrees of freedom). With one run a row there is nothing
to reckon that from; the verdict is then about these two runs alone, and is marked so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
from numpy.typing import NDArray

from spelldown.search.metrics import DRAWS, Interval, Scores, Utterance

MEASURES = ("distance", "cer", "wer")
# Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
FEW = 10  # common utterances below which a bootstrap over them says nothing

Call = Literal["better", "worse", "not known"]


def t95(freedom: int) -> float:
    """Half the width of a 95 % interval in standard errors, to three digits; 1 or more."""
    return T95[freedom - 1] if freedom <= len(T95) else 1.96 + 2.4 / freedom


def over_seeds(values: Sequence[float]) -> Interval | None:
    """The 95 % t interval of the mean of a few runs; None for fewer than two.

    Its low end is not cut off: error rates are not negative, which whoever shows it may say.
    """
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    half = t95(count - 1) * math.sqrt(_variance(values) / count)
    return Interval(mean - half, mean + half)


def of_share(some: int, count: int) -> Interval:
    """The 95 % interval of a share of `count` runs (Wilson 1927): honest where all or none did."""
    if not count:
        return Interval(0.0, 1.0)
    z2 = 1.96**2
    share = some / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Difference:
    """A row's value less the base's, with its 95 % interval; negative is better.

    chance: share of the draws in which the row has fewer errors than the base
    seeds:  whether the scatter over seeds is in it; if not it is about these runs alone
    utterances: those that both rows spelled, by which they were compared
    """

    value: float
    low: float
    high: float
    chance: float
    seeds: bool
    utterances: int

    @property
    def call(self) -> Call:
        """Better or worse where the interval lies to one side of nothing."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not known"


def differences(
    row: Sequence[Scores], base: Sequence[Scores], draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """How a row's runs differ from the base's, by measure (distance, cer, wer); the same draws
    every time.

    Both as the scores of their runs, one for each seed. Empty if fewer than FEW utterances of the
    same id and reference were spelled by all of them.
    """
    ids = _common([*row, *base])
    if len(ids) < FEW or not row or not base:
        return {}
    ours = numpy.stack([_table(run, ids) for run in row])  # (seeds, utterances, 6)
    theirs = numpy.stack([_table(run, ids) for run in base])
    random = numpy.random.default_rng(seed)
    times = random.multinomial(len(ids), numpy.full(len(ids), 1 / len(ids)), size=draws)
    weights = times.astype(numpy.float64)
    drawn = _rates(weights @ ours.mean(0)) - _rates(weights @ theirs.mean(0))  # (draws, 3)
    mine, other = _rates(ours.sum(1)), _rates(theirs.sum(1))  # (seeds, 3)
    found = {}
    for column, measure in enumerate(MEASURES):
        error, freedom = _scatter(mine[:, column].tolist(), other[:, column].tolist())
        values = drawn[:, column]
        if freedom is not None:
            values = values + error * random.standard_t(freedom, size=draws)
        low, high = numpy.percentile(values, [2.5, 97.5])
        found[measure] = Difference(
            float(mine[:, column].mean() - other[:, column].mean()),
            float(low),
            float(high),
            float((values < 0).mean()),
            freedom is not None,
            len(ids),
        )
    return found


def _scatter(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """The standard error of the difference of two means over seeds, and its degrees of freedom.

    Where one row has a single run, the other's scatter is taken for both. None where both have.
    """
    counts = len(ours), len(theirs)
    if max(counts) == 1:
        return 0.0, None
    if min(counts) == 1:
        many = max(ours, theirs, key=len)
        shared = _variance(many)
        return math.sqrt(shared * (1 / counts[0] + 1 / counts[1])), float(len(many) - 1)
    parts = [_variance(ours) / counts[0], _variance(theirs) / counts[1]]
    total = sum(parts)
    if total == 0:
        return 0.0, 1.0
    squares = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return math.sqrt(total), total**2 / squares


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _common(runs: Sequence[Scores]) -> list[tuple[str, str]]:
    """Utterances, as (id, reference), that every run spelled, in the order of the first."""
    if not runs:
        return []
    spelled = [{(one.id, one.reference) for one in run.each} for run in runs]
    shared = set.intersection(*spelled)
    return [key for one in runs[0].each if (key := (one.id, one.reference)) in shared]


def _table(run: Scores, ids: Sequence[tuple[str, str]]) -> NDArray[numpy.float64]:
    """Edits and lengths of each utterance, in the order of MEASURES, (utterances, 6)."""
    found: Mapping[tuple[str, str], Utterance] = {(o.id, o.reference): o for o in run.each}
    return numpy.array(
        [
            (one.distance, 1, one.characters.edits, one.characters.length,
             one.words.edits, one.words.length)
            for one in (found[id] for id in ids)
        ],
        dtype=numpy.float64,
    )  # fmt: skip


def _rates(sums: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    rates: NDArray[numpy.float64] = sums[..., 0::2] / numpy.maximum(sums[..., 1::2], 1)
    return rates
