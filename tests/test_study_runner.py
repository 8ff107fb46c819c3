"""The runner: whatever happens to its runs is recorded, and only what is missing is done."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_study import FakePlace, Seen, planned_in, write_study

from spelldown.errors import RunError, StudyError
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import Outcome, StudyFolder, read_outcome, write_outcome
from spelldown.study.running import runner as running
from spelldown.study.running.claim import alone, hold_new
from spelldown.study.running.runner import Runner
from spelldown.study.running.view import View, show_table
from spelldown.study.where.place import Ended, Job
from spelldown.terminal import console

FIGURES = {"cer": 0.25, "wer": 0.5, "distance": 3.0, "utterances": 4, "unended": 0}


def run_of(job: Job) -> Path:
    return Path(job.command[-2]) / "rows" / job.name


def note(job: Job, state: Any, reason: str = "", **others: Any) -> None:
    """What a run's process leaves when it ends, or before it is killed."""
    before = read_outcome(run_of(job))
    assert before is not None
    others.setdefault("starts", before.starts + 1)
    write_outcome(run_of(job), before.now(state, reason, **others))


def finishes(job: Job) -> Ended:
    note(job, "finished", scores={"dev": FIGURES, "test": FIGURES}, epochs=2, seconds=5.0)
    return Ended(0)


def is_killed(job: Job) -> Ended:
    note(job, "running")
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.write_text("epoch 1\nepoch 2\n")
    return Ended(-9, "its process was killed by SIGKILL")


def dies_at_once(job: Job) -> Ended:
    return Ended(1, "its process ended with status 1")


def fails(job: Job) -> Ended:
    note(job, "failed", "no space left on the disk")
    return Ended(74, "its process ended with status 74")


def is_lost(job: Job) -> Ended:
    note(job, "running")
    return Ended(None, "the machine went away", lost=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TICK", 0.001)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "studies" / "tiny")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Rows a, b and c, one seed, no base."""
    rows = {name: {"changes": {"speller.width": width}} for name, width in zip("abc", (9, 10, 11))}  # noqa: B905
    return write_study(tmp_path, tmp_path / "corpus", rows=rows, base_row=False)


@pytest.fixture
def work(study: Path, folder: StudyFolder) -> Callable[..., tuple[Runner, FakePlace, Seen]]:
    """Runs the study once, with what happens to each run (`name=[acts]`); all else finishes."""

    def go(*overrides: str, lanes: int = 1, **acts: Any) -> tuple[Runner, FakePlace, Seen]:
        named = {f"{row}-seed1": act for row, act in acts.items()}
        place, seen = FakePlace(named, finishes, lanes), Seen()
        runner = Runner(planned_in(study, folder, *overrides), folder, seen)
        runner.run(place)
        return runner, place, seen

    return go


def states(folder: StudyFolder) -> dict[str, str]:
    return {name: outcome.state for name, outcome in folder.known().items()}


def test_every_run_is_submitted_once_in_the_order_of_the_rows(work: Any, folder: Any) -> None:
    _, place, _ = work()
    assert [job.name for job in place.jobs] == ["a-seed1", "b-seed1", "c-seed1"]
    assert set(states(folder).values()) == {"finished"}
    assert folder.read_plan().runs == {"a-seed1": 1, "b-seed1": 1, "c-seed1": 1}
    recipe = read_recipe(folder.run("b-seed1").recipe)
    assert recipe.speller.width == 10
    assert place.jobs[0].threads == 1  # as the recipe says
    assert place.jobs[0].gpus == 0  # it trains on the processor


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (is_killed, "its process was killed by SIGKILL; its last words: epoch 2"),
        (dies_at_once, "its process ended with status 1"),
        (fails, "no space left on the disk"),
    ],
)
def test_a_run_that_fails_is_a_row_with_a_reason_and_the_study_goes_on(
    work: Any, folder: StudyFolder, act: Any, reason: str
) -> None:
    work(b=[act])
    assert states(folder) == {"a-seed1": "finished", "b-seed1": "failed", "c-seed1": "finished"}
    failed = folder.read_outcome("b-seed1")
    assert failed is not None and failed.reason == reason


def test_resuming_does_only_what_is_missing(work: Any, folder: StudyFolder) -> None:
    work(a=[fails], c=[is_killed])
    _, place, _ = work()
    assert [job.name for job in place.jobs] == ["a-seed1", "c-seed1"]
    assert set(states(folder).values()) == {"finished"}
    _, place, _ = work()
    assert place.jobs == []


