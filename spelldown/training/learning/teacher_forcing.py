"""Teacher forcing: how often the speller is told the true previous symbol, and how that falls.

The *rate* is the chance that a step is fed the reference's symbol instead of the speller's own. It
holds for an epoch and is decided anew after each validation. Lowered before attention has aligned,
it keeps attention from ever aligning; `after-alignment` is therefore the safe schedule.

The seed's rules A and B
------------------------
Both were conditions typed into the seed's script, tried after each validation, with epochs counted
from 0 (n below; our epoch is n + 1). The rate starts at 1. In both, `and` binds tighter than `or`
and `%` tighter than `+`, which the typist overlooked. `reading: as-typed` does what Python did with
the seed's line, floating point included; `reading: plain` what was probably meant.

Rule A, `epoch+1 % 20 == 0 or epoch < 80 and tf_rate > 0.4: tf_rate -= 0.10`
    as-typed  n + (1 % 20) == 0 is never true, so: lower by 0.1 after every epoch while n < 80 and
              rate > 0.4. The sums are not exact: the sixth gives 0.4000000000000001, which is still
              above 0.4, so a seventh follows and the rate stays at 0.3 from epoch 8 on.
    plain     every 20 epochs, for the first 80 epochs: lower by 0.1 after epochs 20, 40, 60 and 80
              (ours) while the rate is above 0.4. It ends at 0.6.

Rule B, `val_dist < 30 or epoch > 20 and tf_rate > 0.6: tf_rate *= 0.985`
    as-typed  after every epoch whose validation distance is below 30, without any floor; and after
              every epoch with n > 20 (ours from the 22nd on) while the rate is above 0.6.
    plain     the floor holds for both: after every epoch with a distance below 30, or with n > 20,
              while the rate is above 0.6. It ends at 0.985^34 = 0.598.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spelldown.model.spelling.speller import Feedback
from spelldown.settings import Settings

Rate = Annotated[float, Field(ge=0, le=1)]
Reading = Literal["as-typed", "plain"]


class FeedbackSettings(Settings):
    """What all schedules share: how it is decided what is fed, and how the speller's own symbol is
    drawn."""

    coins: Literal["utterance", "batch"] = "utterance"
    """Who shares a step's coin: nobody, or the whole batch (the seed)."""
    feedback: Literal["argmax", "sample", "gumbel"] = "argmax"
    """The speller's own symbol: its likeliest, one drawn by chance, or the course's differentiable
    Gumbel-softmax mixture (Jang et al., 2017), which is slower."""
    temperature: float = Field(1.0, gt=0)
    """Of `sample` and `gumbel`; lower is closer to the likeliest."""

    @property
    def can_fall(self) -> bool:
        """Whether the rate can ever be below 1, so that the speller is fed symbols of its own."""
        return True

    @model_validator(mode="after")
    def _temperature_is_used(self) -> Self:
        if self.feedback == "argmax" and self.temperature != 1:
            raise ValueError(
                f"temperature: {self.temperature:g} changes nothing of feedback argmax; choose "
                "sample or gumbel, or leave it at 1"
            )
        return self


class ConstantForcing(FeedbackSettings):
    """The same rate throughout."""

    kind: Literal["constant"] = "constant"
    rate: Rate = Field(1.0, description="the chance that a step is fed the reference's symbol")

    @property
    def can_fall(self) -> bool:
        return self.rate < 1


class LinearForcing(FeedbackSettings):
    """Evenly from one rate to another between two epochs."""

    kind: Literal["linear"] = "linear"
    start: Rate = Field(1.0, description="the rate up to `first_epoch`")
    end: Rate = Field(0.6, description="the rate from `last_epoch` on")
    first_epoch: int = Field(1, ge=1)
    """The last epoch with the rate `start`."""
    last_epoch: int = Field(50, ge=2)
    """The first epoch with the rate `end`."""

    @property
    def can_fall(self) -> bool:
        return min(self.start, self.end) < 1

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.last_epoch <= self.first_epoch:
            raise ValueError(
                f"last_epoch: {self.last_epoch} must come after first_epoch, {self.first_epoch}"
            )
        return self


class StagedForcing(FeedbackSettings):
    """Rates in stages: at given epochs, or the next one whenever validation gets no better."""

    kind: Literal["staged"] = "staged"
    stages: dict[Annotated[int, Field(ge=1)], Rate] | tuple[Rate, ...] = (1.0, 0.9, 0.8, 0.7, 0.6)
    """Either {epoch: rate from it on, ...}, with 1 before the first; or a list of rates, of which
    the first holds from the start and each next one from a plateau on."""
    patience: int = Field(3, ge=1)
    """Of a list: validations without improvement that make a plateau."""

    @model_validator(mode="after")
    def _has_stages(self) -> Self:
        if not self.stages:
            raise ValueError("stages: is empty; name at least one rate, such as {20: 0.9}")
        return self

    @model_validator(mode="after")
    def _waits_for_a_plateau(self) -> Self:
        usual = type(self).model_fields["patience"].default  # which a resolved page states
        if isinstance(self.stages, dict) and self.patience != usual:
            raise ValueError(
                f"patience: {self.patience} is for a list of rates; stages at given epochs wait "
                "for no plateau"
            )
        return self

    @property
    def can_fall(self) -> bool:
        rates = self.stages.values() if isinstance(self.stages, dict) else self.stages
        return min(rates) < 1


