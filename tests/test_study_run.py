"""One run of a study from start to scores, and the whole by its command."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_outcome import Killed
from tiny_study import planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import DoesNotFitError, NonFiniteError
from spelldown.recipe import run as runs
from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.run import load_run
from spelldown.recipe.using.evaluation import evaluate
from spelldown.study.folder import Outcome, StudyFolder, read_scores, write_outcome
from spelldown.study.running.single import (
    FAILED,
    NO_SPACE,
    Limited,
    Single,
    told_of,
    trained_seconds,
)
from spelldown.training.run.checkpoint import load_state
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import PlainLines
from spelldown.training.trainer import Outcome as Trained
from spelldown.writing import write_whole

SOURCE = Path(__file__).parent.parent
STOPPED_EARLY = Trained("stopped early", 3, 5, 0.5, 2)


@pytest.fixture
def planned(
    tmp_path: Path, make_corpus: Callable[..., Path]
) -> Callable[..., tuple[StudyFolder, Single]]:
    """A study's first run, ready to be worked on."""

    def plan(*overrides: str, minutes: float | None = None) -> tuple[StudyFolder, Single]:
        folder = StudyFolder(tmp_path / "studies" / "tiny")
        found = planned_in(write_study(tmp_path, corpus), folder, *overrides)
        name = "base-seed1"
        folder.write_plan(found.plan)
        if folder.read_outcome(name) is None:
            write_outcome(folder.rows / name, Outcome(name, 1, found.plan.identities[name]))
        write_whole(folder.run(name).recipe, found.recipes[name].as_yaml())
        return folder, Single(folder, name, minutes, found.plan.parts)

    corpus = make_corpus(words=1)  # test has no transcripts
    return plan


def test_a_run_is_trained_scored_and_its_outcome_left(planned: Any) -> None:
    folder, run = planned()
    assert run.work() == 0
    outcome = folder.read_outcome("base-seed1")
    assert (outcome.state, outcome.epochs, outcome.updates) == ("finished", 2, 4)
    assert outcome.starts == 1 and outcome.seconds > 0 and outcome.peak_mib > 50
    assert outcome.weights == sum(
        weight.numel() for weight in load_run(run.path).transcriber.recognizer.parameters()
    )
    expected = evaluate(load_run(run.path), "dev").scores
    assert read_scores(run.path)["dev"] == expected
    assert outcome.scores["dev"]["cer"] == expected.cer
    assert "no transcripts" in outcome.scores["test"]["missing"]


def test_a_run_that_is_over_is_only_scored_on_what_is_missing(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = planned()
    run.work()
    monkeypatch.setattr(runs, "start", None)
    monkeypatch.setattr(runs, "resume", None)
    again = Single(folder, "base-seed1", None, ("dev", "train"))
    assert again.work() == 0
    outcome = folder.read_outcome("base-seed1")
    assert set(outcome.scores) == {"dev", "test", "train"}
    assert set(read_scores(run.path)) == {"dev", "train"}
    assert (outcome.state, outcome.starts) == ("finished", 2)


def test_a_run_is_scored_within_its_memory_and_a_part_that_is_scored_stays_so(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = planned()
    limits: list[Any] = []

    def short_of_memory(trained: Any, part: str, memory: Any) -> Any:
        limits.append((part, memory))
        if part == "train":
            raise DoesNotFitError("u-7: this utterance alone does not fit")
        return evaluate(trained, part)

    monkeypatch.setattr("spelldown.study.running.single.evaluate", short_of_memory)
    assert run.work() == 0 and limits == [("dev", None), ("test", None)]
    page = folder.run("base-seed1").recipe
    write_whole(page, read_recipe(page, ["training.memory=9GB"]).as_yaml())
    assert Single(folder, "base-seed1", None, ("dev", "test", "train")).work() == FAILED
    assert limits[2:] == [("train", "9GB")]  # and not again because it failed
    outcome = folder.read_outcome("base-seed1")
    assert (outcome.state, outcome.reason) == ("finished", "u-7: this utterance alone does not fit")
    assert set(outcome.scores) == {"dev", "test"} and "dev" in read_scores(run.path)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), NO_SPACE, "no space left on the disk"),
        (ValueError("a bug\nof ours"), FAILED, "ValueError: a bug"),
        (MemoryError(), FAILED, "out of memory: MemoryError"),
        (NonFiniteError("not finite any more"), FAILED, "not finite any more"),
    ],
)
def test_whatever_ends_a_run_is_its_reason_and_what_there_is_is_scored(
    planned: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    reason: str,
) -> None:
    folder, run = planned()
    start = runs.start

    def ends(*arguments: Any) -> None:
        start(*arguments)
        raise error

    monkeypatch.setattr(runs, "start", ends)
    assert run.work() == status
    outcome = folder.read_outcome("base-seed1")
    assert (outcome.state, outcome.reason, outcome.epochs) == ("failed", reason, 2)
    assert "cer" in outcome.scores["dev"]


