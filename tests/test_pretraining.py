"""The speller learns to write before it listens, and a kill at any moment changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_outcome import Killed, KillsAfter, outcome
from toy_corpus import write_corpus

from spelldown.errors import DataError, RecipeError
from spelldown.recipe.language.pretraining import Pretraining
from spelldown.recipe.parts import build_parts, build_recognizer
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.run import load_run, resume, start
from spelldown.training.run.checkpoint import load_checkpoint
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import PlainLines, Silent

PAGE = """
name: small
data: {kind: arrays, root: %s}
frontend: {kind: arrays, width: 4}
batching: {utterances: 4}
listener: {blocks: [{kind: bilstm, width: 6}]}
attention: {kind: dot, width: 6}
speller: {embedding: 6, width: 12, dropout: 0.2, embedding_dropout: 0.1}
loss: {label_smoothing: 0.1}
optimizer: {rate: 3e-3}
training: {epochs: 2, pictures_every: 0, device: cpu, threads: 1, checkpoint_minutes: 0}
search: {kind: greedy, longest: 20}
pretraining: %s
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("pretraining") / "corpus")


def recipe_of(folder: Path, corpus: Path, *overrides: str, **pretraining: Any) -> Recipe:
    settings = {"epochs": 3, "sentences": 4, "rate": 0.02, "patience": None, **pretraining}
    page = folder / "small.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(PAGE % (corpus, yaml.safe_dump(settings, default_flow_style=True)))
    return read_recipe(page, overrides)


def speller_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return build_recognizer(recipe, 31).speller.state_dict()


def beginnings(run: Path) -> dict[str, torch.Tensor]:
    """The speller's weights in the first checkpoint of the whole, before it has learnt anything."""
    weights = load_checkpoint(RunFolder(run).last).weights
    return {
        name.removeprefix("speller."): tensor
        for name, tensor in weights.items()
        if name.startswith("speller.")
    }


def test_the_whole_begins_with_the_best_weights_of_pretraining_and_attention_as_drawn(
    tmp_path: Path, corpus: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("ZZZ Z\n" * 8)  # so that it gets worse at what judges it
    recipe = recipe_of(tmp_path, corpus, texts=[str(book)], transcripts=False, rate=0.05)
    with pytest.raises(Killed):  # 6 updates of pre-training, and the first of the whole
        start(recipe, RunFolder(tmp_path / "run"), KillsAfter(6))
    metrics = tmp_path / "run" / "pretraining" / "metrics.jsonl"
    losses = [json.loads(line)["dev"]["loss"] for line in metrics.read_text().splitlines()]
    assert len(losses) == 3 and losses == sorted(losses)
    begun, drawn = beginnings(tmp_path / "run"), speller_weights(recipe)
    best = load_checkpoint(RunFolder(tmp_path / "run" / "pretraining").best).weights
    for name, tensor in begun.items():
        if name.startswith("attention."):
            assert torch.equal(tensor, drawn[name])
        else:
            assert torch.equal(tensor, best[f"model.{name}"])
            assert not torch.equal(tensor, drawn[name])


def test_broken_off_at_every_update_it_ends_as_the_unbroken_one(
    tmp_path: Path, corpus: Path
) -> None:
    recipe = recipe_of(tmp_path, corpus, epochs=2, context="random", deviation=0.5)
    start(recipe, RunFolder(tmp_path / "unbroken"), Silent())
    lives, run = 0, tmp_path / "run"
    while lives < 40:
        tracker = KillsAfter(1)
        try:
            if lives:
                resume(run, tracker)
            else:
                start(recipe, RunFolder(run), tracker)
        except Killed:
            lives += 1
        else:
            break
    assert 8 <= lives < 40  # in both halves
    assert outcome(run) == outcome(tmp_path / "unbroken")
    assert outcome(run / "pretraining") == outcome(tmp_path / "unbroken" / "pretraining")


def test_once_the_whole_has_begun_texts_are_not_asked_for_again(
    tmp_path: Path, corpus: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("A FOX\n\n IT'S  A DOG \n")
    recipe = recipe_of(tmp_path, corpus, texts=[str(book)])
    with pytest.raises(Killed):
        start(recipe, RunFolder(tmp_path / "run"), KillsAfter(14))
    book.unlink()
    assert resume(tmp_path / "run", Silent()).ending == "finished"
    assert load_run(tmp_path / "run").recipe.pretraining == recipe.pretraining


def test_what_is_read_is_the_transcripts_the_files_or_both(tmp_path: Path, corpus: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("A FOX\n\n IT'S  A DOG \nnaïve\n")

    def read(**changes: Any) -> tuple[int, int]:
        recipe = recipe_of(tmp_path, corpus, unknown="drop-line", **changes)
        assert recipe.pretraining is not None
        parts = build_parts(recipe)
        said, judging = parts.train.said().values(), parts.dev.said().values()
        found = Pretraining(recipe, recipe.pretraining, parts.vocabulary, said, judging)
        assert found.dev.utterances == 4
        return found.train.utterances, found.dropped

    assert read() == (12, 0)
    assert read(texts=[str(book)]) == (14, 1)
    assert read(texts=[str(book)], transcripts=False) == (2, 1)


def test_what_is_wrong_with_texts_is_told_before_anything_is_written(
    tmp_path: Path, corpus: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("A FOX\nnaïve dog\n")
    (tmp_path / "latin.txt").write_bytes("SÄGE\n".encode("latin-1"))
    for path, message in (
        (book, r"1 of the 2 lines of .*drop-line.*\n.*book\.txt, line 2: .*'ï'"),
        (tmp_path / "none.txt", "none.txt: No such file"),
        (tmp_path / "latin.txt", "not UTF-8"),
    ):
        with pytest.raises(DataError, match=message):
            start(
                recipe_of(tmp_path, corpus, texts=[str(path)]), RunFolder(tmp_path / "r"), Silent()
            )
        assert not (tmp_path / "r").exists()


def test_impossible_pretraining_is_refused_with_its_place(tmp_path: Path, corpus: Path) -> None:
    for changes, message in (
        ({"transcripts": False}, "nothing to read"),
        ({"deviation": 0.5}, "changes nothing of context zero"),
        ({"context": "mean"}, "pretraining.context"),
        ({"epochs": 0}, "pretraining.epochs"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe_of(tmp_path, corpus, **changes)


def test_its_progress_is_told_and_then_that_of_the_whole(tmp_path: Path, corpus: Path) -> None:
    lines: list[str] = []
    start(recipe_of(tmp_path, corpus), RunFolder(tmp_path / "run"), PlainLines(lines.append))
    told = "\n".join(lines)
    assert "pre-training the speller as a language model, context zero: 12 sentences" in told
    assert "perplexity" in told and "the speller is pre-trained" in told
    assert told.index("perplexity") < told.index("now it listens") < told.index("CER")


def test_recipes_without_it_begin_as_they_always_did(tmp_path: Path, corpus: Path) -> None:
    recipe = recipe_of(tmp_path, corpus, "pretraining=null")
    with pytest.raises(Killed):
        start(recipe, RunFolder(tmp_path / "run"), KillsAfter(0))
    drawn = speller_weights(recipe)
    begun = beginnings(tmp_path / "run")
    assert all(torch.equal(begun[name], tensor) for name, tensor in drawn.items())
    assert not (tmp_path / "run" / "pretraining").exists()
