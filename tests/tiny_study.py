"""A study so small that a run of it takes a moment, for tests."""

from pathlib import Path
from typing import Any, Self

import yaml

from spelldown.study.folder import StudyFolder
from spelldown.study.plan import Planned, plan_study
from spelldown.study.running.runner import Runner
from spelldown.study.study import read_study
from spelldown.study.where.place import Ended, Job

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "frontend": {"kind": "arrays", "width": 4},
    "batching": {"utterances": 6, "padding": 1},
    "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
    "attention": {"kind": "dot", "width": 8},
    "speller": {"embedding": 8, "width": 16},
    "training": {"epochs": 2, "device": "cpu", "threads": 1, "pictures_every": 0},
    "search": {"kind": "greedy", "longest": 10},
}


def write_study(folder: Path, corpus: Path, **page: Any) -> Path:
    """A study's page with its recipe beside it: by default of two rows and one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {**RECIPE, "data": {"kind": "arrays", "root": str(corpus)}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    default = {"recipe": "tiny.yaml", "rows": {"wide": {"changes": {"speller.width": 24}}}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**default, **page}, sort_keys=False), encoding="utf-8")
    return path


def planned_in(page: Path, folder: StudyFolder, *overrides: str) -> Planned:
    """The plan of a study, its corpora unread."""
    return plan_study(read_study(page, overrides), folder, check=lambda recipes: None)


class Seen:
    """What a watcher was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.states: list[tuple[str, str]] = []

    def changed(self, outcome: Any) -> None:
        self.states.append((outcome.name, outcome.state))

    def message(self, text: str) -> None:
        self.messages.append(text)

    def tick(self, runner: Runner) -> None:
        pass


class FakePlace:
    """Runs whose processes are functions: each is called when its run is looked at.

    `acts` maps a run's name to what happens at each of its starts, the last one repeated.
    """

    def __init__(self, acts: dict[str, list[Any]], usual: Any, lanes: int = 1) -> None:
        self.acts, self.usual, self.lanes = acts, usual, lanes
        self.jobs: list[Job] = []
        self.open: list[FakeHandle] = []
        self.most = 0  # side by side

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def room(self) -> int:
        return self.lanes - sum(not handle.done for handle in self.open)

    def submit(self, job: Job) -> "FakeHandle":
        starts = sum(earlier.name == job.name for earlier in self.jobs)
        acts = self.acts.get(job.name, [self.usual])
        self.jobs.append(job)
        handle = FakeHandle(job, acts[min(starts, len(acts) - 1)])
        self.open.append(handle)
        self.most = max(self.most, sum(not each.done for each in self.open))
        return handle


class FakeHandle:
    def __init__(self, job: Job, act: Any) -> None:
        self.job, self.act, self.done = job, act, False

    def poll(self) -> Ended:
        self.done = True
        found = self.act(self.job)
        assert isinstance(found, Ended)
        return found

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass
