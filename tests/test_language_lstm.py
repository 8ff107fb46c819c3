"""An LSTM language model is trained like any run, and foretells what it has read."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_outcome import Killed, KillsAfter, outcome

from spelldown.data.loading.texts import TextBatches, TextBatchingSettings
from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary
from spelldown.errors import DataError, LanguageModelError, RecipeError, RunError
from spelldown.model.language import load_lstm
from spelldown.recipe.language.lstm import train_lstm
from spelldown.recipe.language.recipe import LanguageRecipe, read_language_recipe
from spelldown.search.language.language_model import load_language_model
from spelldown.training.language.settings import ReadingSettings
from spelldown.training.learning.schedule import CosineRate
from spelldown.training.run.tracking import PlainLines, Silent
from spelldown.training.trainer import Outcome

WORDS = ("ONE", "TWO", "THREE", "FOUR", "FIVE", "IT'S")
VOCABULARY = Vocabulary.course()
SMALL = (
    "model.embedding=8",
    "model.width=24",
    "model.layers=2",
    "model.dropout=0.1",
    "batching.sentences=6",
    "optimizer.rate=3e-2",
    "training.epochs=3",
    "training.patience=null",
    "training.device=cpu",
    "training.precision=float32",
    "training.threads=1",
)

LONG = ("training.epochs=15",)  # enough to learn six words


def sentences(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 5))) for _ in range(count)]


def train(folder: Path, *overrides: str, **options: Any) -> Outcome:
    recipe = read_language_recipe(None, (*SMALL, *overrides))
    options = {"tracker": Silent(), **options}
    texts = options.pop("texts", sentences(60))
    return train_lstm(recipe, texts, sentences(12, seed=1), VOCABULARY, folder, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lstm") / "lm"
    assert train(folder, *LONG, about={"texts": ["a.txt"]}).ending == "finished"
    return folder


# --- sentences in batches


def batches_of(*texts: str, training: bool = True, **settings: Any) -> TextBatches:
    return TextBatches(
        map(VOCABULARY.encode, texts), TextBatchingSettings(**settings), 1, training=training
    )


def test_every_sentence_is_read_once_an_epoch_whatever_the_limits() -> None:
    texts = sentences(50)
    limited: tuple[dict[str, Any], ...] = ({}, {"sentences": 3}, {"symbols": 40}, {"symbols": 1})
    for limits in limited:
        batches = batches_of(*texts, **limits)
        for epoch in (1, 2):
            read = [
                VOCABULARY.decode(row[1:].tolist())
                for batch in batches.epoch(epoch)
                for row in batch.symbols  # type: ignore[union-attr]
            ]
            assert sorted(read) == sorted(texts)
        assert batches.count(1) == len(list(batches.epoch(1)))


def test_batches_keep_their_limits_and_have_a_frame_a_symbol() -> None:
    for batch in batches_of(*sentences(50), sentences=8, symbols=100).epoch(1):
        assert batch.symbols is not None and batch.symbol_lengths is not None
        assert len(batch) <= 8 and (len(batch) == 1 or batch.symbols.numel() <= 100)
        assert batch.frames.shape == (*batch.symbols.shape, 0)
        assert torch.equal(batch.lengths, (batch.symbols != PAD).sum(1))
        assert (batch.symbols[:, 0] == SOS).all()


def test_epochs_differ_and_can_be_made_again_from_any_place() -> None:
    batches = batches_of(*sentences(50), sentences=4)

    def ids(epoch: int, start: int = 0) -> list[tuple[str, ...]]:
        return [batch.ids for batch in batches.epoch(epoch, start)]

    assert ids(1) == ids(1) and ids(1) != ids(2)
    assert ids(2, 5) == ids(2)[5:]
    judged = batches_of(*sentences(50), training=False)
    assert judged.plan(1)[0].tolist() == judged.plan(2)[0].tolist()


def test_a_long_sentence_is_cut_and_ends_once() -> None:
    (batch,) = batches_of("A" * 25, longest=10).epoch(1)
    assert batch.symbols is not None
    ends = sorted((row[row != PAD].tolist() for row in batch.symbols), key=len)
    assert [len(row) for row in ends] == [7, 11, 11]
    assert [row[-1] == EOS for row in ends] == [True, False, False]
    whole = batches_of("A" * 20, longest=10)
    assert whole.utterances == 2 and whole.symbols == 21


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(DataError, match="no sentence"):
        batches_of("", "")


# --- training


def test_it_learns_and_is_loaded_as_it_was_judged(trained: Path) -> None:
    page = json.loads((trained / "language_model.json").read_text())
    assert page["kind"] == "lstm" and page["texts"] == ["a.txt"]
    assert page["perplexity"] < 3.5  # of 29 symbols
    model, total, count = load_language_model(trained, VOCABULARY), 0.0, 0
    for text in sentences(12, seed=1):
        symbols = [SOS, *VOCABULARY.encode(text), EOS]
        state = model.start(1, torch.device("cpu"))
        for fed, wanted in pairwise(symbols):
            log_probs, state = model.step(torch.tensor([fed]), state)
            total -= float(log_probs[0, wanted])
            count += 1
    assert math.exp(total / count) == pytest.approx(page["perplexity"], rel=1e-4)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 16))
    best = min(line["dev"]["perplexity"] for line in lines)
    assert page["perplexity"] == pytest.approx(best, rel=1e-6)
    assert model.symbols == VOCABULARY.symbols


def test_its_progress_is_told_with_perplexity_and_the_time_left(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path / "lm", tracker=PlainLines(lines.append))
    assert lines[0].startswith("train: 60 sentences") and "0.01 million weights" in lines[2]
    assert "perplexity" in lines[3] and "left)" in lines[4] and "CER" not in lines[3]


REMEMBERING = {
    "checkpoints after every update": ("training.checkpoint_minutes=0",),
    "rare checkpoints, average, smoothing": (
        "averaging.kind=exponential",
        "averaging.decay=0.9",
        "label_smoothing=0.1",
        "model.embedding_dropout=0.1",
        "schedule.kind=plateau",
    ),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_broken_off_at_every_update_it_ends_as_the_unbroken_one(tmp_path: Path, name: str) -> None:
    overrides = REMEMBERING[name]
    texts = sentences(24)  # four or five batches an epoch
    train(tmp_path / "unbroken", *overrides, texts=texts)
    # Each life gets one update further than a checkpoint can know, or an epoch where they are rare.
    lives, survives = 0, 1 if "checkpoint_minutes=0" in overrides[0] else 6
    while lives < 40:
        try:
            train(tmp_path / "lm", *overrides, texts=texts, tracker=KillsAfter(survives))
        except Killed:
            lives += 1
            assert not (tmp_path / "lm" / "language_model.json").exists()
        else:
            break
    assert 2 <= lives < 40
    assert outcome(tmp_path / "lm") == outcome(tmp_path / "unbroken")
    weights = [(tmp_path / n / "weights.safetensors").read_bytes() for n in ("lm", "unbroken")]
    assert weights[0] == weights[1]


def test_called_again_when_done_it_changes_nothing(trained: Path) -> None:
    before = (trained / "weights.safetensors").read_bytes(), outcome(trained)
    lines: list[str] = []
    assert train(trained, *LONG, tracker=PlainLines(lines.append)).ending == "finished"
    assert any(re.search(r"going on after \d+ updates", line) for line in lines)
    assert ((trained / "weights.safetensors").read_bytes(), outcome(trained)) == before


def test_it_stops_when_nothing_improves_and_keeps_the_best(tmp_path: Path) -> None:
    found = train(tmp_path / "lm", "optimizer.rate=1e-9", "training.patience=1", texts=["A", "BE"])
    assert found.ending == "stopped early" and found.epochs == 2
    assert (tmp_path / "lm" / "language_model.json").exists()


def test_a_folder_of_something_else_is_left_alone(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"another recipe .*\(.*: model differ\)|model differ"):
        train(trained, *LONG, "model.width=25")
    with pytest.raises(
        RunError, match=r"the corpus is not the one.*sentences of \d+ symbols.*other lengths, texts"
    ):
        train(trained, *LONG, texts=sentences(61))
    recipe = read_language_recipe(None, (*SMALL, *LONG))
    other = Vocabulary.of_texts((*WORDS, " "))
    with pytest.raises(RunError, match="another vocabulary"):
        train_lstm(recipe, sentences(60), sentences(9), other, trained, tracker=Silent())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(RunError, match="not an empty folder"):
        train(tmp_path / "full")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: a4\n")
    with pytest.raises(RunError, match="another kind"):
        train(tmp_path / "run")


@pytest.mark.parametrize("damage", ["short", "gone", "other"])
def test_damage_is_named_with_its_file(trained: Path, tmp_path: Path, damage: str) -> None:
    for name in ("language_model.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    weights, page = tmp_path / "weights.safetensors", tmp_path / "language_model.json"
    if damage == "short":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "gone":
        weights.unlink()
    else:
        page.write_text(page.read_text().replace('"width": 24', '"width": 25'))
    with pytest.raises(LanguageModelError, match=r"weights\.safetensors"):
        load_lstm(tmp_path)
    page.write_text('{"kind": "lstm", "symbols": ["<pad>"]}')
    with pytest.raises(LanguageModelError, match=r"language_model\.json"):
        load_lstm(tmp_path)


# --- its recipe


def test_its_recipe_is_read_back_from_its_page(tmp_path: Path) -> None:
    recipe = read_language_recipe(None, ("model.width=99", "schedule.kind=one-cycle"))
    (tmp_path / "recipe.yaml").write_text(recipe.as_yaml())
    assert read_language_recipe(tmp_path / "recipe.yaml") == recipe
    assert read_language_recipe() == LanguageRecipe()


def test_all_that_is_wrong_with_its_recipe_is_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        read_language_recipe(
            None, ("model.widht=3", "label_smoothing=2", "schedule.warmup=50", "training.judge=cer")
        )
    told = "\n".join(caught.value.problems)
    assert "widht" in told and "width" in told and "label_smoothing" in told
    assert "judge" in told
    with pytest.raises(RecipeError, match="rate would still rise"):
        read_language_recipe(None, ("schedule.warmup=50",))


def test_a_single_epoch_warms_up_over_half_of_itself_unless_told() -> None:
    schedule = read_language_recipe(None, ("training.epochs=1",)).schedule
    assert isinstance(schedule, CosineRate) and schedule.warmup == 0.5
    assert read_language_recipe(None, ("training.epochs=2",)) == LanguageRecipe(
        training=ReadingSettings(epochs=2)
    )
    with pytest.raises(RecipeError, match="rate would still rise"):
        read_language_recipe(None, ("training.epochs=1", "schedule.warmup=1"))