class AfterAlignmentForcing(FeedbackSettings):
    """1 until attention is found aligned at a validation, then lower in stages to a floor.

    While the verdict is anything but aligned, the rate stays where it is.
    """

    kind: Literal["after-alignment"] = "after-alignment"
    step: float = Field(0.1, gt=0, le=1)
    """What each stage takes off."""
    every: int = Field(5, ge=1)
    """Validations found aligned to a stage; the first of them lowers the rate at once."""
    floor: Rate = Field(0.6, description="the rate that no stage goes below")

    @property
    def can_fall(self) -> bool:
        return self.floor < 1


class RuleForcing(FeedbackSettings):
    """What the seed's rules share."""

    reading: Reading
    """What Python did with the line (`as-typed`), or what was meant (`plain`)."""
    coins: Literal["utterance", "batch"] = "batch"


class RuleAForcing(RuleForcing):
    """The seed's rule A (rows 1, 3 and 4); see the head of this file."""

    kind: Literal["rule-a"] = "rule-a"


class RuleBForcing(RuleForcing):
    """The seed's rule B (rows 2, 5 and 6); see the head of this file."""

    kind: Literal["rule-b"] = "rule-b"


TeacherForcingSettings = Annotated[
    ConstantForcing
    | LinearForcing
    | StagedForcing
    | AfterAlignmentForcing
    | RuleAForcing
    | RuleBForcing,
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class Judged:
    """What a schedule may know of a validation: of our epoch `epoch`, counted from 1."""

    epoch: int
    distance: float
    improved: bool
    aligned: bool


class TeacherForcing(ABC):
    """The rate in each epoch. What a subclass keeps in attributes is saved with a checkpoint."""

    @abstractmethod
    def rate_in(self, epoch: int) -> float:
        """The rate of an epoch (from 1), to be asked once all validations before it are in."""

    def validated(self, judged: Judged) -> None:  # noqa: B027 (some do not listen)
        """Takes note of an epoch's validation."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as plain values."""
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Constant(TeacherForcing):
    def __init__(self, settings: ConstantForcing) -> None:
        self.settings = settings

    def rate_in(self, epoch: int) -> float:
        return self.settings.rate


class Linear(TeacherForcing):
    def __init__(self, settings: LinearForcing) -> None:
        self.settings = settings

    def rate_in(self, epoch: int) -> float:
        settings = self.settings
        done = (epoch - settings.first_epoch) / (settings.last_epoch - settings.first_epoch)
        return settings.start + (settings.end - settings.start) * min(max(done, 0.0), 1.0)


class StagedByEpoch(TeacherForcing):
    def __init__(self, stages: dict[int, float]) -> None:
        self.stages = dict(sorted(stages.items()))

    def rate_in(self, epoch: int) -> float:
        return next((self.stages[at] for at in reversed(self.stages) if at <= epoch), 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {}


class StagedByPlateau(TeacherForcing):
    def __init__(self, rates: tuple[float, ...], patience: int) -> None:
        self.settings = (rates, patience)
        self.stage = 0
        self.bad = 0

    def rate_in(self, epoch: int) -> float:
        return self.settings[0][self.stage]

    def validated(self, judged: Judged) -> None:
        rates, patience = self.settings
        self.bad = 0 if judged.improved else self.bad + 1
        if self.bad >= patience and self.stage < len(rates) - 1:
            self.stage, self.bad = self.stage + 1, 0


class AfterAlignment(TeacherForcing):
    def __init__(self, settings: AfterAlignmentForcing) -> None:
        self.settings = settings
        self.aligned = 0  # validations found aligned so far

    def rate_in(self, epoch: int) -> float:
        stages = -(-self.aligned // self.settings.every)
        return round(max(1 - stages * self.settings.step, min(self.settings.floor, 1.0)), 9)

    def validated(self, judged: Judged) -> None:
        self.aligned += judged.aligned


class Rule(TeacherForcing):
    """One of the seed's: a rate that validations lower."""

    def __init__(self, settings: RuleForcing) -> None:
        self.settings = settings
        self.rate = 1.0

    def rate_in(self, epoch: int) -> float:
        return self.rate


class RuleA(Rule):
    def validated(self, judged: Judged) -> None:
        epoch = judged.epoch - 1  # the seed counts from 0
        if self.settings.reading == "as-typed":
            if epoch + 1 % 20 == 0 or (epoch < 80 and self.rate > 0.4):
                self.rate -= 0.10
        elif (epoch + 1) % 20 == 0 and epoch < 80 and self.rate > 0.4:
            self.rate = round(self.rate - 0.10, 9)


class RuleB(Rule):
    def validated(self, judged: Judged) -> None:
        epoch = judged.epoch - 1  # the seed counts from 0
        good, late, high = judged.distance < 30, epoch > 20, self.rate > 0.6
        lower = good or (late and high) if self.settings.reading == "as-typed" else (
            (good or late) and high
        )  # fmt: skip
        if lower:
            self.rate *= 0.985


def build_teacher_forcing(settings: TeacherForcingSettings) -> TeacherForcing:
    """The schedule that the settings describe."""
    match settings:
        case ConstantForcing():
            return Constant(settings)
        case LinearForcing():
            return Linear(settings)
        case StagedForcing(stages=dict() as stages):
            return StagedByEpoch(stages)
        case StagedForcing(stages=tuple() as rates, patience=patience):
            return StagedByPlateau(rates, patience)
        case AfterAlignmentForcing():
            return AfterAlignment(settings)
        case RuleAForcing():
            return RuleA(settings)
        case RuleBForcing():
            return RuleB(settings)
    raise AssertionError(f"no teacher forcing for {settings!r}")


def feedback_at(settings: FeedbackSettings, rate: float) -> Feedback:
    """What the speller is fed at a rate."""
    return Feedback(
        rate=rate, coins=settings.coins, draw=settings.feedback, temperature=settings.temperature
    )
