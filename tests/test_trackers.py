"""Trackers outside the run: what they are told arrives, and what fails there ends nothing here."""

import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from run_outcome import outcome
from tiny_run import tiny_learning, tiny_trainer
from toy_corpus import write_corpus

from spelldown.errors import TrainingError
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.trackers import outside
from spelldown.training.run.trackers.kinds import (
    TrackerSettings,
    hold_installed,
    tracker_named,
    with_trackers,
)
from spelldown.training.run.trackers.mlflow import DATABASE, MlflowSettings
from spelldown.training.run.trackers.notebook import About, Notebook, leaves_of, numbers_of
from spelldown.training.run.trackers.outside import Outside
from spelldown.training.run.trackers.tensorboard import FOLDER, TensorBoardSettings
from spelldown.training.run.trackers.wandb import WandbSettings
from spelldown.training.run.tracking import PlainLines, Silent

RECIPE = {"name": "tiny", "seed": 1, "listener": {"blocks": [{"kind": "conv", "widths": [8]}]}}
LOSS = re.compile(rb"dev/loss[^0-9]{1,8}([0-9]+[.][0-9]+)")  # in the records of an offline run
BLOCK, HEAD = 1 << 15, 7  # bytes of a block of LevelDB's log format, and of a record's head
PICTURED = {"epochs": 2, "pictures_every": 1, "pictures": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("trackers") / "corpus")


def records(file: Path) -> bytes:
    """What wandb has kept, one record behind the other, without the heads between their parts."""
    content, place, found = file.read_bytes(), HEAD, b""
    while place + HEAD <= len(content):
        if BLOCK - place % BLOCK < HEAD:  # no head fits in: zeros
            place += BLOCK - place % BLOCK
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        found += content[place + HEAD : place + HEAD + length]
        place += HEAD + length
    return found


def train(run: Path, corpus: Path, *trackers: TrackerSettings, epochs: int = 2) -> list[str]:
    """Trains, or goes on training, with these trackers; what was said."""
    said: list[str] = []
    run.mkdir(parents=True, exist_ok=True)
    tracker = with_trackers(PlainLines(said.append), trackers, run, RECIPE)
    learning = tiny_learning(training={**PICTURED, "epochs": epochs})
    trainer = tiny_trainer(run, corpus, learning, tracker)
    trainer.resume()
    trainer.fit()
    return [line for line in said if "failed" in line or "not" in line]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Any:
    """What metrics.jsonl says of the run that all of them are told of."""
    run = tmp_path_factory.mktemp("lines") / "run"
    train(run, corpus)
    return RunFolder(run).read_metrics()


def test_tensorboard_shows_every_number_and_picture(
    tmp_path: Path, corpus: Path, lines: Any
) -> None:
    accumulated = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="no tensorboard here: make outside",
    )
    assert train(tmp_path / "run", corpus, TensorBoardSettings()) == []
    found = accumulated.EventAccumulator(str(tmp_path / "run" / FOLDER), {"tensors": 0})
    found.Reload()
    shown = found.Scalars("dev/loss")
    assert [one.step for one in shown] == [1, 2]
    assert [one.value for one in shown] == pytest.approx([line["dev"]["loss"] for line in lines])
    assert {"run/rate", "alignment/value", "memory/peak_mib"} <= set(found.Tags()["scalars"])
    assert len(found.Tags()["images"]) == 1 and "recipe/text_summary" in found.Tags()["tensors"]


def test_wandb_keeps_a_run_offline_and_a_resumed_one_under_the_same_name(
    tmp_path: Path, corpus: Path, lines: Any
) -> None:
    pytest.importorskip("wandb", reason="no wandb here: make outside")
    run, settings = tmp_path / "run", WandbSettings(mode="offline")
    assert train(run, corpus, settings, epochs=1) == []
    assert train(run, corpus, settings, epochs=2) == []
    kept = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(kept) == 2 and len({path.name for path in kept}) == 1
    logged = [found for path in kept for found in LOSS.findall(records(path))]
    assert [float(loss) for loss in dict.fromkeys(logged)] == pytest.approx(
        [line["dev"]["loss"] for line in lines]
    )


def test_mlflow_keeps_numbers_parameters_and_pictures(
    tmp_path: Path, corpus: Path, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="no mlflow here: make outside")
    pytest.importorskip("sqlalchemy", reason="no sqlalchemy here: make outside")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    assert train(run, corpus, MlflowSettings(), epochs=1) == []
    assert train(run, corpus, MlflowSettings(), epochs=2) == []
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / DATABASE}")
    experiment = client.get_experiment_by_name("spelldown")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["listener.blocks.0.widths.0"] == "8"
    history = client.get_metric_history(found.info.run_id, "dev/loss")
    assert [one.step for one in history] == [1, 2]
    assert history[-1].value == pytest.approx(lines[-1]["dev"]["loss"])
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert names == {"recipe.yaml", "attention"}


