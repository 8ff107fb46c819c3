"""What the page draws: rows side by side on one scale, and the curves of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spelldown.study.folder import counted
from spelldown.study.report.findings import Record
from spelldown.study.report.reckoning.intervals import MEASURES
from spelldown.study.report.rows import Measured, RowFigures
from spelldown.study.report.tables import between, figure

COLOURS = 8  # besides the base's own; more rows take them again with another dash
LOGARITHMIC = 12.0  # times the least from which a scale is logarithmic
EDGE = 2.0  # per cent of the width that stays free on either side

CURVES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "loss": ("training: cross entropy a symbol", ("train", "ce"), {}),
    "dev": ("dev: cross entropy a symbol", ("dev", "loss"), {}),
    "distance": ("dev: distance", ("dev", "distance"), {"log": True}),
    "alignment": (
        "alignment of attention",
        ("alignment", "value"),
        {"zero": True, "top": 1},
    ),
    "forcing": ("teacher-forcing rate", ("teacher_forcing",), {"zero": True, "top": 1}),
    "rate": ("learning rate", ("rate",), {"log": True}),
}
"""The panels: title, place in a line of metrics.jsonl, and how the scale is made."""


@dataclass(frozen=True)
class Colour:
    """A row's: 0 is the base's; `dash` tells rows of the same colour apart."""

    colour: int
    dash: int


def colours(rows: Sequence[RowFigures]) -> dict[str, Colour]:
    """A colour for each row, by name."""
    found, count = {}, 0
    for one in rows:
        if one.base or one.as_base:
            found[one.name] = Colour(0, 0)
        else:
            found[one.name] = Colour(1 + count % COLOURS, count // COLOURS)
            count += 1
    return found


@dataclass(frozen=True)
class Line:
    """One row of a forest; places in per cent of the width."""

    name: str
    colour: int
    dots: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    value: str
    says: str


@dataclass(frozen=True)
class Forest:
    """All rows on one scale, for one measure in one part."""

    part: str
    measure: str
    hidden: bool
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    base: float | None


def forests(rows: Sequence[RowFigures], parts: Sequence[str]) -> list[Forest]:
    """One for each part and measure in which there is anything to show."""
    found = []
    for part in parts:
        for measure in MEASURES:
            there = {
                one.name: one.parts[part].measures[measure]
                for one in rows
                if measure in one.parts[part].measures and not one.parts[part].not_final
            }
            if there:
                hidden = (part, measure) != (parts[0], MEASURES[0])
                found.append(_forest(rows, there, part, measure, hidden))
    return found


def _forest(
    rows: Sequence[RowFigures],
    there: Mapping[str, Measured],
    part: str,
    measure: str,
    hidden: bool,
) -> Forest:
    scale = Scale([value for found in there.values() for _, value in found.each])
    shades = colours(rows)
    lines = []
    for name, found in there.items():
        low, high = found.interval or (None, None)
        told = figure(measure, found.mean)
        if found.interval is not None:
            told += f" ({between(measure, found.interval)})"
        lines.append(
            Line(
                name=name,
                colour=shades[name].colour,
                dots=tuple(scale.place(value) for _, value in found.each),
                mean=scale.place(found.mean),
                low=None if low is None else scale.place(low),
                high=None if high is None else scale.place(high),
                value=told,
                says=f"{name}: {told}, {counted(len(found.each), 'run')}",
            )
        )
    base = next((one.name for one in rows if one.base and one.name in there), None)
    ticks = tuple((scale.place(tick), _tick(measure, tick)) for tick in scale.ticks())
    place = None if base is None else scale.place(there[base].mean)
    return Forest(part, measure, hidden, tuple(lines), ticks, place)


def _tick(measure: str, value: float) -> str:
    return f"{value:g}" if measure == "distance" else f"{100 * value:g} %"


class Scale:
    """A scale over positive values, from nothing or, if they are far apart, logarithmic.

    It spans the values, not their intervals: those of two runs may reach anywhere, and are cut off.
    """

    def __init__(self, values: Sequence[float]) -> None:
        least, most = min(values), max(values)
        self.logarithmic = least > 0 and most / least > LOGARITHMIC
        room = 0.15
        if self.logarithmic:
            self.low, self.high = math.log(least) - room, math.log(most) + room
        else:
            self.low, self.high = 0.0, (most or 1.0) * (1 + room)

    def place(self, value: float) -> float:
        """Where a value stands, in per cent of the width; at the edge if beyond it."""
        if self.logarithmic:
            value = math.log(value) if value > 0 else self.low
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(EDGE + (100 - 2 * EDGE) * share, 2)

    def ticks(self) -> list[float]:
        """Round numbers to be written below it."""
        if not self.logarithmic:
            step = _round_step(self.high / 5)
            return [n * step for n in range(int(self.high / step) + 1)]
        low, high = math.exp(self.low), math.exp(self.high)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = (1, 2, 5) if high / low < 300 else (1,)
        found = [mark * 10.0**power for power in powers for mark in marks]
        return [float(f"{tick:.6g}") for tick in found if low <= tick <= high]


def _round_step(least: float) -> float:
    size = 10.0 ** math.floor(math.log10(least))
    return next(mark * size for mark in (1, 2, 5, 10) if mark * size >= least)


def curve_data(rows: Sequence[RowFigures]) -> list[dict[str, Any]]:
    """The rows with each run's curves, for the page's script; numbers to four digits."""
    shades = colours(rows)
    return [
        {
            "name": one.name,
            "base": one.base,
            "colour": shades[one.name].colour,
            "dash": shades[one.name].dash,
            "runs": [_curves(run.records) for run in one.runs if run.records],
        }
        for one in rows
    ]


def panels() -> list[dict[str, Any]]:
    """What is drawn, for the page's script."""
    return [{"key": key, "name": name, **how} for key, (name, _, how) in CURVES.items()]


def _curves(records: Sequence[Record]) -> dict[str, list[float | int | None]]:
    found: dict[str, list[float | int | None]] = {"epoch": [one["epoch"] for one in records]}
    for key, (_, place, _) in CURVES.items():
        found[key] = [_number(one, place) for one in records]
    return found


def _number(record: Record, place: Sequence[str]) -> float | None:
    value: Any = record
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
