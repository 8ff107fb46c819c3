"""Whether a study that is killed again and again makes the table of one that never was.

    python benchmarks/study_kills.py [--kills 5] [--epochs 8] [--folder DIR] [--json]

A study of 12 short runs (three recipes, four seeds) is run once without interruption. Then it is
run again by the same command while `kill -9` strikes at random moments, in turn the study and one
of its runs; after each, the same command with --resume does what is missing. Compares what stands
in the table: states, epochs, updates, figures of every part, every utterance as it was spelled, and
every epoch's losses. Ends with status 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # their corpus
from toy_corpus import write_corpus

SPELLDOWN = [sys.executable, "-m", "spelldown"]
SINGLE = "spelldown.study.running.single"
RECIPE = """
name: kills
data: {{kind: arrays, root: {corpus}}}
frontend: {{kind: arrays, width: 6}}
augment: {{speed: [0.9, 1.1], time_masks: {{count: 1, width: 5}}}}
batching: {{utterances: 8}}
listener:
  blocks:
    - {{kind: conv, widths: [16], stride: 2, dropout: 0.1}}
    - {{kind: bilstm, width: 16, dropout: 0.1}}
attention: {{kind: location, width: 16}}
speller: {{embedding: 16, width: 32, dropout: 0.1}}
ctc: {{}}
loss: {{ctc_weight: 0.3}}
optimizer: {{kind: adamw, rate: 3e-3}}
training: {{epochs: {epochs}, patience: null, device: cpu, threads: 1, pictures_every: 0,
           checkpoint_minutes: 0.005}}
search: {{kind: greedy, longest: 40}}
"""
STUDY = """
name: kills
recipe: kills.yaml
axes: {attention.kind: [location, additive, dot]}
base_row: false
seeds: 4
"""
TIMES = ("seconds", "memory", "utterances_per_second", "frames_per_second", "waiting_share")


@dataclass
class Told:
    """What happened, for --json."""

    runs: int = 0
    kills: int = 0
    kills_of_the_study: int = 0
    kills_of_a_run: int = 0
    starts: int = 0
    equal: bool = True
    differing: list[str] = field(default_factory=list)
    seconds_unbroken: float = 0.0
    seconds_broken: float = 0.0


def start(folder: Path, study: Path) -> "subprocess.Popen[bytes]":
    """The command that a user would give: go on if there is a study, else begin."""
    words = ["study", str(folder / "study.yaml"), "--into", str(study)]
    words += ["--resume"] if (study / "plan.json").exists() else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [*SPELLDOWN, *words],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def runs_of(study: Path) -> list[int]:
    """The processes of a study's runs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if SINGLE in words and str(study) in words:
                found.append(int(process.name))
    return found


def broken(folder: Path, study: Path, kills: int, spent: float, told: Told) -> None:
    """Runs the study to its end, killed `kills` times on the way."""
    while True:
        process = start(folder, study)
        while process.poll() is None:
            moment = time.monotonic() + random.uniform(0.2, 1.0) * spent / (kills + 1)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.05)
            if process.poll() is None and told.kills < kills:
                strike(process, study, told)
        if process.returncode == 0:
            break
    if told.kills < kills:
        raise SystemExit("the study was over before all kills: give it more --epochs")


def strike(process: "subprocess.Popen[bytes]", study: Path, told: Told) -> None:
    """Kills the study, or one of its runs: the study then goes on, and notes that it failed."""
    if told.kills % 2 == 0:
        process.kill()
        process.wait()
        told.kills_of_the_study += 1
    elif struck := runs_of(study):
        os.kill(random.choice(struck), signal.SIGKILL)
        told.kills_of_a_run += 1
    else:
        return  # between two runs
    told.kills += 1


def table(study: Path) -> dict[str, Any]:
    """All that a report shows of a study but times and memory, by run."""
    found: dict[str, Any] = {}
    for row in sorted((study / "rows").iterdir()):
        outcome = json.loads((row / "outcome.json").read_text())
        names = ("state", "reason", "epochs", "updates", "best_epoch", "weights", "alignment",
                 "aligned_epoch", "scores")  # fmt: skip
        lines = (row / "metrics.jsonl").read_text().splitlines()
        found[row.name] = {
            "outcome": {name: outcome[name] for name in names},
            "scores": json.loads((row / "scores.json").read_text()),
            "epochs": [timeless(json.loads(line)) for line in lines],
        }
    return found


def timeless(record: Any) -> Any:
    """A record without times and memory."""
    if isinstance(record, Mapping):
        return {key: timeless(each) for key, each in record.items() if key not in TIMES}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to leave all; else it is deleted")
    parser.add_argument("--json", action="store_true", help="one object, and nothing else")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        shutil.rmtree(folder / "unbroken", ignore_errors=True)
        shutil.rmtree(folder / "broken", ignore_errors=True)
        corpus = write_corpus(folder / "corpus", {"train": 32, "dev": 8, "test": 8}, width=6)
        (folder / "kills.yaml").write_text(RECIPE.format(corpus=corpus, epochs=asked.epochs))
        (folder / "study.yaml").write_text(STUDY)
        told, began = Told(), time.monotonic()
        if start(folder, folder / "unbroken").wait() != 0:
            raise SystemExit("the undisturbed study failed")
        told.seconds_unbroken = round(time.monotonic() - began, 1)
        expected, began = table(folder / "unbroken"), time.monotonic()
        broken(folder, folder / "broken", asked.kills, told.seconds_unbroken, told)
        told.seconds_broken = round(time.monotonic() - began, 1)
        found = table(folder / "broken")
        outcomes = (folder / "broken" / "rows").glob("*/outcome.json")
        told.starts = sum(json.loads(path.read_text())["starts"] for path in outcomes)
        told.runs = len(expected)
        told.differing = [
            f"{run}: {what}"
            for run in sorted(expected.keys() | found.keys())
            for what in ("outcome", "scores", "epochs")
            if expected.get(run, {}).get(what) != found.get(run, {}).get(what)
        ]
        told.equal = not told.differing
    if asked.json:
        print(json.dumps(vars(told)))
    else:
        verdict = "all equal" if told.equal else f"DIFFERENT: {', '.join(told.differing[:10])}"
        print(
            f"{told.runs} runs, {told.kills} kills ({told.kills_of_the_study} of the study, "
            f"{told.kills_of_a_run} of a run), {told.starts} starts: {verdict}"
        )
    raise SystemExit(not told.equal)


if __name__ == "__main__":
    main()
