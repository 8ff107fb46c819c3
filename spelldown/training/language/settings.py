"""How character models are trained: a language model of its own, and the speller beforehand."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from spelldown.model.precision import Precision
from spelldown.settings import Settings
from spelldown.training.guard.limit import SIZE
from spelldown.training.learning.settings import TrainingSettings


class ReadingSettings(Settings):
    """How long a language model is trained, and what a kill can cost."""

    epochs: int = Field(20, ge=1)
    """Most times through the texts; `patience` may end it before."""
    patience: int | None = Field(2, ge=1)
    """Validations in a row without improvement after which it stops; null never does."""
    least_improvement: float = Field(0.001, ge=0)
    """By how many nats a symbol the loss must be lower to count as improvement."""
    precision: Precision = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the processor has it."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda", "cuda:1"]
    )
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes a GPU if there is one."""
    threads: int | None = Field(None, ge=1)
    """Of the processor; null leaves it to torch. Go on with as many for the same bits."""
    memory: str | None = Field(None, pattern=SIZE, examples=["6GB", "512MiB"])
    """The most that training may hold, as 6GB; what does not fit is done in parts. null for all."""
    checkpoint_minutes: float = Field(10.0, ge=0)
    """Longest stretch of training that a kill can cost; there is one at each epoch's end too."""
    nonfinite_patience: int = Field(10, ge=1)
    """Updates skipped in a row, because loss or gradient was not finite, that stop the run."""

    def as_training(self) -> TrainingSettings:
        """The same for the trainer: judged by the loss, without pictures."""
        return TrainingSettings(judge="loss", pictures_every=0, **self.model_dump())


class PretrainingSettings(Settings):
    """The speller learns to write before it listens: as a language model, without any context.

    Optimizer, label smoothing, precision and device are those of the recipe; the weights that
    foretell the dev part's transcripts best are those that training begins with.
    """

    transcripts: bool = Field(True, description="read the transcripts of all that is trained on")
    texts: tuple[Path, ...] = Field((), description="files to read too, a line a sentence")
    unknown: Literal["stop", "drop-line"] = Field(
        "stop", description="lines with characters that the vocabulary lacks stop it, or are left"
    )
    context: Literal["zero", "random"] = Field(
        "zero", description="what stands where it will listen: zeros, or normal numbers"
    )
    deviation: float = Field(1.0, gt=0, description="standard deviation of random contexts")
    epochs: int = Field(20, ge=1, description="most times through the texts")
    patience: int | None = Field(2, ge=1)
    """Epochs in a row without improvement on dev after which it ends; null for none."""
    rate: float = Field(1e-3, gt=0, description="learning rate, after half an epoch of warm-up")
    symbols: int = Field(8192, ge=1, description="padded symbols a batch")
    sentences: int = Field(32, ge=1, description="sentences a batch")

    @model_validator(mode="after")
    def _reads_something(self) -> Self:
        if not self.transcripts and not self.texts:
            raise ValueError(
                "texts: there is nothing to read; name files, or set transcripts: true"
            )
        return self

    @model_validator(mode="after")
    def _deviation_is_used(self) -> Self:
        usual = type(self).model_fields["deviation"].default  # which a resolved page states
        if self.context == "zero" and self.deviation != usual:
            raise ValueError(
                f"deviation: {self.deviation:g} changes nothing of context zero; choose random, or "
                f"leave it at {usual:g}"
            )
        return self
