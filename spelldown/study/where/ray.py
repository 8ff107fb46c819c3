"""Runs on a Ray cluster: one that is there, or one started on this machine.

Each run is an actor that starts the run's process where Ray finds room for it, and waits for its
end. A machine that goes away takes its actors along; their runs are begun again elsewhere, from
their last checkpoints.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from spelldown.errors import NotNowError, StudyError
from spelldown.settings import Settings
from spelldown.study.where.local import LEASHED, said_of
from spelldown.study.where.place import Ended, Job

INSTALL = "--on ray needs Ray, not installed here: pip install 'spelldown[ray]'"
SETTLING = 5.0  # seconds in which a machine that goes takes all of its processes along
AT_ONCE = 2  # calls that an actor serves: the one that waits, and the one that stops it


def hold_ready() -> Any:
    """Ray itself. Raises StudyError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise StudyError(INSTALL) from None
    return ray


class RaySettings(Settings):
    """Where Ray is, and what of it a run takes."""

    address: str | None = None
    """Of a cluster, `head:6379` or `auto`; null for the environment's (RAY_ADDRESS), or else for
    one that is started on this machine and ends with the study."""
    threads: int = Field(1, ge=1)
    """Processor cores of each run, where its recipe states none."""
    gpus: float = Field(1, ge=0, le=1)
    """GPUs of each run, where the cluster has any; 0.5 lets two share one."""
    gigabytes: float | None = Field(None, gt=0)
    """Memory (GiB) that Ray sets aside for each run, more where its recipe's training.memory is
    more; null for as much as that, and none where there is none."""


class Keeper:
    """Starts a run's process on whatever machine this is, and waits for it. A Ray actor."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.signal: int | None = None

    def run(
        self,
        command: Sequence[str],
        directory: str,
        log: str,
        environment: Mapping[str, str],
    ) -> int:
        """The process's exit status. It wishes to end when this actor does."""
        python = command[0] if Path(command[0]).exists() else sys.executable
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [python, *command[1:], LEASHED],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if self.signal is not None:
            self.send(self.signal)
        status = self.process.wait()
        if status == -signal.SIGKILL and self.signal != signal.SIGKILL:
            time.sleep(SETTLING)  # if its machine goes, this process goes next, and tells nothing
        return status

    def send(self, number: int) -> None:
        """Sends the process a signal, at once or as soon as there is one."""
        self.signal = number
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class RayPlace:
    """A Ray cluster."""

    def __init__(self, settings: RaySettings, runs: int) -> None:
        """`runs` are there to be run."""
        self.ray = hold_ready()
        self.settings, self.runs = settings, runs
        self.running: list[RayHandle] = []
        self.ours = False

    def __enter__(self) -> Self:
        if self.ray.is_initialized():
            return self
        address = self.settings.address or os.environ.get("RAY_ADDRESS")
        # Ray would tell its makers how it is used; nothing of a study is for anyone else.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # It would hide all GPUs from runs that ask for none; the recipe decides what they use.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        asked: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        asked |= {"include_dashboard": False} if address is None else {"address": address}
        try:
            self.ray.init(**asked)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"no Ray cluster can be reached at {address}" if address else "Ray cannot start"
            raise StudyError(f"{where}: {str(error).strip().splitlines()[0]}") from None
        self.ours = True
        return self

    def __exit__(self, *problem: object) -> None:
        for handle in self._alive():
            handle.kill()
        if self.ours:
            self.ray.shutdown()
            self.ours = False

    def room(self) -> int:
        """As the cluster is now: machines may come and go. One run is always let in, and waits for
        a machine if there is none."""
        with _answering():
            there = self.ray.cluster_resources()
        lanes = int(there.get("CPU", 0) // self.settings.threads)
        if there.get("GPU") and self.settings.gpus:
            lanes = min(lanes, int(there["GPU"] / self.settings.gpus))
        return max(1, min(lanes, self.runs)) - len(self._alive())

    def submit(self, job: Job) -> "RayHandle":
        threads = job.threads or self.settings.threads
        wants: dict[str, Any] = {"num_cpus": threads, "max_concurrency": AT_ONCE}
        memory = max(int((self.settings.gigabytes or 0) * 2**30), job.memory or 0)
        if memory:
            wants["memory"] = memory
        with _answering():
            if job.gpus and self.ray.cluster_resources().get("GPU"):
                wants["num_gpus"] = self.settings.gpus
            self._hold_fitting(threads, memory)
            keeper = self.ray.remote(Keeper).options(**wants).remote()
            handle = RayHandle(self.ray, job, keeper, threads)
        self.running.append(handle)
        return handle

    def _hold_fitting(self, threads: int, memory: int) -> None:
        """Raises StudyError for more cores or bytes than any machine has, which Ray would wait
        for."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        cores = max((node.get("CPU", 0) for node in nodes), default=0)
        there = max((node.get("memory", 0) for node in nodes), default=0)
        if cores and threads > cores:
            raise StudyError(
                f"a run wants {threads} cores, and the largest machine of the Ray cluster has "
                f"{cores:.0f}: set training.threads in the recipe, or ray.threads in the study"
            )
        if there and memory > there:
            raise StudyError(
                f"a run wants {memory / 2**30:.1f} GiB of memory, and the largest machine of the "
                f"Ray cluster has {there / 2**30:.1f}: see training.memory in the recipe, and "
                "ray.gigabytes in the study"
            )

    def _alive(self) -> "list[RayHandle]":
        self.running = [handle for handle in self.running if handle.poll() is None]
        return self.running


class RayHandle:
    """A run's process on some machine of the cluster, or waiting for one."""

    def __init__(self, ray: Any, job: Job, keeper: Any, threads: int) -> None:
        self.ray, self.job, self.keeper = ray, job, keeper
        self.ended: Ended | None = None
        environment = {"OMP_NUM_THREADS": str(threads), **job.environment}
        self.status = keeper.run.remote(
            list(job.command), str(job.directory), str(job.log), environment
        )

    def poll(self) -> Ended | None:
        if self.ended is None and self._over():
            self.ended = self._found()
            self._let_go()
        return self.ended

    def _over(self, seconds: float = 0) -> bool:
        try:
            return bool(self.ray.wait([self.status], timeout=seconds)[0])
        except Exception:  # the cluster does not answer; `room` makes a story of it
            return False

    def _found(self) -> Ended:
        try:
            status = int(self.ray.get(self.status))
        except self.ray.exceptions.RayActorError:
            return Ended(None, "its machine, or Ray's process there, is gone", lost=True)
        except self.ray.exceptions.RayTaskError as error:
            return Ended(None, f"it could not be started: {error.cause}")
        except self.ray.exceptions.RayError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return Ended(None, f"Ray: {first}", lost=True)
        return Ended(status, said_of(status))

    def stop(self) -> None:
        if self.ended is None:
            with suppress(Exception):  # the cluster may not answer
                self.keeper.send.remote(int(signal.SIGTERM))

    def kill(self) -> None:
        if self.ended is None:
            with suppress(Exception):  # the cluster may not answer
                self.keeper.send.remote(int(signal.SIGKILL))
            self._over(5)
            self.ended = self.poll() or Ended(-int(signal.SIGKILL), "it was killed")
            self._let_go()

    def _let_go(self) -> None:
        """Gives the machine's cores back."""
        with suppress(Exception):  # it may be gone with its machine
            self.ray.kill(self.keeper)


@contextmanager
def _answering() -> Iterator[None]:
    """Raises NotNowError where the cluster turns out not to answer."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # of many kinds, and Python's own among them
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotNowError(f"the Ray cluster does not answer: {first[:200]}") from error
