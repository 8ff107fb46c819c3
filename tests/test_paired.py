"""Means over runs, and which of two ways is better, against what is known by construction."""

import numpy
import pytest

from spelldown.search.metrics import DRAWS, Scores, score
from spelldown.search.paired import MeanScores


def noisy(rate: float, seed: int, count: int = 80) -> Scores:
    """Texts of 20 words, each wrong with probability `rate`; of one seed, the same draws."""
    random = numpy.random.default_rng(seed).random((count, 20))
    texts = [" ".join("B" if wrong else "A" for wrong in row < rate) for row in random]
    return score([" ".join("A" * 20)] * count, texts)


def test_the_mean_of_one_run_is_its_score_and_has_its_interval() -> None:
    scores = noisy(0.2, seed=1)
    one = MeanScores((scores,))
    for measure in ("distance", "cer", "wer"):
        assert one.mean(measure) == pytest.approx(getattr(scores, measure))
        assert one.interval(measure) == pytest.approx(scores.intervals[measure], rel=0.05)
    assert one.draws.shape == (DRAWS, 3)


def test_several_runs_add_their_own_spread_to_the_interval() -> None:
    alike = MeanScores(tuple(noisy(0.2, seed) for seed in (1, 2, 3)))
    apart = MeanScores(tuple(noisy(rate, seed) for seed, rate in ((1, 0.1), (2, 0.2), (3, 0.3))))
    assert alike.mean("wer") == pytest.approx(apart.mean("wer"), abs=0.02)

    def width(scores: MeanScores) -> float:
        low, high = scores.interval("wer")
        return high - low

    assert width(apart) > 3 * width(alike)


def test_a_difference_between_the_same_utterances_is_known_where_the_sides_are_not() -> None:
    worse, better = noisy(0.22, seed=4), noisy(0.20, seed=4)  # the same draws, fewer errors
    ways = MeanScores((better,)), MeanScores((worse,))
    assert ways[0].interval("wer").high > ways[1].interval("wer").low  # they overlap
    assert (ways[0].verdict(ways[1], "wer"), ways[1].verdict(ways[0], "wer")) == ("better", "worse")
    difference, (low, high) = ways[0].difference(ways[1], "wer")
    assert low < difference < high < 0
    assert difference == pytest.approx(better.wer - worse.wer)


def test_ways_that_are_as_good_are_not_told_apart() -> None:
    told = [
        MeanScores((noisy(0.2, seed, 40),)).verdict(
            MeanScores((noisy(0.2, seed + 1000, 40),)), "wer"
        )
        for seed in range(40)
    ]
    assert told.count("not known") >= 34  # 38 of 40, were intervals exact
    itself = MeanScores((noisy(0.2, 1),))
    assert itself.verdict(itself, "wer") == "not known"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="the same utterances"):
        MeanScores((noisy(0.2, 1, count=5), noisy(0.2, 1, count=6)))
    with pytest.raises(ValueError, match="at least"):
        MeanScores(())
    one, two = MeanScores((noisy(0.2, 1),)), MeanScores((noisy(0.2, 1), noisy(0.2, 2)))
    with pytest.raises(ValueError, match="as many are needed"):
        one.difference(two, "wer")
    with pytest.raises(ValueError, match="the same utterances"):
        one.difference(MeanScores((noisy(0.2, 1, count=5),)), "wer")
