"""A run that was killed ends with the same weights, bit for bit, as one that was not."""

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from run_outcome import Killed, KillsAfter, outcome
from tiny_run import tiny_learning, tiny_trainer, train_to_the_end
from toy_corpus import write_corpus

from spelldown.training.learning.averaging import LastAveraging
from spelldown.training.learning.optimizer import AdamSettings, SgdSettings
from spelldown.training.learning.schedule import OneCycleRate
from spelldown.training.learning.teacher_forcing import LinearForcing
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent

OFTEN = {"checkpoint_minutes": 0}  # after every update


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("resume") / "corpus")


REMEMBERING = {
    "plateau, rule b, exponential": tiny_learning(training=OFTEN),
    "one cycle, linear, last, accumulated": tiny_learning(
        schedule=OneCycleRate(),
        teacher_forcing=LinearForcing(last_epoch=3),
        averaging=LastAveraging(count=2),
        optimizer=AdamSettings(kind="radam", rate=3e-3, accumulate=3),
        training=OFTEN,
    ),
    "momentum, rare checkpoints": tiny_learning(
        optimizer=SgdSettings(rate=1e-2), training={"checkpoint_minutes": 99}
    ),
    "gumbel mixtures, pictures": tiny_learning(
        teacher_forcing=LinearForcing(start=0.8, end=0.4, last_epoch=3, feedback="gumbel"),
        training={"checkpoint_minutes": 99, "pictures_every": 1, "pictures": 1},
    ),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_run_broken_off_at_every_update_ends_as_the_unbroken_one(
    tmp_path: Path, corpus: Path, name: str
) -> None:
    learning = REMEMBERING[name]
    tiny_trainer(tmp_path / "unbroken", corpus, learning).fit()
    # Each life gets one update further than a checkpoint can know, or an epoch where they are rare.
    lives, survives = 0, 1 if learning.training.checkpoint_minutes == 0 else 5
    while True:
        trainer = tiny_trainer(tmp_path / "run", corpus, learning, KillsAfter(survives))
        assert trainer.resume() == (lives > 0)
        try:
            trainer.fit()
        except Killed:
            lives += 1
        else:
            break
    assert lives >= 2
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")


def test_epochs_that_the_checkpoint_does_not_know_are_not_listed_twice(
    tmp_path: Path, corpus: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = tiny_trainer(folder.path, corpus, tiny_learning(training={"epochs": 2}))
    trainer.fit()
    with folder.metrics.open("a") as file:  # killed between the line and the checkpoint
        file.write('{"epoch": 3, "best": true}\n{"epoch": 4, "bes')
    resumed = tiny_trainer(folder.path, corpus, tiny_learning(training={"epochs": 4}))
    assert resumed.resume()
    resumed.fit()
    lines = folder.metrics.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert all("train" in json.loads(line) for line in lines)


def test_nothing_drawn_between_updates_changes_what_follows(tmp_path: Path, corpus: Path) -> None:
    class Draws(Silent):
        def updated(self, done: int, utterances: int, loss: float) -> None:
            torch.rand(done)

    one, other = (tiny_trainer(tmp_path / name, corpus) for name in ("one", "other"))
    other.tracker = Draws()
    one.fit()
    other.fit()
    assert outcome(tmp_path / "one") == outcome(tmp_path / "other")


def test_a_run_killed_at_random_moments_ends_as_the_unbroken_one(
    tmp_path: Path, corpus: Path
) -> None:
    learning = tiny_learning(training=OFTEN)
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["spelldown.training.trainer", "spelldown.data.corpora"])

    def child(run: str) -> Any:
        process = children.Process(target=train_to_the_end, args=(tmp_path / run, corpus, learning))
        process.start()
        return process

    warm = children.Process(target=time.time)  # the server loads what all need; not to be timed
    warm.start()
    warm.join()
    began = time.monotonic()
    unbroken = child("unbroken")
    unbroken.join()
    assert unbroken.exitcode == 0
    whole, draw, kills = time.monotonic() - began, random.Random(), 0
    while True:
        process = child("run")
        process.join(draw.uniform(0, whole / 2) if kills < 4 else None)
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills >= 1
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")
