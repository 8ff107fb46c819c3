import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import batches_of, tiny_learning, tiny_recognizer, tiny_trainer
from toy_corpus import write_corpus

from spelldown.data.batching import Batch
from spelldown.errors import CheckpointError, NonFiniteError, RunError
from spelldown.model.spelling.speller import Feedback
from spelldown.training.alignment import Verdict
from spelldown.training.learning.averaging import NoAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import (
    AdamSettings,
    SgdSettings,
    build_optimizer,
    clip_gradient,
    weight_noise,
)
from spelldown.training.learning.schedule import ConstantRate, CosineRate
from spelldown.training.learning.teacher_forcing import ConstantForcing
from spelldown.training.run.checkpoint import load_checkpoint
from spelldown.training.run.conditions import NUMBERS
from spelldown.training.run.tracking import Silent
from spelldown.training.trainer import Trainer
from spelldown.training.update import Manner, Update, Updater, grouped, update_seed
from spelldown.training.validation import Judge, spread


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("trainer") / "corpus")


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.recognizer.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# Updates


def joined(batches: list[Batch]) -> Batch:
    """One large batch of several."""
    pad = torch.nn.utils.rnn.pad_sequence
    rows = [(f, s) for b in batches if b.symbols is not None for f, s in zip(b.frames, b.symbols)]  # noqa: B905
    lengths = [b.symbol_lengths for b in batches if b.symbol_lengths is not None]
    return Batch(
        ids=sum((b.ids for b in batches), ()),
        frames=pad([frames for frames, _ in rows], batch_first=True),
        lengths=torch.cat([b.lengths for b in batches]),
        symbols=pad([symbols for _, symbols in rows], batch_first=True),
        symbol_lengths=torch.cat(lengths),
        texts=None,
    )


def exact_update(batches: list[Batch], reduction: Any) -> tuple[Update, list[torch.Tensor]]:
    """A plain step along the gradient in float64, without anything drawn by chance."""
    recognizer = tiny_recognizer(dropout=0.0, norm="layer").double()
    loss = LossSettings(reduction=reduction, label_smoothing=0.1, ctc_weight=0.3)
    settings = SgdSettings(momentum=0, clip=None, weight_decay=0)
    optimizer = build_optimizer(recognizer, settings)
    updater = Updater(recognizer, optimizer, loss, None, "float32", torch.device("cpu"))
    manner = Manner(1.0, 0.3, Feedback(), 0.0, 0)
    wide = [replace(batch, frames=batch.frames.double()) for batch in batches]
    return updater.update(wide, manner), [weight.detach() for weight in recognizer.parameters()]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_batches_weigh_what_they_do_in_one_large_batch(
    corpus: Path, reduction: str
) -> None:
    batches = list(batches_of(corpus, "train").epoch(1))[:3]
    told, apart = exact_update(batches, reduction)
    told_together, together = exact_update([joined(batches)], reduction)
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert told.loss == pytest.approx(told_together.loss, rel=1e-10)
    assert told.norm == pytest.approx(told_together.norm, rel=1e-10)
    assert (told.symbols, told.utterances) == (told_together.symbols, told_together.utterances)


def test_the_last_group_of_an_epoch_may_be_smaller(corpus: Path) -> None:
    batches = list(batches_of(corpus, "train").epoch(1))
    assert [len(group) for group in grouped(batches, 3)] == [3, 1]


def test_every_update_of_every_run_draws_from_its_own_seed() -> None:
    seeds = {update_seed(seed, updates) for seed in range(50) for updates in range(200)}
    assert len(seeds) == 50 * 200


def test_a_gradient_that_is_too_long_is_shortened_and_its_norm_told() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    for longest, after in ((1.0, 1.0), (20.0, 13.0), (None, 13.0)):
        weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
        assert clip_gradient(weights, longest).item() == pytest.approx(13)
        norm = torch.cat([w.grad for w in weights if w.grad is not None]).norm()
        assert norm.item() == pytest.approx(after, rel=1e-5)