def test_a_run_that_the_studys_rule_stopped_is_not_repeated(work: Any, folder: StudyFolder) -> None:
    def stops(job: Job) -> Ended:
        note(job, "stopped", "attention did not align", scores={"dev": FIGURES, "test": FIGURES})
        return Ended(0)

    work(b=[stops])
    assert states(folder)["b-seed1"] == "stopped"
    _, place, _ = work()
    assert place.jobs == []


def test_a_changed_recipe_is_run_and_what_was_finished_is_kept(
    work: Any, folder: StudyFolder
) -> None:
    work()
    _, place, _ = work("optimizer.rate=0.5")
    assert [job.name for job in place.jobs] == ["a-seed1-2", "b-seed1-2", "c-seed1-2"]
    assert len(states(folder)) == 6


def test_a_part_asked_for_later_is_all_that_is_done(work: Any, folder: StudyFolder) -> None:
    work()
    _, place, _ = work('parts=["dev"]')
    assert place.jobs == []
    _, place, _ = work('parts=["dev", "train"]')
    assert len(place.jobs) == 3


def test_a_lost_machine_is_no_fault_of_the_runs(work: Any, folder: StudyFolder) -> None:
    _, place, seen = work(b=[is_lost, is_lost, finishes])
    assert [job.name for job in place.jobs].count("b-seed1") == 3
    assert states(folder)["b-seed1"] == "finished"
    assert ("b-seed1", "waiting") in seen.states


def test_a_machine_lost_again_and_again_is_a_failure(work: Any, folder: StudyFolder) -> None:
    _, place, _ = work(b=[is_lost])
    assert [job.name for job in place.jobs].count("b-seed1") == 1 + running.LOST
    assert states(folder)["b-seed1"] == "failed"


