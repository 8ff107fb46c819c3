"""What the runs of a study will take, measured before they are begun, each in a process of its own.

    python -m spelldown.study.running.estimates RECIPE

prints one recipe's sizes as JSON. A process of its own, since memory is measured, and since a
recipe that needs more of it than there is must not end the study that asks.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.study.identity import MEASURED, identity_of
from spelldown.study.plan import Planned
from spelldown.study.where.local import said_of

MODULE = "spelldown.study.running.estimates"


@dataclass(frozen=True)
class Sizes:
    """What a run will take on this machine.

    weights:       numbers that the model learns
    memory:        bytes at the highest, in an update of the largest batch
    epoch_seconds: of training, validation not included; None where the corpus is not there
    seconds:       of the whole run, if it goes to its last epoch
    problem:       why nothing can be said
    """

    weights: int | None = None
    memory: int | None = None
    epoch_seconds: float | None = None
    seconds: float | None = None
    problem: str = ""


def sizes_of(
    planned: Planned, progress: Callable[[int, int], None] = lambda done, total: None
) -> Mapping[str, Sizes]:
    """The sizes of every run, by its name; recipes that differ in their seed alone share theirs."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, recipe in planned.recipes.items():
        plain = recipe.model_copy(update={"seed": 0})
        made = (getattr(plain.training, key) for key in MEASURED)
        groups.setdefault((identity_of(plain), *made), []).append(name)
    found: dict[str, Sizes] = {}
    for done, names in enumerate(groups.values()):
        progress(done, len(groups))
        sizes = measured(planned.recipes[names[0]])
        found.update(dict.fromkeys(names, sizes))
    progress(len(groups), len(groups))
    return found


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
    from spelldown.recipe.overview import overview

    recipe = read_recipe(page)
    found = overview(recipe)
    estimate = found.estimate()
    epoch = estimate.epoch_seconds
    return {
        "weights": sum(part.parameters for part in found.parts),
        "memory": estimate.memory,
        "epoch_seconds": epoch,
        "seconds": None if epoch is None else epoch * recipe.training.epochs,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
