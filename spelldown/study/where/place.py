"""What a place for runs promises: `local.py` is the first one; a cluster is another.

A place starts one process for each job and tells how it ended. It never looks into a run: what the
run came to stands in the run's own folder, which the place's machines must share with the study's.
A job may be submitted again after any end: its process goes on from the run's last checkpoint, and
does nothing if there is nothing left to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from spelldown.recipe.recipe import Recipe
from spelldown.training.guard.limit import bytes_of


@dataclass(frozen=True)
class Job:
    """One run to be trained and scored by one process.

    name:      of the run, unlike any other in the study
    command:   the process's words; the first is this Python, which another machine may replace
    directory: to start it in, since a recipe's paths are meant from there
    log:       where its output goes, added to what stands there
    environment: laid over the place's own
    threads:   of the processor that it should have; None leaves it to the place
    gpus:      that it should have, if the place has any
    memory:    bytes that it may hold beside the processor; None where nobody says
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    gpus: int = 1
    memory: int | None = None


def memory_of(recipe: Recipe) -> int | None:
    """Bytes that a run's process may hold by its recipe, for Job.memory: training.memory, unless
    that is a GPU's."""
    training = recipe.training
    on_gpu = training.device.startswith("cuda")
    return bytes_of(training.memory) if training.memory and not on_gpu else None


@dataclass(frozen=True)
class Ended:
    """How a job's process ended.

    status: its exit status (negative: the signal that killed it); None where nobody can tell
    reason: what the place knows of it, in a sentence; empty for status 0
    lost:   the machine went, not the run: it is worth another try at once
    """

    status: int | None
    reason: str = ""
    lost: bool = False


class Handle(Protocol):
    """A job that was submitted."""

    @property
    def job(self) -> Job: ...

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs or waits for room; never waits itself."""

    def stop(self) -> None:
        """Wishes it to end soon, with all saved (SIGTERM); `poll` tells when it has."""

    def kill(self) -> None:
        """Ends it at once."""


class Place(Protocol):
    """Takes jobs. Used as a context, at whose end nothing of it runs any more."""

    def room(self) -> int:
        """How many more jobs can be submitted now, so that all run side by side.

        A place with a queue of its own may always answer with a large number. Raises NotNowError
        where nobody can tell for the time being."""

    def submit(self, job: Job) -> Handle:
        """Starts a job. Raises StudyError if the place does not take it, NotNowError if it may
        take it later."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *problem: object) -> None: ...
