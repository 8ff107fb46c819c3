"""Runs that are killed, and what a run came to, to be compared bit for bit with another."""

import json
from pathlib import Path
from typing import Any

import torch

from spelldown.training.run.checkpoint import load_checkpoint
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent

TIMES = {"seconds", "utterances_per_second", "frames_per_second", "waiting_share", "memory"}


class Killed(BaseException):
    """Not an Exception, so that nothing on the way takes it for an error of the run."""


class KillsAfter(Silent):
    """Ends training without a farewell, after so many updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    def updated(self, done: int, utterances: int, loss: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def outcome(run: Path) -> dict[str, Any]:
    """All that a run has come to, by name, except how long it took and how much it held."""
    folder = RunFolder(run)
    last, best = load_checkpoint(folder.last), load_checkpoint(folder.best)
    found: dict[str, Any] = {}
    for name, tensors in (("last", last.weights), ("average", last.averaging),
                          ("best", best.weights)):  # fmt: skip
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    for number, memory in last.state["optimizer"]["state"].items():
        for key, value in memory.items():
            exact = value.numpy().tobytes() if torch.is_tensor(value) else value
            found[f"optimizer {number} {key}"] = exact
    for line in folder.metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        name = f"metrics of epoch {record['epoch']}"
        found[name] = "listed twice" if name in found else _timeless(record)
    return found


def _timeless(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    return {name: _timeless(value) for name, value in record.items() if name not in TIMES}
