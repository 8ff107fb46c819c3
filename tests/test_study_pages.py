"""The studies that come with spelldown, the schema of their pages, and what a dry run shows."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.recipe.reading.schema import explanations, schema_text
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import StudyFolder
from spelldown.study.plan import plan_study
from spelldown.study.study import BudgetSettings, RowSettings, StudySettings, read_study

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


def test_the_schema_of_studies_for_editors_is_current() -> None:
    # To bring it up to date: spelldown study --schema > recipes/studies/schema.json
    current = schema_text(StudySettings, "spelldown study")
    assert (STUDIES / "schema.json").read_text() == current
    for page in STUDIES.glob("*.yaml"):
        assert page.read_text().startswith("# yaml-language-server: $schema=schema.json")


@pytest.mark.parametrize("settings", [StudySettings, RowSettings, BudgetSettings])
def test_every_key_of_a_study_is_explained_to_editors(settings: Any) -> None:
    assert set(explanations(settings)) == set(settings.model_fields)


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


def test_the_resolved_study_reads_back_the_same(tmp_path: Path) -> None:
    page = write_study(tmp_path, tmp_path, axes={"speller.width": [9]}, seeds=2)
    settings = read_study(page).settings
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(settings.as_yaml())
    assert read_study(resolved).settings == settings
    assert set(yaml.safe_load(settings.as_yaml())) == set(StudySettings.model_fields)
