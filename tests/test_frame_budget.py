"""`batching.frames: auto`, from a recipe to a trained run: found once, kept, and held to."""

import json
import subprocess
import sys
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


REAL = """
import sys
import torch; torch.set_num_threads(1)
from spelldown.recipe import estimate
from spelldown.recipe.parts import build_recognizer
from spelldown.recipe.recipe import read_recipe
from spelldown.training.guard.limit import _held
from spelldown.training.memory import keep_freed_memory, peak_memory
keep_freed_memory()
CPU = torch.device("cpu")
asked = ["listener.blocks=[{kind: conv, widths: [256, 256], stride: 2}]", *sys.argv[2:]]
recipe = read_recipe(sys.argv[1], asked)
recognizer = build_recognizer(recipe, 31)
estimate._Measured(recipe, recognizer, CPU).run(2, 90, 9)  # libraries are read into memory
held = _held()
limit = held["RssAnon"] + held["RssFile"] + 128 * 2**20
recipe = read_recipe(sys.argv[1], [*asked, f"training.memory={limit / 1e6:.0f}MB"])
"""
SEARCH = """
found = estimate.frame_budget(recipe, recognizer, [(400, 20)])
assert peak_memory() < 1.02 * limit, (peak_memory(), limit)  # what kernels reserve is reckoned
print(found)
"""
TRY = """
with estimate._Strict(CPU, memory=recipe.training.memory) as guard:
    guard.now(0)
    update = estimate._Measured(recipe, recognizer, CPU, guard)
    most = recipe.batching.utterances
    update.run(most, 400, 20)
    try:
        update.run(8 * most, 400, 20)
    except estimate._TooLarge:
        print("many more do not fit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit")
def test_the_largest_budget_is_found_within_a_real_limit(tmp_path: Path) -> None:
    page = page_in(tmp_path)

    def told(script: str, utterances: int) -> str:
        asked = [
            sys.executable,
            "-c",
            REAL + script,
            str(page),
            f"batching.utterances={utterances}",
        ]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return str(done.stdout).strip()

    found = int(told(SEARCH, 400)) // 400
    assert 1 < found < 400
    assert told(TRY, found) == "many more do not fit"  # the search has a minute, and no more
