"""A run that will not align, mended: it begins anew, with one remedy more.

A recognizer whose attention has not aligned has little to lose. So a repaired run begins from its
first weights, and ends as a run of the repaired recipe would, bit for bit; remedies stay once they
are in. RUN/repairs.jsonl says what was changed, when and why; recipe.yaml stays what was asked for,
and whoever opens the run lays the repairs over it. What came of each try lies in RUN/tries.

A repair is made once its line is in repairs.jsonl. What is still to be moved aside then, `settle`
moves, in this process or in one that resumes the run after a kill.
"""

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import SpelldownError
from spelldown.model.listening.blocks import (
    BiLSTMSettings,
    Conv2dSettings,
    ConvSettings,
    MobileSettings,
    PyramidSettings,
)
from spelldown.recipe.parts import build_parts, dropping, reduction_of, remedies_in_use
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.training.alignment import Validation, came_apart, verdict
from spelldown.training.remedies import MOST_DROPOUT, untried
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker
from spelldown.writing import write_whole

LOWER_RATE = "lower-rate"
"""What is tried first where attention had aligned and came apart."""
LEAST_REDUCTION = 4


def repair(
    recipe: Recipe,
    folder: RunFolder,
    vocabulary: Vocabulary,
    history: Sequence[Validation],
    tracker: Tracker,
) -> Recipe | None:
    """The recipe with the next remedy, its run's folder made ready to begin anew; None if there is
    no remedy left that it could take.

    history: the validations of the run as it is. A remedy that the recipe or the corpus cannot
    take (CTC where the frames do not suffice, say) is passed over, and the reason told.
    """
    for name in _remedies(recipe, folder, history):
        asked = REPAIRS[name](recipe)
        if not asked:
            continue
        changes = [*folder.changes(), *asked]
        try:
            repaired = read_recipe(folder.recipe, changes)
            build_parts(repaired, vocabulary, caching=False)
        except SpelldownError as error:
            first = str(error).splitlines()[-1].strip(" -")
            tracker.message(f"the remedy {name} is passed over: {first}")
            continue
        _record(folder, history, name, asked)
        tracker.message(f"beginning anew with {name}: {' '.join(asked)}")
        settle(folder)
        return repaired
    tracker.message("attention does not align, and no remedy is left to be tried")
    return None


def to_try(recipe: Recipe) -> dict[str, str]:
    """What to type for each remedy that a recipe does not use yet, and could take, by its name."""
    asked = {one.name: REPAIRS[one.name](recipe) for one in untried(remedies_in_use(recipe))}
    return {name: shlex.join(changes) for name, changes in asked.items() if changes}


def settle(folder: RunFolder) -> None:
    """Moves aside what came before the last repair, if that is still to be done."""
    count = len(folder.read_repairs())
    if not count:
        return
    aside = folder.tries / str(count)
    kept = aside / folder.metrics.name  # moved last: where it is, all is
    checkpoints = folder.last.parent
    if not kept.exists():
        aside.mkdir(parents=True, exist_ok=True)
        for path in (checkpoints, folder.pictures, folder.memory, folder.metrics):
            if path.exists():
                path.rename(aside / path.name)
    shutil.rmtree(aside / checkpoints.name, ignore_errors=True)  # nobody wants these weights


def _remedies(recipe: Recipe, folder: RunFolder, history: Sequence[Validation]) -> list[str]:
    """Names of what may be tried next, in their order."""
    in_use = remedies_in_use(recipe) | {one["remedy"] for one in folder.read_repairs()}
    names = [remedy.name for remedy in untried(in_use)]
    apart = came_apart(history) and LOWER_RATE not in in_use
    return [LOWER_RATE] * apart + names


