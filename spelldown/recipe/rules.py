"""Combinations that cannot be, though each setting by itself is right.

A rule is a function whose parameters are named for the sections that it looks at; it yields a
`Clash` for each impossibility. Add one to RULES and it holds, with its message, everywhere. What is
wrong within one section is that section's own business.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spelldown.data.augmenting.frames import AugmentSettings, MaskSettings
from spelldown.data.batching import BatchingSettings
from spelldown.data.corpora import ArraysSettings, CorpusSettings, CutsSettings, partitions
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
from spelldown.training.learning.teacher_forcing import (
    LinearForcing,
    StagedForcing,
    TeacherForcingSettings,
)

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


def sound_is_there_to_be_changed(
    frontend: FrontendSettings, augment: AugmentSettings | None
) -> Iterator[Clash]:
    ready = isinstance(frontend, ArraysFrontendSettings)
    if ready and augment is not None and augment.sound is not None:
        yield Clash(
            "augment.sound",
            "recordings cannot be changed where frontend.kind arrays takes frames as they are; "
            "augment.speed, warp and the masks change frames, mfcc and log-mel take recordings",
            also=("frontend.kind",),
        )


def a_cache_keeps_what_is_made(data: CorpusSettings, frontend: FrontendSettings) -> Iterator[Clash]:
    ready = isinstance(frontend, ArraysFrontendSettings)
    if ready and isinstance(data, CutsSettings) and data.cache is not None:
        yield Clash(
            "data.cache",
            "frames that come ready (frontend.kind arrays) need no cache; set it to null",
            also=("frontend.kind",),
        )


def what_is_cached_stays_as_it_is(
    data: CorpusSettings, augment: AugmentSettings | None
) -> Iterator[Clash]:
    if not isinstance(data, CutsSettings) or data.cache is None:
        return
    if augment is None or augment.sound is None:
        return
    for name in ("room", "noise", "volume"):
        if getattr(augment.sound, name) is not None:
            yield Clash(
                f"augment.sound.{name}",
                "it is another one each time, and frames in a cache are always the same; set "
                "data.cache to null, or this (sound.speeds can be cached, each once)",
                also=("data.cache",),
            )


def what_is_added_is_heard_in_the_run(
    data: CorpusSettings, training: TrainingSettings
) -> Iterator[Clash]:
    for number, added in enumerate(data.also):
        if added.until_epoch is not None and added.until_epoch > training.epochs:
            yield Clash(
                f"data.also.{number}.until_epoch",
                f"{added.until_epoch} is more than the run's {training.epochs} epochs "
                "(training.epochs); null is for all of them",
                also=("training.epochs",),
            )


def what_is_learnt_is_not_what_judges(data: CorpusSettings) -> Iterator[Clash]:
    root = data.root.resolve()
    for number, added in enumerate(data.also):
        if added.root.resolve() != root:
            continue
        for judge, part in (("dev", data.dev), ("test", data.test)):
            shared = partitions(added.part) & partitions(part or "")
            if shared:
                yield Clash(
                    f"data.also.{number}.part",
                    f"{' and '.join(sorted(shared))} would be learnt by heart, and then judge the "
                    f"run as its {judge} part (data.{judge}); name another part or corpus",
                    also=(f"data.{judge}",),
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
    if forced.feedback != "argmax" and not forced.can_fall:
        yield Clash(
            "teacher_forcing.feedback",
            f"{forced.feedback} would never be fed, since the rate is always 1; lower the rate or "
            "choose a kind that lowers it, such as after-alignment",
            also=tuple(f"teacher_forcing.{key}" for key in type(forced).model_fields),
        )


def masks_hide_behind_the_mean(
    frontend: FrontendSettings, augment: AugmentSettings | None
) -> Iterator[Clash]:
    if augment is None or frontend.normalise != "none":
        return
    for name in ("band_masks", "time_masks", "frequency_masks"):
        masks: MaskSettings | None = getattr(augment, name)
        if masks is not None and masks.count > 0:
            yield Clash(
                f"augment.{name}",
                "what is hidden would not become the mean but stick out, since frames are not "
                "normalised; set frontend.normalise to mean-variance or mean, or this to null",
                also=("frontend.normalise",),
            )


def speakers_are_known(data: CorpusSettings, frontend: FrontendSettings) -> Iterator[Clash]:
    if frontend.normalise_over == "utterance":
        return
    if frontend.normalise == "none":
        yield Clash(
            "frontend.normalise_over",
            "nothing is normalised over a speaker; set frontend.normalise to mean-variance or mean",
            also=("frontend.normalise",),
        )
    if isinstance(data, ArraysSettings) and data.speaker is None:
        yield Clash(
            "frontend.normalise_over",
            "of arrays nobody knows who speaks, unless data.speaker: prefix reads it off the names "
            "of their files; add that, or set this to utterance",
            also=("data.speaker",),
        )


def workers_keep_no_cache(data: CorpusSettings, batching: BatchingSettings) -> Iterator[Clash]:
    usual = BatchingSettings.model_fields["cache_megabytes"].default  # as a resolved page states it
    if batching.cache_megabytes in (0, usual):
        return
    if isinstance(data, CutsSettings) and data.cache is not None:
        yield Clash(
            "batching.cache_megabytes",
            f"what is kept on disk (data.cache) is not kept in memory too; leave this at {usual}",
            also=("data.cache",),
        )
    elif batching.workers:
        yield Clash(
            "batching.cache_megabytes",
            f"nothing is kept with workers, whose memory ends with the epoch; set batching.workers "
            f"to 0 or leave this at {usual}",
            also=("batching.workers",),
        )


def what_begins_late_begins(
    training: TrainingSettings, averaging: AveragingSettings, augment: AugmentSettings | None
) -> Iterator[Clash]:
    starts: dict[str, int] = {}
    if not isinstance(averaging, NoAveraging):
        starts["averaging.from_epoch"] = averaging.from_epoch
    if augment is not None:
        starts["augment.from_epoch"] = augment.from_epoch
    if training.weight_noise > 0:
        starts["training.weight_noise_from"] = training.weight_noise_from
    yield from _never_begun(training, starts)


def what_moves_moves(
    training: TrainingSettings, loss: LossSettings, teacher_forcing: TeacherForcingSettings
) -> Iterator[Clash]:
    starts: dict[str, int] = {}  # the first epoch that is unlike the ones before
    if loss.ctc_fade is not None:
        starts["loss.ctc_fade"] = loss.ctc_fade[0] + 1
    if isinstance(teacher_forcing, LinearForcing):
        starts["teacher_forcing.first_epoch"] = teacher_forcing.first_epoch + 1
    if isinstance(teacher_forcing, StagedForcing) and isinstance(teacher_forcing.stages, dict):
        starts["teacher_forcing.stages"] = min(teacher_forcing.stages)
    yield from _never_begun(training, starts)


def epochs_in_order_are_in_the_run(
    training: TrainingSettings, batching: BatchingSettings
) -> Iterator[Clash]:
    if batching.shortest_first_epochs > training.epochs:
        yield Clash(
            "batching.shortest_first_epochs",
            f"{batching.shortest_first_epochs} is more than the run's {training.epochs} epochs "
            "(training.epochs)",
            also=("training.epochs",),
        )


def _never_begun(training: TrainingSettings, starts: Mapping[str, int]) -> Iterator[Clash]:
    for path, start in starts.items():
        if start > training.epochs:
            yield Clash(
                path,
                f"epoch {start} never comes in a run of {training.epochs} (training.epochs)",
                also=("training.epochs",),
            )


RULES: tuple[Rule, ...] = (
    frames_come_from_the_corpus,
    sound_is_there_to_be_changed,
    a_cache_keeps_what_is_made,
    what_is_cached_stays_as_it_is,
    what_is_added_is_heard_in_the_run,
    what_is_learnt_is_not_what_judges,
    ctc_needs_a_head,
    a_head_needs_ctc,
    speller_trains,
    heads_share_what_they_are_given,
    warm_up_ends,
    feedback_is_fed,
    masks_hide_behind_the_mean,
    speakers_are_known,
    workers_keep_no_cache,
    what_begins_late_begins,
    what_moves_moves,
    epochs_in_order_are_in_the_run,
)


def clashes(sections: Mapping[str, Any]) -> Iterator[Clash]:
    """All impossible combinations among the sections given; rules about others are left out."""
    for rule in RULES:
        names = inspect.signature(rule).parameters
        if all(name in sections for name in names):
            yield from rule(**{name: sections[name] for name in names})
