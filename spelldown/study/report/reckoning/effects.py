"""What each axis of a study does to the errors, all other axes being equal.

Runs that differ in one axis alone, all others and the seed being the same, are pairs: a value's
effect is the mean of its pairs' steps in the logarithm of the error rate, and its 95 % interval is
Student's t over these steps. So each value has the scatter of its own pairs; one at which attention
aligns by luck does not blur the others.

Where values were drawn, there are no such pairs. A line is then fitted to the logarithms of all
runs at once (ordinary least squares): a constant, and for each axis a step for each of its values
or, for numbers from a range, a slope: what is left when the other axes are accounted for. The
intervals of a fit are Student's t, too, but of one scatter that all runs share.

Effects are ratios: a run that did not align has a hundred times the errors of one that did, and
would drown any mean of differences. That two axes may work on each other is not looked for: it is
part of the scatter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from spelldown.search.metrics import Interval
from spelldown.study.report.reckoning.intervals import of_share, over_seeds, t95

MOST_LEVELS = 6  # different numbers of an axis up to which each is a level of its own
BINS = 3  # levels that more are shown in
ELSEWHERE = "as the base"  # the level of a run that says nothing of an axis
LEAST = 1e-4  # error rate that a perfect run counts as: there is no logarithm of nothing
WIDE = 10.0  # largest by smallest number from which a slope is reckoned for every doubling


@dataclass(frozen=True)
class Trial:
    """One run that was measured: where it stands on each axis, by the values' labels, and what came
    of it.

    aligned_epoch: when attention had aligned; None if it never did. seed: of the run, by which runs
    are paired
    """

    values: Mapping[str, str]
    error: float
    aligned_epoch: int | None
    seed: int = 0


@dataclass(frozen=True)
class Ratio:
    """By how much the error is multiplied, with its 95 % interval; 1 is no effect.

    The interval is None where there are no more runs than numbers to find. pairs: of runs, that it
    is the mean of; 0 for one that was fitted to all runs at once.
    """

    value: float
    interval: Interval | None
    pairs: int = 0

    @property
    def call(self) -> str:
        """fewer or more errors, or not known."""
        if self.interval is None or self.interval.low <= 1 <= self.interval.high:
            return "not known"
        return "fewer errors" if self.value < 1 else "more errors"


@dataclass(frozen=True)
class Level:
    """What came of the runs at one value of an axis.

    aligned: how many of the `runs`, share: with its interval; epochs: the median until aligned;
    error: the mean, with its t interval; ratio: against the reference level, None for that level
    itself and where the runs cannot tell
    """

    name: str
    runs: int
    aligned: int
    share: Interval
    epochs: float | None
    error: float
    interval: Interval | None
    ratio: Ratio | None
    reference: bool


@dataclass(frozen=True)
class Effect:
    """What an axis does: level by level and, for numbers from a range, its slope.

    unit: what the slope is for, as "a doubling"
    """

    axis: str
    levels: tuple[Level, ...]
    slope: Ratio | None = None
    unit: str = ""


@dataclass(frozen=True)
class _Column:
    """One column of the fit: 1 where a run is at a level, or a number."""

    axis: str
    level: str | None
    values: NDArray[numpy.float64]


def effects(trials: Sequence[Trial], base: Mapping[str, str]) -> list[Effect]:
    """The effect of each axis that any two trials differ in.

    base: where the base recipe stands on each axis, if anywhere: the reference levels. Else an
    axis' first value is its reference.
    """
    axes = list(dict.fromkeys(axis for trial in trials for axis in trial.values))
    axes = [axis for axis in axes if len({t.values.get(axis, ELSEWHERE) for t in trials}) > 1]
    references = {axis: _reference(axis, trials, base) for axis in axes}
    apart = [_apart(trial, references) for trial in trials]
    lone = max(map(len, apart), default=0) <= 1
    columns = [c for axis in axes for c in _columns(axis, trials, references[axis])]
    if not columns:
        return []
    told = {**_fit(columns, trials), **_paired(columns, trials, references)}
    found = []
    for axis in axes:
        # Where one thing is changed at a time, what else was changed is no news of this axis.
        shown = [t for t, others in zip(trials, apart, strict=True) if others <= {axis} or not lone]
        found.append(_effect(axis, shown, references[axis], told))
    return found


def _apart(trial: Trial, references: Mapping[str, str]) -> set[str]:
    """The axes on which a run does not stand where it is compared from."""
    return {a for a, level in references.items() if trial.values.get(a, ELSEWHERE) != level}


def _reference(axis: str, trials: Sequence[Trial], base: Mapping[str, str]) -> str:
    there = [trial.values.get(axis, ELSEWHERE) for trial in trials]
    wanted = base.get(axis)
    return wanted if wanted is not None and wanted in there else there[0]


def _numbers(axis: str, trials: Sequence[Trial]) -> list[float] | None:
    """An axis' numbers, if it has more of them than can be levels."""
    try:
        numbers = [float(trial.values[axis]) for trial in trials]
    except (KeyError, ValueError):
        return None
    finite = all(math.isfinite(number) for number in numbers)
    return numbers if finite and len(set(numbers)) > MOST_LEVELS else None


