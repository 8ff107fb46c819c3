"""Where a trainer stands: what a checkpoint must hold for it to go on, and how its run ended."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from spelldown.errors import CheckpointError
from spelldown.training import alignment
from spelldown.training.run.checkpoint import Checkpoint, fit_weights
from spelldown.training.run.conditions import hold_to
from spelldown.training.run.record import Progress, Sums

if TYPE_CHECKING:
    from spelldown.training.trainer import Trainer

Ending = Literal["finished", "stopped early", "unaligned", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after its last epoch, because nothing improved, because attention does not
    align (and `training.unaligned` does not leave it at that), or by Ctrl-C or SIGTERM.

    epochs: whole ones, with their validations; best: the value of `training.judge`
    """

    ending: Ending
    epochs: int
    updates: int
    best: float | None
    best_epoch: int | None


def outcome(trainer: "Trainer", ending: Ending) -> Outcome:
    """How the trainer's run ended."""
    progress, judge = trainer.progress, trainer.judge
    known = judge.best_epoch > 0
    return Outcome(
        ending,
        progress.epoch - 1,
        progress.updates,
        judge.best if known else None,
        judge.best_epoch if known else None,
    )


def remembered(trainer: "Trainer") -> Checkpoint:
    """All that is needed to go on from where the trainer stands."""
    state = {
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "teacher_forcing": trainer.teacher_forcing.state_dict(),
        "judge": trainer.judge.state_dict(),
        "history": [asdict(seen) for seen in trainer.history],
        "progress": asdict(trainer.progress),
        "sums": asdict(trainer.sums),
        "conditions": trainer.conditions,
    }
    return Checkpoint(trainer.recognizer.state_dict(), state, trainer.averaging.tensors())


def take_up(trainer: "Trainer", checkpoint: Checkpoint, device: torch.device) -> str | None:
    """Puts the trainer where the checkpoint's one stood; what there is to warn of, if anything.

    Raises CheckpointError if it cannot be used, and RunError if the corpus is another.
    """
    place, state = trainer.run.last, checkpoint.state
    fit_weights(trainer.recognizer, checkpoint.weights, place)
    warning = hold_to(state.get("conditions", {}), trainer.conditions, trainer.run)
    try:
        trainer.optimizer.load_state_dict(state["optimizer"])
        averaging = {name: each.to(device) for name, each in checkpoint.averaging.items()}
        trainer.averaging.load_tensors(averaging)
        trainer.schedule.load_state_dict(state["schedule"])
        trainer.teacher_forcing.load_state_dict(state["teacher_forcing"])
        trainer.judge.load_state_dict(state["judge"])
        trainer.history = alignment.remembered(state["history"])
        trainer.progress, trainer.sums = Progress(**state["progress"]), Sums(**state["sums"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{place}: does not belong to this recipe ({error}); resume with the recipe.yaml "
            "that lies in the run's folder"
        ) from error
    return warning
