"""The learning rate over a run.

Every schedule is a factor on `optimizer.rate`. All but `plateau` depend on nothing except how much
of the run is done, so that a resumed run needs no memory of them. What is done is measured in
epochs: the u-th of n updates in epoch e stands at e - 1 + (u - 1/2) / n, the middle of the update.
Warm-up is therefore given in epochs too (half an epoch is `warmup: 0.5`), and a recipe keeps its
shape when the batch size or the corpus changes.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field

from spelldown.settings import Settings

Warmup = Annotated[float, Field(ge=0)]


class ConstantRate(Settings):
    """The same rate throughout, after a warm-up."""

    kind: Literal["constant"] = "constant"
    warmup: Warmup = 0.0
    """Epochs over which the rate rises evenly from 0."""


class PlateauRate(Settings):
    """Lower the rate when validation has not improved for a while (the seed's schedule).

    Does what torch's `ReduceLROnPlateau` in mode `min` does with the value that judges the run.
    """

    kind: Literal["plateau"] = "plateau"
    warmup: Warmup = 0.0
    """Epochs over which the rate rises evenly from 0."""
    factor: float = Field(0.5, gt=0, lt=1, description="what lowering multiplies the rate by")
    patience: int = Field(5, ge=0)
    """Validations without improvement that are borne; the next one lowers the rate."""
    least_improvement: float = Field(1e-4, ge=0, lt=1)
    """Share of the best value by which a better one must be lower."""
    floor: float = Field(0.0, ge=0, le=1)
    """Lowest factor on the rate."""


class CosineRate(Settings):
    """Warm up, then fall along half a cosine until the last epoch (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: Warmup = 1.0
    """Epochs over which the rate rises evenly from 0."""
    floor: float = Field(0.0, ge=0, le=1)
    """Factor on the rate at the run's end."""


class OneCycleRate(Settings):
    """Rise and fall once along half cosines (Smith and Topin, 2019; momentum stays as it is)."""

    kind: Literal["one-cycle"] = "one-cycle"
    peak: float = Field(0.3, gt=0, lt=1)
    """Share of the run after which the rate is highest."""
    start: float = Field(0.04, ge=0, le=1)
    """Factor on the rate at the run's start."""
    end: float = Field(4e-6, ge=0, le=1)
    """Factor on the rate at the run's end."""


class NoamRate(Settings):
    """Warm up, then fall with the square root of time (Vaswani et al., 2017, section 5.3).

    `optimizer.rate` is the rate at the top, in place of the paper's formula in the model's width.
    """

    kind: Literal["noam"] = "noam"
    warmup: float = Field(5.0, gt=0)
    """Epochs until the rate is highest."""


ScheduleSettings = Annotated[
    ConstantRate | PlateauRate | CosineRate | OneCycleRate | NoamRate, Field(discriminator="kind")
]


class Schedule(ABC):
    """A factor on the learning rate."""

    @abstractmethod
    def factor(self, done: float) -> float:
        """The factor when `done` epochs (a fraction, too) are done."""

    def validated(self, value: float) -> None:  # noqa: B027 (most schedules do not listen)
        """Takes note of a validation; lower is better."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as plain numbers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Constant(Schedule):
    def __init__(self, settings: ConstantRate) -> None:
        self.settings = settings

    def factor(self, done: float) -> float:
        return _warm(done, self.settings.warmup)


class Plateau(Schedule):
    def __init__(self, settings: PlateauRate) -> None:
        self.settings = settings
        self.lowered = 1.0
        self.best = math.inf
        self.bad = 0

    def factor(self, done: float) -> float:
        return _warm(done, self.settings.warmup) * self.lowered

    def validated(self, value: float) -> None:
        if value < self.best * (1 - self.settings.least_improvement):
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > self.settings.patience:
            self.lowered = max(self.lowered * self.settings.factor, self.settings.floor)
            self.bad = 0

    def state_dict(self) -> dict[str, Any]:
        return {"lowered": self.lowered, "best": self.best, "bad": self.bad}


class Cosine(Schedule):
    def __init__(self, settings: CosineRate, epochs: int) -> None:
        self.settings, self.epochs = settings, epochs

    def factor(self, done: float) -> float:
        warmup = self.settings.warmup
        if done < warmup:
            return done / warmup
        return _half_cosine(1.0, self.settings.floor, (done - warmup) / (self.epochs - warmup))


class OneCycle(Schedule):
    def __init__(self, settings: OneCycleRate, epochs: int) -> None:
        self.settings, self.epochs = settings, epochs

    def factor(self, done: float) -> float:
        share, peak = done / self.epochs, self.settings.peak
        if share < peak:
            return _half_cosine(self.settings.start, 1.0, share / peak)
        return _half_cosine(1.0, self.settings.end, (share - peak) / (1 - peak))


class Noam(Schedule):
    def __init__(self, settings: NoamRate) -> None:
        self.settings = settings

    def factor(self, done: float) -> float:
        warmth = done / self.settings.warmup
        return min(warmth, warmth**-0.5) if warmth > 0 else 0.0


def build_schedule(settings: ScheduleSettings, epochs: int) -> Schedule:
    """The schedule for a run of so many epochs."""
    match settings:
        case ConstantRate():
            return Constant(settings)
        case PlateauRate():
            return Plateau(settings)
        case CosineRate():
            return Cosine(settings, epochs)
        case OneCycleRate():
            return OneCycle(settings, epochs)
        case NoamRate():
            return Noam(settings)


def _warm(done: float, warmup: float) -> float:
    return min(1.0, done / warmup) if warmup > 0 else 1.0


def _half_cosine(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine, `share` of the way."""
    return last + (first - last) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