def _doubling(numbers: Sequence[float]) -> bool:
    return min(numbers) > 0 and max(numbers) / min(numbers) >= WIDE


def _columns(axis: str, trials: Sequence[Trial], reference: str) -> list[_Column]:
    numbers = _numbers(axis, trials)
    if numbers is not None:
        scaled = numpy.log2(numbers) if _doubling(numbers) else numpy.array(numbers)
        return [_Column(axis, None, scaled)]
    keys = [trial.values.get(axis, ELSEWHERE) for trial in trials]
    return [
        _Column(axis, level, numpy.array([float(key == level) for key in keys]))
        for level in dict.fromkeys(keys)
        if level != reference
    ]


def _fit(
    columns: Sequence[_Column], trials: Sequence[Trial]
) -> dict[tuple[str, str | None], Ratio]:
    """The ratio that each column stands for; without those that the runs cannot tell apart."""
    table = numpy.stack([numpy.ones(len(trials)), *(c.values for c in columns)], axis=1)
    logs = numpy.log([max(trial.error, LEAST) for trial in trials])
    solution, _, rank, _ = numpy.linalg.lstsq(table, logs, rcond=None)
    residual = logs - table @ solution
    freedom = len(trials) - int(rank)
    spread = numpy.linalg.pinv(table.T @ table)
    found: dict[tuple[str, str | None], Ratio] = {}
    for place, column in enumerate(columns, 1):
        if numpy.linalg.matrix_rank(numpy.delete(table, place, axis=1)) == rank:
            continue  # another axis always moves with it
        step = float(solution[place])
        interval = None
        if freedom > 0:
            variance = float(residual @ residual) / freedom * float(spread[place, place])
            half = t95(freedom) * math.sqrt(max(variance, 0.0))
            interval = Interval(_exp(step - half), _exp(step + half))
        found[column.axis, column.level] = Ratio(_exp(step), interval)
    return found


def _paired(
    columns: Sequence[_Column], trials: Sequence[Trial], references: Mapping[str, str]
) -> dict[tuple[str, str | None], Ratio]:
    """The ratios of values that at least half of the runs with that value have a pair for, which
    has the reference's value and is alike in all else; two pairs at least."""
    found: dict[tuple[str, str | None], Ratio] = {}
    for axis in dict.fromkeys(column.axis for column in columns if column.level is not None):
        alike: dict[tuple[object, ...], dict[str, list[float]]] = {}
        for trial in trials:
            others = (trial.values.get(a, ELSEWHERE) for a in references if a != axis)
            there = alike.setdefault((trial.seed, *others), {})
            logs = there.setdefault(trial.values.get(axis, ELSEWHERE), [])
            logs.append(math.log(max(trial.error, LEAST)))
        reference = references[axis]
        for level in {name for group in alike.values() for name in group} - {reference}:
            groups = [group for group in alike.values() if level in group]
            pairs = [group for group in groups if reference in group]
            steps = [_mean(group[level]) - _mean(group[reference]) for group in pairs]
            interval = over_seeds(steps)
            if interval is not None and 2 * len(pairs) >= len(groups):
                ends = Interval(_exp(interval.low), _exp(interval.high))
                found[axis, level] = Ratio(_exp(_mean(steps)), ends, len(steps))
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _exp(value: float) -> float:
    return math.exp(min(max(value, -50.0), 50.0))


def _effect(
    axis: str,
    trials: Sequence[Trial],
    reference: str,
    told: Mapping[tuple[str, str | None], Ratio],
) -> Effect:
    numbers = _numbers(axis, trials)
    if numbers is not None:
        levels = tuple(_level(name, group, None, False) for name, group in _bins(numbers, trials))
        unit = "a doubling" if _doubling(numbers) else "1 more"
        return Effect(axis, levels, told.get((axis, None)), unit)
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.values.get(axis, ELSEWHERE), []).append(trial)
    levels = tuple(
        _level(name, group, told.get((axis, name)), name == reference)
        for name, group in groups.items()
    )
    return Effect(axis, levels)


def _bins(numbers: Sequence[float], trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """The trials in BINS parts of as many each, from the lowest number to the highest."""
    order = sorted(range(len(numbers)), key=lambda place: numbers[place])
    found = []
    for part in numpy.array_split(numpy.array(order), BINS):
        low, high = numbers[int(part[0])], numbers[int(part[-1])]
        found.append((f"{low:.3g} to {high:.3g}", [trials[int(place)] for place in part]))
    return found


def _level(name: str, group: Sequence[Trial], ratio: Ratio | None, reference: bool) -> Level:
    epochs = sorted(t.aligned_epoch for t in group if t.aligned_epoch is not None)
    errors = [trial.error for trial in group]
    return Level(
        name=name,
        runs=len(group),
        aligned=len(epochs),
        share=of_share(len(epochs), len(group)),
        epochs=float(numpy.median(epochs)) if epochs else None,
        error=math.fsum(errors) / len(errors),
        interval=over_seeds(errors),
        ratio=ratio,
        reference=reference,
    )