def test_decay_spares_vectors_only_when_asked() -> None:
    model = torch.nn.Linear(2, 2)
    for kind in ("adamw", "adam", "radam", "nadam"):
        settings = AdamSettings(kind=kind, weight_decay=0.1)
        assert [g["weight_decay"] for g in build_optimizer(model, settings).param_groups] == [0.1]
    settings = AdamSettings(weight_decay=0.1, decayed="matrices")
    groups = build_optimizer(model, settings).param_groups
    assert [(len(g["params"][0].shape), g["weight_decay"]) for g in groups] == [(2, 0.1), (1, 0.0)]


def test_noise_on_the_weights_goes_without_a_trace() -> None:
    model = torch.nn.Linear(50, 40)
    clean = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with weight_noise(model, 0.1):
        added = model.weight - clean["weight"]
        assert added.std().item() == pytest.approx(0.1, rel=0.1)
        assert torch.equal(model.bias, clean["bias"])
    assert same(clean, model.state_dict())


# Skipped updates


class Spoilt:
    """Batches of which some are not finite, counted over the run."""

    def __init__(self, batches: Any, spoils: Callable[[int], bool]) -> None:
        self.batches, self.spoils, self.seen = batches, spoils, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.batches.epoch(epoch, start):
            spoilt = self.spoils(self.seen)
            self.seen += 1
            yield replace(batch, frames=batch.frames * float("nan")) if spoilt else batch


def spoilt_trainer(run: Path, corpus: Path, spoils: Callable[[int], bool], **training: Any) -> Any:
    train: Any = Spoilt(batches_of(corpus, "train"), spoils)
    return tiny_trainer(run, corpus, tiny_learning(training=training), train=train)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, corpus: Path) -> None:
    trainer = spoilt_trainer(tmp_path / "run", corpus, lambda place: place == 5)
    assert trainer.fit().ending == "finished"
    found = records(tmp_path / "run")
    assert [record["train"]["skipped"] for record in found] == [0, 1, 0]
    (ids,) = found[1]["train"]["skipped_ids"]
    second = list(batches_of(corpus, "train").epoch(2))[1]
    assert ids == list(second.ids)
    assert [record["updates"] for record in found] == [4, 8, 12]
    assert all(math.isfinite(record["train"]["loss"]) for record in found)
    assert all(tensor.isfinite().all() for tensor in trainer.recognizer.state_dict().values())