def test_a_full_disk_stops_neither_the_study_nor_its_record(
    work: Any, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {"yes": False}

    def write(run: Path, outcome: Outcome) -> None:
        if full["yes"]:
            raise OSError(errno.ENOSPC, "No space left on device", str(run))
        write_outcome(run, outcome)

    def fills_the_disk(job: Job) -> Ended:
        full["yes"] = True
        return Ended(74, "its process ended with status 74")

    def empties_it(job: Job) -> Ended:
        full["yes"] = False
        return finishes(job)

    monkeypatch.setattr(running, "write_outcome", write)
    _, _, seen = work(a=[fills_the_disk], b=[empties_it])
    assert states(folder) == {"a-seed1": "failed", "b-seed1": "finished", "c-seed1": "finished"}
    failed = folder.read_outcome("a-seed1")
    assert failed is not None and failed.reason.startswith("no space left on the disk")
    assert any("cannot be written yet" in message for message in seen.messages)


def test_a_run_whose_recipe_cannot_be_written_is_a_failure_of_its_own(
    work: Any, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, content: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(running, "write_whole", write)
    work()
    assert set(states(folder).values()) == {"failed"}


def test_a_run_that_no_place_takes_is_a_failure_of_its_own(
    study: Path, folder: StudyFolder
) -> None:
    class Full(FakePlace):
        def submit(self, job: Job) -> Any:
            if job.name == "b-seed1":
                raise StudyError("the queue is full")
            return super().submit(job)

    runner, place = Runner(planned_in(study, folder), folder, Seen()), Full({}, finishes)
    assert runner.run(place)
    assert states(folder) == {"a-seed1": "finished", "b-seed1": "failed", "c-seed1": "finished"}
    failed = folder.read_outcome("b-seed1")
    assert failed is not None and "the queue is full" in failed.reason


def test_as_many_runs_go_side_by_side_as_there_is_room_for(work: Any) -> None:
    assert work(lanes=2)[1].most == 2


def test_a_wish_to_end_leaves_what_ran_waiting_to_go_on(study: Path, folder: StudyFolder) -> None:
    seen = Seen()
    runner = Runner(planned_in(study, folder), folder, seen)

    def is_interrupted(job: Job) -> Ended:
        runner.ending = True  # as Ctrl-C has it
        note(job, "waiting", "interrupted after 1 of 2 epochs")
        return Ended(130, "its process ended with status 130")

    assert not runner.run(FakePlace({"a-seed1": [is_interrupted]}, finishes))
    assert set(states(folder).values()) == {"waiting"}
    again = Runner(planned_in(study, folder), folder, seen)
    again.prepare()
    assert again.missing() == ["a-seed1", "b-seed1", "c-seed1"]


def test_only_the_rows_that_are_asked_for_are_worked_on(study: Path, folder: StudyFolder) -> None:
    runner = Runner(planned_in(study, folder), folder, Seen(), only=frozenset("b"))
    assert runner.run(FakePlace({}, finishes))
    assert states(folder) == {"a-seed1": "waiting", "b-seed1": "finished", "c-seed1": "waiting"}


def test_a_study_is_not_begun_over_another_and_says_how_to_go_on(
    work: Any, folder: StudyFolder
) -> None:
    hold_new(folder)
    work(b=[fails])
    with pytest.raises(StudyError, match=r"2 of 3 runs finished.*--resume"):
        hold_new(folder)


def test_a_study_that_was_killed_before_its_plan_can_be_begun_again(folder: StudyFolder) -> None:
    folder.path.mkdir(parents=True)
    for left in (folder.lock, folder.settings, folder.log):
        left.touch()
    hold_new(folder)
    (folder.path / "thesis.tex").touch()
    with pytest.raises(StudyError, match="not an empty folder"):
        hold_new(folder)


def test_a_study_is_run_by_one_process_at_a_time(folder: StudyFolder) -> None:
    with (
        alone(folder),
        pytest.raises(RunError, match="another process runs this study"),
        alone(folder),
    ):
        pass
    assert not folder.path.exists()  # nothing came of it


def test_what_is_told_names_states_reasons_and_figures(
    study: Path, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.path.mkdir(parents=True)
    with View(folder, console()) as view:
        runner = Runner(planned_in(study, folder), folder, view)
        runner.run(FakePlace({"b-seed1": [is_killed]}, finishes))
        told = view.summary(runner)
    show_table(console(), folder)
    said = capsys.readouterr().out
    assert "a-seed1: finished, after 2 epochs in 5 s, dev CER 25.0%, WER 50.0%" in said
    assert "b-seed1: failed: its process was killed by SIGKILL" in said
    assert told.startswith("2 of 3 runs over, 1 failed")
    assert said.count("25.0%") == 4 + 4  # of both parts, as they ended and in the table
    assert "b-seed1: failed" in folder.log.read_text()


def test_the_live_table_and_the_time_left_go_by_what_is_known(
    study: Path, folder: StudyFolder
) -> None:
    folder.path.mkdir(parents=True)
    view = View(folder, console())
    runner = Runner(planned_in(study, folder), folder, view)
    runner.prepare()
    assert view.left(runner) is None
    record = {"epoch": 1, "seconds": 30.0, "dev": {"distance": 4.5},
              "alignment": {"verdict": "aligning"}}  # fmt: skip
    folder.run("a-seed1").append_metrics(record)
    view.tick(runner)
    assert view.left(runner) == pytest.approx(30 + 60 + 60)  # two epochs a run
    out = console()
    with out.capture() as shown:
        out.print(view.render())
    assert "4.50" in shown.get() and "aligning" in shown.get() and "30 s" in shown.get()
    assert "1 of 2" in shown.get() and "0 of 2" in shown.get()
    folder.run("a-seed1").append_metrics({**record, "epoch": 2})
    runner.outcomes["a-seed1"] = runner.outcomes["a-seed1"].now("running")
    with out.capture() as shown:
        out.print(view.render())
    assert "2 of 2" in shown.get() and "scoring" in shown.get()
    scores = {part: FIGURES for part in runner.planned.plan.parts}
    for name, outcome in runner.outcomes.items():
        runner.outcomes[name] = outcome.now("finished", scores=scores, seconds=60)
    assert view.summary(runner) == "3 of 3 runs over"


def test_a_long_reason_leaves_the_other_columns_their_width_and_a_shared_run_is_shown_once(
    tmp_path: Path, folder: StudyFolder
) -> None:
    page = write_study(tmp_path, tmp_path, rows={}, axes={"speller.width": [16, 24]})
    view = View(folder, Console(width=100))
    runner = Runner(planned_in(page, folder), folder, view)
    runner.prepare()
    for name, outcome in runner.outcomes.items():
        runner.outcomes[name] = outcome.now("failed", "its process ended " + 30 * "in tears ")
    view.tick(runner)
    out = Console(width=100)
    with out.capture() as shown:
        out.print(view.render())
    lines = shown.get().splitlines()
    assert [line.split()[0] for line in lines] == ["row", "base", "speller.width=24", "0"]
    assert all(word in lines[0] for word in ("seed", "state", "distance", "attention", "left"))
    assert "failed" in lines[2] and "its process ended" in lines[2] and max(map(len, lines)) <= 100
