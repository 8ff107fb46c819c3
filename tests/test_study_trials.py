"""Rows that Optuna thinks of: within their axes, told what came of them, taken up again."""

import errno
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_study import FakePlace, Seen, planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.study.folder import Outcome, Plan, StudyFolder, read_outcome, write_outcome
from spelldown.study.running import runner as running
from spelldown.study.running.runner import Runner
from spelldown.study.running.view import View
from spelldown.study.where import local
from spelldown.study.where.place import Ended, Job

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'spelldown[tune]'")

AXES: dict[str, Any] = {
    "rate": {"key": "optimizer.rate", "low": 1e-4, "high": 1e-1, "log": True},
    "speller.width": {"low": 8, "high": 24, "whole": True},
    "attention.kind": ["dot", "cosine"],
}
RANGES = {name: axis for name, axis in AXES.items() if isinstance(axis, dict)}
FULL = OSError(errno.ENOSPC, "No space left on device", "trials.log")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TICK", 0.001)
    monkeypatch.setattr(running, "WAITS", 5 * (0.001,))


def cer_of(job: Job) -> float:
    """Lowest for a wide speller."""
    from spelldown.recipe.recipe import read_recipe

    recipe = read_recipe(Path(job.command[-2]) / "rows" / job.name / "recipe.yaml")
    return 1 - recipe.speller.width / 100


def finishes(job: Job) -> Ended:
    run = Path(job.command[-2]) / "rows" / job.name
    outcome = read_outcome(run)
    assert outcome is not None
    scores = {part: {"cer": cer_of(job), "wer": 0.5} for part in ("dev", "test")}
    write_outcome(run, outcome.now("finished", scores=scores, starts=outcome.starts + 1))
    return Ended(0)


def fails(job: Job) -> Ended:
    return Ended(1, "its process ended with status 1")


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., tuple[Runner, FakePlace]]:
    """Works on the study as far as it goes."""
    folder = StudyFolder(tmp_path / "studies" / "tiny")

    def go(place: FakePlace | None = None, **explore: Any) -> tuple[Runner, FakePlace]:
        from spelldown.study.trials import Trials

        place = place or FakePlace({}, finishes)
        page = write_study(
            tmp_path,
            tmp_path / "corpus",
            rows={},
            axes=explore.pop("axes", AXES),
            shared={"training.epochs": 60, **explore.pop("shared", {})},
            seeds=explore.pop("seeds", 1),
            explore={"kind": "optuna", "trials": 6, **explore},
            base_row=False,
        )
        planned = planned_in(page, folder)
        runner = Runner(planned, folder, Seen(), Trials(planned, folder))
        runner.run(place)
        return runner, place

    return go


def trials_of(runner: Runner) -> Any:
    return runner.further.study.trials  # type: ignore[union-attr]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc", "cma-es"])
def test_as_many_trials_are_run_as_asked_for_each_within_its_axes(
    search: Any, sampler: str, recwarn: pytest.WarningsRecorder
) -> None:
    runner, place = search(sampler=sampler, axes=RANGES if sampler == "cma-es" else AXES)
    assert not recwarn.list  # for the terminal to show
    assert [job.name for job in place.jobs] == [f"trial-00{n}-seed1" for n in range(1, 7)]
    for row in runner.planned.plan.rows:
        recipe = runner.planned.recipes[row.runs[1]]
        assert 1e-4 <= recipe.optimizer.rate <= 1e-1
        assert 8 <= recipe.speller.width <= 24
        assert row.values["speller.width"] == str(recipe.speller.width)
        assert row.values.get("attention.kind", "dot") == recipe.attention.kind


def test_optuna_is_told_what_each_trial_came_to(search: Any) -> None:
    runner, _ = search()
    told = {trial.number: trial.value for trial in trials_of(runner) if trial.value is not None}
    assert len(told) >= 5  # the last is told when another is asked for
    for trial in trials_of(runner):
        if trial.value is not None:
            assert trial.value == pytest.approx(1 - trial.params["speller.width"] / 100)