def test_a_skipped_update_leaves_nothing_behind(corpus: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", corpus)
    batch = next(iter(batches_of(corpus, "train").epoch(1)))
    before = weights_of(trainer)
    manner = Manner(1e-3, 0.3, Feedback(), 0.01, 0)
    bad = replace(batch, frames=batch.frames * float("inf"))
    assert trainer.updater.update([batch, bad], manner).skipped
    assert same(before, trainer.recognizer.state_dict())
    assert not trainer.optimizer.state_dict()["state"]
    assert not trainer.updater.update([batch], manner).skipped
    assert not same(before, trainer.recognizer.state_dict())


def test_losses_that_stay_non_finite_stop_the_run_with_advice(tmp_path: Path, corpus: Path) -> None:
    run = tmp_path / "run"
    trainer = spoilt_trainer(run, corpus, lambda place: place >= 5, nonfinite_patience=4)
    with pytest.raises(
        NonFiniteError, match=r"4 updates in a row.*optimizer\.rate=0\.001.*skipped in this"
    ) as told:
        trainer.fit()
    last = next(batches_of(corpus, "train").epoch(3))
    assert all(id in str(told.value) for id in last.ids)
    assert trainer.progress.updates == 9
    kept = load_checkpoint(run / "checkpoints" / "last")
    assert all(tensor.isfinite().all() for tensor in kept.weights.values())
    resumed = tiny_trainer(run, corpus)
    assert resumed.resume() and resumed.fit().ending == "finished"


# Runs


def test_a_run_learns_and_tells_how(tmp_path: Path, corpus: Path) -> None:
    learning = tiny_learning(
        optimizer=AdamSettings(rate=1e-2),
        schedule=ConstantRate(),
        averaging=NoAveraging(),
        training={"epochs": 6, "pictures_every": 3, "pictures": 2, "weight_noise": 0.0},
    )
    outcome = tiny_trainer(tmp_path / "run", corpus, learning).fit()
    found = records(tmp_path / "run")
    assert (outcome.ending, outcome.epochs, outcome.updates) == ("finished", 6, 24)
    assert [record["epoch"] for record in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1]["train"]["ce"] < 0.85 * found[0]["train"]["ce"]
    assert found[-1]["dev"]["loss"] < found[0]["dev"]["loss"]
    assert outcome.best == min(record["dev"]["distance"] for record in found)
    assert [r["epoch"] for r in found if r["best"]][-1] == outcome.best_epoch
    assert found[0]["alignment"]["verdict"] == "aligning"
    assert found[0]["train"]["ctc"] > 0 and found[-1]["train"]["ctc"] is None  # it has faded
    pictures = [path.name for path in (tmp_path / "run" / "pictures").glob("*.png")]
    assert len(pictures) == 5 and "curves.png" in pictures
    shown = [{name[10:] for name in pictures if name.startswith(f"epoch-00{n}")} for n in (3, 6)]
    assert shown[0] == shown[1] and len(shown[0]) == 2  # the same utterances every time


def test_the_rate_follows_its_schedule_update_by_update(tmp_path: Path, corpus: Path) -> None:
    learning = tiny_learning(
        optimizer=AdamSettings(rate=1.0),
        schedule=CosineRate(warmup=1.0),
        training={"epochs": 2},
    )
    trainer = tiny_trainer(tmp_path / "run", corpus, learning)
    seen, real = [], trainer.updater.update

    def noted(batches: Sequence[Batch], manner: Manner) -> Update:
        seen.append(manner.rate)
        return real(batches, replace(manner, rate=0.0))

    trainer.updater.update = noted  # type: ignore[method-assign]
    trainer.fit()
    falling = [(1 + math.cos(math.pi * share)) / 2 for share in (0.125, 0.375, 0.625, 0.875)]
    assert seen == pytest.approx([0.125, 0.375, 0.625, 0.875, *falling])
    assert [record["rate"] for record in records(tmp_path / "run")] == pytest.approx(seen[3::4])


def test_a_run_stops_early_when_nothing_improves(tmp_path: Path, corpus: Path) -> None:
    learning = tiny_learning(
        optimizer=AdamSettings(rate=1e-12), training={"epochs": 50, "patience": 2}
    )
    outcome = tiny_trainer(tmp_path / "run", corpus, learning).fit()
    assert outcome.ending == "stopped early"
    assert len(records(tmp_path / "run")) == outcome.epochs < 50


def test_the_best_weights_are_kept_even_if_they_are_hardly_better(
    tmp_path: Path, corpus: Path
) -> None:
    training = {"judge": "loss", "least_improvement": 99.0, "patience": None}
    trainer = tiny_trainer(tmp_path / "run", corpus, tiny_learning(training=training))
    outcome = trainer.fit()
    losses = [record["dev"]["loss"] for record in records(tmp_path / "run")]
    assert outcome.best == min(losses) and outcome.best_epoch == losses.index(min(losses)) + 1 > 1
    assert load_checkpoint(trainer.run.best).state["epoch"] == outcome.best_epoch


def test_patience_is_counted_from_the_last_real_improvement() -> None:
    judge = Judge(patience=2, least_improvement=0.5)
    values = [9.0, 8.8, 8.6, 8.4, 8.4]
    told = [judge.judge(epoch, value, loss=1.0) for epoch, value in enumerate(values, 1)]
    assert told == [(True, True), (True, False), (True, False), (True, True), (False, False)]
    assert (judge.best, judge.best_epoch, judge.waited) == (8.4, 4, 1)


def test_of_equal_values_that_with_the_lower_loss_is_the_best() -> None:
    judge = Judge(patience=None, least_improvement=0.0)
    seen = [(0.0, 0.14), (0.0, 0.12), (0.0, 0.13), (1.0, 0.01), (0.0, 0.08)]
    told = [judge.judge(epoch, *one)[0] for epoch, one in enumerate(seen, 1)]
    assert told == [True, True, False, False, True] and judge.best_epoch == 5
    resumed = Judge(patience=None, least_improvement=0.0)
    resumed.load_state_dict(judge.state_dict())
    assert resumed.judge(6, 0.0, 0.09) == (False, False)


def test_judge_stops_only_when_patience_is_out() -> None:
    judge = Judge(patience=2, least_improvement=0.0)
    stops = []
    for epoch, value in enumerate([5.0, 5.0, 4.0, 6.0, float("nan")], 1):
        judge.judge(epoch, value, loss=1.0)
        stops.append(judge.exhausted)
    assert stops == [False, False, False, False, True]
    assert not Judge(patience=None, least_improvement=0).exhausted


def test_places_are_spread_evenly() -> None:
    assert spread(10, 2) == {2, 7}
    assert spread(3, 200) == {0, 1, 2}
    assert spread(0, 5) == set()


# Interruption


class Signals(Silent):
    """Sends a signal to its own process when the run has come so far."""

    def __init__(self, number: int, updates: int | None = None) -> None:
        self.number, self.left, self.said = number, updates, ""

    def updated(self, done: int, utterances: int, loss: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)

    def validating(self) -> None:
        if self.left is None:
            os.kill(os.getpid(), self.number)

    def message(self, text: str) -> None:
        self.said += text


@pytest.mark.parametrize(
    ("number", "updates"),
    [(signal.SIGINT, 6), (signal.SIGTERM, 8), (signal.SIGINT, None)],
    ids=["ctrl-c within an epoch", "sigterm at its end", "ctrl-c in validation"],
)
def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, corpus: Path, number: int, updates: int | None
) -> None:
    unbroken = tiny_trainer(tmp_path / "unbroken", corpus)
    unbroken.fit()
    tracker = Signals(number, updates)
    before = signal.getsignal(number)
    outcome = tiny_trainer(tmp_path / "run", corpus, tracker=tracker).fit()
    assert outcome.ending == "interrupted" and outcome.updates == (updates or 4)
    assert f"spelldown train --resume {tmp_path / 'run'}" in tracker.said
    assert signal.getsignal(number) == before
    resumed = tiny_trainer(tmp_path / "run", corpus)
    assert resumed.resume() and resumed.fit().ending == "finished"
    assert same(weights_of(unbroken), weights_of(resumed))


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, corpus: Path) -> None:
    class Twice(Signals):
        def updated(self, done: int, utterances: int, loss: float) -> None:
            signal.raise_signal(self.number)  # to this thread: two at once to the process are one
            signal.raise_signal(self.number)

    # a shell that starts tests in the background has them ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny_trainer(tmp_path / "run", corpus, tracker=Twice(signal.SIGINT)).fit()
    finally:
        signal.signal(signal.SIGINT, before)


