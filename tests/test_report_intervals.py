"""Intervals over seeds, the paired bootstrap against the base, and the effects of axes."""

import itertools
import math
import random
import statistics

import pytest
from made_study import spelled

from spelldown.search.metrics import Scores, score
from spelldown.study.report.reckoning.effects import ELSEWHERE, Trial, effects
from spelldown.study.report.reckoning.intervals import (
    Difference,
    differences,
    of_share,
    over_seeds,
    t95,
)


def differ(row: list[Scores], base: list[Scores]) -> Difference:
    return differences(row, base, draws=600)["cer"]


def test_the_interval_over_seeds_is_students_t() -> None:
    interval = over_seeds([9.0, 10.0, 11.0])
    assert interval is not None
    assert interval == pytest.approx((10 - 4.303 / math.sqrt(3), 10 + 4.303 / math.sqrt(3)))


def test_a_single_run_tells_nothing_of_other_seeds() -> None:
    assert over_seeds([9.0]) is None


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (30, 2.042), (31, 2.040), (60, 2.000), (120, 1.980)]
)
def test_quantiles_of_student_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert t95(freedom) == pytest.approx(quantile, abs=3e-3)


def test_an_interval_over_few_seeds_holds_the_truth_nineteen_times_of_twenty() -> None:
    chance = random.Random(1)
    for count in (2, 3, 5):
        held = 0
        for _ in range(2000):
            interval = over_seeds([chance.gauss(10, 1) for _ in range(count)])
            assert interval is not None
            held += interval.low <= 10 <= interval.high
        assert held / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_share_of_all_runs_is_not_certain() -> None:
    low, high = of_share(3, 3)
    assert low == pytest.approx(0.4385, abs=1e-3) and high == 1.0
    assert list(of_share(0, 3)) == pytest.approx([0.0, 1 - low])


def test_a_row_does_not_differ_from_itself() -> None:
    run = spelled(0.2, seed=1)
    found = differ([run], [run])
    assert (found.value, found.low, found.high, found.call) == (0, 0, 0, "not known")
    assert not found.seeds


def test_utterances_are_drawn_in_pairs() -> None:
    """A row that has one letter less wrong in each utterance is better, though by itself its
    interval is wide: some utterances are far harder than others."""
    text = "ABCDEFGHIJ" * 4
    base = score([text] * 40, ["x" * n + text[n:] for n in range(1, 41)])
    row = score([text] * 40, ["x" * n + text[n:] for n in range(40)])
    found = differ([row], [base])
    assert found.call == "better" and found.chance == 1.0
    assert found.high - found.low < 0.1 * (base.intervals["cer"].high - base.intervals["cer"].low)


def test_what_differs_between_seeds_alone_is_not_called_better() -> None:
    base = [spelled(wrong, seed) for seed, wrong in enumerate((0.1, 0.2, 0.3))]
    row = [spelled(wrong, seed) for seed, wrong in enumerate((0.05, 0.15, 0.25), 10)]
    assert differ(row[:1], base[:1]).call == "better"  # of these two runs, it is
    found = differ(row, base)
    assert found.seeds and found.call == "not known"


def test_rows_that_are_no_different_are_called_so_about_nineteen_times_of_twenty() -> None:
    chance = random.Random(2)
    wrong = iter(range(10**6))

    def runs() -> list[Scores]:
        return [spelled(abs(chance.gauss(0.2, 0.03)), next(wrong), 30) for _ in range(3)]

    calls = [differ(runs(), runs()).call for _ in range(120)]
    assert calls.count("not known") / len(calls) >= 0.9


def test_a_row_that_is_better_with_every_seed_is_called_better() -> None:
    base = [spelled(wrong, seed) for seed, wrong in enumerate((0.30, 0.31, 0.32))]
    row = [spelled(wrong, seed) for seed, wrong in enumerate((0.10, 0.11, 0.12), 10)]
    found = differ(row, base)
    assert found.call == "better" and found.low < found.value < found.high < 0
    assert differ(base, row).call == "worse"


def test_one_run_borrows_the_scatter_of_the_other_rows_seeds() -> None:
    base = [spelled(wrong, seed) for seed, wrong in enumerate((0.1, 0.2, 0.3))]
    alone = differ([spelled(0.12, 9)], base)
    assert alone.seeds and alone.high - alone.low > 0.3


def test_rows_are_compared_by_the_utterances_that_both_spelled() -> None:
    run, shorter = spelled(0.2, 1, 60), spelled(0.2, 2, 40)
    assert differences([run], [shorter])["wer"].utterances == 40
    assert differences([run], [spelled(0.2, 2, 5)]) == {}
    assert differences([run], [spelled(0.2, 2, 60, said=7)]) == {}
    assert differences([run], []) == {}


def trial(error: float, epoch: int | None = 3, seed: int = 0, **values: str) -> Trial:
    return Trial(values, error, epoch, seed)