def _record(
    folder: RunFolder, history: Sequence[Validation], name: str, changes: Sequence[str]
) -> None:
    """Adds the repair's line to repairs.jsonl."""
    now = history[-1]
    line: dict[str, Any] = {
        "remedy": name,
        "changes": list(changes),
        "reason": verdict(history).reason,
        "epochs": now.epoch,
        "updates": now.updates,
        "alignment": now.alignment.value,
        "cer": now.cer,
    }
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in (*folder.read_repairs(), line)]
    write_whole(folder.repairs, "".join(lines))


def _norms(recipe: Recipe) -> list[str]:
    return [
        f"listener.blocks.{place}.norm=layer"
        for place, block in enumerate(recipe.listener.blocks)
        if isinstance(block, BiLSTMSettings | PyramidSettings) and block.norm != "layer"
    ]


def _convolutions(recipe: Recipe) -> list[str]:
    """Plain convolutions for mobile ones: as wide at their end, and with their strides."""
    return [
        f"listener.blocks.{place}={json.dumps(_plain(block))}"
        for place, block in enumerate(recipe.listener.blocks)
        if isinstance(block, MobileSettings)
    ]


def _plain(block: MobileSettings) -> dict[str, Any]:
    strides = [stride for _, _, _, stride in block.stages if stride > 1] or [1]
    return {
        "kind": "conv",
        "widths": [block.width] * len(strides),
        "kernel": max(block.kernel, *strides) // 2 * 2 + 1,  # no frame is stepped over
        "stride": strides,
        "norm": "layer",
        "dropout": block.dropout,
    }


def _leading_ctc(recipe: Recipe) -> list[str]:
    epochs = recipe.training.epochs
    first = max(1, min(5, epochs // 4))
    fade = [first, max(first + 1, min(20, epochs // 2))]
    return ["loss.ctc_weight=0.7", "loss.ctc_weight_end=0.3", f"loss.ctc_fade={fade}"]


def _reduction(recipe: Recipe) -> list[str]:
    """Convolutions that move on by two frames, as many as it takes; nothing if that cannot help."""
    short, changes = reduction_of(recipe), []
    for place, block in enumerate(recipe.listener.blocks):
        if not isinstance(block, ConvSettings | Conv2dSettings):
            continue
        strides = list(block.strides)
        for layer, stride in enumerate(strides):
            if stride == 1 and short < LEAST_REDUCTION:
                strides[layer], short = 2, 2 * short
        if tuple(strides) != block.strides:
            changes.append(f"listener.blocks.{place}.stride={strides}")
    return changes if short >= LEAST_REDUCTION else []


def _later_masks(recipe: Recipe) -> list[str]:
    epochs = recipe.training.epochs
    return [f"augment.from_epoch={max(2, min(5, epochs // 4))}"] if epochs > 1 else []


def _warm_up(recipe: Recipe) -> list[str]:
    changes = [f"schedule.warmup={min(2.0, recipe.training.epochs / 10):g}"]
    return changes + (["optimizer.clip=1.0"] if recipe.optimizer.clip is None else [])


REPAIRS: dict[str, Callable[[Recipe], list[str]]] = {
    LOWER_RATE: lambda recipe: [f"optimizer.rate={recipe.optimizer.rate / 2:g}"],
    "teacher-forcing": lambda recipe: ["teacher_forcing.kind=after-alignment"],
    "norm": _norms,
    "convolutions": _convolutions,
    "ctc": lambda recipe: ["ctc={}", "loss.ctc_weight=0.3"],
    "dropout": lambda recipe: [f"{name}={MOST_DROPOUT}" for name in dropping(recipe)],
    "leading-ctc": _leading_ctc,
    "reduction": _reduction,
    "shortest-first": lambda recipe: [
        f"batching.shortest_first_epochs={min(2, recipe.training.epochs)}"
    ],
    "location": lambda recipe: ["attention.kind=location", "attention.sharpness=1"],
    "late-augment": _later_masks,
    "warm-up": _warm_up,
    "label-smoothing": lambda recipe: ["loss.label_smoothing=0.1"],
}
"""What each remedy changes of a recipe; nothing where it cannot help."""
