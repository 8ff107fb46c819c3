"""Axes: what is varied of a recipe, and the rows that come of it.

In a study's page:

    axes:
      attention.kind: [dot, additive, location]       # a place in the recipe, and its values
      dropout:                                        # a name of your own for the place `key`
        key: listener.blocks.1.dropout
        values: [0.1, 0.3]
      ctc:                                            # values that change several places at once
        values:
          without: {ctc: null, loss.ctc_weight: 0}
          with: {}                                    # nothing changed: the recipe as it is
      rate:                                           # a range, to be drawn from or searched
        key: optimizer.rate
        low: 3e-4
        high: 1e-2
        log: true
    explore: {kind: one-at-a-time}
"""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spelldown.settings import Settings

DRAWS_TRIED = 100  # for each row that is drawn and there already
TRIAL = "trial-"  # what the names of rows begin with that Optuna thinks of


class Axis(Settings):
    """What is varied: listed values of a place, labelled changes, or a range."""

    key: str | None = None
    """The place in the recipe; the axis's name if null."""
    values: list[Any] | dict[str, Any] | None = None
    """A list; or each by its label: a value of `key`, or without a `key` all the changes."""
    low: float | None = None
    """The lower end of a range."""
    high: float | None = None
    """The upper end."""
    log: bool = False
    """Whether a range is drawn from by its logarithm."""
    whole: bool = False
    """Whether only whole numbers are drawn."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        ranged = self.low is not None or self.high is not None
        if ranged == (self.values is not None):
            raise ValueError("give either `values`, or a range by `low` and `high`")
        if self.values is not None and not self.values:
            raise ValueError("values: is empty")
        if self.values is not None and (self.log or self.whole):
            raise ValueError("log and whole are for ranges, and not for listed values")
        if isinstance(self.values, dict) and self.key is None:
            wrong = [label for label, what in self.values.items() if not isinstance(what, dict)]
            if wrong:
                raise ValueError(
                    f"values: {', '.join(wrong)}: without a `key`, each label stands for a group "
                    "of changes, {path: value}"
                )
        if ranged:
            self._hold_range()
        return self

    def _hold_range(self) -> None:
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("a range needs `low` and `high`, and low below high")
        if self.log and self.low <= 0:
            raise ValueError("low: must be above 0 for a range by logarithm")
        if self.whole and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("low and high: must be whole numbers where `whole` is true")


AxisSettings = list[Any] | Axis


class GridSettings(Settings):
    """Every combination of the axes' values."""

    kind: Literal["grid"] = "grid"


class OneAtATimeSettings(Settings):
    """Each value of each axis by itself, all other axes as the recipe has them."""

    kind: Literal["one-at-a-time"] = "one-at-a-time"


class ListSettings(Settings):
    """The first values of all axes together, the second ones together, and so on."""

    kind: Literal["list"] = "list"


class RandomSettings(Settings):
    """Combinations drawn by chance, none twice."""

    kind: Literal["random"] = "random"
    draws: int = Field(10, ge=1, description="rows to be drawn")
    seed: int = Field(1, ge=0, description="of the draws")


class OptunaSettings(Settings):
    """Combinations chosen one after the other, by what the ones before came to (Optuna)."""

    kind: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "gp", "cma-es", "qmc", "random"] = "tpe"
    """Tree-structured Parzen estimator, Gaussian process, CMA-ES (ranges alone), quasi-random."""
    trials: int = Field(20, ge=1, description="rows to be tried")
    minimise: Literal["distance", "cer", "wer"] = "cer"
    """What to bring down, on the first of `parts`; the mean over seeds."""
    seed: int = Field(1, ge=0, description="of the sampler")


ExploreSettings = Annotated[
    GridSettings | OneAtATimeSettings | ListSettings | RandomSettings | OptunaSettings,
    Field(discriminator="kind"),
]


def key_of(name: str, axis: AxisSettings) -> str | None:
    """The place that an axis varies; None where each value is a group of changes."""
    if isinstance(axis, list):
        return name
    return axis.key or (None if isinstance(axis.values, dict) else name)


