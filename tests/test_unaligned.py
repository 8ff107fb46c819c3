"""What becomes of a run whose attention does not align: left alone, stopped, or repaired."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_outcome import Killed, outcome
from toy_corpus import write_corpus

from spelldown.recipe import repairing
from spelldown.recipe import run as runs
from spelldown.recipe.parts import remedies_in_use
from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.repairing import REPAIRS, to_try
from spelldown.training import alignment
from spelldown.training.alignment import Verdict
from spelldown.training.remedies import REMEDIES, REMEDY_NAMES
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent

PAGE: dict[str, Any] = {
    "name": "toy",
    "frontend": {"kind": "arrays", "width": 4},
    "listener": {"blocks": [{"kind": "bilstm", "width": 8, "norm": "none"}]},
    "attention": {"kind": "dot", "width": 8},
    "speller": {"embedding": 8, "width": 16, "dropout": 0.1},
    "schedule": {"kind": "plateau"},
    "teacher_forcing": {"kind": "rule-b", "reading": "as-typed"},
    "optimizer": {"clip": None},
    "training": {"epochs": 3, "device": "cpu", "threads": 1, "pictures_every": 0,
                 "unaligned": "repair"},
    "search": {"kind": "greedy", "longest": 20},
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unaligned")
    corpus = write_corpus(folder / "corpus", {"train": 6, "dev": 3})
    data = {"kind": "arrays", "root": str(corpus), "train": "train", "dev": "dev"}
    (folder / "toy.yaml").write_text(yaml.safe_dump({**PAGE, "data": data}))
    return folder / "toy.yaml"


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def needing(monkeypatch: pytest.MonkeyPatch, *needed: str) -> None:
    """From the second validation on, only recipes with these remedies align."""

    def verdict(history: Sequence[Any], left: Any = frozenset()) -> Verdict:
        fine = len(history) < 2 or set(needed) <= REMEDY_NAMES - set(left)
        return Verdict("aligning" if fine else "not aligning", "for the test")

    monkeypatch.setattr(alignment, "verdict", verdict)
    monkeypatch.setattr(repairing, "verdict", verdict)


def repaired(run: Path) -> list[dict[str, Any]]:
    return RunFolder(run).read_repairs()


def came_of(run: Path) -> dict[str, Any]:
    """What a run came to, but for the names of its repairs."""
    found = outcome(run)
    for name, value in found.items():
        if name.startswith("metrics"):
            del value["repairs"]
    return found


def test_a_repaired_run_ends_as_a_run_of_the_repaired_recipe_would(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing(monkeypatch, "shortest-first")
    told = Told()
    ended = runs.start(read_recipe(page), RunFolder(tmp_path / "run"), told)
    assert ended.ending == "finished" and ended.epochs == 3
    made = repaired(tmp_path / "run")
    names = [one["remedy"] for one in made]
    in_order = [remedy.name for remedy in REMEDIES]
    assert names == [name for name in in_order if name in names] and names[-1] == "shortest-first"
    assert made[names.index("ctc")]["changes"] == ["ctc={}", "loss.ctc_weight=0.3"]
    assert {one["epochs"] for one in made} == {2}
    assert sum("beginning anew with" in text for text in told.said) == len(made)
    changes = [change for one in made for change in one["changes"]]
    fresh = read_recipe(tmp_path / "run" / "recipe.yaml", changes)
    runs.start(fresh, RunFolder(tmp_path / "fresh"))
    assert came_of(tmp_path / "run") == came_of(tmp_path / "fresh")
    lines = RunFolder(tmp_path / "run").read_metrics()
    assert [line["repairs"] for line in lines] == [names] * 3
    tries = sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "run/tries").rglob("*.jsonl"))
    assert tries == [f"run/tries/{number}/metrics.jsonl" for number, _ in enumerate(made, 1)]
    assert not list((tmp_path / "run" / "tries").rglob("*.safetensors"))
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == read_recipe(page)  # what was asked for
    loaded = runs.load_run(tmp_path / "run")
    assert loaded.recipe == fresh and loaded.epoch == ended.best_epoch


def test_a_kill_in_the_midst_of_a_repair_changes_nothing(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing(monkeypatch, "norm", "teacher-forcing")
    runs.start(read_recipe(page), RunFolder(tmp_path / "unbroken"))
    moves, real = 0, Path.rename

    def rename(self: Path, target: Any) -> Path:
        nonlocal moves
        if "tries" in str(target):
            moves += 1
            if moves % 2:  # each second move is the first that a new life makes
                raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    run, lives = tmp_path / "run", 0
    while True:
        try:
            if lives == 0:
                runs.start(read_recipe(page), RunFolder(run))
            else:
                runs.resume(run)
        except Killed:
            lives += 1
        else:
            break
    assert lives >= 2
    assert repaired(run) == repaired(tmp_path / "unbroken")
    assert outcome(run) == outcome(tmp_path / "unbroken")


def test_a_run_that_nothing_helps_ends_when_nothing_is_left(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing(monkeypatch, "nothing that there is")
    few = {name: REPAIRS[name] for name in REPAIRS if name in ("warm-up", "label-smoothing")}
    monkeypatch.setattr(repairing, "REPAIRS", {**dict.fromkeys(REPAIRS, lambda _: []), **few})
    told = Told()
    ended = runs.start(read_recipe(page), RunFolder(tmp_path / "run"), told)
    assert ended.ending == "unaligned" and ended.epochs == 2
    assert sorted(one["remedy"] for one in repaired(tmp_path / "run")) == sorted(few)
    assert "no remedy is left" in told.said[-1]
    assert runs.resume(tmp_path / "run", told).ending == "unaligned"


def test_what_had_aligned_and_came_apart_is_tried_at_a_lower_rate_first(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairing, "came_apart", lambda history: True)
    folder = RunFolder(tmp_path / "run")
    history = [alignment.Validation(9, 900, alignment.Alignment(0.1, 0.9, 0.9, 1.0), 2.0)]
    names = repairing._remedies(read_recipe(page), folder, history)
    assert names[0] == "lower-rate" and len(names) > 3
    assert REPAIRS["lower-rate"](read_recipe(page)) == ["optimizer.rate=0.0005"]


@pytest.mark.parametrize(("choice", "ending", "epochs"),
                         [("leave", "finished", 3), ("stop", "unaligned", 2)])  # fmt: skip
def test_a_run_is_left_alone_or_stopped_as_the_recipe_says(
    page: Path, tmp_path: Path, choice: str, ending: str, epochs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    needing(monkeypatch, "ctc")
    asked = read_recipe(page, [f"training.unaligned={choice}"])
    ended = runs.start(asked, RunFolder(tmp_path / "run"))
    assert (ended.ending, ended.epochs) == (ending, epochs)
    again = runs.resume(tmp_path / "run")
    assert (again.ending, again.epochs) == (ending, epochs)
    assert not (tmp_path / "run" / "repairs.jsonl").exists()


def test_a_remedy_that_the_corpus_cannot_take_is_passed_over(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing(monkeypatch, "shortest-first")
    names = ("ctc", "shortest-first")
    monkeypatch.setattr(
        repairing, "REPAIRS", {n: REPAIRS[n] if n in names else lambda _: [] for n in REPAIRS}
    )
    convolutions = "listener.blocks=[{kind: conv, widths: [8, 8, 8, 8], stride: 2}]"
    told = Told()
    runs.start(read_recipe(page, [convolutions]), RunFolder(tmp_path / "run"), told)
    assert any(text.startswith("the remedy ctc is passed over") for text in told.said)
    assert [one["remedy"] for one in repaired(tmp_path / "run")] == ["shortest-first"]


MOBILE = "{kind: mobile, width: 8, stages: [[1, 8, 1, 1], [2, 8, 1, 2]]}"
BARE = [
    "augment={}",
    f"listener.blocks=[{MOBILE}, {{kind: conv, widths: [8]}}, "
    "{kind: bilstm, norm: none, dropout: 0.4}]",
    "training.epochs=30",
    "speller.dropout=0.3",
]
"""What has none of the remedies in use."""


def test_every_remedy_changes_what_it_names(page: Path) -> None:
    assert set(REPAIRS) == REMEDY_NAMES | {"lower-rate"}
    assert not remedies_in_use(read_recipe(page, BARE))
    changes: list[str] = []
    for name in [name for name in REPAIRS if name != "lower-rate"]:
        changes += REPAIRS[name](read_recipe(page, [*BARE, *changes]))
        assert name in remedies_in_use(read_recipe(page, [*BARE, *changes])), (name, changes)


def test_advice_can_be_typed_as_it_is(page: Path) -> None:
    left = to_try(read_recipe(page, BARE))
    assert set(left) == REMEDY_NAMES - {"leading-ctc"}  # which comes on top of CTC
    for name, typed in left.items():
        mended = read_recipe(page, [*BARE, *shlex.split(typed)])
        assert name in remedies_in_use(mended), (name, typed)


def test_a_study_or_a_script_that_starts_a_half_repaired_run_goes_on_with_it(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needing(monkeypatch, "norm")
    run = tmp_path / "run"
    runs.start(read_recipe(page), RunFolder(run))
    kept = outcome(run)
    shutil.rmtree(run / "checkpoints")  # as after a kill before the first checkpoint of the new try
    (run / "metrics.jsonl").unlink()
    runs.start(read_recipe(run / "recipe.yaml"), RunFolder(run))
    assert outcome(run) == kept
    assert json.loads((run / "repairs.jsonl").read_text())["remedy"] == "norm"
