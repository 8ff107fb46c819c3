"""Checkpoints: written whole or not at all, and read without running any code they contain.

A checkpoint is a folder:

    model.safetensors      the model's weights
    averaging.safetensors  what the averaging of weights must remember, if it must
    state.pt               the rest, as plain values and tensors; read with `weights_only=True`

How one replaces another. `last.partial` is being written and is worth nothing. Once all of it is on
disk it is renamed to `last.new`: from then on it is the newest whole one. Then `last` becomes
`last.old`, `last.new` becomes `last`, and `last.old` is deleted. Whenever the process dies, one of
`last.new`, `last`, `last.old`, asked in this order, is the newest whole checkpoint.
"""

import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spelldown.errors import CheckpointError
from spelldown.writing import folder_to_disk, to_disk

FORMAT = 2
"""Raised whenever older programs can no longer read what is written."""
READABLE = (1, 2)
"""1: without the conditions of training and the utterances of skipped updates."""
MODEL, AVERAGING, STATE = "model.safetensors", "averaging.safetensors", "state.pt"
HEAD = "checkpoint"  # in the state: the format, and whether there is a file of averaging


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    weights:   of the model, under the names of `state_dict`
    state:     dicts, lists, tuples, strings, numbers, None and tensors, nested
    averaging: named tensors; may be empty
    """

    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    averaging: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(place: Path, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint in its place, whole or not at all, safe from a power cut on return.

    The one that stood there is kept until the new one is whole. Raises CheckpointError if it cannot
    be written (a full disk, say); the one before is then still there.
    """
    partial, new, old = (
        place.with_name(f"{place.name}.{end}") for end in ("partial", "new", "old")
    )
    try:
        _settle(place)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_tensors(partial / MODEL, checkpoint.weights)
        if checkpoint.averaging:
            _write_tensors(partial / AVERAGING, checkpoint.averaging)
        with (partial / STATE).open("wb") as file:
            head = {"format": FORMAT, "averaging": bool(checkpoint.averaging)}
            torch.save({**checkpoint.state, HEAD: head}, file)
            to_disk(file)
        folder_to_disk(partial)
        partial.rename(new)
        _settle(place)
        folder_to_disk(place.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{place}: this checkpoint could not be written ({error}). If there was one before, it "
            "is still there; make room on the disk and resume the run"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def _settle(place: Path) -> None:
    """Brings the newest whole checkpoint to its place, wherever the last process died."""
    new, old = place.with_name(f"{place.name}.new"), place.with_name(f"{place.name}.old")
    if new.exists():
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        new.rename(place)
    elif old.exists() and not place.exists():
        old.rename(place)


def newest(place: Path) -> Path | None:
    """Where the newest whole checkpoint of this place lies, or None if there is none."""
    candidates = (place.with_name(f"{place.name}.new"), place, place.with_name(f"{place.name}.old"))
    return next((folder for folder in candidates if folder.is_dir()), None)


def load_checkpoint(place: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """The newest whole checkpoint of a place; its tensors on a device, the state's on the CPU.

    Raises CheckpointError if there is none, if a file is damaged, or if it holds anything but
    plain values and tensors.
    """
    folder = _folder(place)
    state = _read_state(folder / STATE)
    averaged = state.pop(HEAD)["averaging"]
    return Checkpoint(
        _read_tensors(folder / MODEL, device),
        state,
        _read_tensors(folder / AVERAGING, device) if averaged else {},
    )


def load_state(place: Path) -> dict[str, Any]:
    """The state of the newest whole checkpoint of a place, its tensors unread.

    Raises CheckpointError as `load_checkpoint`.
    """
    state = _read_state(_folder(place) / STATE)
    del state[HEAD]
    return state


def load_weights(place: Path, model: nn.Module) -> dict[str, Any]:
    """Puts the weights of a checkpoint into a model, on the model's device; gives its state.

    Raises CheckpointError as `load_checkpoint`, or if the weights do not fit the model.
    """
    fit_weights(model, _read_tensors(_folder(place) / MODEL, "cpu"), place)
    return load_state(place)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], place: Path) -> None:
    """Puts weights into a model. Raises CheckpointError, naming each that does not fit."""
    wanted = model.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not in the model" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, the model's {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(
            f"{place}: {len(problems)} weights do not fit this model: {shown}. Use the recipe.yaml "
            "that lies in the run's folder"
        )
    model.load_state_dict(dict(weights))


def _folder(place: Path) -> Path:
    folder = newest(place)
    if folder is None:
        raise CheckpointError(f"{place}: there is no checkpoint here")
    return folder


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Weights known under two names are written under both: safetensors will not share memory."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    save_file(apart, path)
    with path.open("rb+") as file:
        to_disk(file)


def _read_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    try:
        return load_file(path, device=str(device))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: these weights are damaged or missing ({error}). Resume from another "
            "checkpoint or start the run again"
        ) from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than plain values and tensors, or is damaged, and was not loaded: "
            "no code from a checkpoint is ever run. Use only checkpoints that spelldown wrote"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path}: this state is damaged or missing ({error}). Resume from another checkpoint "
            "or start the run again"
        ) from error
    found = state.get(HEAD, {}).get("format") if isinstance(state, dict) else None
    if found not in READABLE:
        raise CheckpointError(
            f"{path}: has format {found}, this spelldown reads up to {FORMAT}; use the version "
            "that wrote it (environment.json names it)"
        )
    return dict(state)