# The folder


def test_another_corpus_is_refused_with_what_differs(tmp_path: Path, corpus: Path) -> None:
    tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 1})).fit()
    other = write_corpus(tmp_path / "corpus", {"train": 11, "dev": 4})
    with pytest.raises(RunError, match=r"train had 12 utterances .* has 11 .*\(other ids, frame"):
        tiny_trainer(tmp_path / "run", other).resume()
    assert tiny_trainer(tmp_path / "run", corpus).resume()


def test_another_number_of_threads_is_warned_of(tmp_path: Path, corpus: Path) -> None:
    tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 1})).fit()
    for threads, warned in ((1, False), (2, True)):
        tracker = Signals(signal.SIGINT)
        learning = tiny_learning(training={"threads": threads})
        assert tiny_trainer(tmp_path / "run", corpus, learning, tracker).resume()
        assert ("on 1 threads so far and now on 2" in tracker.said) == warned
    torch.set_num_threads(1)


def test_a_run_of_another_releases_numbers_is_warned_of(tmp_path: Path, corpus: Path) -> None:
    tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 1})).fit()
    path = tmp_path / "run" / "checkpoints" / "last" / "state.pt"
    for numbers, warned in ((NUMBERS, False), (None, True), (NUMBERS + 1, True)):
        state = torch.load(path, weights_only=True)
        state["conditions"]["numbers"] = numbers
        if numbers is None:
            del state["conditions"]["numbers"]
        torch.save(state, path)
        tracker = Signals(signal.SIGINT)
        assert tiny_trainer(tmp_path / "run", corpus, tracker=tracker).resume()
        assert ("another release" in tracker.said) == warned


