"""Training that hears other corpora too, from the recipe to the run: counted, checked, resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcome import outcome
from toy_sound import write_recordings

from spelldown.errors import DataError, RecipeError
from spelldown.recipe.parts import build_parts
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.run import resume, start
from spelldown.training.run.record import Sums
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent

AN4 = Path(__file__).parent.parent / "recipes" / "an4.yaml"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "real")


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "synthetic", {"train": 10, "voices": 4}, seed=1)


def recipe_of(root: Path, *also: dict[str, Any], **sections: Any) -> Recipe:
    page: dict[str, Any] = {
        "name": "tiny",
        "data": {"kind": "cuts", "root": root, "also": also, **sections.pop("data", {})},
        "frontend": {"kind": "mfcc", "width": 8, "filters": 20},
        "augment": {"sound": {"speeds": [0.9, 1.1], "volume": [-3, 3]}, "time_warp": 10},
        "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2, "dropout": 0.1}]},
        "speller": {"embedding": 8, "width": 8},
        "batching": {"utterances": 4},
        "training": {
            "epochs": 4,
            "device": "cpu",
            "threads": 1,
            "pictures_every": 0,
            "checkpoint_minutes": 0,
        },
        "search": {"kind": "greedy", "longest": 20},
    }
    return Recipe.model_validate({**page, **sections})


class Told(Silent):
    """Keeps what is told, and ends the process, as it were, after so many updates."""

    def __init__(self, updates: int | None = None) -> None:
        self.messages: list[str] = []
        self.left = updates

    def message(self, text: str) -> None:
        self.messages.append(text)

    def updated(self, done: int, utterances: int, loss: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


def test_a_killed_run_hears_the_same_mixture_changed_in_the_same_way(
    real: Path, synthetic: Path, tmp_path: Path
) -> None:
    also = {"root": synthetic, "rate": 0.5, "last_rate": 0.1}
    recipe = recipe_of(real, also, {"root": synthetic, "part": "voices", "until_epoch": 2})
    told = Told()
    start(recipe, RunFolder(tmp_path / "unbroken"), told)
    assert told.messages[0].startswith("train: 23 utterances")
    assert "10 utterances are from train of" in told.messages[1]
    assert "50%, 10% of them are heard in the first and the last epoch" in told.messages[1]
    assert "100%, 0% of them" in told.messages[2]
    with pytest.raises(KeyboardInterrupt):
        start(recipe, RunFolder(tmp_path / "killed"), Told(3))
    for updates in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path / "killed", Told(updates))
    resume(tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


def test_epochs_have_what_the_recipe_says(real: Path, synthetic: Path) -> None:
    also = {"root": synthetic, "rate": 1.0, "last_rate": 0.1}
    voices = {"root": synthetic, "part": "voices", "until_epoch": 2}
    train = build_parts(recipe_of(real, also, voices)).train
    assert [len(train.heard(epoch)) for epoch in (1, 2, 3, 4)] == [23, 20, 13, 10]
    for epoch in (1, 4):
        heard = [name for batch in train.epoch(epoch) for name in batch.ids]
        assert len(heard) == len(set(heard)) == len(train.heard(epoch))
        own = [name for name in heard if not name.startswith("synthetic.")]
        assert len([name for name in own if name.startswith("train")]) == 9


def test_validation_and_other_parts_are_not_mixed(real: Path, synthetic: Path) -> None:
    parts = build_parts(recipe_of(real, {"root": synthetic}))
    assert (parts.train.utterances, parts.dev.utterances) == (19, 3)


def test_the_vocabulary_counts_all_texts_that_training_hears(real: Path, tmp_path: Path) -> None:
    other = write_recordings(tmp_path / "other", {"train": 2}, prefix="x-")
    manifest = other / "train.jsonl.gz"
    from lhotse import CutSet

    cuts = list(CutSet.from_file(manifest))
    cuts[0].supervisions[0].text = "ŽÜŊ"
    CutSet.from_cuts(cuts).to_file(manifest)
    sections: dict[str, Any] = {"vocabulary": {"kind": "characters"}}
    assert "Ŋ" in build_parts(recipe_of(real, {"root": other}, **sections)).vocabulary.symbols
    assert "Ŋ" not in build_parts(recipe_of(real, **sections)).vocabulary.symbols


def test_problems_of_an_added_corpus_are_named_with_it(real: Path, synthetic: Path) -> None:
    (synthetic / "audio" / "train-003.wav").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        build_parts(recipe_of(real, {"root": synthetic}))
    assert f"1 of 10 utterances of train of {synthetic} cannot be used" in caught.value.summary
    assert str(synthetic / "audio" / "train-003.wav") in caught.value.problems[0]
    left = build_parts(recipe_of(real, {"root": synthetic}, data={"problems": "leave-out"}))
    assert left.train.utterances == 18 and len(left.problems) == 1
    with pytest.raises(DataError, match=r"data\.also\.1: no part 'tain'"):
        build_parts(recipe_of(real, {"root": synthetic, "part": "voices"},
                              {"root": real, "part": "tain"}))  # fmt: skip


def test_an_added_corpus_without_texts_cannot_be_learnt_from(real: Path, synthetic: Path) -> None:
    from lhotse import CutSet

    cuts = [cut.drop_supervisions() for cut in CutSet.from_file(synthetic / "train.jsonl.gz")]
    CutSet.from_cuts(cuts).to_file(synthetic / "train.jsonl.gz")
    with pytest.raises(DataError, match=f"train of {synthetic} has no transcripts"):
        build_parts(recipe_of(real, {"root": synthetic}))


def test_added_corpora_are_cached_beside_themselves(real: Path, synthetic: Path) -> None:
    sound: dict[str, Any] = {"augment": {"sound": {"speeds": [0.9, 1.1]}}}
    cached = recipe_of(real, {"root": synthetic}, data={"cache": "half"}, **sound)
    plain = build_parts(recipe_of(real, {"root": synthetic}, **sound)).train
    kept = build_parts(cached).train
    assert len(list((real / "cache").glob("train-*.half"))) == 2
    assert len(list((synthetic / "cache").glob("train-*.half"))) == 2
    for index in range(19):
        one, other = plain.example(index, 1), kept.example(index, 1)
        assert one.id == other.id
        np.testing.assert_array_equal(one.frames.numpy(), other.frames.numpy())


def test_arrays_are_mixed_with_arrays(tmp_path: Path) -> None:
    from toy_corpus import write_corpus

    own = write_corpus(tmp_path / "own", {"train": 5, "dev": 2})
    other = write_corpus(tmp_path / "other", {"train": 6}, seed=3)
    data = {"kind": "arrays", "root": own, "also": [{"root": other, "rate": 0.5}]}
    recipe = recipe_of(own).model_dump() | {
        "data": data, "frontend": {"kind": "arrays", "width": 4}, "augment": None,
    }  # fmt: skip
    assert len(build_parts(Recipe.model_validate(recipe)).train.heard(1)) == 8


@pytest.mark.parametrize(
    ("also", "says"),
    [
        ("[{root: x, rate: 1.5}]", "data.also.0.rate"),
        ("[{root: x, rate: 0}]", "data.also.0.rate"),
        ("[{root: x, until_epoch: 999}]", "data.also.0.until_epoch"),
        ("[{root: x}, {rot: x}]", "data.also.1"),
        ("[{root: x, shares: 1}]", "data.also.0.shares"),
        (
            "[{root: x}, {root: ../shared/data/an4, part: dev}]",
            "data.also.1.part: dev would be learnt",
        ),
        (
            "[{root: ../shared/./data/an4/, part: train + test}]",
            "data.also.0.part: test would be learnt",
        ),
    ],
)
def test_mixtures_that_cannot_be_are_refused_by_their_key(also: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(AN4, [f"data.also={also}"])
    assert any(says in problem for problem in caught.value.problems), str(caught.value)


def test_a_share_of_an_added_corpus_that_is_nobody_is_refused(real: Path, synthetic: Path) -> None:
    few = {"root": synthetic, "rate": 0.04}
    with pytest.raises(DataError, match=r"data\.also\.1\.rate: .*0\.04 of the 10 utterances"):
        build_parts(recipe_of(real, {"root": synthetic}, few))
    assert build_parts(recipe_of(real, {**few, "last_rate": 0.1})).train.utterances == 19


# --- waiting for data


def test_waiting_is_told_where_it_is_long() -> None:
    sums = Sums(seconds=90.0)
    sums.waited(10.0)
    assert sums.record()["waiting_share"] == pytest.approx(0.1)
    assert sums.wait_worth_telling() == "10% of this epoch's training went by waiting for data"
    assert Sums(seconds=1000.0, waiting=30.0).wait_worth_telling() == ""
    assert Sums(seconds=2.0, waiting=1.5).wait_worth_telling() == ""


def test_a_run_that_waits_says_so_with_what_would_help(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spelldown.training.run.record.WAITING_SECONDS", 0.0)
    monkeypatch.setattr("spelldown.training.run.record.WAITING_SHARE", 0.0)
    told = Told()
    plain = {"augment": None, "training": {"epochs": 2, "device": "cpu", "pictures_every": 0}}
    start(recipe_of(real, **plain), RunFolder(tmp_path / "run"), told)
    (line,) = [text for text in told.messages if "waiting for data" in text]
    assert "data.cache=half" in line and "batching.workers=1" in line
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < record["train"]["waiting_share"] < 1
