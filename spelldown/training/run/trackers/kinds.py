"""The trackers that there are, and how a run gets those that its recipe asks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from spelldown.errors import TrainingError
from spelldown.training.run.trackers.mlflow import Mlflow, MlflowSettings
from spelldown.training.run.trackers.notebook import About, Notebook
from spelldown.training.run.trackers.outside import Outside, Together
from spelldown.training.run.trackers.tensorboard import TensorBoard, TensorBoardSettings
from spelldown.training.run.trackers.wandb import Wandb, WandbSettings
from spelldown.training.run.tracking import Tracker

TrackerSettings = Annotated[
    TensorBoardSettings | WandbSettings | MlflowSettings, Field(discriminator="kind")
]
KINDS = (TensorBoardSettings, WandbSettings, MlflowSettings)


def notebook_of(settings: TrackerSettings) -> Notebook:
    """The notebook that the settings describe; nothing is opened yet."""
    match settings:
        case TensorBoardSettings():
            return TensorBoard(settings)
        case WandbSettings():
            return Wandb(settings)
        case MlflowSettings():
            return Mlflow(settings)


def tracker_named(kind: str) -> TrackerSettings:
    """The tracker of this kind with its default settings. Raises TrainingError for no such kind."""
    for settings in KINDS:
        if settings.model_fields["kind"].default == kind:
            return settings()
    known = ", ".join(str(settings.model_fields["kind"].default) for settings in KINDS)
    raise TrainingError(f"there is no tracker {kind!r}; there are: {known}")


def hold_installed(trackers: Sequence[TrackerSettings]) -> None:
    """Raises TrainingError if packages are missing that a recipe's trackers need."""
    lacking = [notebook_of(settings).lacking() for settings in trackers]
    found = [f"trackers.{place}: {what}" for place, what in enumerate(lacking) if what]
    if found:
        raise TrainingError("; ".join(found))


def with_trackers(
    display: Tracker, trackers: Sequence[TrackerSettings], folder: Path, recipe: dict[str, Any]
) -> Tracker:
    """The display, and beside it the trackers outside that a recipe asks for.

    recipe: resolved, as plain values. A tracker that lacks a package is left out, and it is said.
    """
    page = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    about, others = About(folder, recipe, page), []
    for settings in trackers:
        notebook = notebook_of(settings)
        if lacking := notebook.lacking():
            display.message(f"{lacking}; the run goes on without it")
        else:
            others.append(Outside(notebook, about, display.message))
    return Together(display, others) if others else display
