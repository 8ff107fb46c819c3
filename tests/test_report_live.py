"""The report of a study that goes on, or was left: what it says, and how long it is watched."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from made_study import EPOCHS, MadeStudy, data_of, rows_of, told, unfinished_line
from tiny_study import planned_in
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.study.folder import StudyFolder
from spelldown.study.report.findings import find
from spelldown.study.report.report import Report, watch_report, write_report
from spelldown.writing import held


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    return MadeStudy(tmp_path / "made", ("dev", "test"))


def test_a_row_that_goes_on_tells_how_far_it_is_and_is_not_judged(made: MadeStudy) -> None:
    made.row("base", {})
    made.row("row", {"state": "running", "epochs": 3}, {"wrong": None})
    path = made.done()
    unfinished_line(StudyFolder(path).run("row-seed1").metrics)
    with held(made.folder.lock):
        row = rows_of(path)["row"]
        assert row.parts["dev"].not_final == "so far"
        assert row.parts["dev"].measures["cer"].interval is None
        assert row.parts["dev"].against == {} and row.parts["test"].measures == {}
        assert told(path, "row").startswith(f"Seed 1 is in epoch 4 of {EPOCHS}. 1 of 2 not begun.")
        assert "so far" in write_report(path).html.read_text()


def test_what_there_was_of_a_run_that_failed_is_shown_and_not_judged(made: MadeStudy) -> None:
    made.row("base", {})
    made.row("row", {"state": "failed", "reason": "no space", "epochs": 3})
    path = made.done()
    row = rows_of(path)["row"]
    for part in ("dev", "test"):
        found = row.parts[part]
        assert found.measures["cer"].each and found.not_final == "until it failed"
        assert not found.against
    written = write_report(path)
    assert written.html.read_text().count("until it failed") >= 6  # of each part, each measure
    assert "until it failed" in written.markdown.read_text()


def test_a_run_whose_epochs_are_all_over_is_being_scored(made: MadeStudy) -> None:
    made.row("base", {"state": "running"}, {"state": "running", "epochs": EPOCHS - 1})
    path = made.done()
    with held(made.folder.lock):
        said = told(path, "base")
    assert said.startswith(f"Seed 1 is being scored. Seed 2 is in epoch {EPOCHS} of {EPOCHS}.")


def test_a_run_that_was_killed_with_its_study_is_not_told_to_be_running(made: MadeStudy) -> None:
    made.row("base", {"state": "running", "epochs": 2})
    report = write_report(made.done())
    assert report.findings.states == {"waiting": 1}
    assert told(made.folder.path, "base").startswith(f"Waits: interrupted after 2 of {EPOCHS}")


def test_a_study_goes_on_as_long_as_somebody_runs_it(made: MadeStudy) -> None:
    made.row("base", {})  # of a search: between two trials nothing runs, and nothing waits
    path = made.done()
    with held(made.folder.lock):
        assert find(path).going_on
    made.row("row", {"wrong": None})
    assert not find(made.done()).going_on


@pytest.mark.parametrize("runs", [0, 1])
def test_a_study_of_which_nothing_has_begun_has_a_page(made: MadeStudy, runs: int) -> None:
    if runs:
        made.row("base", {"wrong": None})
    report = write_report(made.done(None))
    assert report.findings.states == ({"waiting": 1} if runs else {})
    assert ("Not begun." if runs else "no run yet") in report.html.read_text()
    assert report.markdown.read_text().count("| row ") == 1


def test_a_row_that_has_not_begun_shows_what_is_planned(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "seed")
    seed = Path(__file__).parent.parent / "recipes" / "studies" / "seed.yaml"
    folder.write_plan(planned_in(seed, folder, "data.root=anywhere").plan)
    rows = rows_of(folder.path)
    assert rows["row1"].setup["sizes"] == "d 256, projection 128, speller 512, heads 4"
    assert rows["row5"].setup["batch"] == "64" and rows["row6"].setup["batch"] == "32"
    assert rows["row5"].differing == {"batch"}
    assert "d 256, projection 128" in write_report(folder.path).markdown.read_text()


def test_a_watched_report_is_written_when_something_changes_until_nobody_runs_the_study(
    made: MadeStudy,
) -> None:
    made.row("base", {})
    made.row("row", {"state": "running", "epochs": 1})
    path = made.done()
    written: list[Report] = []
    with ExitStack() as study:
        assert study.enter_context(held(made.folder.lock))

        def steps() -> Iterator[None]:
            yield  # nothing happens
            folder = StudyFolder(path).run("row-seed1")
            folder.append_metrics(folder.read_metrics()[-1] | {"epoch": 2})
            yield
            made.row("another", {})
            made.done()  # what was there is over, and a search thinks of the next row
            yield
            assert data_of(written[-1].html.read_text())["refresh"] == 7
            study.close()  # killed: no file tells of it
            yield

        happens = steps()
        last = watch_report(
            path, seconds=7, told=written.append, sleep=lambda seconds: next(happens)
        )
    assert [len(report.rows) for report in written] == [2, 2, 3]
    assert data_of(last.html.read_text())["refresh"] is None
    assert last.findings.states == {"finished": 2, "waiting": 1}


def test_a_report_of_a_study_that_nobody_runs_is_watched_once(made: MadeStudy) -> None:
    made.row("base", {})
    path = made.done()
    told = CliRunner().invoke(app, ["report", str(path), "--watch"])
    assert told.exit_code == 0
    assert [Path(line).name for line in told.stdout.splitlines()[1:]] == [
        "report.html",
        "nobody runs the study now: this is how it stands",
        "report.md",
        "report.csv",
    ]
