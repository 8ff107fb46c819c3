"""Rows that Optuna thinks of: within their axes, told what came of them, taken up again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import FakePlace, Seen, planned_in, write_study

from spelldown.study.folder import StudyFolder, read_outcome, write_outcome
from spelldown.study.running import runner as running
from spelldown.study.running.runner import Runner
from spelldown.study.where.place import Ended, Job

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'spelldown[tune]'")

AXES: dict[str, Any] = {
    "rate": {"key": "optimizer.rate", "low": 1e-4, "high": 1e-1, "log": True},
    "speller.width": {"low": 8, "high": 24, "whole": True},
    "attention.kind": ["dot", "cosine"],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TICK", 0.001)


def cer_of(job: Job) -> float:
    """Lowest for a wide speller."""
    from spelldown.recipe.recipe import read_recipe

    recipe = read_recipe(Path(job.command[-2]) / "rows" / job.name / "recipe.yaml")
    return 1 - recipe.speller.width / 100


def finishes(job: Job) -> Ended:
    run = Path(job.command[-2]) / "rows" / job.name
    outcome = read_outcome(run)
    assert outcome is not None
    scores = {part: {"cer": cer_of(job)} for part in ("dev", "test")}
    write_outcome(run, outcome.now("finished", scores=scores, starts=outcome.starts + 1))
    return Ended(0)


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
            explore={"kind": "optuna", "trials": 6, **explore},
            base_row=False,
            shared={"training.epochs": 60},
        )
        planned = planned_in(page, folder)
        runner = Runner(planned, folder, Seen(), Trials(planned, folder))
        runner.run(place)
        return runner, place

    return go


def trials_of(runner: Runner) -> Any:
    return runner.further.study.trials  # type: ignore[union-attr]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_as_many_trials_are_run_as_asked_for_each_within_its_axes(
    search: Any, sampler: str
) -> None:
    runner, place = search(sampler=sampler)
    assert [job.name for job in place.jobs] == [f"trial-00{n}-seed1" for n in range(1, 7)]
    for row in runner.planned.plan.rows:
        recipe = runner.planned.recipes[row.runs[1]]
        assert 1e-4 <= recipe.optimizer.rate <= 1e-1
        assert 8 <= recipe.speller.width <= 24
        assert row.values["speller.width"] == str(recipe.speller.width)
        assert row.values["attention.kind"] == recipe.attention.kind


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
    def fails(job: Job) -> Ended:
        return Ended(1, "its process ended with status 1")

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