@dataclass(frozen=True)
class Value:
    """One value of an axis: how it is called, and what it changes of the recipe."""

    label: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """A row that comes of axes: a value of each of some axes."""

    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(f"{axis}={value.label}" for axis, value in self.values.items())

    @property
    def labels(self) -> dict[str, str]:
        return {axis: value.label for axis, value in self.values.items()}

    def changes(self) -> dict[str, Any]:
        """All changes; of two values that change one place, the later axis's holds."""
        return {key: what for value in self.values.values() for key, what in value.changes.items()}


def values_of(name: str, axis: AxisSettings) -> list[Value]:
    """The listed values of an axis; of a range, its ends."""
    if isinstance(axis, list):
        axis = Axis(values=axis)
    key = axis.key or name
    if axis.values is None:
        assert axis.low is not None and axis.high is not None
        return [number(name, axis, end) for end in (axis.low, axis.high)]
    if isinstance(axis.values, list):
        return [Value(label_of(what), {key: what}) for what in axis.values]
    if axis.key is None:
        return [Value(label, what) for label, what in axis.values.items()]
    return [Value(label, {key: what}) for label, what in axis.values.items()]


def number(name: str, axis: Axis, value: float) -> Value:
    """A number out of an axis's range, to four digits."""
    drawn = round(value) if axis.whole else float(f"{value:.4g}")
    return Value(f"{drawn:g}", {axis.key or name: drawn})


def label_of(value: Any) -> str:
    """A value in few letters, for names and tables: `0.3`, `dot`, `null`, `[96, 96]`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def in_short(value: Any, longest: int) -> str:
    """A value of a recipe for people, in so many letters at the most; of blocks, their kinds."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, dict) and "kind" in v for v in value)
    ):
        return ", ".join(block["kind"] for block in value)
    text = "none" if value is None else label_of(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def combinations(axes: Mapping[str, AxisSettings], explore: ExploreSettings) -> list[Choice]:
    """The rows that axes make, in order. None for Optuna, which chooses while the study runs.

    Raises ValueError for lists of values that cannot go side by side.
    """
    if isinstance(explore, OptunaSettings) or not axes:
        return []
    if isinstance(explore, RandomSettings):
        return list(_drawn(axes, explore))
    listed = {name: values_of(name, axis) for name, axis in axes.items()}
    if isinstance(explore, OneAtATimeSettings):
        return [Choice({name: value}) for name, values in listed.items() for value in values]
    if isinstance(explore, ListSettings):
        counts = {name: len(values) for name, values in listed.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(f"explore kind list needs as many values of each axis: {told}")
        rows: Iterable[tuple[Value, ...]] = zip(*listed.values(), strict=True)
    else:
        rows = itertools.product(*listed.values())
    return [Choice(dict(zip(listed, row, strict=True))) for row in rows]


def _drawn(axes: Mapping[str, AxisSettings], explore: RandomSettings) -> Iterator[Choice]:
    """As many different rows as were asked for, or as there are."""
    chance = random.Random(explore.seed)
    seen: set[str] = set()
    tries = explore.draws * DRAWS_TRIED
    while len(seen) < explore.draws and tries:
        tries -= 1
        choice = Choice({name: _draw(name, axis, chance) for name, axis in axes.items()})
        if choice.name not in seen:
            seen.add(choice.name)
            yield choice


def _draw(name: str, axis: AxisSettings, chance: random.Random) -> Value:
    if isinstance(axis, list) or axis.values is not None:
        return chance.choice(values_of(name, axis))
    assert axis.low is not None and axis.high is not None
    if axis.whole and not axis.log:
        return number(name, axis, chance.randint(int(axis.low), int(axis.high)))
    if axis.log:
        drawn = math.exp(chance.uniform(math.log(axis.low), math.log(axis.high)))
        return number(name, axis, min(max(drawn, axis.low), axis.high))
    return number(name, axis, chance.uniform(axis.low, axis.high))
