"""Weights & Biases: on its server, or offline in the run's folder until `wandb sync`."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from spelldown.errors import TrainingError
from spelldown.settings import Settings
from spelldown.training.run.trackers.notebook import EPOCH_PARTS, About, Notebook

SECONDS = 30.0  # that its server may take to answer


class WandbSettings(Settings):
    """Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field("spelldown", min_length=1, description="in which the run is listed")
    entity: str | None = Field(None, description="user or team; null for who is logged in")
    mode: Literal["online", "offline"] | None = None
    """`offline` keeps all in the run's folder, which `wandb sync` sends later; null does as the
    environment says (WANDB_MODE), or online."""


class Wandb(Notebook):
    kind: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"
    packages: ClassVar[tuple[str, ...]] = ("wandb",)

    def __init__(self, settings: WandbSettings) -> None:
        self.settings = settings
        self.run: Any = None

    def open(self, about: About) -> None:
        import wandb

        mode: Any = self.settings.mode or os.environ.get("WANDB_MODE") or "online"
        if mode == "online" and not wandb.login(prompt=False):
            raise TrainingError("not logged in: `wandb login`, or mode: offline")
        name = about.identity(self.kind) or uuid.uuid4().hex[:8]
        self.run = wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            name=about.folder.resolve().name,
            id=name,
            resume="allow",
            dir=str(about.folder),
            config=dict(about.recipe),
            mode=mode,
            settings=wandb.Settings(console="off", silent=True, init_timeout=SECONDS),
        )
        about.keep_identity(self.kind, name)
        # Its own steps must never go back, as a resumed run may: they are left out of it.
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        self.run.define_metric("within/*", step_metric="within/epoch")

    def within(self, position: int, loss: float) -> None:
        self.run.log({"within/loss": loss, "within/epoch": position / EPOCH_PARTS})

    def epoch(self, epoch: int, numbers: Mapping[str, float], facts: Mapping[str, str]) -> None:
        self.run.log({**numbers, "epoch": epoch})
        self.run.summary.update(dict(facts))

    def pictures(self, epoch: int, paths: Sequence[Path]) -> None:
        import wandb

        shown = {f"attention/{path.stem}": wandb.Image(str(path)) for path in paths}
        self.run.log({**shown, "epoch": epoch})

    def close(self, healthy: bool) -> None:
        self.run.finish(exit_code=0 if healthy else 1)
