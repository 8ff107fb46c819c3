"""The effects of a study's axes, in words for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from spelldown.study.report.reckoning.effects import ELSEWHERE, Effect, Level, Ratio, effects
from spelldown.study.report.reckoning.intervals import MEASURES
from spelldown.study.report.rows import RowFigures, base_values, trials
from spelldown.study.report.tables import TITLES, between, figure

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class LevelTold:
    """One value of an axis, in words."""

    name: str
    reference: bool
    runs: int
    percent: int
    aligned: str
    share: str
    epochs: str
    error: str
    between: str
    call: str
    ratio: str


@dataclass(frozen=True)
class Slope:
    """What a step along a range does."""

    says: str
    call: str
    between: str


@dataclass(frozen=True)
class EffectTold:
    """One axis: its values or, for a range, thirds of it with the slope."""

    axis: str
    reference: str
    ratios: bool
    levels: tuple[LevelTold, ...]
    slope: Slope | None


@dataclass(frozen=True)
class Group:
    """The effects of all axes on one measure in one part."""

    part: str
    measure: str
    title: str
    hidden: bool
    effects: tuple[EffectTold, ...]


def groups(rows: Sequence[RowFigures], parts: Sequence[str]) -> list[Group]:
    """For each part and measure; empty where no axis has two values that were scored."""
    found = []
    there = base_values(rows)
    for part in parts:
        for measure in MEASURES:
            each = effects(trials(rows, part, measure), there)
            if each:
                hidden = (part, measure) != (parts[0], MEASURES[0])
                told = tuple(_told(effect, measure) for effect in each)
                found.append(Group(part, measure, TITLES[measure], hidden, told))
    return found


def _told(effect: Effect, measure: str) -> EffectTold:
    slope = None
    if effect.slope is not None:
        says = f"With {effect.unit}, errors are {TIMES} {effect.slope.value:.2f}."
        slope = Slope(says, effect.slope.call, _ends(effect.slope))
    reference = next((level.name for level in effect.levels if level.reference), "")
    reference = "the base" if reference == ELSEWHERE else reference
    levels = tuple(_level(level, measure, effect.slope is None) for level in effect.levels)
    return EffectTold(effect.axis, reference, bool(reference), levels, slope)


def _level(level: Level, measure: str, comparable: bool) -> LevelTold:
    low, high = level.share
    call, ratio = "", ""
    if level.ratio is not None:
        call, ratio = level.ratio.call, _ratio(level.ratio)
    elif comparable and not level.reference:
        ratio = "moves with another axis: cannot be told apart"
    return LevelTold(
        name=level.name,
        reference=level.reference,
        runs=level.runs,
        percent=round(100 * level.aligned / level.runs),
        aligned=f"{level.aligned} of {level.runs}",
        share=f"{low:.0%} to {high:.0%}".replace("%", " %"),
        epochs="" if level.epochs is None else f"{level.epochs:g}",
        error=figure(measure, level.error),
        between="" if level.interval is None else between(measure, level.interval),
        call=call,
        ratio=ratio,
    )


def _ratio(ratio: Ratio) -> str:
    """`× 0.52 (0.41 to 0.66), 6 pairs`."""
    said = f"{TIMES} {ratio.value:.2f} {_ends(ratio)}".strip()
    if ratio.pairs:
        return f"{said}, {ratio.pairs} pairs"
    return said if ratio.interval is None else f"{said}, fitted"


def _ends(ratio: Ratio) -> str:
    if ratio.interval is None:
        return ""
    return f"({ratio.interval.low:.2f} to {ratio.interval.high:.2f})"
