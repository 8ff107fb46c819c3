"""Runs on this machine: one after the other, or side by side.

A GPU takes one run. Without one, as many runs go side by side as there are cores and memory for:
two runs on a thread each get more done than one on two threads, or two after each other
(docs/log.md). A run ends with the study that started it, even if that is killed: each holds the end
of a pipe, and its process ends when the other end is gone.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field

from spelldown.errors import StudyError
from spelldown.recipe.recipe import Recipe
from spelldown.search.searching.memory import left_on_computer
from spelldown.settings import Settings
from spelldown.study.where.place import Ended, Job, memory_of

GIBIBYTES = 3.0  # that a run is taken to need, where nobody says
LEASHED = "--leashed"  # tells a run that its standard input is the pipe
KILLED_FOR_MEMORY = "it may have been for want of memory"


class LocalSettings(Settings):
    """How runs share this machine."""

    side_by_side: int | None = Field(None, ge=1)
    """Runs at a time; null: one for each GPU, or as many as there are cores and memory for."""
    threads: int | None = Field(None, ge=1)
    """Of each run, where its recipe states none; null shares the cores out evenly."""
    gigabytes: float = Field(GIBIBYTES, gt=0)
    """Memory (GiB) that one run is taken to need, when it is decided how many go side by side;
    more where a recipe's training.memory is more."""


class LocalPlace:
    """This machine."""

    def __init__(
        self,
        settings: LocalSettings,
        runs: int,
        threads: int = 1,
        gibibytes: float = 0.0,
        on_gpus: bool = True,
    ) -> None:
        """`runs` are there to be run: no more than those are planned for. `threads` and
        `gibibytes` are the most that the recipe of any of them states; `on_gpus`: whether any may
        use one."""
        self.gpus = _gpus() if on_gpus else ()
        fitting = len(self.gpus) or _lanes(
            max(threads, settings.threads or 1), max(gibibytes, settings.gigabytes)
        )
        self.lanes = settings.side_by_side or min(fitting, max(runs, 1))
        self.threads = settings.threads or max(1, _cores() // self.lanes)
        self.running: list[LocalHandle] = []

    @classmethod
    def shared(cls, settings: LocalSettings, recipes: Mapping[str, Recipe], runs: int) -> Self:
        """This machine, shared by `runs` of these recipes by what they say that they need."""
        stated = [recipe.training for recipe in recipes.values()]
        threads = max((training.threads or 1 for training in stated), default=1)
        most = max((memory_of(recipe) or 0 for recipe in recipes.values()), default=0)
        on_gpus = any(training.device != "cpu" for training in stated)
        return cls(settings, runs, threads, most / 2**30, on_gpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        for handle in self._alive():
            handle.kill()

    def room(self) -> int:
        return self.lanes - len(self._alive())

    def submit(self, job: Job) -> "LocalHandle":
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads or self.threads)}
        taken = [handle.gpu for handle in self._alive()]
        gpu = min(self.gpus, key=taken.count) if self.gpus and job.gpus else None
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        handle = LocalHandle(job, {**environment, **job.environment}, gpu)
        self.running.append(handle)
        return handle

    def _alive(self) -> "list[LocalHandle]":
        self.running = [handle for handle in self.running if handle.poll() is None]
        return self.running


class LocalHandle:
    """A process of this machine."""

    def __init__(self, job: Job, environment: dict[str, str], gpu: str | None) -> None:
        self.job, self.gpu = job, gpu
        job.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with job.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*job.command, LEASHED],
                    cwd=job.directory,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the study, which passes on a wish
                )
        except FileNotFoundError as error:
            raise StudyError(f"no process can be started: {error}") from None

    def poll(self) -> Ended | None:
        status = self.process.poll()
        return None if status is None else Ended(status, said_of(status))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        """Ends it and all that it started."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (AttributeError, ProcessLookupError):
                self.process.kill()
            self.process.wait()


def said_of(status: int) -> str:
    """What an exit status means, in words; empty for 0."""
    if status == 0:
        return ""
    if status > 0:
        return f"its process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    memory = f"; {KILLED_FOR_MEMORY}" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{memory}"


def _gpus() -> Sequence[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # of those that are named and there
    names = [name.strip() for name in named.split(",")] if named else list(map(str, range(count)))
    return [name for name in names if name][:count]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _lanes(threads: int, gibibytes: float) -> int:
    """Runs of so many threads and so much memory that this machine has room for."""
    free, cores = left_on_computer(), _cores() // threads
    return max(1, cores if free is None else min(cores, int(free / 2**30 / gibibytes)))