def test_a_failed_run_goes_on_from_its_checkpoint_and_is_scored_anew(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = planned()
    stale = {"dev": {"cer": 9.0}}
    before = folder.read_outcome("base-seed1")
    write_outcome(run.path, before.now("failed", "a kill", scores=stale, starts=1))
    assert run.work() == 0
    outcome = folder.read_outcome("base-seed1")
    assert outcome.starts == 2 and outcome.reason == ""
    assert outcome.scores["dev"]["cer"] != 9.0


def test_a_budget_of_minutes_ends_a_run(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is, there is to be a first validation.
    monkeypatch.setattr(Limited, "updated", PlainLines.updated)
    folder, run = planned("training.epochs=5000", "training.patience=null", minutes=0.001)
    assert run.work() == 0
    outcome = folder.read_outcome("base-seed1")
    assert outcome.state == "finished" and 1 <= outcome.epochs < 5000
    assert outcome.reason.startswith("the budget of 0.001 minutes was used up after")


def test_of_a_run_that_was_killed_the_minutes_that_it_keeps_count(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = planned("training.epochs=9", "training.checkpoint_minutes=0")
    real, made = runs.start, 5  # two updates an epoch

    def killed(recipe: Any, place: Any, tracker: Any) -> Any:
        class Kills(Limited):
            def updated(self, *told: Any) -> None:
                nonlocal made
                made -= 1
                if made < 0:
                    raise Killed

        return real(recipe, place, Kills(None, 0))

    monkeypatch.setattr(runs, "start", killed)
    with pytest.raises(Killed):
        run.work()
    lines = [line["seconds"] for line in run.folder.read_metrics()]
    state = load_state(run.folder.last)
    assert len(lines) == 2 and state["progress"]["epoch"] == 3 and state["sums"]["seconds"] > 0
    kept = sum(lines) + state["sums"]["seconds"]
    assert trained_seconds(run.folder) == pytest.approx(kept)
    # A line of an epoch that the checkpoint is still in, and what was pre-trained and repaired.
    run.folder.append_metrics({**run.folder.read_metrics()[-1], "epoch": 3, "seconds": 1000.0})
    for other in (run.path / "pretraining", run.path / "tries" / "1"):
        RunFolder(other).append_metrics({"epoch": 1, "seconds": 10.0})
    assert trained_seconds(run.folder) == pytest.approx(kept + 20)
    befores: list[float] = []

    def resumed(path: Path, tracker: Limited) -> Trained:
        befores.append(tracker.before)
        return STOPPED_EARLY

    monkeypatch.setattr(runs, "resume", resumed)
    assert Single(folder, "base-seed1", 1.0, ("dev",)).work() == 0
    assert befores == [pytest.approx(kept + 20)]


def test_how_a_run_ended_is_told_in_the_studys_words(tmp_path: Path) -> None:
    write_study(tmp_path, tmp_path)
    recipe = read_recipe(tmp_path / "tiny.yaml")

    def told(ending: Any, limited: bool = False) -> tuple[str, str]:
        return told_of(Trained(ending, 1, 3, 0.5, 1), limited, recipe, 2.0)

    assert told("finished") == ("finished", "")
    assert told("stopped early")[0] == "finished"
    assert told("interrupted") == ("interrupted", "interrupted after 1 of 2 epochs")
    assert told("interrupted", limited=True)[0] == "finished"
    unaligned = "attention would not align: ended after 1 of 2 epochs"
    assert told("unaligned") == ("stopped", unaligned)


# --- the whole, by the command


def spelldown(*words: object, cwd: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "spelldown", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def test_a_study_that_is_killed_takes_its_runs_along_and_goes_on(
    tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write_study(
        tmp_path,
        make_corpus(words=1, silent=()),
        rows={},
        axes={"optimizer.rate": [1e-3]},
        base_row=False,
        shared={"training.epochs": 30, "training.patience": None},
    )
    metrics = tmp_path / "studies" / "study" / "rows" / "optimizer.rate=0.001-seed1"
    process = spelldown("study", page, "--side-by-side", 1, cwd=tmp_path)
    until = time.monotonic() + 120
    while not (metrics / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    lines = -1
    while lines != (lines := len((metrics / "metrics.jsonl").read_text().splitlines())):
        time.sleep(1.5)  # the run has noticed, and is gone
    assert lines < 30
    assert json.loads((metrics / "outcome.json").read_text())["state"] in ("running", "waiting")
    monkeypatch.chdir(tmp_path)
    again = CliRunner().invoke(app, ["study", str(page)])
    assert again.exit_code == 1 and "--resume" in again.stderr
    done = CliRunner().invoke(app, ["study", str(page), "--resume"])
    assert done.exit_code == 0, done.output
    folder = StudyFolder(tmp_path / "studies" / "study")
    (outcome,) = folder.known().values()
    assert (outcome.state, outcome.starts, outcome.epochs) == ("finished", 2, 30)
    assert (folder.path / "report.html").exists()
    assert (folder.path / "study.yaml").exists()
