"""What the runs of a study will take, measured before they are begun, each in a process of its own.

    python -m spelldown.study.running.estimates RECIPE

prints one recipe's sizes as JSON. A process of its own, since memory is measured, and since a
recipe that needs more of it than there is must not end the study that asks.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spelldown.progress import Progress, quiet
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.study.where.local import said_of

MODULE = "spelldown.study.running.estimates"
FREE = ("name", "seed", "optimizer", "schedule", "averaging", "loss", "trackers")
"""Sections of a recipe that do not decide what an epoch takes; but see `_cost`."""
COSTLY = ("precision", "device", "threads", "memory", "weight_noise")
"""Keys of `training` that do."""


@dataclass(frozen=True)
class Sizes:
    """What a run will take on this machine.

    weights:       numbers that the model learns
    memory:        bytes at the highest, in an update of the largest batch, in others and in search
    epoch_seconds: of training and validation, if every letter is spelled that search may spell
    seconds:       of the whole run, if it goes to its last epoch
    problem:       why nothing can be said
    """

    weights: int | None = None
    memory: int | None = None
    epoch_seconds: float | None = None
    seconds: float | None = None
    problem: str = ""


def sizes_of(recipes: Mapping[str, Recipe], progress: Progress = quiet) -> Mapping[str, Sizes]:
    """The sizes of every run, by its name; those that differ in nothing that costs share theirs."""
    groups: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        groups.setdefault(_cost(recipe), []).append(name)
    found: dict[str, Sizes] = {}
    one_of_each = (recipes[names[0]] for names in groups.values())
    each_size = progress("measuring", map(measured, one_of_each), len(groups))
    for names, sizes in zip(groups.values(), each_size, strict=True):
        for name in names:
            each, epochs = sizes.epoch_seconds, recipes[name].training.epochs
            found[name] = replace(sizes, seconds=None if each is None else epochs * each)
    return found


def _cost(recipe: Recipe) -> str:
    """All of a recipe that decides what an epoch takes."""
    page = recipe.model_dump(mode="json")
    kept = {key: value for key, value in page.items() if key not in (*FREE, "training")}
    training = {key: page["training"][key] for key in COSTLY}
    optimizer = {key: page["optimizer"][key] for key in ("kind", "accumulate")}
    epochs = recipe.training.epochs if recipe.data.also else None  # by which their shares move
    return json.dumps([kept, training, optimizer, recipe.loss.uses_ctc, epochs], sort_keys=True)


def measured(recipe: Recipe) -> Sizes:
    """The sizes of one recipe, measured by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="spelldown-") as folder:
        page = Path(folder) / "recipe.yaml"
        page.write_text(recipe.as_yaml(), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", MODULE, str(page)], capture_output=True, text=True
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Sizes(problem=lines[-1] if lines else said_of(done.returncode))
    return Sizes(**json.loads(done.stdout.splitlines()[-1]))


def measure(page: Path) -> dict[str, Any]:
    """What `Sizes` holds, of the recipe on a page."""
    from spelldown.recipe.estimate import estimate
    from spelldown.recipe.parts import build_parts

    recipe = read_recipe(page)
    parts = build_parts(recipe, caching=False)
    weights = sum(weight.numel() for weight in parts.recognizer.parameters())
    found = estimate(recipe, parts.recognizer, parts.train, parts.dev)
    each = (found.epoch_seconds or 0) + (found.validation_seconds or 0)
    return {"weights": weights, "memory": found.memory, "epoch_seconds": each}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