def test_a_search_goes_on_where_it_was(search: Any) -> None:
    def breaks(job: Job) -> Ended:
        raise KeyboardInterrupt  # as if the study were killed

    with pytest.raises(KeyboardInterrupt):
        search(FakePlace({"trial-004-seed1": [breaks]}, finishes))
    runner, place = search()
    assert [job.name for job in place.jobs] == [f"trial-00{n}-seed1" for n in (4, 5, 6)]
    assert len(trials_of(runner)) == 6
    assert len(runner.planned.plan.rows) == 6


def test_a_trial_that_fails_does_not_end_the_search(search: Any) -> None:
    runner, place = search(FakePlace({"trial-002-seed1": [fails]}, finishes))
    assert len(place.jobs) == 6
    assert runner.outcomes["trial-002-seed1"].state == "failed"


def test_values_that_are_impossible_together_are_left_out_with_a_word(search: Any) -> None:
    def linear(**keys: float) -> dict[str, Any]:
        return {"teacher_forcing": {"kind": "linear", **keys}}

    axes = {
        "from": {"values": {"early": {}, "late": linear(first_epoch=10, end=0.9)}},
        "until": {"values": {"early": linear(last_epoch=5), "late": {}}},
    }
    runner, _ = search(axes=axes, sampler="random", trials=12)
    left_out = [m for m in runner.watcher.messages if "left out" in m]
    assert left_out and "must come after first_epoch" in left_out[0]
    assert len(trials_of(runner)) == 12
    assert len(runner.planned.plan.rows) == 12 - len(left_out)


@pytest.mark.parametrize(
    "changed",
    [
        {"axes": RANGES},
        {"axes": {**AXES, "attention.kind": ["dot", "additive"]}},
        {"shared": {"optimizer.clip": 0.5}},
        {"minimise": "wer"},
        {"seeds": [7]},
    ],
)
def test_another_search_begins_anew_and_the_old_one_is_found_again(
    search: Any, changed: dict[str, Any]
) -> None:
    first, _ = search(trials=3)
    other, place = search(**{"trials": 2, **changed})
    assert len(other.planned.plan.rows) == len(trials_of(other)) == 2
    assert {job.name for job in place.jobs} <= set(other.planned.plan.runs)
    again, place = search(trials=4)
    assert [row.runs for row in again.planned.plan.rows[:3]] == [
        row.runs for row in first.planned.plan.rows
    ]
    assert len(place.jobs) == 1


# --- how many at a time, and how long yet


@pytest.mark.parametrize(("sampler", "seeds", "most"), [("tpe", 1, 4), ("gp", 1, 1), ("gp", 2, 2)])
def test_trials_go_side_by_side_as_far_as_there_is_room_and_their_sampler_can_do(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    seeds: int,
    most: int,
) -> None:
    places: list[FakePlace] = []

    class Here(FakePlace):
        def __init__(self, *about: Any) -> None:
            super().__init__({}, finishes, lanes=real(*about).lanes)
            places.append(self)

    real = local.LocalPlace.shared
    monkeypatch.setattr(local, "_gpus", lambda: ())
    monkeypatch.setattr(local, "_cores", lambda: 4)
    monkeypatch.setattr(local, "left_on_computer", lambda: 99 << 30)
    monkeypatch.setattr(local.LocalPlace, "shared", Here)
    monkeypatch.chdir(tmp_path)
    explore = {"kind": "optuna", "trials": 5, "sampler": sampler}
    page = write_study(
        tmp_path, corpus, rows={}, axes=RANGES, explore=explore, base_row=False, seeds=seeds
    )
    said = CliRunner().invoke(app, ["study", str(page)])
    assert (len(places[0].jobs), places[0].most) == (5 * seeds, most), said.exception


def test_the_time_left_counts_trials_to_come_and_what_goes_side_by_side(search: Any) -> None:
    runner, _ = search(trials=2)
    again, _ = search(FakePlace({}, finishes, lanes=0), trials=7)  # nothing is thought of yet
    assert (again.to_come(), again.side_by_side()) == (5, 5)
    view = View(again.folder, Console())
    for name in runner.outcomes:
        again.outcomes[name] = runner.outcomes[name].now("finished", seconds=30)
    assert view.left(again) == pytest.approx(5 * 30)
    assert view.summary(again) == "2 of 7 runs over; about 2 min left"
    again.running = dict.fromkeys("abc", None)
    for name in "ab":  # c is in a queue
        write_outcome(again.folder.rows / name, Outcome(name, 1, "", "running"))
    assert view.left(again) == pytest.approx(5 * 30 / 2)
    again.only = frozenset(["trial-001"])
    assert (again.to_come(), again.side_by_side(), view.left(again)) == (0, 0, None)


