"""A study's file: what it may say, and the rows that it makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import planned_in, write_study

from spelldown.errors import StudyError
from spelldown.recipe.recipe import read_recipe
from spelldown.study.folder import Outcome, StudyFolder, write_outcome
from spelldown.study.identity import identity_of
from spelldown.study.plan import plan_study
from spelldown.study.study import read_study


def names(page: Path, folder: StudyFolder, *overrides: str) -> list[str]:
    return [row.name for row in planned_in(page, folder, *overrides).plan.rows]


# --- rows


def test_a_row_is_told_by_its_difference_from_the_base(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    changes = {"attention": {"kind": "cosine"}, "listener.blocks.0.widths": [12]}
    plan = planned_in(write(rows={"other": {"changes": changes, "remark": "so"}}), folder).plan
    base, other = plan.rows
    assert (base.name, base.changes, plan.base) == ("base", {}, "base")
    assert other.remark == "so"
    assert other.changes["attention.kind"] == ["dot", "cosine"]
    assert other.changes["listener.blocks.0.widths"] == [[8], [12]]
    assert "attention.width" not in other.changes  # a group is merged, not replaced


def test_a_kind_chosen_in_a_group_takes_the_keys_of_the_kind_before_away(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {"located": {"changes": {"attention": {"reach": 3, "kind": "location"}}}}
    planned = planned_in(write(rows=rows), folder)
    attention = planned.recipes["located-seed1"].attention
    assert (attention.kind, attention.width) == ("location", 8)


def test_changes_lie_over_the_command_line_which_lies_over_what_rows_share(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {"row": {"changes": {"speller.width": 3}}}
    page = write(rows=rows, shared={"speller.width": 1, "attention.width": 5})
    planned = planned_in(page, folder, "speller.width=2", "optimizer.rate=0.1")
    widths = {name: recipe.speller.width for name, recipe in planned.recipes.items()}
    assert widths == {"base-seed1": 2, "row-seed1": 3}
    assert all(recipe.attention.width == 5 for recipe in planned.recipes.values())
    assert all(recipe.optimizer.rate == 0.1 for recipe in planned.recipes.values())


def test_every_row_has_a_run_of_every_seed(write: Callable[..., Path], folder: StudyFolder) -> None:
    planned = planned_in(write(seeds=3), folder)
    assert {name: recipe.seed for name, recipe in planned.recipes.items()} == {
        f"{row}-seed{seed}": seed for row in ("base", "wide") for seed in (1, 2, 3)
    }
    assert list(planned_in(write(seeds=[7, 2]), folder).plan.rows[0].runs) == [7, 2]


def test_the_budget_decides_how_long_each_run_trains(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    planned = planned_in(write(budget={"epochs": 9}), folder)
    assert {recipe.training.epochs for recipe in planned.recipes.values()} == {9}


def test_a_budget_of_updates_is_as_many_epochs_as_make_them(
    tmp_path: Path, corpus: Path, folder: StudyFolder
) -> None:
    rows = {"small": {"changes": {"batching.utterances": 3}}}  # 12 utterances: 2 and 4 batches
    page = write_study(tmp_path, corpus, rows=rows, budget={"updates": 20})
    epochs = {n: r.training.epochs for n, r in plan_study(read_study(page), folder).recipes.items()}
    assert epochs == {"base-seed1": 10, "small-seed1": 5}


def test_a_budget_of_updates_is_told_from_a_base_that_is_no_row(
    tmp_path: Path, corpus: Path, folder: StudyFolder
) -> None:
    axes = {"batching.utterances": [3, 4]}
    page = write_study(tmp_path, corpus, rows={}, axes=axes, base_row=False, budget={"updates": 20})
    planned = plan_study(read_study(page), folder)
    assert [row.changes["training.epochs"][1] for row in planned.plan.rows] == [5, 7]


def test_a_row_that_takes_the_bases_name_is_refused(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {"base": {"changes": {"speller.width": 24}}}
    with pytest.raises(StudyError) as caught:
        planned_in(write(rows=rows), folder)
    assert "give yours another name" in str(caught.value)
    assert names(write(rows=rows, base_row=False), folder) == ["base"]


def test_a_row_that_names_one_gpu_is_refused_since_a_study_hands_them_out(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    rows = {"second": {"changes": {"training.device": "cuda:1"}}}
    with pytest.raises(StudyError) as caught:
        planned_in(write(rows=rows), folder)
    assert "cuda:1, but a study gives each run its GPU" in str(caught.value)
    assert "second" in str(caught.value)


def test_a_budget_of_updates_needs_to_know_how_many_an_epoch_has(
    tmp_path: Path, corpus: Path, folder: StudyFolder
) -> None:
    page = write_study(tmp_path, corpus, shared={"batching.frames": "auto"}, budget={"updates": 9})
    with pytest.raises(StudyError) as caught:
        plan_study(read_study(page), folder)
    assert "not known before training" in str(caught.value)


def test_a_row_may_have_a_recipe_of_its_own_and_figures_of_others(
    write: Callable[..., Path], folder: StudyFolder, tmp_path: Path
) -> None:
    rows = {"own": {"recipe": "own.yaml", "published": {"distance": 20.5, "remark": "slow"}}}
    page = write(rows=rows)
    (tmp_path / "own.yaml").write_text("base: tiny.yaml\noptimizer: {rate: 0.5}\n")
    planned = planned_in(page, folder)
    assert planned.recipes["own-seed1"].optimizer.rate == 0.5
    assert planned.plan.rows[1].published == {"distance": 20.5, "remark": "slow"}
    assert "optimizer.rate" in planned.plan.rows[1].changes


def test_a_row_that_changes_nothing_is_the_base(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    plan = planned_in(write(rows={"ours": {}, "wide": {"changes": {"speller.width": 9}}}), folder)
    assert [row.name for row in plan.plan.rows] == ["ours", "wide"]
    assert plan.plan.base == "ours"


# --- axes


def test_axes_are_combined_alone_or_side_by_side(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    axes = {
        "speller.width": [9, 10],
        "kind": {"key": "attention.kind", "values": ["dot", "cosine"]},
    }

    def made(**explore: Any) -> list[str]:
        return names(write(rows={}, axes=axes, explore=explore, base_row=False), folder)

    assert made(kind="grid") == [
        f"speller.width={width}, kind={kind}" for width in (9, 10) for kind in ("dot", "cosine")
    ]
    assert made(kind="one-at-a-time") == [
        "speller.width=9", "speller.width=10", "kind=dot", "kind=cosine"
    ]  # fmt: skip
    assert made(kind="list") == ["speller.width=9, kind=dot", "speller.width=10, kind=cosine"]
    drawn = made(kind="random", draws=3, seed=5)
    assert len(set(drawn)) == 3 and drawn == made(kind="random", draws=3, seed=5)
    assert len(made(kind="random", draws=99)) == 4  # there are no more


def test_a_range_is_drawn_from_within_its_ends(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    axes = {
        "optimizer.rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "width": {"key": "speller.width", "low": 8, "high": 11, "whole": True},
    }
    planned = planned_in(
        write(rows={}, axes=axes, explore={"kind": "random", "draws": 30}, base_row=False), folder
    )
    rates = [recipe.optimizer.rate for recipe in planned.recipes.values()]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert sum(rate < 1e-3 for rate in rates) > 5  # by the logarithm, half of them
    assert {recipe.speller.width for recipe in planned.recipes.values()} == {8, 9, 10, 11}


def test_a_value_may_change_several_places_and_rows_know_their_values(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    values = {"with": {"ctc": {}, "loss.ctc_weight": 0.3}, "without": {}}
    page = write(rows={}, axes={"ctc": {"values": values}})
    planned = planned_in(page, folder)
    assert planned.recipes["ctc=with-seed1"].loss.ctc_weight == 0.3
    assert [row.values for row in planned.plan.rows] == [{}, {"ctc": "with"}, {"ctc": "without"}]


def test_rows_that_ask_for_the_same_share_their_runs(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    plan = planned_in(write(rows={}, axes={"speller.width": [16, 20]}), folder).plan
    runs = {row.name: row.runs[1] for row in plan.rows}
    assert runs["speller.width=16"] == runs["base"] == "base-seed1"
    assert len(plan.runs) == 2


# --- identity


def test_a_run_keeps_its_identity_unless_what_it_learns_changes(tmp_path: Path) -> None:
    write_study(tmp_path, tmp_path)
    page = tmp_path / "tiny.yaml"
    same = [(), ("name=x",), ("training.threads=2",), ("training.device=auto",)]
    assert len({identity_of(read_recipe(page, each)) for each in same}) == 1
    others = ["seed=2", "speller.width=3", "attention.kind=cosine", "training.epochs=3",
              "training.precision=float32", "data.root=elsewhere"]  # fmt: skip
    found = {identity_of(read_recipe(page, [each])) for each in others}
    assert len(found | {identity_of(read_recipe(page))}) == len(others) + 1
    assert identity_of(read_recipe(page), minutes=3) not in found


def test_a_memory_limit_of_all_rows_is_no_other_study_but_that_of_a_row_is_a_run_of_its_own(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    page = write(rows={}, axes={"training.memory": [None, "3GB"]})

    def runs(*overrides: str) -> dict[str, str]:
        return {row.name: row.runs[1] for row in planned_in(page, folder, *overrides).plan.rows}

    assert runs() == {"base": "base-seed1", "training.memory=null": "base-seed1",
                      "training.memory=3GB": "training.memory=3GB-seed1"}  # fmt: skip
    planned = planned_in(page, folder)
    for name, identity in planned.plan.identities.items():
        write_outcome(folder.rows / name, Outcome(name, 1, identity))
    assert runs("training.memory=9GB")["training.memory=3GB"] == "training.memory=3GB-seed1"
    assert runs("training.memory=9GB")["base"] == "base-seed1"
    auto = ("batching.frames=auto", "training.memory=3GB")  # there it decides what is learnt
    assert runs(*auto)["base"] == "base-seed1-2"


def test_a_changed_recipe_is_a_new_run_and_the_old_one_is_found_again(
    write: Callable[..., Path], folder: StudyFolder
) -> None:
    def run(*overrides: str) -> str:
        planned = planned_in(page, folder, *overrides)
        name = planned.plan.rows[0].runs[1]
        write_outcome(folder.rows / name, Outcome(name, 1, planned.plan.identities[name]))
        return name

    page = write()
    assert run() == "base-seed1"
    assert run("optimizer.rate=0.5") == "base-seed1-2"
    assert run() == "base-seed1"
    assert run("optimizer.rate=0.5") == "base-seed1-2"
