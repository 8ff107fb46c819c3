"""A GPU computes what the processor computes, and its memory's end is no end.

Skipped where there is none; `.venv/bin/python -m pytest -m gpu` runs these alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import spelldown
from run_outcome import Killed, KillsAfter
from test_memory_guard import MANNER
from test_search_beam import FULL, spelled
from toy_corpus import write_corpus
from toy_spellers import VOCABULARY, recognizer
from trained_run import train_toy, write_page

from spelldown.data.batching import Batch
from spelldown.data.vocabulary import SOS
from spelldown.errors import DoesNotFitError
from spelldown.model.listening.blocks import (
    BiLSTMSettings,
    BlockSettings,
    ConvSettings,
    PyramidSettings,
)
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import CTCSettings, Recognizer
from spelldown.model.spelling.attention import DotSettings
from spelldown.model.spelling.speller import Feedback, Speller, SpellerSettings
from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.run import load_run, resume, start
from spelldown.search.search import GreedySettings
from spelldown.training.guard.guard import Guard
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import SgdSettings, build_optimizer
from spelldown.training.memory import peak_gpu_memory
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.update import Updater

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
KINDS = ["dot", "additive", "cosine", "location"]


def speech(lengths: Sequence[int], letters: Sequence[int], width: int = 5, seed: int = 0) -> Batch:
    """Utterances of random frames that say random symbols."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths), width, generator=generator)
    symbols = torch.randint(3, VOCABULARY, (len(letters), max(letters) + 2), generator=generator)
    symbols[:, 0] = SOS
    for row, (length, count) in enumerate(zip(lengths, letters, strict=True)):
        frames[row, length:] = 0
        symbols[row, count + 1] = 2
        symbols[row, count + 2 :] = 0
    return Batch(
        tuple(f"utterance-{row}" for row in range(len(lengths))),
        frames,
        torch.tensor(lengths),
        symbols,
        torch.tensor(letters) + 2,
        None,
    )


SPEECH = speech([60, 52, 33, 30, 21, 8], [9, 12, 7, 3, 4, 1])


def drop_nothing(speller: Speller) -> None:
    """Units are dropped by chance, and chance is another on each device."""
    speller.settings = speller.settings.model_copy(update={"dropout": 0.0})
    speller.distribution.dropout = 0.0


def updated(
    made: Recognizer, device: torch.device, feedback: Feedback, precision: Any = "float32"
) -> tuple[Any, list[torch.Tensor]]:
    """What a plain step along the gradient told, and the weights after it, on the processor."""
    there = copy.deepcopy(made).to(device).train()
    drop_nothing(there.speller)
    optimizer = build_optimizer(there, SgdSettings(momentum=0, clip=None, weight_decay=0))
    loss = LossSettings(label_smoothing=0.1, ctc_weight=0.3)
    updater = Updater(there, optimizer, loss, None, precision, device)
    exact = next(there.parameters()).dtype
    batch = replace(SPEECH, frames=SPEECH.frames.to(exact))
    done = updater.update([batch], replace(MANNER, feedback=feedback))
    return done, [weight.detach().cpu() for weight in there.parameters()]


