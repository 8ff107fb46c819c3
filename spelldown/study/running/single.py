"""One run of a study, from wherever it stands to its scores: what a place's process does.

    python -m spelldown.study.running.single STUDY RUN [--leashed]

It trains the run or goes on with it, scores it on the study's parts, and leaves the outcome in the
run's folder, whatever happens, unless it is killed: then whoever started it notes that. With
`--leashed`, it wishes to end as soon as its standard input is closed.
"""

import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spelldown.errors import CheckpointError, DataError, RunError, SpelldownError
from spelldown.recipe import run as runs
from spelldown.recipe.language.pretraining import FOLDER as PRETRAINING
from spelldown.recipe.parts import build_recognizer
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.using.evaluation import evaluate
from spelldown.search.metrics import Scores
from spelldown.study.folder import (
    StudyFolder,
    moment,
    read_outcome,
    read_scores,
    write_outcome,
    write_scores,
)
from spelldown.study.where.local import LEASHED
from spelldown.training.run.checkpoint import load_state, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import PlainLines
from spelldown.training.trainer import Outcome as Trained
from spelldown.writing import FULL

DONE, FAILED, NO_SPACE, INTERRUPTED = 0, 1, 74, 130  # exit statuses
LOCK_SECONDS = 60.0  # that a process of an earlier study may take to end


class Limited(PlainLines):
    """Plain lines, and a wish to end once training has taken so many seconds.

    They count from the first epoch's begin: to read the corpus is no training.
    """

    def __init__(self, seconds: float | None, before: float) -> None:
        """before: seconds that earlier starts trained."""
        super().__init__()
        self.limit, self.before = seconds, before
        self.began: float | None = None
        self.reached = False

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        super().epoch_begins(epoch, epochs, batches, done)
        if self.began is None:
            self.began = time.monotonic()

    def updated(self, done: int, utterances: int, loss: float) -> None:
        super().updated(done, utterances, loss)
        self._look()

    def validated(self, record: Mapping[str, Any]) -> None:
        super().validated(record)
        self._look()

    def _look(self) -> None:
        if self.limit is None or self.began is None or self.reached:
            return
        if self.before + time.monotonic() - self.began >= self.limit:
            self.reached = True
            signal.raise_signal(signal.SIGTERM)  # the trainer ends its update and saves


@dataclass
class Single:
    """One run, and how far it is."""

    study: StudyFolder
    name: str
    minutes: float | None
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        self.folder = self.study.run(self.name)
        self.path = self.folder.path
        self.began = time.monotonic()
        self.scoring = False  # has begun

    def work(self) -> int:
        """Does what is missing; the exit status."""
        before = read_outcome(self.path)
        if before is None:
            raise RunError(f"{self.path} has no outcome.json: no study has planned it")
        self.was = before
        spent = max(before.seconds, trained_seconds(self.folder))
        known = before.scores if before.over else {}  # other weights may come to be the best
        self.before = replace(before, seconds=spent, scores=known)
        self.note("running", starts=before.starts + 1, began=before.began or moment())
        try:
            return self.worked()
        except SpelldownError as error:
            return self.failed(str(error))
        except (MemoryError, torch.OutOfMemoryError) as error:
            traceback.print_exc()
            return self.failed(f"out of memory: {first_line(error)}")
        except OSError as error:
            traceback.print_exc()
            full = FULL.get(error.errno or 0)
            self.failed(full or f"{type(error).__name__}: {first_line(error)}")
            return NO_SPACE if full else FAILED
        except Exception as error:
            traceback.print_exc()
            return self.failed(f"{type(error).__name__}: {first_line(error)}")

    def worked(self) -> int:
        wait_for_lock(self.folder)
        ending, reason = self.trained()
        if ending == "interrupted":
            self.note("waiting", reason)
            return INTERRUPTED
        self.score()
        self.note("stopped" if ending == "stopped" else "finished", reason)
        return DONE

    def trained(self) -> tuple[str, str]:
        """Trains to the end: `finished`, `stopped` or `interrupted`, and what to say of it."""
        if self.was.over:  # but a part is missing that it was not scored on
            return self.was.state, self.was.reason
        recipe = read_recipe(self.folder.recipe)
        spent = trained_seconds(self.folder)
        tracker = Limited(None if self.minutes is None else 60 * self.minutes, spent)
        if newest(self.folder.last) is None:
            outcome = runs.start(recipe, self.folder, tracker)
        else:
            outcome = runs.resume(self.path, tracker)
        return told_of(outcome, tracker.reached, recipe, self.minutes)

    def score(self) -> None:
        """Scores the run on every part that it was not scored on yet, within its memory limit."""
        self.scoring = True
        done = read_scores(self.path) if self.before.scores else {}
        missing = [part for part in self.parts if part not in self.before.scores]
        run = runs.load_run(self.path) if missing else None
        for part in missing:
            assert run is not None
            print(f"scoring {part}", flush=True)
            try:
                found = evaluate(run, part, memory=run.recipe.training.memory)
                done[part] = found.scores
                figures = figures_of(found.scores, found.unended)
            except DataError as error:
                figures = {"missing": error.summary}
            write_scores(self.path, done)  # what is scored stays so, whatever happens to the next
            self.before = replace(self.before, scores={**self.before.scores, part: figures})

    def failed(self, reason: str) -> int:
        """Notes a failure; what there is of the run is scored, if it can be. A run that was over,
        and could not be scored on one part more, stays so."""
        print(reason, flush=True)
        with suppress(SpelldownError, OSError, RuntimeError, MemoryError):
            if newest(self.folder.best) is not None and not self.scoring:
                self.score()
        self.note(self.was.state if self.was.over else "failed", reason)
        return FAILED

    def note(self, state: Any, reason: str = "", **others: Any) -> None:
        """Writes the outcome, with all that the run's folder tells."""
        seconds = self.before.seconds + time.monotonic() - self.began
        known = told_by(self.folder)
        for most in ("peak_mib", "gpu_peak_mib"):  # a process that goes on counts from nothing
            known[most] = highest((known.get(most), getattr(self.before, most)))
        over = {} if state == "running" else {"ended": moment(), "seconds": round(seconds, 3)}
        outcome = self.before.now(state, reason, **{**known, **over, **others})
        outcome = replace(outcome, machine=platform.node())
        write_outcome(self.path, outcome)
        self.before = replace(outcome, seconds=self.before.seconds)


