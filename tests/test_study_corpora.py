"""What a study asks of its corpora: epochs that make so many updates, and parts that are there."""

from pathlib import Path
from typing import Any

import pytest
from tiny_study import write_study
from toy_corpus import write_corpus

from spelldown.errors import StudyError
from spelldown.recipe.parts import build_parts
from spelldown.recipe.recipe import Recipe
from spelldown.study.corpora import corpora_of, corpus_of, epochs_for
from spelldown.study.folder import StudyFolder
from spelldown.study.plan import Planned, plan_study
from spelldown.study.study import read_study


def planned_from(tmp_path: Path, corpus: Path, **page: Any) -> Planned:
    read = read_study(write_study(tmp_path, corpus, **page))
    return plan_study(read, StudyFolder(tmp_path / "studies" / "tiny"))


def updates_of(recipe: Recipe, epochs: int) -> int:
    """The updates of so many epochs, as a run makes them."""
    training = recipe.training.model_copy(update={"epochs": epochs})
    train = build_parts(recipe.model_copy(update={"training": training})).train
    each = [train.count(epoch) for epoch in range(1, epochs + 1)]
    return sum(-(-batches // recipe.optimizer.accumulate) for batches in each)


@pytest.mark.parametrize("shares", [(1, 0.1), (0.1, 1), (0.5, 0.5), (1, 0.0)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_budget_of_updates_is_kept_where_epochs_hear_less_and_less_of_another_corpus(
    tmp_path: Path, corpus: Path, shares: tuple[float, float], accumulate: int
) -> None:
    other = write_corpus(tmp_path / "other", {"train": 60})
    also = [{"root": str(other), "rate": shares[0], "last_rate": shares[1]}]
    changes = {"data.also": also, "optimizer.accumulate": accumulate}
    planned = planned_from(
        tmp_path, corpus, rows={"mixed": {"changes": changes}}, budget={"updates": 60}
    )
    recipe = planned.recipes["mixed-seed1"]
    found = recipe.training.epochs
    off = {n: abs(updates_of(recipe, n) - 60) for n in range(max(1, found - 2), found + 3)}
    assert off[found] == min(off.values())


def test_a_budget_of_few_updates_is_one_epoch(tmp_path: Path, corpus: Path) -> None:
    planned = planned_from(tmp_path, corpus, budget={"updates": 1})
    recipe = planned.recipes["base-seed1"]
    assert recipe.training.epochs == 1
    train = corpora_of([recipe])[corpus_of(recipe)]
    assert [epochs_for(updates, recipe, train) for updates in (2, 4, 5, 400)] == [
        1, 2, 2, 200
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["dev", "tset"], "there are dev, test, train; did you mean 'test'?"),
        (["dev", "nothing"], "no part 'nothing' in "),
        (["dev", "test", "dev"], "'dev' is named more than once"),
    ],
)
def test_parts_that_no_corpus_has_are_told_before_the_first_run(
    tmp_path: Path, corpus: Path, parts: list[str], told: str
) -> None:
    with pytest.raises(StudyError) as caught:
        planned_from(tmp_path, corpus, parts=parts)
    assert told in str(caught.value) and "study.yaml:" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_part_is_right_if_some_rows_corpus_has_it(tmp_path: Path, corpus: Path) -> None:
    other = write_corpus(tmp_path / "other", {"train": 12, "dev": 4, "hard": 3})
    rows = {"other": {"changes": {"data.root": str(other)}}}
    planned = planned_from(tmp_path, corpus, rows=rows, parts=["dev", "hard", "dev+train"])
    assert planned.plan.parts == ("dev", "hard", "dev+train")


def test_a_test_part_that_nobody_asked_for_need_not_be_there(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    assert planned_from(tmp_path, corpus).plan.parts == ("dev", "test")
    with pytest.raises(StudyError, match="no part 'test'"):
        planned_from(tmp_path, corpus, parts=["dev", "test"])
    with pytest.raises(StudyError, match=r"no test part \(data\.test\) \(.*study\.yaml:\d+\)$"):
        planned_from(tmp_path, corpus, parts=["test"], shared={"data.test": None})
