from pathlib import Path

import pytest
import torch
from tiny_run import tiny_learning, tiny_trainer
from torch import nn
from toy_corpus import write_corpus

from spelldown.training.learning.averaging import (
    Averaging,
    AveragingSettings,
    ExponentialAveraging,
    LastAveraging,
    NoAveraging,
    build_averaging,
    copy_of,
)
from spelldown.training.run.checkpoint import load_checkpoint


class Counted(nn.Module):
    """A weight under two names, a running statistic, a constant and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.tied = self.weight
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("table", torch.tensor([0.1]))
        self.register_buffer("steps", torch.tensor(0))

    def become(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.get_buffer("mean").fill_(10 * value)
            self.get_buffer("steps").add_(1)


def numbers(averaging: Averaging) -> dict[str, float] | None:
    average = averaging.average()
    return None if average is None else {name: t.item() for name, t in average.items()}


def test_without_averaging_there_is_no_average() -> None:
    averaging = build_averaging(NoAveraging())
    averaging.updated(Counted(), 1)
    averaging.epoch_ended(Counted(), 1)
    assert averaging.average() is None


def test_an_exponential_average_forgets_the_first_updates_soon() -> None:
    model, averaging = Counted(), build_averaging(ExponentialAveraging(decay=0.5))
    expected = 0.0
    for update, value in enumerate([1.0, 3.0, 2.0, 7.0, 5.0, 4.0, 9.0, 8.0, 6.0, 1.0, 2.0]):
        model.become(value)
        averaging.updated(model, 1)
        decay = min(0.5, (1 + update) / (10 + update)) if update else 0.0
        expected = decay * expected + (1 - decay) * value
    found = numbers(averaging)
    assert found is not None
    assert found["weight"] == found["tied"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(10 * expected)
    assert found["table"] == model.get_buffer("table").item()
    assert found["steps"] == 11


def test_the_last_epochs_are_averaged_evenly_and_older_ones_forgotten() -> None:
    model, averaging = Counted(), build_averaging(LastAveraging(count=3, from_epoch=2))
    for epoch, value in enumerate([100.0, 1.0, 2.0, 6.0, 4.0], start=1):
        model.become(value)
        averaging.epoch_ended(model, epoch)
        if epoch == 1:
            assert averaging.average() is None
        if epoch == 3:
            assert numbers(averaging) == pytest.approx(
                {"weight": 1.5, "tied": 1.5, "mean": 15, "table": 0.1, "steps": 3}
            )
    averaging.epoch_ended(model, 5)  # said again after an interrupted validation
    found = numbers(averaging)
    assert found is not None
    assert found["weight"] == 4.0 and found["mean"] == 40.0
    assert found["table"] == model.get_buffer("table").item()


def test_what_is_constant_stays_so_to_the_last_bit_in_a_mean_of_many() -> None:
    model, averaging = nn.Linear(100, 100), build_averaging(LastAveraging(count=7))
    for epoch in range(1, 8):
        averaging.epoch_ended(model, epoch)
    average = averaging.average()
    assert average is not None
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())


KINDS: list[AveragingSettings] = [ExponentialAveraging(decay=0.9), LastAveraging(count=2)]


@pytest.mark.parametrize("settings", KINDS)
def test_an_average_goes_on_after_a_resumption_as_if_nothing_had_been(
    settings: AveragingSettings,
) -> None:
    model, unbroken = Counted(), build_averaging(settings)

    def go(averaging: Averaging, epochs: range) -> None:
        for epoch in epochs:
            model.become(float(epoch**2))
            averaging.updated(model, epoch)
            averaging.epoch_ended(model, epoch)

    go(unbroken, range(1, 4))
    resumed = build_averaging(settings)
    resumed.load_tensors(unbroken.tensors())
    for averaging in (unbroken, resumed):
        model.get_buffer("steps").fill_(0)
        go(averaging, range(4, 7))
    assert numbers(resumed) == numbers(unbroken)


def test_the_raw_weights_come_back_bit_for_bit_after_an_average_was_applied() -> None:
    model, averaging = Counted(), build_averaging(ExponentialAveraging(decay=0.9))
    for value in (0.1, 0.7, 0.3):
        model.become(value)
        averaging.updated(model, 1)
    raw, average = copy_of(model), averaging.average()
    assert average is not None
    with averaging.applied(model):
        assert torch.equal(model.weight, average["weight"])
        assert not torch.equal(model.weight, raw["weight"])
    assert all(torch.equal(tensor, raw[name]) for name, tensor in model.state_dict().items())


def test_best_holds_the_averaged_weights_and_last_the_raw_ones(tmp_path: Path) -> None:
    learning = tiny_learning(training={"epochs": 1})
    trainer = tiny_trainer(tmp_path / "run", write_corpus(tmp_path / "corpus"), learning)
    trainer.fit()
    average = trainer.averaging.average()
    assert average is not None
    best, last = load_checkpoint(trainer.run.best), load_checkpoint(trainer.run.last)
    for name, tensor in trainer.recognizer.state_dict().items():
        assert torch.equal(best.weights[name], average[name])
        assert torch.equal(last.weights[name], tensor)
    assert any(not torch.equal(best.weights[name], last.weights[name]) for name in best.weights)
