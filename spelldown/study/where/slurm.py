"""Runs under Slurm, by submitit: each run is a job of its own, queued with all others.

The study itself stays where it was started, on a login node say, and waits. Jobs that Slurm takes
back, or whose time is up, are queued again and go on from their last checkpoints.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from spelldown.errors import NotNowError, StudyError
from spelldown.settings import Settings
from spelldown.study.where.local import LEASHED, said_of
from spelldown.study.where.place import Ended, Job
from spelldown.writing import write_whole

INSTALL = "--on slurm needs submitit, not installed here: pip install 'spelldown[slurm]'"
FOLDER = "slurm"  # in the study's folder: what submitit and Slurm write
JOBS = "jobs.json"  # there: numbers of jobs that may still be queued or running
TICK = 0.5  # seconds between looks at a process
BESIDES = 1.0  # GiB that a run holds beside what training.memory limits: libraries, and its files
SAVING = 90.0  # seconds that a run may take to save all, when Slurm wants its machine back
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REQUEUED", "REVOKED", "DEADLINE")
"""States of jobs that say nothing about the run."""
LASTING = (
    "invalid",
    "unrecognized",
    "not available",
    "not permitted",
    "denied",
    "not be satisfied",
    "more processors",
)
"""In what sbatch says of requests that it will never take; whatever else it says may pass."""


class SlurmSettings(Settings):
    """What each run asks Slurm for."""

    partition: str | None = None
    """Where to queue; null leaves it to Slurm."""
    account: str | None = None
    """On whose account; null leaves it to Slurm."""
    qos: str | None = None
    """Quality of service; null leaves it to Slurm."""
    minutes: int = Field(24 * 60, ge=1)
    """Longest time of one job. A run that takes longer is queued again and goes on."""
    threads: int = Field(1, ge=1)
    """Processor cores of each run, where its recipe states none."""
    gpus: int = Field(1, ge=0, le=1)
    """GPUs of each run, unless its recipe trains on the processor; 0 on a cluster without any."""
    gigabytes: float = Field(8.0, gt=0)
    """Memory (GiB) of each run; more where its recipe's training.memory is more."""
    most: int = Field(100, ge=1)
    """Runs that are queued or running at a time."""
    more: dict[str, str | int | bool] = Field(default_factory=dict)
    """Other options of sbatch, as `{constraint: a100, exclusive: true}`."""
    setup: tuple[str, ...] = ()
    """Shell lines before the run, as `module load cuda`."""
    requeues: int = Field(20, ge=0)
    """How often a job may be queued again when its time is up."""
    executor: Literal["slurm", "local"] = "slurm"
    """`local` starts the jobs on this machine, in the same way, to try it without Slurm."""


def hold_ready(settings: SlurmSettings) -> Any:
    """submitit itself. Raises StudyError where it is not installed, or no job can be submitted."""
    try:
        import submitit
    except ImportError:
        raise StudyError(INSTALL) from None
    if settings.executor == "slurm" and shutil.which("sbatch") is None:
        raise StudyError(
            "--on slurm: there is no sbatch on this machine; start the study on one from which "
            "jobs can be submitted (slurm.executor=local tries it here without Slurm)"
        )
    return submitit