def told_of(
    outcome: Trained, limited: bool, recipe: Recipe, minutes: float | None
) -> tuple[str, str]:
    """How training ended, in the study's words, and what to say of it."""
    epochs = f"after {outcome.epochs} of {recipe.training.epochs} epochs"
    ending = str(outcome.ending)
    if ending == "interrupted":
        if not limited:
            return "interrupted", f"interrupted {epochs}"
        if outcome.best_epoch is None:
            raise RunError(
                f"the budget of {minutes:g} minutes was used up before the first validation: there "
                "is nothing to score"
            )
        return "finished", f"the budget of {minutes:g} minutes was used up {epochs}"
    if ending == "stopped early":
        return "finished", f"no better for {recipe.training.patience} epochs: ended {epochs}"
    if ending != "finished":
        return "stopped", f"attention would not align: ended {epochs}"
    return "finished", ""


def told_by(folder: RunFolder) -> dict[str, Any]:
    """What a run's metrics.jsonl says, as fields of its outcome."""
    tries = (RunFolder(path) for path in folder.tries.glob("*"))
    told = (record for one in (folder, *tries) for record in one.read_metrics())
    memory = [record["memory"] for record in told if "memory" in record]
    always = {
        "repairs": tuple(repair["remedy"] for repair in folder.read_repairs()),
        **{key: highest(m[key] for m in memory) for key in ("peak_mib", "gpu_peak_mib")},
    }
    records = folder.read_metrics()
    if not records:
        return always
    last = records[-1]
    best = [record["epoch"] for record in records if record["best"]]
    aligned = [r["epoch"] for r in records if r["alignment"]["verdict"] == "aligned"]
    speeds = [record["train"]["utterances_per_second"] for record in records]
    return {
        "epochs": last["epoch"],
        "updates": last["updates"],
        "best_epoch": best[-1] if best else None,
        "weights": weights_of(folder),
        "utterances_per_second": round(sum(speeds) / len(speeds), 3),
        "alignment": last["alignment"]["verdict"],
        "aligned_epoch": aligned[0] if aligned else None,
        **always,
    }


def highest(figures: Iterable[float | None]) -> float | None:
    """The highest of those that are known; None if none is."""
    return max((figure for figure in figures if figure is not None), default=None)


def weights_of(folder: RunFolder) -> int | None:
    """How many numbers a run's model learns; None before it has a vocabulary."""
    if not (folder.recipe.is_file() and folder.vocabulary.is_file()):
        return None
    from spelldown.data.vocabulary import Vocabulary

    symbols = len(Vocabulary.from_json(folder.vocabulary.read_text(encoding="utf-8")))
    recipe = read_recipe(folder.recipe, folder.changes())
    recognizer = build_recognizer(recipe, symbols, "meta")
    return sum(weight.numel() for weight in recognizer.parameters())


def figures_of(scores: Scores, unended: int) -> dict[str, Any]:
    """What an outcome holds of a part's scores."""
    return {"utterances": scores.utterances, "distance": scores.distance, "cer": scores.cer,
            "wer": scores.wer, "unended": unended}  # fmt: skip


def trained_seconds(folder: RunFolder) -> float:
    """What a run has trained so far, as its files keep it: whole epochs with their validations, and
    of the epoch that it is in what the checkpoint holds; pre-training and what came before it began
    anew included. What a kill has lost does not count: it will be trained again.
    """
    tries = (RunFolder(path) for path in folder.tries.glob("*"))
    earlier = sum(r["seconds"] for one in tries for r in one.read_metrics())
    beforehand = RunFolder(folder.path / PRETRAINING)
    return float(earlier + sum(map(_seconds_kept, (beforehand, folder))))


def _seconds_kept(folder: RunFolder) -> float:
    records, epoch, begun = folder.read_metrics(), None, 0.0
    with suppress(CheckpointError, KeyError, TypeError):
        state = load_state(folder.last)
        epoch, begun = state["progress"]["epoch"], state["sums"]["seconds"]
    # An epoch whose line was written just before a kill is in the checkpoint's sums, too.
    whole = [r["seconds"] for r in records if epoch is None or r["epoch"] < epoch]
    return float(sum(whole) + begun)


def first_line(error: BaseException) -> str:
    """What an error says, without what libraries add to it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def wait_for_lock(folder: RunFolder, seconds: float = LOCK_SECONDS) -> None:
    """Returns when nobody trains in a folder, as a process of a killed study may for a moment.

    Raises RunError if somebody still does after so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            with folder.held():
                return
        except RunError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.2)


def leash() -> None:
    """From now on this process wishes to end when its standard input is closed."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(words: list[str]) -> int:
    """What the process does; its exit status."""
    leashed = LEASHED in words
    folder, name = [word for word in words if word != LEASHED]
    if leashed:
        leash()
    study = StudyFolder(Path(folder))
    plan = study.read_plan()
    return Single(study, name, plan.minutes, plan.parts).work()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
