"""What one run of a study counts: its weights, and the minutes that it trains."""

import signal
import time
from pathlib import Path

import pytest

from spelldown.data.vocabulary import Vocabulary
from spelldown.recipe.parts import build_recognizer
from spelldown.recipe.recipe import read_recipe
from spelldown.study.running.single import Limited, weights_of
from spelldown.training.run.run_folder import RunFolder
from spelldown.writing import write_whole

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def test_the_weights_of_a_run_on_recordings_are_counted_too(tmp_path: Path) -> None:
    folder, vocabulary = RunFolder(tmp_path), Vocabulary.course()
    recipe = read_recipe(DEMO)
    assert weights_of(folder) is None
    write_whole(folder.recipe, recipe.as_yaml())
    write_whole(folder.vocabulary, vocabulary.to_json())
    built = build_recognizer(recipe, len(vocabulary))
    assert weights_of(folder) == sum(weight.numel() for weight in built.parameters())


def test_a_budget_counts_from_the_first_epoch_and_not_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    wishes: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(signal, "raise_signal", wishes.append)
    tracker = Limited(10.0, before=4.0)
    now = 900.0  # the corpus was large
    tracker.epoch_begins(1, 5, 10, 0)
    for later, wished in ((905.0, 0), (906.0, 1), (907.0, 1)):
        now = later
        tracker.updated(1, 1, 0.5)
        assert len(wishes) == wished
    assert tracker.reached
