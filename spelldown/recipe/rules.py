"""Combinations that cannot be, though each setting by itself is right.

A rule is a function whose parameters are named for the sections that it looks at; it yields a
`Clash` for each impossibility. Add one to RULES and it holds, with its message, everywhere. What is
wrong within one section is that section's own business.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spelldown.data.augment import AugmentSettings
from spelldown.data.corpora import ArraysSettings, CorpusSettings
from spelldown.data.frontend import ArraysFrontendSettings, FrontendSettings
from spelldown.model.listening.blocks import (
    BiLSTMSettings,
    BlockSettings,
    ConvSettings,
    PyramidSettings,
    TransformerSettings,
)
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import CTCSettings
from spelldown.recipe.reading.checking import Clash
from spelldown.training.learning.averaging import AveragingSettings, NoAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.schedule import OneCycleRate, ScheduleSettings
from spelldown.training.learning.settings import TrainingSettings
from spelldown.training.learning.teacher_forcing import ConstantForcing, TeacherForcingSettings

Rule = Callable[..., Iterator[Clash]]


def frames_come_from_the_corpus(
    data: CorpusSettings, frontend: FrontendSettings
) -> Iterator[Clash]:
    arrays = isinstance(data, ArraysSettings)
    if arrays and not isinstance(frontend, ArraysFrontendSettings):
        yield Clash(
            "frontend.kind",
            f"{frontend.kind} makes frames from recordings, and data.kind arrays has none; "
            "frontend.kind: arrays takes its frames as they are",
            also=("data.kind",),
        )


def ctc_needs_a_head(loss: LossSettings, ctc: CTCSettings | None) -> Iterator[Clash]:
    if loss.uses_ctc and ctc is None:
        share = "loss.ctc_weight" if loss.ctc_weight > 0 else "loss.ctc_weight_end"
        yield Clash(
            share,
            "CTC cannot have a share in the loss of a recognizer without a CTC head; "
            "add `ctc: {}` or set it to 0",
            also=("ctc", "loss.ctc_fade"),
        )


def a_head_needs_ctc(loss: LossSettings, ctc: CTCSettings | None) -> Iterator[Clash]:
    if ctc is not None and not loss.uses_ctc:
        yield Clash(
            "ctc",
            "this head would never be trained, since CTC has no share in the loss; "
            "set loss.ctc_weight (0.3 is usual) or `ctc: null`",
            also=("loss.ctc_weight", "loss.ctc_fade", "loss.ctc_weight_end"),
        )


def speller_trains(loss: LossSettings) -> Iterator[Clash]:
    if loss.ctc_weight == 1 and loss.ctc_fade is None:
        yield Clash(
            "loss.ctc_weight",
            "at 1 throughout, attention and speller would never be trained; 0.3 is usual",
            also=("loss.ctc_fade",),
        )


def heads_share_what_they_are_given(listener: ListenerSettings) -> Iterator[Clash]:
    width: int | None = None  # of the frames before a block; None where only the data knows
    for place, block in enumerate(listener.blocks):
        asked = block.heads if isinstance(block, TransformerSettings) else 1
        comes = width if isinstance(block, TransformerSettings) and block.width is None else None
        if comes is not None and comes % asked:
            yield Clash(
                f"listener.blocks.{place}.heads",
                f"{asked} heads cannot share the width of {comes} that comes from the block before "
                "evenly; set a width or another number of heads",
                also=("listener.blocks.*",),
            )
        width = _width_after(block, width)


def _width_after(block: BlockSettings, width: int | None) -> int | None:
    if isinstance(block, ConvSettings):
        return block.widths[-1]
    if isinstance(block, BiLSTMSettings | PyramidSettings):
        return 2 * block.width
    if isinstance(block, TransformerSettings):
        return block.width or width
    return block.width


def warm_up_ends(schedule: ScheduleSettings, training: TrainingSettings) -> Iterator[Clash]:
    if isinstance(schedule, OneCycleRate):
        return
    if schedule.warmup >= training.epochs:
        yield Clash(
            "schedule.warmup",
            f"the rate would still rise when the run ends: {schedule.warmup:g} epochs of warm-up "
            f"in a run of {training.epochs} (training.epochs)",
            also=("training.epochs",),
        )


def feedback_is_fed(teacher_forcing: TeacherForcingSettings) -> Iterator[Clash]:
    forced = teacher_forcing
    if isinstance(forced, ConstantForcing) and forced.rate == 1 and forced.feedback != "argmax":
        yield Clash(
            "teacher_forcing.feedback",
            f"{forced.feedback} would never be fed, since the rate is always 1; lower the rate or "
            "choose a kind that lowers it, such as after-alignment",
            also=("teacher_forcing.rate", "teacher_forcing.kind"),
        )


def what_begins_late_begins(
    training: TrainingSettings, averaging: AveragingSettings, augment: AugmentSettings | None
) -> Iterator[Clash]:
    starts = {}
    if not isinstance(averaging, NoAveraging):
        starts["averaging.from_epoch"] = averaging.from_epoch
    if augment is not None:
        starts["augment.from_epoch"] = augment.from_epoch
    if training.weight_noise > 0:
        starts["training.weight_noise_from"] = training.weight_noise_from
    for path, start in starts.items():
        if start > training.epochs:
            yield Clash(
                path,
                f"epoch {start} never comes in a run of {training.epochs} (training.epochs)",
                also=("training.epochs",),
            )


RULES: tuple[Rule, ...] = (
    frames_come_from_the_corpus,
    ctc_needs_a_head,
    a_head_needs_ctc,
    speller_trains,
    heads_share_what_they_are_given,
    warm_up_ends,
    feedback_is_fed,
    what_begins_late_begins,
)


def clashes(sections: Mapping[str, Any]) -> Iterator[Clash]:
    """All impossible combinations among the sections given; rules about others are left out."""
    for rule in RULES:
        names = inspect.signature(rule).parameters
        if all(name in sections for name in names):
            yield from rule(**{name: sections[name] for name in names})