def test_a_checkpoint_of_the_first_format_is_taken_up(tmp_path: Path, corpus: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 1}))
    trainer.fit()
    path = tmp_path / "run" / "checkpoints" / "last" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["conditions"], state["sums"]["skipped_ids"]
    state["checkpoint"]["format"] = 1
    torch.save(state, path)
    resumed = tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 2}))
    assert resumed.resume() and resumed.fit().epochs == 2


def test_a_resumed_run_is_told_again_what_is_wrong_with_attention(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = tiny_learning(training={"epochs": 1})
    tiny_trainer(tmp_path / "run", corpus, learning).fit()
    bad = Verdict("not aligning", "nothing moves", ("more CTC",))
    for verdict, told in ((bad, True), (replace(bad, state="aligning"), False)):
        monkeypatch.setattr("spelldown.training.alignment.verdict", lambda *_, v=verdict: v)
        tracker = Signals(signal.SIGINT)
        trainer = tiny_trainer(tmp_path / "run", corpus, learning, tracker)
        assert trainer.resume() and trainer.fit().ending == "finished"
        assert ("try: more CTC" in tracker.said) == told


def test_feedback_by_gumbel_mixtures_trains(tmp_path: Path, corpus: Path) -> None:
    forcing = ConstantForcing(rate=0.5, feedback="gumbel", temperature=0.7)
    learning = tiny_learning(teacher_forcing=forcing, training={"epochs": 1})
    trainer = tiny_trainer(tmp_path / "run", corpus, learning)
    before = weights_of(trainer)
    assert trainer.fit().epochs == 1
    (record,) = records(tmp_path / "run")
    assert record["train"]["skipped"] == 0 and math.isfinite(record["train"]["loss"])
    learnt = dict(trainer.recognizer.named_parameters())
    assert not any(torch.equal(weight, before[name]) for name, weight in learnt.items())


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, corpus: Path) -> None:
    tiny_trainer(tmp_path / "run", corpus, tiny_learning(training={"epochs": 1})).fit()
    other = tiny_learning(optimizer=AdamSettings(decayed="matrices"))
    with pytest.raises(CheckpointError, match="does not belong to this recipe"):
        tiny_trainer(tmp_path / "run", corpus, other).resume()


def test_every_start_of_a_run_is_noted(tmp_path: Path, corpus: Path) -> None:
    folder = tiny_trainer(tmp_path / "run", corpus).run
    folder.note_start(["spelldown", "train", "tiny"])
    folder.note_start(["spelldown", "train", "--resume"])
    starts = json.loads(folder.environment.read_text())["starts"]
    assert [start["command"][-1] for start in starts] == ["tiny", "--resume"]
    assert starts[0]["versions"]["torch"] == torch.__version__
    assert starts[0]["machine"]["cores"] == os.cpu_count()
