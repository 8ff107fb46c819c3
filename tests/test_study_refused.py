"""What a study is refused for, before its first run and with nothing left behind."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import DataError, RecipeError, StudyError
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import StudyFolder
from spelldown.study.plan import plan_study
from spelldown.study.study import read_study

# --- the page


def test_everything_that_is_wrong_with_the_page_is_said_at_once(
    write: Callable[..., Path],
) -> None:
    page = write(
        rows={"a": {"remarks": "x"}, "b": {"changes": 3}},
        axes={"speller.width": {"low": 3}},
        explore={"kind": "gird"},
        seeds=0,
    )
    with pytest.raises(StudyError) as error:
        read_study(page)
    for told in ("rows.a.remarks: unknown key; did you mean 'remark'?", "rows.b.changes",
                 "a range needs `low` and `high`",
                 "did you mean 'grid'?", "seeds"):  # fmt: skip
        assert told in str(error.value)
    assert "study.yaml:" in str(error.value)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"rows": {}}, "nothing to study"),
        ({"recipe": ""}, "recipe: is missing"),
        ({"explore": {"kind": "random"}}, "no axes to explore"),
        ({"budget": {"epochs": 1, "updates": 2}}, "choose one"),
        ({"rows": {"a": {"changes": {"seed": 3}}}}, "seeds: decides it"),
        ({"axes": {"optimizer.rate": {"low": 1e-3, "high": 1e-2}}}, "choose random or optuna"),
        ({"axes": {"a": {"values": {"x": 3}}}}, "without a `key`"),
        ({"axes": {"a": {"key": "b", "low": 3, "high": 1}}}, "low below high"),
        ({"budget": {"minutes": -1}}, "budget.minutes"),
    ],
)
def test_a_page_that_cannot_be_studied_says_why(
    write: Callable[..., Path], page: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=said.replace("(", r"\(")):
        read_study(write(**page))


def test_every_rows_recipe_is_checked_before_any_run(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {
        "a": {"changes": {"atention.kind": "dot", "optimizer.rate": "fast"}},
        "b": {"changes": {"listener.blocks.7.dropout": 0.1}},
        "c": {"recipe": "gone.yaml"},
        "d": {"changes": {"loss.ctc_weight": 0.3}},
    }
    page = write(rows=rows)
    with pytest.raises(StudyError) as error:
        planned_in(page, folder)
    for told in (
        "row a: there is no atention.kind; did you mean attention.kind? (",
        "row a: optimizer.rate",
        "row b: there is no entry 7",
        "row c: no recipe at",
        "row d: loss.ctc_weight",
    ):
        assert told in str(error.value)
    line = next(n for n, text in enumerate(page.read_text().splitlines(), 1) if "atention" in text)
    assert f"study.yaml:{line}" in str(error.value)


def test_a_mistake_of_the_base_is_said_once_for_all_rows(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {name: {"changes": {"speller.width": 9}} for name in "abc"}
    with pytest.raises(StudyError) as error:
        planned_in(write(rows=rows), folder, "optimizer.rte=1")
    (problem,) = error.value.problems
    assert problem.startswith("every row: optimizer.rte=1 (command line): there is no")


def test_a_corpus_that_is_not_there_stops_the_study_before_its_first_run(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    with pytest.raises(DataError, match=r"no run was started.*is not a folder"):
        plan_study(read_study(write()), folder)


def test_a_study_that_is_not_there_says_what_is_near(write: Callable[..., Path]) -> None:
    page = write()
    with pytest.raises(StudyError, match=r"did you mean .*study\.yaml"):
        read_study(page.with_name("stuy.yaml"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my study.yaml", "my_study"),
        ("Größe.yaml", "Gr_e"),
        ("v1+x.yaml", "v1_x"),
        ("-odd.yaml", "study--odd"),
        ("zwölf, drei.yaml", "zw_lf__drei"),
    ],
)
def test_any_file_name_makes_a_name(write: Callable[..., Path], file: str, name: str) -> None:
    page = write().rename(write().with_name(file))
    assert read_study(page).settings.name == name


def test_mistakes_of_all_stages_of_the_page_are_said_at_once(write: Callable[..., Path]) -> None:
    page = write(rows={"a": {"changes": {"seed": 3}}}, seeds=-1, name="",
                 budget={"epochs": 1, "updates": 2}, explore={"kind": "random"})  # fmt: skip
    with pytest.raises(StudyError) as error:
        read_study(page, ["bugdet.epochs=3"])
    assert len(error.value.problems) == 6 and "6 problems" in error.value.summary


def test_what_rests_on_a_section_that_cannot_be_read_is_not_said(
    write: Callable[..., Path],
) -> None:
    with pytest.raises(StudyError) as error:
        read_study(write(rows={}, axes={"speller.width": 3}, explore={"kind": "random"}))
    assert [problem.split(":")[0] for problem in error.value.problems] == ["axes.speller.width"]


def test_a_row_to_compare_with_is_looked_for_before_any_corpus_is_read(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    with pytest.raises(StudyError, match=r"no row 'zzz'; rows: base, wide \(.*study\.yaml:\d+\)"):
        plan_study(read_study(write(compare_with="zzz")), folder)


def test_a_recipe_is_told_from_a_study(write: Callable[..., Path]) -> None:
    recipe = write().with_name("tiny.yaml")
    with pytest.raises(StudyError, match=r"is a recipe, which `spelldown train .*tiny\.yaml`"):
        read_study(recipe)
    with pytest.raises(RecipeError, match=r"is a study, of many runs: spelldown study .*study\."):
        read_recipe(recipe.with_name("study.yaml"))


def test_a_size_without_a_unit_is_told_how_to_be_written(tmp_path: Path, corpus: Path) -> None:
    page = str(write_study(tmp_path, corpus))
    told = CliRunner().invoke(app, ["study", page, "--dry-run", "--no-measure", "--memory", "6"])
    assert 'should be written as 6GB or 512MiB, found "6"' in told.stderr
    told = CliRunner().invoke(app, ["study", page, "--no-measure"])
    assert told.exit_code == 2 and "goes with --dry-run" in told.stderr


# --- the command line


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("bugdet.epochs=3", "did you mean budget?"),
        ("atention.kind=dot", "did you mean attention?"),
        ("qqqqq=1", "neither studies nor recipes have a qqqqq"),
        ("rate", "is not KEY=VALUE; names with spaces want quotes"),
        ("seed=7", "`seeds` decides it, as in seeds=[7]"),
        ("training.memory=lots", 'should be written as 6GB or 512MiB, found "lots"'),
        ("name=a b", 'should be written as dropout or an4-norms.2, found "a b"'),
    ],
)
def test_what_is_typed_is_held_against_studies_and_recipes(
    write: Callable[..., Path], folder: StudyFolder, typed: str, said: str
) -> None:
    with pytest.raises(StudyError) as error:
        planned_in(write(), folder, typed)
    (problem,) = error.value.problems
    assert said in problem


@pytest.mark.parametrize("on", ["ray", "slurm"])
@pytest.mark.parametrize("typed", [True, False])
def test_a_place_that_is_not_there_is_told_before_anything_is_left_behind(
    on: str,
    typed: bool,
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, package, None)
    page = str(write_study(tmp_path, corpus, **({} if typed else {"on": on})))
    asked = ["study", page, "--into", str(tmp_path / "into"), *(["--on", on] if typed else [])]
    for more in ([], ["--dry-run", "--no-measure"]):
        told = CliRunner().invoke(app, [*asked, *more])
        assert f"pip install 'spelldown[{on}]'" in told.stderr
        assert not (tmp_path / "into").exists()


def test_the_command_line_decides_where_runs_happen(write: Callable[..., Path]) -> None:
    page = write(on="slurm")
    assert read_study(page).settings.on == "slurm"
    assert read_study(page, ["on=local"]).settings.on == "local"
    with pytest.raises(StudyError, match=r"on: should be 'local', 'ray' or 'slurm'"):
        read_study(write(on="cloud"))


@pytest.mark.parametrize("more", [[], ["--dry-run", "--no-measure"]])
def test_only_rows_that_are_there_can_be_asked_for(
    more: list[str], tmp_path: Path, corpus: Path
) -> None:
    page = str(write_study(tmp_path, corpus))
    asked = ["study", page, "--only", "nope", "--into", str(tmp_path / "into"), *more]
    told = CliRunner().invoke(app, asked)
    assert "--only: there is no row nope; rows: base, wide" in told.stderr


def test_a_dry_run_shows_the_rows_that_are_asked_for(tmp_path: Path, corpus: Path) -> None:
    page = str(write_study(tmp_path, corpus, seeds=2))
    asked = ["study", page, "--dry-run", "--no-measure", "--into", str(tmp_path / "into")]
    told = CliRunner().invoke(app, [*asked, "--only", "wide"]).stdout
    assert told.startswith("wide\n") and "1 row, 2 runs, 2 to do" in told


# --- what would fail every run alike


def test_rows_are_shown_also_where_their_corpus_is_not_there(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    page = write(budget={"updates": 2000})
    told = CliRunner().invoke(app, ["study", str(page), "--dry-run", "--into", str(tmp_path / "x")])
    assert "speller.width: 16 -> 24\n  seeds 1; epochs of 2,000 updates in all" in told.stdout
    assert told.exit_code == 1 and "is not a folder" in told.stderr


def test_a_gpu_that_is_not_there_is_told_before_the_first_run(
    write: Callable[..., Path], folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"row wide: training\.device: no GPU here"):
        planned_in(write(), folder, "training.device=cuda")
    assert planned_in(write(), folder, "training.device=cuda", "on=slurm").plan.runs


def test_a_tracker_that_is_not_installed_is_told_before_the_first_run(
    write: Callable[..., Path], folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(StudyError, match=r"row wide: trackers\.0: wandb needs wandb"):
        planned_in(write(), folder, "trackers=[{kind: wandb}]")
