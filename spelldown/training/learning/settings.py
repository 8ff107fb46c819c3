"""How a recognizer learns, in settings: what the parts of training need to know of a recipe."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from spelldown.model.precision import Precision
from spelldown.settings import Settings
from spelldown.training.guard.limit import SIZE
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import AdamSettings, OptimizerSettings
from spelldown.training.learning.schedule import ConstantRate, ScheduleSettings
from spelldown.training.learning.teacher_forcing import ConstantForcing, TeacherForcingSettings
from spelldown.training.validation import Measure


class TrainingSettings(Settings):
    """How long a run trains, what judges it, and what it leaves behind."""

    epochs: int = Field(100, ge=1)
    """Most epochs; `patience` may end the run before."""
    patience: int | None = Field(15, ge=1)
    """Validations in a row without improvement after which the run stops; null never does."""
    least_improvement: float = Field(0.001, ge=0)
    """By how much a value must be lower to count as improvement, in the unit of `judge`."""
    judge: Measure = "distance"
    """What decides which weights are best, when to stop, and what a plateau is."""
    precision: Precision = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the processor has it."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda", "cuda:1"]
    )
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes a GPU if there is one."""
    threads: int | None = Field(None, ge=1)
    """Of the processor; null leaves it to torch. Resume with as many for the same bits."""
    memory: str | None = Field(None, pattern=SIZE, examples=["6GB", "512MiB"])
    """The most that training may hold, as 6GB or 512MiB: of the GPU, or else of this process
    without its loading workers (on Linux). What does not fit is done in parts; null takes all that
    there is."""
    unaligned: Literal["leave", "stop", "repair"] = "leave"
    """What becomes of a run whose attention does not align: it goes on, it stops, or it begins
    anew with one remedy more, until one helps."""
    weight_noise: float = Field(0.0, ge=0)
    """Standard deviation of Gaussian noise on the weights in forward and backward passes."""
    weight_noise_from: int = Field(1, ge=1)
    """The first epoch with noise on the weights."""
    pictures_every: int = Field(5, ge=0)
    """Epochs between pictures of attention; 0 draws none."""
    pictures: int = Field(3, ge=1)
    """Utterances pictured, the same every time."""
    checkpoint_minutes: float = Field(10.0, ge=0)
    """Longest stretch of training that a kill can cost. There is one at each epoch's end besides;
    0 writes one after every update."""
    nonfinite_patience: int = Field(10, ge=1)
    """Updates skipped in a row, because loss or gradient was not finite, that stop the run."""


@dataclass(frozen=True)
class Learning:
    """How a recognizer learns: the settings of each part."""

    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=AdamSettings)
    schedule: ScheduleSettings = field(default_factory=ConstantRate)
    teacher_forcing: TeacherForcingSettings = field(default_factory=ConstantForcing)
    averaging: AveragingSettings = field(default_factory=NoAveraging)
    training: TrainingSettings = field(default_factory=TrainingSettings)
