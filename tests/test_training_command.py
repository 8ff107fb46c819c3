"""`spelldown train`: what it leaves behind, how it is stopped and goes on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import process, spelldown
from trained_run import WIDTH, Trained, train_toy, write_page

from spelldown.recipe.recipe import read_recipe

EPOCHS = 2


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_toy(tmp_path_factory.mktemp("trained"), training=training(EPOCHS))


def training(epochs: int) -> dict[str, Any]:
    return {"epochs": epochs, "threads": 1, "pictures_every": 0, "device": "cpu"}


@pytest.fixture
def recipe(tmp_path: Path, make_corpus: Callable[..., Path]) -> Path:
    corpus = make_corpus({"train": 12, "dev": 4, "test": 6}, silent=())
    return write_page(tmp_path / "toy.yaml", corpus, training=training(EPOCHS))


def test_a_run_is_a_folder_with_its_resolved_recipe(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    said = spelldown("train", recipe, "--run", run)
    assert said.exit_code == 0, said.output
    assert read_recipe(run / "recipe.yaml") == read_recipe(recipe)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    for name in ("vocabulary.json", "environment.json", "checkpoints/best", "checkpoints/last"):
        assert (run / name).exists()
    assert "finished after 2 epochs" in said.output
    assert f"spelldown evaluate {run}" in said.output


def test_runs_are_numbered_and_never_written_over(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert spelldown("train", recipe, "training.epochs=1").exit_code == 0
    assert sorted(run.name for run in (tmp_path / "runs").iterdir()) == ["tiny-1", "tiny-2"]


def test_a_folder_with_a_run_is_refused_and_resuming_told(trained: Trained) -> None:
    before = (trained.run / "metrics.jsonl").read_text()
    result = spelldown("train", trained.run / "recipe.yaml", "--run", trained.run)
    assert result.exit_code == 1
    assert f"spelldown train --resume {trained.run}" in result.stderr
    assert (trained.run / "metrics.jsonl").read_text() == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path, recipe: Path) -> None:
    result = spelldown("train", recipe, "--run", tmp_path)
    assert result.exit_code == 1
    assert "is not an empty folder" in result.stderr


def test_data_that_is_not_there_leaves_no_run_behind(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = spelldown("train", recipe, "data.root=elsewhere")
    assert result.exit_code == 1
    assert str(tmp_path / "elsewhere") in result.stderr
    assert not list((tmp_path / "runs").iterdir())


def test_a_finished_run_has_nothing_left_to_resume(trained: Trained) -> None:
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 0, result.output
    assert "finished after 2 epochs" in result.output
    assert len((trained.run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_killed_before_it_learnt_anything_can_be_resumed(trained: Trained) -> None:
    weights = (trained.run / "checkpoints" / "best" / "model.safetensors").read_bytes()
    for file in trained.run.rglob("*"):
        if file.is_file() and file.name != "recipe.yaml":
            file.unlink()  # as it stands when the corpus is being read
    shutil.rmtree(trained.run / "checkpoints")
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 0, result.output
    assert "beginning anew" in result.output
    assert (trained.run / "checkpoints" / "best" / "model.safetensors").read_bytes() == weights


def test_utterances_left_out_are_listed_with_the_run(tmp_path: Path, recipe: Path) -> None:
    spoilt = tmp_path / "corpus" / "train" / "mfcc" / "train-003.npy"
    np.save(spoilt, np.full((30, WIDTH), np.nan, np.float32))
    stopped = spelldown("train", recipe, "--run", tmp_path / "stopped")
    assert stopped.exit_code == 1
    assert str(spoilt) in stopped.stderr
    run = tmp_path / "left-out"
    result = spelldown("train", recipe, "--run", run, "data.problems=leave-out")
    assert result.exit_code == 0, result.output
    assert str(spoilt) in (run / "left_out.txt").read_text()


def wait_for_epochs(training: subprocess.Popen[str], run: Path, least: int) -> list[int]:
    """The epochs in the run's metrics once there are so many, or once its process has ended."""
    deadline = time.monotonic() + 60
    epochs: list[int] = []
    while len(epochs) < least and training.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if (run / "metrics.jsonl").exists():
            lines = (run / "metrics.jsonl").read_text().splitlines()
            epochs = [json.loads(line)["epoch"] for line in lines if line.endswith("}")]
    return epochs


def test_ctrl_c_saves_says_how_to_go_on_and_ends_with_status_130(
    tmp_path: Path, recipe: Path
) -> None:
    run = tmp_path / "run"
    training = process("train", recipe, "--run", run, "training.epochs=5000", cwd=tmp_path)
    try:
        wait_for_epochs(training, run, 1)
        training.send_signal(signal.SIGINT)
        said, complained = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 130, complained
    assert f"spelldown train --resume {run}" in said
    assert "Traceback" not in complained
    done = len((run / "metrics.jsonl").read_text().splitlines())
    resumed = process("train", "--resume", run, cwd=tmp_path)
    try:
        epochs = wait_for_epochs(resumed, run, done + 1)
    finally:
        resumed.kill()
        resumed.communicate()
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) > done


# --- resume


def contents_of(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not held there")
def test_a_run_that_another_process_trains_is_not_touched(trained: Trained) -> None:
    # As one that is ahead of its checkpoint.
    with (trained.run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99}\n')
    before = contents_of(trained.run)
    code = (
        "from spelldown.training.run.run_folder import RunFolder\n"
        f"with RunFolder({str(trained.run)!r}).held(): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        result = spelldown("train", "--resume", trained.run)
        assert contents_of(trained.run) == before
        other.communicate("\n")
    assert result.exit_code == 1
    assert "another process is training in this folder" in result.stderr


def test_a_run_is_not_resumed_with_another_corpus(trained: Trained) -> None:
    file = trained.corpus / "train" / "transcripts" / "train-003.npy"
    np.save(file, np.array(["<sos>", *"CHANGED", "<eos>"]))
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 1
    assert "train had 8 utterances" in result.stderr and "(other texts)" in result.stderr
