"""A tuning says what it did: its pictures, where it began, and on what its weights were found."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_tuning import BONUS, CTC, made_run, tuned
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.commands.tuning import _show
from spelldown.data.corpora import read_part
from spelldown.recipe import run as runs
from spelldown.recipe.run import Run
from spelldown.recipe.using import tuning as using
from spelldown.recipe.using.comparison import compare, read_searches
from spelldown.recipe.using.landscape import landscape
from spelldown.recipe.using.trained_on import known_to_tuning
from spelldown.recipe.using.trials import Measured, Trial, Weight, weights_to_tune
from spelldown.recipe.using.tuning import Asked, Tuned, tune
from spelldown.search.search import BeamSettings, GreedySettings, RandomSettings


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path)


# --- pictures


def points_of(picture: str) -> list[int]:
    """How many points the line of each panel has."""
    return [len(line.split()) for line in re.findall(r'<polyline[^>]*points="([^"]*)"', picture)]


def test_no_weight_loses_its_line_where_a_trial_of_another_line_is_the_best(run: Run) -> None:
    found = tuned(run, trials=2)
    assert found.best.origin == "line"
    assert all(count >= 4 for count in points_of(found.page.with_suffix(".svg").read_text()))


def test_the_best_is_ringed_apart_from_the_line_that_it_does_not_lie_on() -> None:
    def trial(ctc: float, bonus: float, wer: float) -> Trial:
        return Trial({CTC.name: ctc, BONUS.name: bonus}, "line", Measured(wer, wer, 1.0, 0, 0.0))

    through, best = trial(0.2, 0.0, 0.3), trial(0.4, 0.0, 0.1)
    trials = (through, best, trial(0.2, 1.0, 0.4), trial(0.2, 1.5, 0.5))
    picture = landscape(trials, (CTC, BONUS), through, judge="wer", before=0.5)
    assert points_of(picture) == [2, 3]
    of_ctc, of_bonus, of_both = re.findall(r'class="best" cx="([\d.]+)" cy="([\d.]+)"', picture)
    lines = re.findall(r'points="([^"]*)"', picture)
    assert ",".join(of_ctc) in lines[0] and ",".join(of_bonus) not in lines[1]
    assert of_ctc[0] == of_both[0]


def test_the_picture_of_the_runs_search_outlives_a_tuning_that_wrote_nothing(run: Run) -> None:
    first = tuned(run)
    picture = first.page.read_text()
    run.transcriber.search = first.search  # which nothing is better than
    again = tuned(run, trials=2)
    assert first.written and not again.written
    assert again.page != first.page and again.page.is_file()
    assert first.page.read_text() == picture


# --- where it begins


def test_what_was_asked_for_is_tried_as_it_is_however_far_out(run: Run) -> None:
    asked = BeamSettings(ctc_weight=0.9, length_bonus=-2.125)
    weights = weights_to_tune(asked, True, {})
    assert weights == (Weight("ctc_weight", 0.0, 0.9), Weight("length_bonus", -2.125, 2.5))
    found = tune(run, Asked(asked, weights, trials=3, line_points=0))
    assert found.trials[0].weights == {"ctc_weight": 0.9, "length_bonus": -2.125}
    assert found.notes == ()
    assert weights_to_tune(RandomSettings(temperature=0.05), True, {})[0].low == 0.05


@pytest.mark.parametrize(
    ("search", "weight", "note", "first"),
    [
        ({"ctc_weight": 0.9}, Weight("ctc_weight", 0.1, 0.7), "ctc_weight is 0.9 in", 0.7),
        ({}, Weight("eos_threshold", 1.0, 4.0), "eos_threshold is null in", 4.0),
        ({}, Weight("prune", 2.0, 12.0), "within 2 to 12: 12 is tried instead", 12.0),
    ],
)
def test_a_range_that_leaves_out_what_was_asked_for_is_told(
    run: Run, search: dict[str, Any], weight: Weight, note: str, first: float
) -> None:
    found = tune(run, Asked(BeamSettings(**search), (weight,), trials=2, line_points=0))
    assert found.trials[0].weights == {weight.name: first}
    assert len(found.notes) == 1 and note in found.notes[0]


def test_a_default_outside_the_range_needs_no_telling(run: Run) -> None:
    found = tune(run, Asked(BeamSettings(), (Weight("ctc_weight", 0.1, 0.7),), trials=2))
    assert found.notes == () and found.trials[0].weights == {"ctc_weight": 0.1}


# --- on what


def known(run: Run, found: Tuned, part: str, **changed: Any) -> list[str]:
    cuts = tuple(read_part(run.recipe.data, part).cuts)
    return known_to_tuning(run.folder, found.search.model_copy(update=changed), part, cuts)


def test_a_score_of_what_the_weights_were_tuned_on_is_told(run: Run) -> None:
    found = tuned(run)
    (note,) = known(run, found, "dev")
    assert all(f"{name} {value:g}" in note for name, value in found.best.weights.items())
    assert "tuned on 40 of the 40 utterances of dev (dev-000, dev-001, dev-002, ...)" in note
    assert known(run, found, "test") == []
    (note,) = known(run, found, "dev", ctc_weight=0.123)  # the other is still what was found
    assert "length_bonus" in note and "ctc_weight" not in note
    assert known(run, found, "dev", ctc_weight=0.123, length_bonus=0.0) == []
    cuts = tuple(read_part(run.recipe.data, "dev").cuts)
    assert known_to_tuning(run.folder, GreedySettings(), "dev", cuts) == []
    others = [cut.map_supervisions(lambda one: replace(one, text="NO")) for cut in cuts]
    assert known_to_tuning(run.folder, found.search, "dev", others) == []  # another corpus


def test_a_tuning_on_test_is_told_at_once_and_in_a_table(run: Run, tmp_path: Path) -> None:
    found = tuned(run, split="test")
    assert found.notes == ("the weights are tuned on test: report the error on another part",)
    assert json.loads((run.folder.tuning / "tuned.json").read_text())["split"] == "test"
    page = tmp_path / "ways.yaml"
    page.write_text("greedy: {kind: greedy}\nmine: tuned\n")
    (note,) = compare([run], "test", read_searches(page, [run])).notes
    assert "mine: ctc_weight" in note and "10 of the 10 utterances of test" in note


# --- what the command prints


def test_a_weight_at_its_end_and_a_model_left_out_are_told_with_what_to_do(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tuned(run, trials=2)
    weights = {"ctc_weight": 0.3, "length_bonus": 1.5, "lm_weight": 0.0}
    asked = replace(found.asked, weights=(CTC, BONUS, Weight("lm_weight", 0.0, 1.0)))
    _show(replace(found, asked=asked, best=replace(found.best, weights=weights)))
    said = " ".join(capsys.readouterr().out.split())
    assert "the language model (lm) is left out" in said
    further = "--try ctc_weight=0:0.7 --try length_bonus=-0.5:3 --try lm_weight=0:1"
    assert f"length_bonus: best at the end of the range; to look further: {further}" in said


def test_a_stopped_tuning_says_that_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: Any) -> Tuned:
        raise KeyboardInterrupt

    run.transcriber.search = GreedySettings()
    monkeypatch.setattr(runs, "load_run", lambda path, changes, tuned: run)
    monkeypatch.setattr(using, "tune", stopped)
    done = CliRunner().invoke(app, ["tune", str(run.folder.path)])
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
