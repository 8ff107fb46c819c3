"""A run is a folder: what was asked for, what came of it, and all that is needed to go on.

    recipe.yaml       the resolved recipe
    vocabulary.json   the symbols
    metrics.jsonl     one line an epoch
    checkpoints/last  where training stands; checkpoints/best the weights of the best validation
    pictures/         attention of a few utterances
    environment.json  versions, machine, command, and when the run was started and resumed
    left_out.txt      utterances that could not be used, if any
    budget.json       the frame budget that was found to fit, if the recipe leaves it open
    memory.jsonl      what did not fit into memory, and is tried in parts since, if anything
    repairs.jsonl     what was changed of the recipe because attention did not align, if anything
    tries/            what came of it before each repair
    trained_on.json   which utterances it learns from (train) and is judged by (dev)
    search.yaml       how to search, if `spelldown tune` found a better way than the recipe's
    tuning/           what it tried, and pictures of it

Whatever stands under one of these names is whole: it was written beside its place and then moved.
"""

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from spelldown.errors import RunError
from spelldown.writing import to_disk, write_whole

PACKAGES = ("torch", "numpy", "lhotse", "spelldown")


class RunFolder:
    """The places in a run's folder, and its text files. Nothing is made before it is needed."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.vocabulary = self.path / "vocabulary.json"
        self.metrics = self.path / "metrics.jsonl"
        self.pictures = self.path / "pictures"
        self.environment = self.path / "environment.json"
        self.left_out = self.path / "left_out.txt"
        self.budget = self.path / "budget.json"
        self.memory = self.path / "memory.jsonl"
        self.repairs = self.path / "repairs.jsonl"
        self.tries = self.path / "tries"
        self.trained_on = self.path / "trained_on.json"
        self.search = self.path / "search.yaml"
        self.tuning = self.path / "tuning"
        self.best = self.path / "checkpoints" / "best"
        self.last = self.path / "checkpoints" / "last"
        self.lock = self.path / ".lock"

    def __str__(self) -> str:
        return str(self.path)

    def is_content(self, path: Path) -> bool:
        """Whether a path in the folder is more than a lock, or what a kill left half-written."""
        half = path.name.startswith(".") and path.suffix == ".partial"
        return path != self.lock and not half

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one epoch's line to metrics.jsonl, safe on disk on return. NaN is written null."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(record), ensure_ascii=False) + "\n")
            to_disk(file)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in order; a line that was not written to its end is none."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                records.append(json.loads(line))
        return records

    def read_repairs(self) -> list[dict[str, Any]]:
        """The lines of repairs.jsonl, in order."""
        if not self.repairs.exists():
            return []
        return [json.loads(line) for line in self.repairs.read_text(encoding="utf-8").splitlines()]

    def changes(self) -> list[str]:
        """What repairs have changed of the recipe, as overrides."""
        return [change for repair in self.read_repairs() for change in repair["changes"]]

    def forget_epochs_after(self, epoch: int) -> None:
        """Takes the lines of later epochs out of metrics.jsonl, for a run that repeats them."""
        kept = [record for record in self.read_metrics() if record["epoch"] <= epoch]
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        write_whole(self.metrics, lines)

    def note_start(self, command: list[str] | None = None, launch: str | None = None) -> None:
        """Writes environment.json, or adds a start to it if the run has been started before.

        launch: the name of what started several processes, kept when it starts them again
        """
        before = self.starts()
        now = {"time": datetime.now(UTC).isoformat(timespec="seconds"),
               "command": command or sys.argv, "launch": launch, **environment()}  # fmt: skip
        text = json.dumps({"starts": [*before, now]}, indent=2, ensure_ascii=False)
        write_whole(self.environment, text + "\n")

    def starts(self) -> list[dict[str, Any]]:
        """Every start that environment.json knows."""
        with suppress(OSError, ValueError, KeyError):
            return list(json.loads(self.environment.read_text(encoding="utf-8"))["starts"])
        return []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in this folder while the context lasts.

        The lock goes with the process, however it ends. A process must take it once at a time: to
        close the file again gives the lock back. Raises RunError if another has it.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock.open("a+") as file:
            try:
                # A record lock: unlike flock's, it is not inherited by data loading workers, which
                # outlive a killed run by some seconds.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"{self.path}: another process is training in this folder; wait for it, stop "
                    "it, or choose another folder"
                ) from None
            yield


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def environment() -> dict[str, Any]:
    """Versions, the commit of this package's source if it has one, and the machine."""
    return {"versions": _versions(), "commit": _commit(), "machine": _machine()}


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _commit() -> str | None:
    """The commit of the source tree, with `+` if files have changed since; None without git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not merely within another's tree
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    with suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None
