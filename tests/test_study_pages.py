"""The studies that come with spelldown, the schema of their pages, and what a dry run shows."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import StudyError
from spelldown.recipe.reading.schema import explanations, schema_text
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import Outcome, StudyFolder, write_outcome
from spelldown.study.plan import plan_study
from spelldown.study.study import BudgetSettings, RowSettings, StudySettings, read_study
from spelldown.writing import write_whole

STUDIES = Path(__file__).parent.parent / "recipes" / "studies"


def test_the_seeds_study_is_its_six_rows_as_published_and_ours(tmp_path: Path) -> None:
    planned = planned_in(STUDIES / "seed.yaml", StudyFolder(tmp_path), "data.root=anywhere")
    rows = planned.plan.rows
    assert [row.name for row in rows] == [f"row{number}" for number in range(1, 8)]
    assert planned.plan.base == "row6"
    assert rows[4].changes == {"batching.utterances": [32, 64]}
    for row in rows:
        expected = read_recipe(STUDIES.parent / "seed" / f"{row.name}.yaml", ["data.root=anywhere"])
        assert planned.recipes[f"{row.name}-seed1"] == expected
    assert [row.name for row in rows if row.published] == [f"row{number}" for number in range(1, 7)]
    assert all(row.published["distance"] > 15 for row in rows[:6])


@pytest.mark.data
def test_the_seeds_study_takes_an4_as_its_data(tmp_path: Path, an4: Path) -> None:
    asked = (f"data.root={an4}", "frontend.width=13", "data.train=train", "data.dev=dev",
             "data.test=test", "budget.epochs=5")  # fmt: skip
    planned = plan_study(read_study(STUDIES / "seed.yaml", asked), StudyFolder(tmp_path))
    assert len(planned.plan.runs) == 14
    assert {recipe.training.epochs for recipe in planned.recipes.values()} == {5}


@pytest.mark.parametrize("name", ["align", "demo"])
def test_the_other_studies_can_be_run(tmp_path: Path, name: str) -> None:
    planned = planned_in(STUDIES / f"{name}.yaml", StudyFolder(tmp_path))
    assert planned.plan.base == "base"
    assert all(row.runs for row in planned.plan.rows)


def test_what_makes_attention_align_changes_one_thing_at_a_time(tmp_path: Path) -> None:
    rows = planned_in(STUDIES / "align.yaml", StudyFolder(tmp_path)).plan.rows
    changes = {row.name: row.changes for row in rows}
    assert changes["dropout=0.1"] == {
        "listener.blocks.1.dropout": [0.3, 0.1],
        "speller.dropout": [0.3, 0.1],
    }
    assert changes["norm=none in the LSTM"] == {"listener.blocks.1.norm": ["layer", "none"]}


def test_a_change_within_a_shared_list_is_one_rows_alone(tmp_path: Path, corpus: Path) -> None:
    blocks = [{"kind": "bilstm", "width": 4}]
    rows = {"wide": {"changes": {"listener.blocks.0.width": 8}}, "as shared": {}}
    page = write_study(tmp_path, corpus, rows=rows, shared={"listener.blocks": blocks})
    recipes = planned_in(page, StudyFolder(tmp_path / "study")).recipes
    dumped = {name: recipe.listener.blocks[0].model_dump() for name, recipe in recipes.items()}
    widths = {name: block["width"] for name, block in dumped.items()}
    assert widths == {"wide-seed1": 8, "as_shared-seed1": 4}


def test_the_schema_of_studies_for_editors_is_current() -> None:
    # To bring it up to date: spelldown study --schema > recipes/studies/schema.json
    current = schema_text(StudySettings, "spelldown study")
    assert (STUDIES / "schema.json").read_text() == current
    for page in STUDIES.glob("*.yaml"):
        assert page.read_text().startswith("# yaml-language-server: $schema=schema.json")


@pytest.mark.parametrize("settings", [StudySettings, RowSettings, BudgetSettings])
def test_every_key_of_a_study_is_explained_to_editors(settings: Any) -> None:
    assert set(explanations(settings)) == set(settings.model_fields)


RANGE = {"low": 8, "high": 24, "whole": True}
WIDTHS = {"key": "speller.width", "values": [9, 10]}


def optuna(**explore: Any) -> dict[str, Any]:
    return {"explore": {"kind": "optuna", "trials": 2, **explore}}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"seeds": []}, ["seeds: is empty"]),
        ({"seeds": [1, 2, 1]}, ["seeds: more than once: 1"]),
        ({"seeds": [-1, 1.5]}, ["seeds.0: should be greater", "seeds.1: should be a whole"]),
        ({"seeds": "x"}, ["seeds: should be a whole number"]),
        ({"axes": {"speller.width": []}}, ["axes.speller.width: has no values"]),
        ({"axes": {"a": WIDTHS, "speller.width": [11]}}, ["varies speller.width, as a does"]),
        ({"axes": {"speller.width": RANGE}, "rows": {"trial-x": {}}, **optuna()}, ["trial-001"]),
        (
            {"axes": {"speller.width": RANGE, "b": [1]}, **optuna(sampler="cma-es")},
            ["axes.b: cma-es searches ranges alone"],
        ),
        ({"axes": {"speller.width": RANGE}, **optuna(sampler="cma-es")}, ["two axes or more"]),
    ],
)
def test_each_mistake_in_seeds_and_axes_is_told_once_with_its_line(
    tmp_path: Path, page: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(StudyError) as caught:
        read_study(write_study(tmp_path, tmp_path, **page))
    assert len(caught.value.problems) == len(said)
    for told, expected in zip(caught.value.problems, said, strict=True):
        assert expected in told and "study.yaml:" in told


def test_what_only_a_search_forbids_is_right_elsewhere(tmp_path: Path) -> None:
    alone = {"axes": {"a": WIDTHS, "speller.width": [11]}, "explore": {"kind": "one-at-a-time"}}
    rows = planned_in(
        write_study(tmp_path, tmp_path, rows={"trial-x": {}}, **alone), StudyFolder(tmp_path)
    ).plan.rows
    assert [row.name for row in rows] == ["trial-x", "a=9", "a=10", "speller.width=11"]


def test_a_dry_run_shows_rows_and_differences_and_leaves_nothing(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = write_study(tmp_path, corpus, seeds=[1, 2])
    said = CliRunner().invoke(app, ["study", str(page), "--dry-run", "--no-measure"])
    assert said.exit_code == 0, said.output
    assert "speller.width: 16 -> 24" in said.stdout
    assert "2 rows, 4 runs, 4 to do" in said.stdout
    assert not (tmp_path / "studies").exists()
    page = write_study(tmp_path, corpus, rows={}, axes={"speller.width": [16, 24]})
    said = CliRunner().invoke(app, ["study", str(page), "--dry-run", "--no-measure"])
    assert "speller.width=16\n  asks for the same as base, and shares its runs\n" in said.stdout
    assert "3 rows, 2 runs, 2 to do" in said.stdout
    page = write_study(tmp_path, corpus, rows={"one": {}}, shared={"training.epochs": 1})
    said = CliRunner().invoke(app, ["study", str(page), "--dry-run", "--no-measure", "--resume"])
    assert "1 epoch\n" in said.stdout and "1 row, 1 run, 1 to do" in said.stdout


def test_finished_runs_that_are_no_longer_asked_for_are_not_left_out_in_silence(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page, folder = write_study(tmp_path, corpus), StudyFolder("studies/study")
    planned = planned_in(page, folder, "optimizer.rate=0.5", "budget.epochs=1")
    folder.write_plan(planned.plan)
    for name, identity in planned.plan.identities.items():
        write_outcome(folder.rows / name, Outcome(name, 1, identity, "finished"))

    def told(*words: str) -> str:
        command = ["study", str(page), *words, "--dry-run", "--no-measure", "--resume"]
        return CliRunner().invoke(app, command).stdout

    assert "no longer" not in told("optimizer.rate=0.5", "budget.epochs=1")
    said = " ".join(told().split())
    assert "2 finished runs are no longer asked for" in said
    assert "last time: optimizer.rate=0.5 budget.epochs=1; now: nothing" in said


def test_the_resolved_study_reads_back_the_same(tmp_path: Path) -> None:
    page = write_study(tmp_path, tmp_path, axes={"speller.width": [9]}, seeds=2)
    settings = read_study(page).settings
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(settings.as_yaml())
    assert read_study(resolved).settings == settings
    assert set(yaml.safe_load(settings.as_yaml())) == set(StudySettings.model_fields)


def test_the_study_in_a_folder_makes_the_same_runs_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages").mkdir()
    rows = {"own": {"recipe": "tiny.yaml", "changes": {"speller.width": 9}}, "wide": {}}
    page = write_study(tmp_path / "pages", tmp_path, rows=rows)
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder("studies/study")
    typed = ("optimizer.rate=0.5", "budget.epochs=3")
    write_whole(
        folder.settings, read_study(page.relative_to(tmp_path), typed).resolved(folder.path)
    )
    assert "# Laid over its recipes besides: optimizer.rate=0.5\n" in folder.settings.read_text()
    again = planned_in(folder.settings, folder, "optimizer.rate=0.5")
    assert again.plan.identities == planned_in(page, folder, *typed).plan.identities