@pytest.mark.parametrize("rate", [1.0, 0.0])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_that_of_the_processor(kind: str, heads: int, rate: float) -> None:
    """In float64, for the same products are rounded otherwise. Where letters are its own, coins
    must fall alike: one that never shows the truth."""
    made = recognizer({"kind": kind, "heads": heads}, ctc=True).double()
    feedback = Feedback(rate=rate)
    here, weights = updated(made, CPU, feedback)
    there, others = updated(made, GPU, feedback)
    assert there.loss == pytest.approx(here.loss, rel=1e-9)
    assert there.ctc == pytest.approx(here.ctc, rel=1e-9)
    assert there.norm == pytest.approx(here.norm, rel=1e-9)
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("precision", "apart"), [("float32", 2e-3), ("bfloat16", 2e-2)])
def test_fewer_digits_cost_little(precision: str, apart: float) -> None:
    made = recognizer({"kind": "location"}, ctc=True)
    exact, weights = updated(copy.deepcopy(made).double(), CPU, Feedback())
    rough, others = updated(made, GPU, Feedback(), precision)
    assert not rough.skipped
    assert rough.loss == pytest.approx(exact.loss, rel=apart)
    before = torch.cat([weight.detach().double().flatten() for weight in made.parameters()])
    one, other = (
        torch.cat([weight.double().flatten() for weight in after]) - before
        for after in (weights, others)
    )
    assert torch.cosine_similarity(one, other, dim=0) > 1 - 2 * apart


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_at_once_is_spelled_as_step_by_step(kind: str) -> None:
    speller = recognizer({"kind": kind}).double().to(GPU).speller.train()
    drop_nothing(speller)
    frames = torch.randn(6, 20, 16, dtype=torch.float64, device=GPU)
    frames.requires_grad_()
    lengths = torch.tensor([20, 18, 11, 10, 7, 3], device=GPU)
    there = SPEECH.to(GPU)
    assert there.symbols is not None
    found = []
    for way in (speller.fast, speller.stepwise):
        projected = speller.attention.project(frames, lengths)
        steps = (there.symbols[:, 1:] != 0).sum(1)
        order = steps.argsort(descending=True, stable=True)
        torch.manual_seed(4)
        loop = speller.loop(there.symbols[order, :-1], steps[order], Feedback(rate=0.5))
        logits, _, fed = way(projected.select(order), loop)
        gradients = torch.autograd.grad(logits.square().sum(), [frames, *speller.parameters()])
        found.append((logits.detach(), fed[: int(steps.min())], gradients))
    (fast, fed, gradients), (slow, fed_slowly, slow_gradients) = found
    torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-10)
    assert torch.equal(fed, fed_slowly)
    for one, other in zip(gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("settings", [FULL, GreedySettings(longest=25)], ids=["beam", "greedy"])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_search_finds_what_it_finds_on_the_processor(kind: str, settings: Any) -> None:
    speller = recognizer({"kind": kind, "heads": 2}, ctc=True).double()
    lengths = torch.tensor([37, 9, 2, 60, 23, 14, 41, 1] * 4)
    frames = torch.randn(32, 60, 5, dtype=torch.float64)
    here = spelled(speller, speller.listen(frames, lengths), settings)
    speller.to(GPU)
    there = spelled(speller, speller.listen(frames.to(GPU), lengths.to(GPU)), settings)
    for one, other in zip(here, there, strict=True):
        assert (one.symbols, one.ended) == (other.symbols, other.ended)
        assert one.score == pytest.approx(other.score, abs=1e-6)
    assert len({one.symbols for one in here}) > 8


# Memory


def large(device: torch.device, guard: Guard | None) -> Updater:
    """An updater whose updates need memory for what the listener hears."""
    torch.manual_seed(1)
    blocks: tuple[BlockSettings, ...] = (
        ConvSettings(widths=(256, 256), stride=2), PyramidSettings(width=64),
        BiLSTMSettings(width=64),
    )  # fmt: skip
    made = Recognizer(
        ListenerSettings(blocks=blocks),
        DotSettings(width=16),
        SpellerSettings(embedding=8, width=16),
        CTCSettings(),
        input_width=5,
        vocabulary=VOCABULARY,
    )
    optimizer = build_optimizer(made.to(device), SgdSettings(rate=0.1))
    return Updater(made, optimizer, LossSettings(ctc_weight=0.3), 1.0, "float32", device,
                   guard=guard)  # fmt: skip


def three_updates(guard: Guard) -> list[float]:
    """The loss of each of three updates of 64 utterances."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    updater, batch = large(GPU, guard), speech([3000] * 64, [9] * 64)
    losses = []
    with guard:
        for update in range(3):
            guard.now(update)
            losses.append(updater.update([batch], replace(MANNER, rate=0.1)).loss)
    return losses


def test_training_keeps_within_half_the_memory_and_learns_the_same() -> None:
    free = three_updates(Guard(GPU))
    needed = peak_gpu_memory(GPU)
    assert needed is not None and needed > 1e9
    guard = Guard(GPU, memory=f"{needed / 2e6:.0f}MB")
    held = three_updates(guard)
    assert (peak_gpu_memory(GPU) or 0) <= needed / 2
    assert 0 < len(guard.fits.lessons) < 4  # learnt in the first update, and remembered
    assert held == pytest.approx(free, rel=1e-3)


def test_an_utterance_that_does_not_fit_alone_is_named_and_the_gpu_is_usable_after() -> None:
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + (30 << 20)
    guard = Guard(GPU, memory=f"{limit / 1e6:.0f}MB")
    batch = speech([20_000, 60], [9, 9])
    with guard, pytest.raises(DoesNotFitError, match="utterance-0"):
        large(GPU, guard).update([batch], MANNER)
    assert three_updates(Guard(GPU))


# Runs


def test_a_run_is_trained_killed_resumed_evaluated_and_used_without_a_gpu(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 8, "dev": 4, "test": 6}, 4)
    training = {"epochs": 3, "pictures_every": 1, "checkpoint_minutes": 0, "memory": "2GB"}
    page = write_page(tmp_path / "toy.yaml", corpus, training=training)  # device: auto
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Killed):
        start(read_recipe(page), folder, KillsAfter(3))
    resume(folder.path)
    lines = folder.read_metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    run = load_run(folder.path)
    assert next(run.transcriber.recognizer.parameters()).device.type == "cuda"
    done = spelldown("evaluate", folder.path, "--json")
    assert done.exit_code == 0, done.output
    here = load_run(folder.path, ["training.device=cpu"])
    for name, weight in run.transcriber.recognizer.state_dict().items():
        assert torch.equal(weight.cpu(), here.transcriber.recognizer.state_dict()[name]), name
    done = spelldown("evaluate", folder.path, "training.device=cpu", "--json")
    assert done.exit_code == 0, done.output


def test_the_largest_budget_of_a_gpu_is_found_and_trained_with(tmp_path: Path) -> None:
    once = train_toy(
        tmp_path,
        training={"epochs": 1, "pictures_every": 0, "memory": "1GB"},
        batching={"frames": "auto", "utterances": 8},
    )
    assert RunFolder(once.run).budget.is_file()
    assert RunFolder(once.run).read_metrics()[0]["updates"] >= 1