class Broken(Notebook):
    kind: ClassVar[str] = "broken"
    extra: ClassVar[str] = "broken"
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, opens: bool, seconds: float = 0.0) -> None:
        self.opens, self.seconds, self.asked = opens, seconds, 0
        self.threads: set[str] = set()

    def _fail(self) -> None:
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        raise ConnectionError("no server\nwith details")

    def open(self, about: About) -> None:
        if not self.opens:
            self._fail()

    def within(self, position: int, loss: float) -> None:
        self._fail()

    def epoch(self, epoch: int, numbers: Mapping[str, float], facts: Mapping[str, str]) -> None:
        self._fail()

    def pictures(self, epoch: int, paths: Sequence[Path]) -> None:
        self._fail()

    def close(self, healthy: bool) -> None:
        self._fail()


def fit(run: Path, corpus: Path, notebook: Notebook) -> list[str]:
    said: list[str] = []
    tracker = Outside(notebook, About(run, RECIPE, "name: tiny\n"), said.append)
    tiny_trainer(run, corpus, tiny_learning(training=PICTURED), tracker).fit()
    return said


def test_a_tracker_that_fails_changes_nothing_in_the_run(tmp_path: Path, corpus: Path) -> None:
    tiny_trainer(tmp_path / "plain", corpus, tiny_learning(training=PICTURED)).fit()
    never, later = Broken(opens=False), Broken(opens=True)
    said = fit(tmp_path / "never", corpus, never)
    assert said == [
        "broken failed (no server); it is left out from here on, the run goes on without it"
    ]
    assert never.asked == 1 and never.threads == {"spelldown-broken"}
    said = fit(tmp_path / "later", corpus, later)
    assert said[0] == "broken failed (no server); the run goes on"
    assert "left out" in said[-1] and later.asked == outside.FAILURES
    assert outcome(tmp_path / "never") == outcome(tmp_path / "later") == outcome(tmp_path / "plain")


def test_a_tracker_that_hangs_holds_nothing_up(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(outside, "PATIENCE", 0.1)
    hanging = Broken(opens=True, seconds=60)
    said = fit(tmp_path / "run", corpus, hanging)
    assert said == [
        "waiting for broken, at most 0 s",
        "broken is not done yet and is left as it is",
    ]
    assert hanging.asked == 1
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 2


def test_losses_within_an_epoch_are_told_by_its_thousandths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "WITHIN_SECONDS", 0.0)
    tracker = Outside(Broken(opens=True), About(Path("run"), RECIPE, ""), print)
    heard: list[tuple[int, float]] = []
    monkeypatch.setattr(Broken, "within", lambda self, *told: heard.append(told))
    with tracker:
        tracker.epoch_begins(3, 10, batches=8, done=2)
        tracker.updated(4, 3, 1.5)
    assert heard == [(2500, 1.5)]


def test_a_tracker_without_its_package_is_refused_at_first_and_passed_over_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spelldown.training.run.trackers.notebook.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"trackers.0: wandb needs wandb.*'spelldown\[wandb\]'"):
        hold_installed([WandbSettings()])
    said: list[str] = []
    display = PlainLines(said.append)
    assert with_trackers(display, [MlflowSettings()], tmp_path, RECIPE) is display
    assert "mlflow and sqlalchemy and alembic" in said[0] and "goes on without it" in said[0]


def test_wandb_without_a_login_says_so_and_asks_nobody(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="no wandb here: make outside")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    said = train(tmp_path / "run", corpus, WandbSettings(), epochs=1)
    assert len(said) == 1 and "wandb login" in said[0] and "mode: offline" in said[0]


def test_a_record_and_a_recipe_become_flat() -> None:
    record = {"epoch": 3, "dev": {"cer": 0.5, "ctc": None}, "best": True, "advice": ["more"]}
    assert dict(numbers_of(record)) == {"epoch": 3.0, "dev/cer": 0.5, "best": 1.0}
    assert dict(leaves_of(RECIPE))["listener.blocks.0.kind"] == "conv"
    assert dict(leaves_of({"a": [], "b": None})) == {"a": "[]", "b": "null"}


def test_trackers_are_called_by_their_names() -> None:
    assert [tracker_named(kind).kind for kind in ("tensorboard", "wandb", "mlflow")]
    with pytest.raises(TrainingError, match="no tracker 'comet'; there are: tensorboard, wandb"):
        tracker_named("comet")
    assert with_trackers(Silent(), [], Path(os.curdir), RECIPE).__class__ is Silent
