"""What one run of a study counts: its weights, and the minutes that it trains."""

import json
import signal
import time
from pathlib import Path

import pytest
from made_study import MadeStudy, record

from spelldown.data.vocabulary import Vocabulary
from spelldown.recipe.parts import build_recognizer
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import Outcome, StudyFolder, read_outcome, write_outcome
from spelldown.study.report.findings import find
from spelldown.study.running.single import Limited, Single, weights_of
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


def test_the_most_memory_that_a_run_held_is_known_when_it_is_taken_up_again(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    run = folder.run("run")

    def peak_noted(known: float | None, tried: float, *epochs: float) -> float | None:
        write_outcome(run.path, Outcome("run", 1, "", "running", peak_mib=known))
        for place, peaks in ((RunFolder(run.tries / "1"), [tried]), (run, epochs)):
            lines = [
                record(n, 0.1, True, memory={"peak_mib": peak, "gpu_peak_mib": None})
                for n, peak in enumerate(peaks, 1)
            ]
            write_whole(place.metrics, "".join(json.dumps(line) + "\n" for line in lines))
        single = Single(folder, "run", None, ("dev",))
        single.was = single.before = read_outcome(run.path)  # type: ignore[assignment]
        single.note("finished")
        noted = read_outcome(run.path)
        assert noted is not None and noted.gpu_peak_mib is None
        return noted.peak_mib

    assert peak_noted(None, 500.0, 900.0, 700.0) == 900.0  # the second epoch in another process
    assert peak_noted(1000.0, 500.0, 700.0) == 1000.0
    assert peak_noted(None, 1200.0, 700.0) == 1200.0  # before it was begun anew
    assert peak_noted(300.0, 200.0) == 300.0


def test_the_most_memory_of_a_run_is_the_highest_that_anything_tells(tmp_path: Path) -> None:
    made = MadeStudy(tmp_path / "made")
    made.row("base", {})
    path = made.done()
    run = made.folder.run("base-seed1")
    run.append_metrics(record(7, 0.1, True, memory={"peak_mib": 900.0, "gpu_peak_mib": None}))
    assert find(path).runs["base-seed1"].peak_mib == 900.0
    run.append_metrics(record(8, 0.1, True, memory={"peak_mib": 800.0, "gpu_peak_mib": 50.0}))
    assert find(path).runs["base-seed1"].peak_mib == 50.0  # a GPU's own
