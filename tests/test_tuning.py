"""`spelldown tune`: what is tried, what is remembered, and what is written into the run."""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from made_tuning import BEST, BONUS, CTC, Fake, bowl, made_run, tuned
from trained_run import train_toy
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import RecipeError, RunError
from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.run import Run
from spelldown.recipe.using import trials as trying
from spelldown.recipe.using.ready import notes_on_search
from spelldown.recipe.using.trials import (
    Measured,
    Trial,
    Trials,
    Weight,
    best_of,
    run_trials,
    weights_to_tune,
    with_weights,
)
from spelldown.recipe.using.tuning import Asked, _first, tune
from spelldown.search.search import BeamSettings, GreedySettings, RandomSettings
from spelldown.writing import held


def tried(trials: Trials, count: int = 24, points: int = 0, measure: Any = bowl) -> Iterator[Trial]:
    given = [{"ctc_weight": 0.0, "length_bonus": 0.0}]
    return run_trials(
        trials, (CTC, BONUS), given, measure, judge="wer", count=count, line_points=points, seed=1
    )


# --- what is tried


def test_weights_come_closer_to_the_best_than_chance_does(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials.jsonl", {})
    found = list(tried(trials, 40))
    assert len(found) == 40
    best = best_of(trials.done, "wer")
    assert best.measured.wer < 0.11
    later = [trial.measured.wer for trial in found[25:]]
    assert sum(later) / len(later) < sum(t.measured.wer for t in found[1:10]) / 9


def test_a_tuning_that_was_stopped_tries_what_an_unbroken_one_would_have(tmp_path: Path) -> None:
    whole = [trial.weights for trial in tried(Trials(tmp_path / "whole.jsonl", {}), 18, 3)]
    file = tmp_path / "broken.jsonl"
    for stop in (0, 7, 15):
        going = tried(Trials(file, {}), 18, 3)
        for _ in range(stop):
            next(going)
    with file.open("a") as half:
        half.write('{"weights": {"ctc_we')  # killed while it wrote
    calls = []

    def counted(weights: Mapping[str, float]) -> Measured:
        calls.append(weights)
        return bowl(weights)

    assert [trial.weights for trial in tried(Trials(file, {}), 18, 3, counted)] == whole
    assert len(calls) == len(Trials(file, {}).done) - 15
    assert [trial.weights for trial in tried(Trials(file, {}), 18, 3, None)] == whole  # all known


def test_lines_go_through_the_best_along_each_weight_alone(tmp_path: Path) -> None:
    found = list(tried(Trials(tmp_path / "trials.jsonl", {}), 12, 5))
    best = min(found[:12], key=lambda trial: trial.rank("wer"))
    for place, (name, other) in enumerate((("ctc_weight", BONUS), ("length_bonus", CTC))):
        line = found[12 + 5 * place : 17 + 5 * place]
        assert {trial.weights[other.name] for trial in line} == {best.weights[other.name]}
        assert len({trial.weights[name] for trial in line}) == 5


def test_weights_are_numbers_that_can_be_read() -> None:
    assert (CTC.step, BONUS.step, Weight("x", 0, 10).step) == (0.01, 0.01, 0.1)
    assert CTC.rounded(0.33333) == 0.33
    assert Weight("x", 0, 1).spread(3) == [0.0, 0.5, 1.0]
    assert str(BONUS.rounded(-0.001)) == "0.0"


def test_a_range_may_begin_anywhere_and_its_trials_are_read_again(tmp_path: Path) -> None:
    weights = (Weight("ctc_weight", 0.0333, 0.31), Weight("length_bonus", 0.125, 1.996))

    def found() -> list[Mapping[str, float]]:
        trials = run_trials(
            Trials(tmp_path / "trials.jsonl", {}), weights, [], bowl,
            judge="wer", count=14, line_points=3, seed=1,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [trial.weights for trial in trials]

    once = found()
    assert len(once) == 20 and found() == once
    for weight in weights:
        assert all(weight.low <= one[weight.name] <= weight.high for one in once)
        inside = [v for one in once if weight.low < (v := one[weight.name]) < weight.high]
        assert all(len(f"{value:g}") <= 5 for value in inside)  # 0.044, 1.44


def test_trials_of_another_tuning_are_not_mixed_with_these(tmp_path: Path) -> None:
    Trials(tmp_path / "trials.jsonl", {"part": "dev"})
    with pytest.raises(RunError, match="trials of another tuning"):
        Trials(tmp_path / "trials.jsonl", {"part": "test"})


def test_equal_errors_are_told_apart_by_the_other_measures_then_by_small_weights() -> None:
    same = Measured(0.2, 0.1, 1.0, 0, 1.0)
    one, other = Trial({"a": 0.5}, "given", same), Trial({"a": 0.1}, "given", same)
    worse = Trial({"a": 0.0}, "given", replace(same, cer=0.2))
    assert min((worse, one, other), key=lambda trial: trial.rank("wer")) is other


def test_without_optuna_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RunError, match=r"pip install 'spelldown\[tune\]'"):
        trying._optuna()


# --- what can be tuned


def test_only_what_there_is_to_weigh_is_tuned_unless_told() -> None:
    def names(search: Any, ctc: bool = True) -> list[str]:
        return [weight.name for weight in weights_to_tune(search, ctc, {})]

    assert names(BeamSettings()) == ["ctc_weight", "length_bonus"]
    assert names(BeamSettings(), ctc=False) == ["length_bonus"]
    assert names(BeamSettings(lm="lm")) == ["ctc_weight", "lm_weight", "length_bonus"]
    assert "ilm_weight" in names(BeamSettings(ilm="zero"))
    assert names(RandomSettings()) == ["temperature", "length_power"]
    asked = {"coverage_penalty": (0.0, 0.5)}
    assert weights_to_tune(BeamSettings(), False, asked) == (Weight("coverage_penalty", 0.0, 0.5),)


def test_what_cannot_be_tuned_is_told_all_at_once() -> None:
    with pytest.raises(RecipeError, match="greedy search has no weights"):
        weights_to_tune(GreedySettings(), True, {})
    asked = {
        "lm_weight": (0.0, 1.0),
        "ctc_weight": (0.0, 0.5),
        "length_bonus": (1.0, 0.0),
        "length_power": (0.0, 9.0),
        "beam": (1.0, 8.0),
    }
    with pytest.raises(RecipeError) as raised:
        weights_to_tune(BeamSettings(), False, asked)
    told = "\n".join(raised.value.problems)
    for problem in ("give it with --lm", "no CTC head", "from a lower to a higher"):
        assert problem in told
    assert "length_power=0:9: input should be less than or equal to 2" in told
    assert "beam search has no such weight; it has " in told


def test_a_language_model_with_no_weight_left_is_left_out() -> None:
    search = BeamSettings(lm="lm", ilm="zero")
    found = with_weights(search, {"lm_weight": 0.0, "ilm_weight": 0.2})
    assert (found.lm, found.ilm, found.ilm_weight) == (None, "zero", 0.2)  # type: ignore[union-attr]


# --- a run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path)


def test_the_best_search_is_written_into_the_run_and_read_from_it(run: Run) -> None:
    found = tuned(run)
    assert found.written and found.verdict == "better"
    assert found.after.scores.wer < found.before.scores.wer
    page = run.folder.search.read_text()
    assert page.startswith("# Found by `spelldown tune`") and "--untuned" in page
    recipe = read_recipe(run.folder.recipe, (), run.folder.search)
    assert recipe.search == found.search
    assert recipe.search.kind == "beam" and recipe.search.longest == 20
    record = json.loads((run.folder.tuning / "tuned.json").read_text())
    assert (record["epoch"], record["weights"]) == (3, dict(found.best.weights))
    assert len(record["trials"]) == len(found.trials)


def test_each_utterance_is_heard_once_and_nothing_is_searched_twice(run: Run) -> None:
    found, fake = tuned(run), cast(Fake, run.transcriber)
    assert fake.heard == 1
    assert fake.searched == len(found.trials) + 2  # the best and the recipe's own, for the scores
    again = tuned(run)
    assert again.best == found.best
    assert fake.searched == len(found.trials) + 4
    more = tuned(run, trials=25)
    assert [trial.weights for trial in more.trials[:20]] == [t.weights for t in found.trials[:20]]


def test_other_weights_or_utterances_begin_trials_of_their_own(run: Run) -> None:
    tuned(run)
    (run.folder.best / "model.safetensors").write_bytes(b"others")
    tuned(run)
    assert len(list(run.folder.tuning.glob("trials-*.jsonl"))) == 2


def test_a_run_keeps_its_search_where_nothing_better_is_found(run: Run) -> None:
    run.transcriber.search = BeamSettings(**BEST)
    run.folder.search.write_text("search: {kind: greedy}\n")
    found = tuned(run, trials=2)
    assert not found.written and found.verdict != "better"
    assert run.folder.search.read_text() == "search: {kind: greedy}\n"


def test_the_picture_shows_each_weight_and_each_pair_and_needs_nothing_else(run: Run) -> None:
    found = tuned(run)
    page, picture = found.page.read_text(), found.page.with_suffix(".svg").read_text()
    assert picture.strip() in page
    for title in (
        "WER by ctc_weight<",
        "WER by length_bonus<",
        "ctc_weight across, length_bonus upwards<",
    ):
        assert title in picture
    lines = [line.split() for line in re.findall(r'<polyline[^>]*points="([^"]*)"', picture)]
    assert len(lines) == 2 and all(len(line) >= 4 for line in lines)
    assert picture.count('<circle class="dot"') + picture.count('<circle class="on"') == 2 * len(
        found.trials
    )
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert set(re.findall(r"https?://[^\"' )]+", page)) == {"http://www.w3.org/2000/svg"}


def test_two_processes_do_not_tune_one_run_at_once(run: Run) -> None:
    run.folder.tuning.mkdir()
    with held(run.folder.tuning / ".lock"), pytest.raises(RunError, match="another process"):
        tuned(run)


def test_a_language_model_that_was_made_anew_since_is_told(run: Run, tmp_path: Path) -> None:
    lm = tmp_path / "lm"
    lm.mkdir()
    (lm / "language_model.json").write_text("{}")
    (lm / "model.arpa").write_text("one")
    asked = Asked(BeamSettings(longest=20, lm=str(lm), lm_weight=0.4), (CTC, BONUS), trials=20)
    search = tune(run, asked).search
    assert notes_on_search(run.folder, 3, search) == ()
    (lm / "model.arpa").write_text("two")
    (note,) = notes_on_search(run.folder, 3, search)
    assert f"{lm} has been made anew" in note and f"spelldown tune {run.folder}" in note
    assert notes_on_search(run.folder, 3, GreedySettings()) == ()  # it is not asked
    assert len(notes_on_search(run.folder, 4, search)) == 2  # and other weights


def test_a_language_model_is_tuned_and_asked_from_then_on(tmp_path: Path) -> None:
    # The recipe's own search writes twenty letters whatever is said: anything is better.
    trained = train_toy(tmp_path, search={"kind": "beam", "longest": 20, "length_bonus": 10})
    lm = tmp_path / "lm"

    def spelldown(*words: object) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*map(str, words), "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    making = ("train-lm", lm, "--run", trained.run, "--order", 3)
    spelldown(*making)
    ranges = ("--try", "lm_weight=0.2:0.9", "--try", "length_bonus=-0.5:0.5")
    wanted = ("--search", "beam", "--beam", 2, "--lm", lm, "--trials", 3, "--points", 2)
    found = spelldown("tune", trained.run, *wanted, *ranges, "--judge", "cer")
    assert found["written"] and found["after"]["cer"] < found["before"]["cer"]
    assert all(0.2 <= trial["weights"]["lm_weight"] <= 0.9 for trial in found["trials"])
    assert "lm_weight" in (trained.run / "tuning" / "landscape.html").read_text()
    scores = spelldown("evaluate", trained.run, "--split", "dev")
    assert scores["search"] == {**found["search"], "lm": str(lm)}
    assert scores["cer"] == pytest.approx(found["after"]["cer"])
    (flattered,) = scores["notes"]
    assert "tuned on 4 of the 4 utterances of dev (dev-000, dev-001, " in flattered
    more = tmp_path / "more.txt"
    more.write_text("EGG SEA\n" * 9)
    shutil.rmtree(lm)
    spelldown(*making, "--text", more)
    (note,) = spelldown("evaluate", trained.run)["notes"]
    assert "has been made anew since" in note


def test_wrong_ranges_and_unweighed_models_are_refused_on_the_command_line(run: Run) -> None:
    def refused(*words: str) -> str:
        result = CliRunner().invoke(app, ["tune", *words])
        assert result.exit_code == 2, result.output
        return " ".join(result.stderr.replace("│", " ").split())

    assert "as in ctc_weight=0:0.5" in refused("runs/a", "--try", "ctc_weight=0.5")
    assert "No such option: --untuned" in refused("runs/a", "--untuned")


def test_the_advised_ctc_weight_is_among_the_first_that_are_tried() -> None:
    asked = Asked(BeamSettings(length_bonus=0.7), (CTC, BONUS))
    assert [tuple(start.values()) for start in _first(asked)] == [
        (0.0, 0.7),
        (0.0, 0.0),
        (0.3, 0.0),
    ]
