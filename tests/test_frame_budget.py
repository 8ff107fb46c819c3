"""`batching.frames: auto`, from a recipe to a trained run: found once, kept, and held to."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_outcome import Killed, KillsAfter, outcome
from toy_corpus import write_corpus
from trained_run import write_page

from spelldown.recipe import estimate
from spelldown.recipe import run as runs
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.training.run.run_folder import RunFolder

TRAINING = {"epochs": 2, "threads": 1, "pictures_every": 0, "device": "cpu",
            "checkpoint_minutes": 0}  # fmt: skip


def page_in(folder: Path) -> Path:
    corpus = write_corpus(folder / "corpus", {"train": 12, "dev": 4}, words=3)
    page = folder / "toy.yaml"
    write_page(page, corpus, training=TRAINING)
    return page


def recipe_with(page: Path, frames: object) -> Recipe:
    return read_recipe(page, [f"batching.frames={frames}", "batching.utterances=40"])


def test_a_run_with_the_budget_that_fits_is_that_with_the_number_stated_though_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, searches = page_in(tmp_path), 0
    real = estimate._Measured.run

    def small(self: Any, utterances: int, frames: int, symbols: int) -> float:
        nonlocal searches
        searches += 1
        if utterances * frames > 500:
            raise estimate._TooLarge
        return real(self, utterances, frames, symbols)

    monkeypatch.setattr(estimate._Measured, "run", small)
    folder = RunFolder(tmp_path / "auto")
    with pytest.raises(Killed):
        runs.start(recipe_with(page, "auto"), folder, KillsAfter(3))
    found = json.loads(folder.budget.read_text())["frames"]
    assert 200 < found <= 500 and searches > 3
    searches = 0
    runs.resume(folder.path)
    assert searches == 0
    assert read_recipe(folder.recipe).batching.frames == "auto"
    stated = RunFolder(tmp_path / "stated")
    runs.start(recipe_with(page, found), stated)
    assert outcome(folder.path) == outcome(stated.path)
    assert stated.read_metrics()[-1]["updates"] > 2  # 12 utterances at a time would be one an epoch
