"""What a study tells of its runs before they are begun: how long, how much memory, how many."""

from pathlib import Path
from typing import Any

import pytest
from tiny_study import planned_in, write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.recipe.recipe import Recipe
from spelldown.study.folder import StudyFolder
from spelldown.study.running import estimates
from spelldown.study.running.estimates import Sizes, measured, sizes_of

SEARCHED = {"rows": {}, "axes": {"speller.width": {"low": 8, "high": 16, "whole": True}},
            "explore": {"kind": "optuna", "trials": 5}, "seeds": 3}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were measured, each found to take ten seconds an epoch."""
    found: list[Recipe] = []

    def told(recipe: Recipe) -> Sizes:
        found.append(recipe)
        return Sizes(weights=1000, memory=2**30, epoch_seconds=10.0)

    monkeypatch.setattr(estimates, "measured", told)
    return found


def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "studies" / "tiny")


def test_rows_that_differ_in_nothing_that_costs_are_measured_once(
    tmp_path: Path, corpus: Path, asked: list[Recipe]
) -> None:
    rows = {
        "rate": {"optimizer.rate": 1e-4},
        "stops": {"training.unaligned": "stop"},
        "smooth": {"loss.label_smoothing": 0.1},
        "long": {"training.epochs": 7},
        "wide": {"speller.width": 24},
        "threads": {"training.threads": 2},
        "ctc": {"ctc": {}, "loss.ctc_weight": 0.3},
        "small": {"batching.utterances": 2},
        "sums": {"optimizer.accumulate": 2},
    }
    page = write_study(tmp_path, corpus, seeds=2, rows={n: {"changes": c} for n, c in rows.items()})
    sizes = sizes_of(planned_in(page, folder(tmp_path)).recipes)
    assert len(asked) == 1 + len(["wide", "threads", "ctc", "small", "sums"])
    assert len(sizes) == 2 * (1 + len(rows))
    assert sizes["rate-seed2"].seconds == 20.0 and sizes["long-seed1"].seconds == 70.0


def test_the_trials_of_a_search_count_with_every_seed(
    tmp_path: Path, corpus: Path, asked: list[Recipe]
) -> None:
    page = write_study(tmp_path, corpus, **SEARCHED, base_row=False)
    told = CliRunner().invoke(app, ["study", str(page), "--dry-run"])
    assert "15 runs of trials" in told.stdout and "about 5 min one after" in told.stdout
    assert len(asked) == 1


def test_a_memory_limit_below_what_a_run_takes_is_told(
    tmp_path: Path, corpus: Path, asked: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = str(write_study(tmp_path, corpus))
    told = CliRunner().invoke(app, ["study", page, "--dry-run", "--memory", "600MB"]).stdout
    assert "1.0 GiB without its limit of 600MB, within which updates are made in parts" in told
    assert "limit" not in CliRunner().invoke(app, ["study", page, "--dry-run"]).stdout


def test_what_is_measured_is_what_a_run_takes(tmp_path: Path, corpus: Path) -> None:
    slow: Any = {"changes": {"listener.blocks": [{"kind": "bilstm", "layers": 3, "width": 256}]}}
    page = write_study(tmp_path, corpus, rows={"slow": slow})
    recipes = planned_in(page, folder(tmp_path)).recipes
    base, other = (measured(recipes[f"{name}-seed1"]) for name in ("base", "slow"))
    assert base.problem == "" and base.memory and other.memory and base.weights
    assert other.memory > base.memory > 100 * 2**20
    assert other.epoch_seconds and base.epoch_seconds
    assert 5 * base.epoch_seconds < other.epoch_seconds < 60
