"""The seed's ablation table, and our seventh row: each assembles, trains a little, spells.

Full sizes, on a few short utterances that are made here. The sizes are those of
`recipes/seed/row1.yaml` to `row7.yaml`; what the rows are is said there.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spelldown.data.vocabulary import COURSE
from spelldown.recipe.overview import outline
from spelldown.recipe.parts import Parts, build_parts, build_recognizer, learning_of
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.search.search import greedy
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.trainer import Trainer
from spelldown.training.validation import seconds_per_frame

PAGES = Path(__file__).parent.parent / "recipes" / "seed"
ROWS = range(1, 7)

PARAMETERS = {
    1: 8_618_559,
    2: 1_422_003,
    3: 1_422_003,
    4: 1_430_079,
    5: 14_481_951,
    6: 14_481_951,
}

# The table of the seed, as it is written: listener, sizes, forcing, batch, decay, rate, data.
TABLE = {
    1: ("mobile", 256, 128, 512, 4, 1, 2, "rule-a", 64, 5e-3, 2e-4, "train-clean-100", "sum"),
    2: ("mobile", 96, 42, 192, 4, 1, 2, "rule-b", 64, 5e-3, 2e-4, "train-clean-100", "sum"),
    3: ("mobile", 96, 42, 192, 4, 1, 2, "rule-a", 64, 5e-3, 2e-4, "train-clean-100", "sum"),
    4: ("mobile", 96, 48, 192, 3, 1, 2, "rule-a", 64, 5e-3, 2e-4, "train-clean-100", "sum"),
    5: ("conv", 256, 256, 512, 2, 2, 3, "rule-b", 64, 1e-6, 1e-4, "train-clean-460", "mean"),
    6: ("conv", 256, 256, 512, 2, 2, 3, "rule-b", 32, 1e-6, 1e-4, "train-clean-460", "mean"),
}


def row(number: int, *overrides: str) -> Recipe:
    return read_recipe(PAGES / f"row{number}.yaml", overrides)


def as_in_the_table(recipe: Recipe) -> tuple[object, ...]:
    page = recipe.model_dump()
    blocks = page["listener"]["blocks"]
    return (
        blocks[0]["kind"],
        page["speller"]["embedding"],
        page["attention"]["width"],
        page["speller"]["width"],
        blocks[-1]["heads"],
        blocks[-1]["layers"],
        page["speller"]["distribution_layers"],
        page["teacher_forcing"]["kind"],
        page["batching"]["utterances"],
        page["optimizer"]["weight_decay"],
        page["optimizer"]["rate"],
        page["data"]["train"],
        page["loss"]["reduction"],
    )


@pytest.mark.parametrize("number", ROWS)
def test_a_row_is_as_the_table_has_it(number: int) -> None:
    assert as_in_the_table(row(number)) == TABLE[number]


@pytest.mark.parametrize("number", ROWS)
def test_what_all_rows_share_is_the_same_in_each(number: int) -> None:
    page = row(number).model_dump()
    frontend, augment, training = page["frontend"], page["augment"], page["training"]
    assert (frontend["width"], frontend["deltas"]) == (28, 0)
    assert frontend["normalise"] == "mean-variance"
    masks = (augment["time_masks"], augment["frequency_masks"])
    assert [(mask["count"], mask["width"]) for mask in masks] == [(1, 30), (1, 30)]
    assert (augment["speed"], augment["warp"], augment["from_epoch"]) == (None, 0, 1)
    assert (page["attention"]["kind"], page["attention"]["heads"]) == ("dot", 1)
    assert page["ctc"] is None
    assert page["loss"]["label_smoothing"] == 0
    assert (page["optimizer"]["kind"], page["optimizer"]["clip"]) == ("adamw", 1.0)
    assert page["schedule"]["kind"] == "plateau"
    assert (page["schedule"]["factor"], page["schedule"]["patience"]) == (0.5, 5)
    assert (training["patience"], training["least_improvement"]) == (15, 0.001)
    assert (training["epochs"], training["judge"]) == (150, "distance")
    assert page["teacher_forcing"]["reading"] == "as-typed"
    assert page["teacher_forcing"]["coins"] == "batch"
    assert page["teacher_forcing"]["feedback"] == "argmax"
    assert (page["search"]["kind"], page["search"]["longest"]) == ("greedy", 600)


@pytest.mark.parametrize("number", ROWS)
def test_the_listener_has_the_seeds_norms_widths_and_dropout(number: int) -> None:
    first, *recurrent, last = row(number).model_dump()["listener"]["blocks"]
    d = TABLE[number][1]
    assert isinstance(d, int)
    assert first["norm"] == last["norm"] == "batch"
    if number < 5:
        assert first["width"] == d
        assert [block["kind"] for block in recurrent] == ["bilstm"]
    else:
        assert (first["widths"], first["kernel"], first["stride"]) == ((d, 2 * d, 2 * d), 3, 1)
        assert first["activation"] == "gelu"
        assert [block["kind"] for block in recurrent] == 3 * ["pyramid"]
        assert {block["dropout_after"] for block in recurrent} == {"block"}
    for block in recurrent:
        assert (block["layers"], block["width"], block["norm"]) == (3, d / 2, "none")
        assert block["dropout"] == 0.3
    assert (last["kind"], last["feed_forward"], last["activation"]) == ("transformer", 2, "relu")
    assert last["dropout"] == 0.3


@pytest.mark.parametrize("number", ROWS)
def test_the_speller_drops_in_its_distribution_network_alone(number: int) -> None:
    speller = row(number).model_dump()["speller"]
    assert (speller["layers"], speller["tied"], speller["initial"]) == (3, True, "uniform")
    assert (speller["dropout"], speller["embedding_dropout"]) == (0, 0)
    assert speller["distribution_dropout"] == 0.3


def test_rows_5_and_6_differ_in_batch_size_alone() -> None:
    fifth, sixth = (row(number).model_dump() for number in (5, 6))
    fifth["batching"]["utterances"], fifth["name"] = 32, "seed-row6"
    assert fifth == sixth


@pytest.mark.parametrize("number", ROWS)
def test_a_row_has_the_parameters_that_we_state(number: int) -> None:
    recognizer = build_recognizer(row(number), len(COURSE))
    assert sum(weight.numel() for weight in recognizer.parameters()) == PARAMETERS[number]
    parts = outline(recognizer, input_width=28)
    assert sum(part.parameters for part in parts) == PARAMETERS[number]


def test_row_7_is_no_larger_than_row_6_and_learns_from_the_same_utterances() -> None:
    ours, theirs = row(7), row(6)
    recognizer = build_recognizer(ours, len(COURSE))
    assert sum(weight.numel() for weight in recognizer.parameters()) <= PARAMETERS[6]
    speakers = {"speaker", "problems"}  # what is known of them is ours to use
    assert ours.data.model_dump(exclude=speakers) == theirs.data.model_dump(exclude=speakers)
    assert (ours.frontend.width, ours.vocabulary.kind) == (28, theirs.vocabulary.kind)


@pytest.fixture(params=(*ROWS, 7))
def parts(request: pytest.FixtureRequest, make_corpus: Callable[..., Path]) -> Parts:
    """A row's parts over a handful of short utterances of 28 coefficients."""
    corpus = make_corpus(
        {"train-clean-100": 2, "train-clean-360": 2, "dev-clean": 2}, width=28, words=1, silent=()
    )
    return build_parts(row(request.param, f"data.root={corpus}"))


