"""How to search, over what a recipe says: another kind of search, and what does not go together."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trained_run import write_page
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.commands.search_options import CHOICES, _overrides
from spelldown.errors import RecipeError
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.using.ready import make_ready, notes_on_weights
from spelldown.search.search import BeamSettings, GreedySettings

BEAM = {"kind": "beam", "longest": 20, "longest_per_second": 30.0, "length_power": 0.3}


def recipe(folder: Path, search: dict[str, Any], *overrides: str) -> Recipe:
    page = folder / "page.yaml"
    write_page(page, folder, search=search)
    return read_recipe(page, overrides)


def problem(folder: Path, search: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as raised:
        recipe(folder, search, *overrides)
    (one,) = raised.value.problems
    return one


def test_another_kind_of_search_keeps_the_limits_of_the_one_before_and_no_weight(
    tmp_path: Path,
) -> None:
    drawn = recipe(tmp_path, BEAM, "search.kind=random").search
    assert (drawn.longest, drawn.longest_per_second) == (20, 30.0)
    assert drawn.length_power == 1.0  # type: ignore[union-attr]
    over = tmp_path / "search.yaml"
    over.write_text("search: {kind: random, draws: 3}\n")
    drawn = read_recipe(tmp_path / "page.yaml", (), over).search
    assert (drawn.length_power, drawn.longest) == (1.0, 20)  # type: ignore[union-attr]
    same = recipe(tmp_path, BEAM, "search.kind=beam", "search.beam=2").search
    assert same.length_power == 0.3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "undone"),
    [
        (["search.kind=beam", "search.beam=4", "search.kind=greedy"], "=beam and search.beam=4"),
        (["search.kind=beam", "search.kind=greedy"], "would undo search.kind=beam before it"),
        (["search.beam=4", "search.kind=greedy"], "would undo search.beam=4 before it"),
        (["search.length_power=0.2", "search.kind=random"], "would undo search.length_power=0.2"),
    ],
)
def test_a_kind_that_would_undo_what_was_said_before_it_is_refused(
    tmp_path: Path, said: list[str], undone: str
) -> None:
    told = problem(tmp_path, BEAM if "kind" not in said[0] else {"kind": "greedy"}, *said)
    assert undone in told and told.startswith(said[-1])


def test_a_key_of_another_kind_names_the_kind_that_has_it(tmp_path: Path) -> None:
    greedy = {"kind": "greedy"}
    told = problem(tmp_path, greedy, "search.lm=null")
    assert "kind greedy has no lm; choose search.kind=beam before it" in told
    told = problem(tmp_path, greedy, "search.length_power=1")
    assert "choose search.kind=random or search.kind=beam before it" in told


def test_keys_that_do_not_fit_together_are_blamed_where_they_were_said(tmp_path: Path) -> None:
    told = problem(tmp_path, BEAM, "search.beam=4", "search.nbest=5")
    assert told == "search.nbest: 5 of a beam of 4; at most the beam (command line)"
    told = problem(tmp_path, {**BEAM, "beam": 4, "nbest": 5})
    line = 1 + (tmp_path / "page.yaml").read_text().splitlines().index("  nbest: 5")
    assert told.endswith(f"page.yaml:{line})")


def test_a_weight_of_nothing_leaves_out_what_it_would_weigh() -> None:
    def said(**given: Any) -> list[str]:
        named = dict.fromkeys(CHOICES) | {key.replace("_", "-"): given[key] for key in given}
        return list(_overrides(named))

    assert said(lm_weight=0.0) == ["search.kind=beam", "search.lm_weight=0.0", "search.lm=null"]
    assert said(ilm_weight=0.0)[-1] == "search.ilm=none"
    assert said(lm="lm", lm_weight=0.0)[-1] == "search.lm_weight=0.0"
    assert said(lm_weight=0.5)[-1] == "search.lm_weight=0.5"


def test_help_names_what_there_is_to_choose_from() -> None:
    def told(command: str) -> str:
        result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        return re.sub(r"[\s│]+", " ", result.stdout)

    evaluate, tune = told("evaluate"), told("tune")
    assert "random: the best of some drawn by chance" in evaluate
    assert "none|zero|mean" in evaluate and "or an ARPA file" in evaluate
    assert "else as the run's search.yaml says" in evaluate and "--untuned" in evaluate
    assert "search.yaml" not in tune and "--untuned" not in tune
    assert "else the recipe's" in tune


def test_a_language_model_that_would_shorten_texts_is_told() -> None:
    alone = BeamSettings(lm="lm", lm_weight=0.4)
    rescoring = BeamSettings(nbest=4, rescore_lm="lm", rescore_weight=0.4)
    for search in (alone, rescoring):
        (note,) = notes_on_weights(search)
        assert "--ctc 0.3" in note and "--length-bonus" in note
        for beside in ({"ctc_weight": 0.1}, {"length_bonus": 0.1}, {"length_power": 0.5}):
            assert not notes_on_weights(search.model_copy(update=beside))
    assert not notes_on_weights(BeamSettings()) and not notes_on_weights(GreedySettings())


def test_ctc_scores_of_a_run_without_a_ctc_head_are_refused_before_the_work() -> None:
    silent = SimpleNamespace(recognizer=SimpleNamespace(ctc=None))
    run: Any = SimpleNamespace(transcriber=silent, folder="runs/a")
    with pytest.raises(RecipeError, match="runs/a was trained without a CTC head"):
        make_ready(run, BeamSettings(ctc_weight=0.3))