class Work:
    """What a job does: the run's process, its end, and what if Slurm wants the machine back."""

    def __init__(
        self,
        command: Sequence[str],
        directory: str,
        log: str,
        environment: Mapping[str, str],
        wish: str,
    ) -> None:
        self.command, self.directory, self.log = tuple(command), directory, log
        self.environment, self.wish = dict(environment), wish
        self.process: Any = None

    def __call__(self) -> int:
        """The process's exit status; it is wished to end as soon as the file `wish` is there."""
        begun_at(self.wish).touch()
        python = self.command[0] if Path(self.command[0]).exists() else sys.executable
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [python, *self.command[1:], LEASHED],  # it ends with this process
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wished = False
        while (status := self.process.poll()) is None:
            if not wished and Path(self.wish).exists():
                wished = True
                self.process.terminate()
            time.sleep(TICK)
        return int(status)

    def checkpoint(self, *_: Any) -> Any:
        """Saves all; what is to be queued again. submitit calls this when the job's time is up, or
        its machine is wanted for others."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SAVING)
        again = Work(self.command, self.directory, self.log, self.environment, self.wish)
        return DelayedSubmission(again)


class SlurmPlace:
    """A Slurm cluster, seen from one of its machines."""

    def __init__(self, settings: SlurmSettings, runs: int, study: Path) -> None:
        """`study`: its folder, which all machines must see under the same name."""
        self.submitit = hold_ready(settings)
        self.settings, self.runs = settings, runs
        self.folder = study.absolute() / FOLDER
        self.running: list[SlurmHandle] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._end_left_over()
        return self

    def __exit__(self, *problem: object) -> None:
        for handle in self._alive():
            handle.kill()
        self._note()

    def room(self) -> int:
        return min(self.settings.most, max(self.runs, 1)) - len(self._alive())

    def submit(self, job: Job) -> "SlurmHandle":
        threads = job.threads or self.settings.threads
        executor = self.submitit.AutoExecutor(
            folder=self.folder / "%j",
            cluster=self.settings.executor,
            slurm_max_num_timeout=self.settings.requeues,
        )
        executor.update_parameters(**self._parameters(job, threads))
        wish = self.folder / f"{job.name}.stop"
        for left_over in (wish, begun_at(wish)):
            left_over.unlink(missing_ok=True)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": str(threads), **job.environment}
        work = Work(job.command, str(job.directory), str(job.log), environment, str(wish))
        try:
            submitted = executor.submit(work)
        except Exception as error:  # sbatch says in its own words what it does not like
            lasting = any(sign in str(error).lower() for sign in LASTING)
            kind = StudyError if lasting else NotNowError
            raise kind(f"{job.name} could not be submitted: {str(error).strip()}") from None
        handle = SlurmHandle(job, submitted, wish)
        self.running.append(handle)
        self._note()
        return handle

    def _parameters(self, job: Job, threads: int) -> dict[str, Any]:
        asked, gpus = self.settings, min(job.gpus, 1) * self.settings.gpus
        # submitit counts the local executor's GPUs by what this machine has.
        wanted: dict[str, Any] = {
            "name": f"spelldown-{job.name}",
            "timeout_min": asked.minutes,
            "cpus_per_task": threads,
            "gpus_per_node": gpus if asked.executor == "slurm" else 0,
            "mem_gb": max(asked.gigabytes, math.ceil((job.memory or 0) / 2**30 + BESIDES)),
        }
        named = {"partition": asked.partition, "account": asked.account, "qos": asked.qos}
        wanted |= {f"slurm_{name}": value for name, value in named.items() if value is not None}
        if asked.more:
            wanted["slurm_additional_parameters"] = dict(asked.more)
        if asked.setup:
            wanted["slurm_setup"] = list(asked.setup)
        return wanted

    def _alive(self) -> "list[SlurmHandle]":
        self.running = [handle for handle in self.running if handle.poll() is None]
        return self.running

    def _note(self) -> None:
        """Writes down which jobs are there, for a study that takes this one's place."""
        numbers = [str(handle.submitted.job_id) for handle in self.running if not handle.ended]
        write_whole(self.folder / JOBS, json.dumps(numbers) + "\n")

    def _end_left_over(self) -> None:
        """Ends the jobs of a study that was killed: their runs are about to be submitted again."""
        numbers: list[str] = []
        with suppress(OSError, ValueError):
            numbers = [str(number) for number in json.loads((self.folder / JOBS).read_text())]
        if numbers and self.settings.executor == "slurm":
            subprocess.run(["scancel", *numbers], check=False, capture_output=True)


def begun_at(wish: Path | str) -> Path:
    """The file by which a job tells that it has begun, beside the one that wishes it to end."""
    return Path(wish).with_suffix(".begun")


class SlurmHandle:
    """A job, queued or running."""

    def __init__(self, job: Job, submitted: Any, wish: Path) -> None:
        self.job, self.submitted, self.wish = job, submitted, wish
        self.ended: Ended | None = None
        self.killed = False

    def poll(self) -> Ended | None:
        if self.ended is None and self.submitted.done():
            self.ended = self._found()
            self.wish.unlink(missing_ok=True)
            begun_at(self.wish).unlink(missing_ok=True)
        return self.ended

    def _found(self) -> Ended:
        state = str(self.submitted.state).split()[0] if self.submitted.state else "UNKNOWN"
        if self.killed:
            return Ended(None, "it was killed")
        try:
            status = int(self.submitted.result())
        except Exception as error:  # submitit's own kinds, and whatever the job raised
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Ended(None, f"Slurm says {state}: {lines[-1][:200]}", lost=state in LOST)
        return Ended(status, said_of(status))

    def stop(self) -> None:
        """By a file, which the job looks for: signals through Slurm's steps reach some processes
        twice and others not at all. A job that waits in the queue is taken out of it."""
        if self.ended is None:
            with suppress(OSError):
                self.wish.touch()
            if not begun_at(self.wish).exists():
                self.kill()

    def kill(self) -> None:
        if self.ended is None:
            self.killed = True
            with suppress(Exception):  # it may have ended by itself meanwhile
                self.submitted.cancel()
            self.ended = Ended(None, "it was killed")