def test_of_a_search_a_row_can_be_done_alone(search: Any) -> None:
    runner, _ = search(FakePlace({}, fails), trials=2)
    runner.only = frozenset(["trial-002"])
    place = FakePlace({}, finishes)
    runner.given.clear()
    assert runner.run(place)
    assert [job.name for job in place.jobs] == ["trial-002-seed1"]


# --- a full disk, and what is not installed


def test_a_full_disk_ends_neither_the_search_nor_its_record(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan cannot be written, and lines of trials.log only in part, while trial 2 is new."""
    real, fsync, fails_now = StudyFolder.write_plan, os.fsync, {"plan": 1, "log": 4}

    def write_plan(self: StudyFolder, plan: Plan) -> None:
        if len(plan.rows) == 2 and fails_now["plan"]:
            fails_now["plan"] -= 1
            raise FULL
        real(self, plan)

    def cuts_short(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        new = path.name == "trials.log" and path.read_text().count('"op_code":4') >= 2
        if new and fails_now["log"]:
            fails_now["log"] -= 1
            os.truncate(path, path.stat().st_size - 9)
            raise FULL
        fsync(number)

    monkeypatch.setattr(StudyFolder, "write_plan", write_plan)
    monkeypatch.setattr(os, "fsync", cuts_short)
    runner, place = search()
    assert fails_now == {"plan": 0, "log": 0}
    assert len(place.jobs) == len(runner.folder.read_plan().rows) == 6
    assert {o.state for o in runner.outcomes.values()} == {"finished"}
    monkeypatch.undo()
    _, place = search()
    assert place.jobs == []  # all was taken up


def test_a_disk_that_stays_full_ends_the_search_when_nothing_runs_any_more(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spelldown.study.trials import Trials

    ended: list[str] = []

    def ends(job: Job) -> Ended:
        ended.append(job.name)
        return finishes(job)

    def full(self: Trials, runner: Runner) -> bool:
        if len(self.planned.plan.rows) == 2:
            raise FULL
        return more(self, runner)

    more = Trials.more
    monkeypatch.setattr(Trials, "more", full)
    with pytest.raises(OSError, match="No space left"):
        search(FakePlace({}, ends, lanes=3))
    assert ended == ["trial-001-seed1", "trial-002-seed1"]


@pytest.mark.parametrize(("sampler", "needed"), [("cma-es", "cmaes"), ("gp", "scipy")])
def test_a_sampler_that_is_not_installed_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, needed: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == needed else real(name)
    )
    monkeypatch.chdir(tmp_path)
    explore = {"kind": "optuna", "sampler": sampler}
    page = write_study(tmp_path, tmp_path / "corpus", rows={}, axes=RANGES, explore=explore)
    said = CliRunner().invoke(app, ["study", str(page), "--dry-run"])
    assert said.exit_code == 1
    assert f"{needed}, not installed here: pip install 'spelldown[tune]'" in said.stderr


def test_a_dry_run_counts_the_trials_of_this_search_alone(
    search: Any, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search()
    monkeypatch.chdir(tmp_path)
    page = str(tmp_path / "study.yaml")
    trials = StudyFolder(tmp_path / "studies" / "tiny").trials
    before = trials.read_bytes()
    asked = ["study", page, "--dry-run", "--no-measure", "--into", "studies/tiny"]
    told = CliRunner().invoke(app, [*asked, "explore.trials=8"])
    assert "6 rows, 6 runs, 0 to do\nand 2 runs of trials" in told.stdout
    told = CliRunner().invoke(app, [*asked, "explore.seed=9"])  # another search
    assert "0 rows, 0 runs, 0 to do\nand 6 runs of trials" in told.stdout
    assert trials.read_bytes() == before
