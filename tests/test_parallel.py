"""Several processes train as one: the same weights, one folder, nothing lost with one of them."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_outcome import outcome
from tiny_run import tiny_learning, tiny_recognizer, tiny_trainer
from toy_corpus import write_corpus

from spelldown.errors import LostRankError, RunError, TrainingError
from spelldown.recipe import run as runs
from spelldown.recipe import together
from spelldown.recipe.recipe import read_recipe
from spelldown.training.learning.averaging import ExponentialAveraging
from spelldown.training.learning.optimizer import AdamSettings
from spelldown.training.learning.teacher_forcing import ConstantForcing
from spelldown.training.parallel.linked import Linked, joined, launch_of
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.run.checkpoint import load_checkpoint
from spelldown.training.run.run_folder import RunFolder

PARTS = {"train": 13, "dev": 7}  # odd numbers: shares are never equal
PAGE: dict[str, Any] = {
    "name": "toy",
    "data": {"kind": "arrays"},
    "frontend": {"kind": "arrays", "width": 4},
    "batching": {"utterances": 3},
    "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2},
                            {"kind": "bilstm", "width": 8, "dropout": 0.2}]},
    "speller": {"embedding": 8, "width": 16},
    "training": {"epochs": 3, "device": "cpu", "threads": 1, "pictures_every": 0,
                 "checkpoint_minutes": 0, "precision": "float32"},
    "search": {"longest": 30},
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("parallel") / "corpus", PARTS)


@pytest.fixture(scope="module")
def children() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spelldown.recipe.together", "spelldown.training.trainer"])
    return context


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def as_rank(rank: int, count: int, port: int, work: Callable[..., None], *given: Any) -> None:
    """What torchrun does for a process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                   "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}  # fmt: skip
    work(*given)


def start(children: Any, count: int, work: Callable[..., None], *given: Any) -> list[Any]:
    port = free_port()
    ranks = [
        children.Process(target=as_rank, args=(rank, count, port, work, *given))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    return ranks


def ended(ranks: list[Any]) -> list[int]:
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def certain(accumulate: int) -> Any:
    """Learning without anything drawn by chance within an utterance's computation."""
    return tiny_learning(
        optimizer=AdamSettings(rate=3e-3, accumulate=accumulate),
        teacher_forcing=ConstantForcing(),
        averaging=ExponentialAveraging(decay=0.9),
        training={"epochs": 3, "precision": "float32"},  # with noise on the weights, all the same
    )


def train_certain(run: Path, corpus: Path, accumulate: int) -> None:
    recognizer = tiny_recognizer(dropout=0.0, norm="layer")
    with joined() as ranks:
        trainer = tiny_trainer(run, corpus, certain(accumulate), recognizer=recognizer, ranks=ranks)
        trainer.fit()


@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (3, 2)])
def test_several_processes_come_to_the_weights_of_one_up_to_rounding(
    tmp_path: Path, corpus: Path, children: Any, count: int, accumulate: int
) -> None:
    train_certain(tmp_path / "one", corpus, accumulate)
    several = start(children, count, train_certain, tmp_path / "several", corpus, accumulate)
    assert ended(several) == [0] * count
    one, other = (load_checkpoint(tmp_path / name / "checkpoints/last") for name in
                  ("one", "several"))  # fmt: skip
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, rtol=2e-4, atol=2e-5)
    for name, weight in one.averaging.items():
        torch.testing.assert_close(other.averaging[name], weight, rtol=2e-4, atol=2e-5)
    lines = [RunFolder(tmp_path / name).read_metrics() for name in ("one", "several")]
    assert len(lines[0]) == len(lines[1]) == 3
    for alone, shared in zip(*lines, strict=True):
        assert shared["updates"] == alone["updates"]
        assert shared["train"]["loss"] == pytest.approx(alone["train"]["loss"], rel=1e-4)
        assert shared["dev"]["loss"] == pytest.approx(alone["dev"]["loss"], rel=1e-4)
        assert shared["dev"]["distance"] == alone["dev"]["distance"]
        assert shared["alignment"]["value"] == pytest.approx(alone["alignment"]["value"], rel=1e-3)


