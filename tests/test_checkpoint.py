import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_outcome import Killed
from safetensors.torch import save_file
from torch import nn

from spelldown.errors import CheckpointError
from spelldown.training.run.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    newest,
    save_checkpoint,
)


def made(value: float, averaging: bool = False) -> Checkpoint:
    state = {"numbers": [1, 2.5, None, "x"], "tensor": torch.full((2,), value), "value": value}
    mean = {"epoch 1": torch.tensor([value])} if averaging else {}
    return Checkpoint({"weight": torch.full((3, 2), value)}, state, mean)


def value_at(place: Path) -> float:
    """What the checkpoint at a place was made with, all its files agreeing."""
    found = load_checkpoint(place)
    value = float(found.state["value"])
    assert found.weights["weight"].eq(value).all() and found.state["tensor"].eq(value).all()
    return value


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last"


def test_what_is_saved_is_loaded(place: Path) -> None:
    save_checkpoint(place, made(1, averaging=True))
    found = load_checkpoint(place)
    assert found.state["numbers"] == [1, 2.5, None, "x"]
    assert found.averaging["epoch 1"].tolist() == [1]
    save_checkpoint(place, made(2))
    assert value_at(place) == 2
    assert load_checkpoint(place).averaging == {}
    assert [path.name for path in place.parent.iterdir()] == ["last"]


def test_weights_known_under_two_names_are_kept_under_both(place: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(3, 2)
            self.projection = nn.Linear(2, 3)
            self.projection.weight = self.embedding.weight

    first, second = Tied(), Tied()
    save_checkpoint(place, Checkpoint(first.state_dict(), {"epoch": 3}))
    assert load_weights(place, second)["epoch"] == 3
    assert second.projection.weight is second.embedding.weight
    assert torch.equal(second.projection.weight, first.projection.weight)


def test_wherever_writing_is_cut_off_a_whole_checkpoint_remains(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing is killed before each of its system calls in turn."""
    calls, limit = 0, 0

    def dying(real: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise Killed
            return real(*arguments, **keywords)

        return call

    monkeypatch.setattr("spelldown.training.run.checkpoint.save_file", dying(save_file))
    monkeypatch.setattr(torch, "save", dying(torch.save))
    monkeypatch.setattr(shutil, "rmtree", dying(shutil.rmtree))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    for name in ("mkdir", "rename"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    limit = 1000
    save_checkpoint(place, made(1, averaging=True))
    steps, value, before = 0, 1.0, {1.0}
    while True:
        calls, limit, value = 0, steps, value + 1
        try:
            save_checkpoint(place, made(value, averaging=True))
        except Killed:
            calls, limit = 0, 1000
            found = value_at(place)
            assert found in before | {value}
            before = {found}
            steps += 1
        else:
            break
    assert steps > 10
    assert value_at(place) == value


def test_a_half_written_checkpoint_is_none(place: Path) -> None:
    half = place.with_name("last.partial")
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert newest(place) is None
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_checkpoint(place)
    save_checkpoint(place, made(1))
    assert value_at(place) == 1 and not half.exists()


def test_a_full_disk_leaves_the_one_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(place, made(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(place, made(2))
    assert value_at(place) == 1
    assert [path.name for path in place.parent.iterdir()] == ["last"]


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm-done"),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    place: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.parent.parent)
    save_checkpoint(place, made(1))
    if zipped:
        torch.save({"checkpoint": {"format": 1}, "optimizer": Malicious()}, place / "state.pt")
    else:
        (place / "state.pt").write_bytes(pickle.dumps(Malicious(), protocol=2))
    with pytest.raises(CheckpointError, match="no code from a checkpoint is ever run"):
        load_checkpoint(place)
    assert not Path("harm-done").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "averaging.safetensors"])
@pytest.mark.parametrize("damage", ["short", "empty", "noise", "gone"])
def test_damage_is_named_with_its_file(place: Path, name: str, damage: str) -> None:
    save_checkpoint(place, made(1, averaging=True))
    file = place / name
    whole = file.read_bytes()
    file.write_bytes(
        {"short": whole[:-20], "empty": b"", "noise": b"noise" * 99, "gone": b""}[damage]
    )
    if damage == "gone":
        file.unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(place)


def test_weights_that_do_not_fit_are_named(place: Path) -> None:
    save_checkpoint(place, Checkpoint(nn.Linear(2, 3).state_dict(), {}))
    with pytest.raises(CheckpointError, match=r"weight has shape \(3, 2\), the model's \(3, 4\)"):
        load_weights(place, nn.Linear(4, 3))
    with pytest.raises(CheckpointError, match="bias is not in the model"):
        load_weights(place, nn.Linear(2, 3, bias=False))


def test_another_format_is_refused(place: Path) -> None:
    save_checkpoint(place, made(1))
    torch.save({"checkpoint": {"format": 99}}, place / "state.pt")
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(place)