def test_an_axis_of_a_grid_has_the_effect_that_was_put_there() -> None:
    chance = random.Random(3)
    trials = [
        trial(
            0.1 * (0.5 if kind == "location" else 1.0) * math.exp(chance.gauss(0, 0.05)),
            kind=kind,
            width=width,
            seed=seed,
        )
        for kind, width, seed in itertools.product(("dot", "location"), ("64", "128"), range(3))
    ]
    kind, width = effects(trials, {})
    location = kind.levels[1]
    assert kind.levels[0].reference and kind.levels[0].ratio is None
    assert location.ratio is not None and location.ratio.interval is not None
    assert location.ratio.value == pytest.approx(0.5, rel=0.1)
    assert location.ratio.interval.low < 0.5 < location.ratio.interval.high
    assert location.ratio.call == "fewer errors"
    assert width.levels[1].ratio is not None and width.levels[1].ratio.call == "not known"
    assert location.ratio.pairs == 6


def test_an_effect_is_the_mean_over_pairs_with_their_own_scatter() -> None:
    """Runs of other values, however they scatter, do not make it less sure, nor do seeds by which
    both runs of a pair are better or worse."""
    steps, seeds = [0.70, 0.72, 0.68], [1.0, 3.0, 0.2]
    base = [trial(0.1 * luck, seed=n, kind="dot") for n, luck in enumerate(seeds)]
    sure = [
        trial(0.1 * luck * step, seed=n, kind="location")
        for n, (luck, step) in enumerate(zip(seeds, steps, strict=True))
    ]
    wild = [trial(e, seed=n, kind="none") for n, e in enumerate((0.01, 0.9, 0.05))]
    (kind,) = effects([*base, *sure, *wild], {})
    _, location, none = (level.ratio for level in kind.levels)
    assert location is not None and location.interval is not None and none is not None
    logs = [math.log(step) for step in steps]
    half = 4.303 * statistics.stdev(logs) / math.sqrt(3)
    assert location.value == pytest.approx(math.exp(statistics.fmean(logs)))
    assert location.interval.low == pytest.approx(math.exp(statistics.fmean(logs) - half))
    assert (location.pairs, location.call, none.call) == (3, "fewer errors", "not known")


def test_where_few_runs_have_a_pair_all_are_fitted_at_once() -> None:
    drawn = [("x", "u")] * 4 + [("y", "v")] * 4 + [("x", "v")] * 4
    trials = [trial(0.1 + 0.01 * n, seed=n, a=a, b=b) for n, (a, b) in enumerate(drawn)]
    (a, _) = effects(trials, {})
    assert a.levels[1].ratio is not None and a.levels[1].ratio.pairs == 0
    assert a.levels[1].ratio.interval is not None


def test_effects_are_told_from_where_the_base_stands() -> None:
    trials = [trial(error, kind=kind) for kind in ("dot", "location") for error in (0.1, 0.11)]
    (kind,) = effects(trials, {"kind": "location"})
    assert [level.name for level in kind.levels if level.reference] == ["location"]


def test_axes_that_always_move_together_cannot_be_told_apart() -> None:
    trials = [trial(e, a=a, b=a) for a in ("x", "y") for e in (0.1, 0.12, 0.14)]
    for effect in effects(trials, {}):
        assert [level.ratio for level in effect.levels] == [None, None]


def test_a_range_has_a_slope() -> None:
    rates = [1e-4 * 2**n for n in range(8)]
    trials = [trial(0.4 * 0.8**n, rate=f"{rate:g}") for n, rate in enumerate(rates)]
    (rate,) = effects(trials, {})
    assert rate.unit == "a doubling" and rate.slope is not None
    assert rate.slope.value == pytest.approx(0.8)
    assert [level.runs for level in rate.levels] == [3, 3, 2]


def test_of_one_thing_changed_at_a_time_each_is_held_against_the_base_alone() -> None:
    base = [trial(error, seed=n) for n, error in enumerate((0.10, 0.11))]
    dot = [trial(error, None, n, kind="dot") for n, error in enumerate((0.9, 0.95))]
    without = [trial(error, seed=n, ctc="without") for n, error in enumerate((0.2, 0.21))]
    kind, ctc = effects([*base, *dot, *without], {})
    assert [level.name for level in kind.levels] == [ELSEWHERE, "dot"]
    assert kind.levels[0].runs == 2 and kind.levels[0].error == pytest.approx(0.105)
    assert (kind.levels[1].aligned, kind.levels[1].epochs) == (0, None)
    assert ctc.levels[1].ratio is not None
    assert ctc.levels[1].ratio.value == pytest.approx(0.2 / 0.1, rel=0.1)


def test_runs_without_any_error_have_effects_too() -> None:
    (kind,) = effects([trial(0.0, kind="a"), trial(0.1, kind="b")], {})
    ratio = kind.levels[1].ratio
    assert ratio is not None and math.isfinite(ratio.value) and ratio.interval is None


def test_an_axis_on_which_all_stand_alike_has_no_effect() -> None:
    assert effects([trial(0.1, kind="a"), trial(0.2, kind="a")], {}) == []


def test_made_scores_are_as_wrong_as_was_asked_for() -> None:
    rates = [spelled(0.2, seed).cer for seed in range(5)]
    assert statistics.fmean(rates) == pytest.approx(0.2, abs=0.05)
