"""MLflow: on its server, or in a database beside the run's folder."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from spelldown.settings import Settings
from spelldown.training.run.trackers.notebook import About, Notebook, leaves_of
from spelldown.writing import held

DATABASE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
AT_ONCE = 100  # parameters that MLflow takes in one call
LONGEST = 500  # letters of a parameter
# What MLflow asks of the environment: a server that is away must not be asked for minutes, and
# nothing is to be told to anyone else.
MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowSettings(Settings):
    """MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """Of its server or database; null for the environment's (MLFLOW_TRACKING_URI), or else
    mlflow.db beside the run's folder."""
    experiment: str = Field("spelldown", min_length=1, description="in which the run is listed")


class Mlflow(Notebook):
    kind: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"
    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, settings: MlflowSettings) -> None:
        self.settings = settings
        self.client: Any = None
        self.run = ""

    def open(self, about: About) -> None:
        for name, value in MANNERS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # each table that is made would be a line
            logging.getLogger(name).setLevel(logging.WARNING)
        runs = about.folder.resolve().parent
        asked = self.settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
        with _alone(runs / f".{DATABASE}.lock", asked is None):
            self.client = MlflowClient(tracking_uri=asked or f"sqlite:///{runs / DATABASE}")
            experiment = self._experiment(None if asked else (runs / ARTIFACTS).as_uri())
        known = about.identity(self.kind)
        if known is not None:
            self.run = known
            self.client.set_terminated(known, "RUNNING")
            return
        made = self.client.create_run(experiment, run_name=about.folder.resolve().name)
        self.run = made.info.run_id
        about.keep_identity(self.kind, self.run)
        self._parameters(about)

    def _experiment(self, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(self.settings.experiment)
        if found is not None:
            return str(found.experiment_id)
        made = self.client.create_experiment(self.settings.experiment, artifact_location=artifacts)
        return str(made)

    def _parameters(self, about: About) -> None:
        from mlflow.entities import Param

        every = [Param(name, text[:LONGEST]) for name, text in leaves_of(about.recipe)]
        for start in range(0, len(every), AT_ONCE):
            self.client.log_batch(self.run, params=every[start : start + AT_ONCE])
        self.client.log_text(self.run, about.page, "recipe.yaml")

    def within(self, position: int, loss: float) -> None:
        self.client.log_metric(self.run, "within/loss", loss, step=position)

    def epoch(self, epoch: int, numbers: Mapping[str, float], facts: Mapping[str, str]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        every = [Metric(name, value, now, epoch) for name, value in numbers.items()]
        self.client.log_batch(self.run, metrics=every)
        for name, fact in facts.items():
            self.client.set_tag(self.run, name, fact)

    def pictures(self, epoch: int, paths: Sequence[Path]) -> None:
        for path in paths:
            self.client.log_artifact(self.run, str(path), "attention")

    def close(self, healthy: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if healthy else "FAILED")


@contextmanager
def _alone(lock: Path, shared: bool) -> Iterator[None]:
    """Waits until nobody else makes or changes the database, where runs share a file."""
    while shared:
        with held(lock) as ours:
            if ours:
                yield
                return
        time.sleep(0.1)
    yield