def page_of(folder: Path, corpus: Path) -> Path:
    page = folder / "toy.yaml"
    page.write_text(yaml.safe_dump({**PAGE, "data": {"kind": "arrays", "root": str(corpus)}}))
    return page


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: Path, children: Any) -> Any:
    """What two processes come to with the page if nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    both = start(children, 2, train_page, page_of(folder, corpus), folder / "run")
    assert ended(both) == [0, 0]
    return outcome(folder / "run")


def train_page(page: Path, run: Path) -> None:
    together.train(page, folder=run)


def resume_page(run: Path) -> None:
    together.resume(run)


def test_a_lost_process_is_started_again_with_the_others_and_nothing_is_lost(
    tmp_path: Path, corpus: Path, undisturbed: Any
) -> None:
    """By torchrun itself; what was learnt is that of the undisturbed run, bit for bit."""
    page, run = page_of(tmp_path, corpus), tmp_path / "killed"
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2"]
    torchrun = subprocess.Popen(
        [sys.executable, *command, "--master-port", str(free_port()),
         "-m", "--", "spelldown", "train", str(page), "--run", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_for(lambda: (run / "metrics.jsonl").exists())
        os.kill(rank_of(torchrun.pid, "1"), signal.SIGKILL)
        assert torchrun.wait(120) == 0
    finally:
        torchrun.kill()
    assert len(RunFolder(run).starts()) == 2
    assert outcome(run) == undisturbed


def wait_for(happened: Callable[[], bool], seconds: float = 120) -> bool:
    until = time.monotonic() + seconds
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    return happened()


def rank_of(agent: int, rank: str) -> int:
    """The process of a rank among the children of what watches over them."""
    for folder in Path("/proc").glob("[0-9]*"):
        stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        if int(stat[1]) == agent and f"LOCAL_RANK={rank}\0" in (folder / "environ").read_text():
            return int(folder.name)
    raise AssertionError("that process is not there")


def test_sigterm_to_one_process_saves_all_and_ends_every_one(
    tmp_path: Path, corpus: Path, children: Any, undisturbed: Any
) -> None:
    page, run = page_of(tmp_path, corpus), tmp_path / "run"
    both = start(children, 2, train_page, page, run)
    assert wait_for(lambda: (run / "metrics.jsonl").exists())
    os.kill(both[1].pid, signal.SIGTERM)
    os.kill(both[1].pid, signal.SIGTERM)  # as sent by both a terminal and what watches over it
    assert ended(both) == [0, 0]
    assert len(RunFolder(run).read_metrics()) < 3
    assert ended(start(children, 2, resume_page, run)) == [0, 0]
    assert outcome(run) == undisturbed


def test_what_is_wrong_ends_all_processes_and_is_said_by_the_first(
    tmp_path: Path, children: Any
) -> None:
    page = page_of(tmp_path, tmp_path / "nowhere")
    assert ended(start(children, 2, train_page, page, tmp_path / "run")) == [1, 1]
    assert not (tmp_path / "run").exists()


def test_lengths_that_would_differ_from_process_to_process_are_refused(
    tmp_path: Path, corpus: Path
) -> None:
    class Two(Ranks):
        count = 2

    recipe = read_recipe(page_of(tmp_path, corpus), ["batching.lengths=padded"])
    with pytest.raises(TrainingError, match="lengths: padded cannot be trained by several"):
        runs.start(recipe, RunFolder(tmp_path / "run"), ranks=Two())
    assert not (tmp_path / "run").exists()


def train_another(run: Path, first: Path, other: Path) -> None:
    with joined() as ranks, pytest.raises(RunError, match="corpora that are not the same"):
        tiny_trainer(run, first if ranks.first else other, ranks=ranks)


def lose_the_other(run: Path) -> None:
    with joined() as ranks:
        assert ranks.totals(1, 5) == [2, 10]
        assert ranks.everyones(ranks.rank) == [0, 1]
        assert ranks.any(not ranks.first)
        if not ranks.first:
            os._exit(0)
        with pytest.raises(LostRankError, match="--max-restarts"):
            ranks.totals(1)
        run.touch()


def test_a_process_that_reads_another_corpus_is_found_out(
    tmp_path: Path, corpus: Path, children: Any
) -> None:
    other = write_corpus(tmp_path / "other", PARTS, seed=7)
    assert ended(start(children, 2, train_another, tmp_path / "run", corpus, other)) == [0, 0]


def test_a_process_notices_that_the_other_is_gone(tmp_path: Path, children: Any) -> None:
    assert ended(start(children, 2, lose_the_other, tmp_path / "noticed")) == [0, 0]
    assert (tmp_path / "noticed").exists()


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Linked.__new__(Linked)
    ranks.local = 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert ranks.device_name("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ranks.device_name("auto") == ranks.device_name("cuda") == "cuda:1"
    with pytest.raises(TrainingError, match="cuda gives each its own"):
        ranks.device_name("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="--nproc-per-node 1"):
        ranks.device_name("auto")


def test_torchruns_calls_are_told_apart() -> None:
    assert launch_of({"TORCHELASTIC_RUN_ID": "job-7"}) == "job-7"
    nameless = launch_of({"TORCHELASTIC_RUN_ID": "none"})
    assert str(os.getppid()) in nameless and nameless == launch_of({})
    json.dumps(nameless)