def test_a_row_trains_a_few_steps_and_spells(parts: Parts, tmp_path: Path) -> None:
    overrides = ("training.epochs=2", "training.threads=1", "training.pictures_every=0",
                 "augment.from_epoch=1")  # fmt: skip
    number = int(parts.recipe.name[-1])
    recipe = row(number, f"data.root={parts.recipe.data.root}", *overrides, "search.longest=20")
    whole = "460" in recipe.data.train
    assert parts.train.utterances == (4 if whole else 2)
    before = {name: weight.clone() for name, weight in parts.recognizer.named_parameters()}
    outcome = Trainer(
        RunFolder(tmp_path / "run"),
        parts.recognizer,
        parts.train,
        parts.dev,
        parts.vocabulary,
        learning_of(recipe),
        recipe.search,
    ).fit()
    assert (outcome.ending, outcome.updates) == ("finished", 2)
    for name, weight in parts.recognizer.named_parameters():
        assert bool(torch.isfinite(weight).all()), name
        assert not torch.equal(weight, before[name]), f"{name} has learnt nothing"
    parts.recognizer.eval()
    batch = next(parts.dev.epoch(1))
    memory = parts.recognizer.listen(batch.frames, batch.lengths)
    seconds = seconds_per_frame(parts.recognizer)
    hypotheses = greedy(parts.recognizer, memory, recipe.search, seconds_per_frame=seconds)
    assert len(hypotheses) == 2
    assert all(len(hypothesis.symbols) <= 20 for hypothesis in hypotheses)
