"""Whether a run that is killed again and again ends as one that never was: bit for bit.

    python benchmarks/resume.py [--kills 20] [--epochs 12] [--threads 1] [--folder DIR] [--json]

Trains a small recipe that has everything a run must remember (dropout, batch norm, drawn feedback,
weight noise, momentum, a plateau, a weight average) once without interruption. Then trains it again
by the same command while `kill -9` strikes at random moments, from the start of Python to the
middle of writing a checkpoint, and goes on each time by `spelldown train --resume`. Compares the
weights of the last and the best checkpoint, the average, the optimizer's memory and metrics.jsonl
(but for times and memory). Ends with status 1 if anything differs.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # their corpus and their comparison
from run_outcome import outcome
from toy_corpus import write_corpus

COMMAND = [sys.executable, "-c", "from spelldown.cli import main; main()", "train"]
RECIPE = """
name: resume
data: {{kind: arrays, root: {corpus}}}
frontend: {{kind: arrays, width: 6, deltas: 1}}
augment: {{speed: [0.9, 1.1], time_masks: {{count: 1, width: 5}}}}
batching: {{utterances: 8, shortest_first_epochs: 1}}
listener:
  blocks:
    - {{kind: conv, widths: [16], stride: 2, norm: batch, dropout: 0.1}}
    - {{kind: bilstm, width: 24, dropout: 0.2}}
attention: {{kind: location, width: 16}}
speller: {{embedding: 16, width: 48, dropout: 0.2, embedding_dropout: 0.05}}
ctc: {{}}
loss: {{label_smoothing: 0.1, ctc_weight: 0.3, ctc_fade: [2, 5], ctc_weight_end: 0.1}}
optimizer: {{kind: adamw, rate: 3e-3, accumulate: 2}}
schedule: {{kind: plateau, warmup: 1, patience: 1}}
teacher_forcing: {{kind: linear, first_epoch: 1, last_epoch: 6, feedback: sample}}
averaging: {{kind: exponential, decay: 0.95}}
training: {{epochs: {epochs}, patience: null, weight_noise: 0.01, pictures_every: 4,
           checkpoint_minutes: 0.003, device: cpu, threads: {threads}}}
search: {{kind: greedy, longest: 60}}
"""


@dataclass
class Told:
    """What happened, for --json."""

    kills: int = 0
    rounds: int = 0
    equal: bool = True
    differing: list[str] = field(default_factory=list)
    kills_before_training: int = 0
    kills_while_writing_a_checkpoint: int = 0
    seconds_unbroken: float = 0.0
    seconds_broken: float = 0.0
    threads: int = 0


def start(recipe: Path, run: Path) -> "subprocess.Popen[bytes]":
    """The command that a user would give: go on if there is a run, else begin."""
    if (run / "recipe.yaml").exists():
        arguments = ["--resume", str(run)]
    else:
        shutil.rmtree(run, ignore_errors=True)
        arguments = [str(recipe), "--run", str(run)]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)


def unbroken(recipe: Path, run: Path) -> tuple[float, float]:
    """Trains without interruption; seconds until training began, and seconds of training."""
    began = time.monotonic()
    process = start(recipe, run)
    while process.poll() is None and not (run / "checkpoints" / "last").exists():
        time.sleep(0.05)
    training = time.monotonic()
    if process.wait() != 0:
        raise SystemExit(f"the unbroken run ended with status {process.returncode}")
    return training - began, time.monotonic() - training


def broken(recipe: Path, run: Path, kills: int, spent: tuple[float, float], told: Told) -> None:
    """Trains to the end, killed up to `kills` more times."""
    starting, training = spent
    each = 2 * training / max(kills, 1)  # so that about half the kills come before the end
    while True:
        began = time.time()
        process = start(recipe, run)
        moment = random.uniform(0.3 * starting, starting + each)
        try:
            status = process.wait(moment if told.kills < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            told.kills += 1
            leftovers = [*(run / "checkpoints").glob("*.*")]
            fresh = [path for path in leftovers if path.stat().st_mtime > began]
            told.kills_while_writing_a_checkpoint += bool(fresh)
            told.kills_before_training += not (run / "checkpoints" / "last").exists()
            continue
        if status != 0:
            raise SystemExit(f"{run}: ended with status {status}")
        told.rounds += 1
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where to leave the runs; else they are deleted"
    )
    parser.add_argument("--json", action="store_true", help="one object, and nothing else")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        corpus = write_corpus(folder / "corpus", {"train": 96, "dev": 16}, width=6, words=3)
        recipe = folder / "resume.yaml"
        recipe.write_text(
            RECIPE.format(corpus=corpus.resolve(), epochs=asked.epochs, threads=asked.threads)
        )
        told = Told(threads=asked.threads)
        spent = unbroken(recipe, folder / "unbroken")
        told.seconds_unbroken = round(sum(spent), 1)
        expected, began = outcome(folder / "unbroken"), time.monotonic()
        while told.kills < asked.kills or told.rounds == 0:
            run = folder / f"broken-{told.rounds + 1}"
            broken(recipe, run, asked.kills, spent, told)
            found = outcome(run)
            names = expected.keys() | found.keys()
            differing = sorted(n for n in names if expected.get(n) != found.get(n))
            told.differing += [f"{run.name}: {name}" for name in differing]
        told.seconds_broken = round(time.monotonic() - began, 1)
        told.equal = not told.differing
    if asked.json:
        print(json.dumps(vars(told)))
    else:
        verdict = "all equal" if told.equal else f"DIFFERENT: {', '.join(told.differing[:10])}"
        print(
            f"{told.kills} kills ({told.kills_before_training} before training, "
            f"{told.kills_while_writing_a_checkpoint} while writing a checkpoint) over "
            f"{told.rounds} finished runs on {told.threads} threads; "
            f"{len(expected)} tensors and records: {verdict}"
        )
    raise SystemExit(not told.equal)


if __name__ == "__main__":
    main()
