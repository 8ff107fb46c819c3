"""What is known of a study, or of any runs side by side: their folders as they are now."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from spelldown.errors import StudyError
from spelldown.search.metrics import Scores
from spelldown.study.folder import (
    STUDIES,
    Outcome,
    Plan,
    Row,
    StudyFolder,
    read_outcome,
    read_scores,
)
from spelldown.training.run.run_folder import RunFolder
from spelldown.writing import is_held

Record = Mapping[str, Any]
"""An epoch's line of metrics.jsonl."""
FRESH_SECONDS, FRESH_EPOCHS = 120.0, 3.0
"""An ordinary run has written something since: else nobody trains it any more."""


@dataclass(frozen=True)
class Found:
    """One run: how far it is, its resolved recipe (empty before it has begun), its epochs, and the
    utterances it was scored on, by part.

    outgrown: how often something did not fit into memory and was split
    repairs:  names of the remedies that it was begun anew with, since attention did not align
    """

    folder: RunFolder
    outcome: Outcome
    recipe: Mapping[str, Any]
    records: Sequence[Record]
    scores: Mapping[str, Scores]
    outgrown: int = 0
    repairs: Sequence[str] = ()

    @property
    def seed(self) -> int:
        return self.outcome.seed

    @cached_property
    def best(self) -> Record | None:
        """The epoch whose weights are kept."""
        return next((one for one in reversed(self.records) if one.get("best")), None)

    @property
    def planned(self) -> int | None:
        """Epochs that its recipe asks for."""
        epochs = self.recipe.get("training", {}).get("epochs")
        return None if epochs is None else int(epochs)

    @property
    def seconds(self) -> float:
        """Wall time so far; of a run that goes on, what its epochs took."""
        return float(self.outcome.seconds or sum(one["seconds"] for one in self.records))

    @property
    def peak_mib(self) -> float | None:
        """Most memory held: on the GPU if there is one, else by the process."""
        memory = [one.get("memory", {}) for one in self.records]
        for key in ("gpu_peak_mib", "peak_mib"):
            known = [getattr(self.outcome, key), *(one.get(key) for one in memory)]
            if figures := [figure for figure in known if figure]:
                return float(max(figures))
        return None

    @property
    def utterances_per_second(self) -> float | None:
        """Speed of training, mean over the epochs."""
        if self.outcome.utterances_per_second is not None or not self.records:
            return self.outcome.utterances_per_second
        speeds = [one["train"]["utterances_per_second"] for one in self.records]
        return float(sum(speeds) / len(speeds))

    @property
    def alignment(self) -> str | None:
        """The last verdict on attention."""
        if self.records:
            return str(self.records[-1]["alignment"]["verdict"])
        return self.outcome.alignment

    @property
    def aligned_epoch(self) -> int | None:
        """The first epoch at which attention was found aligned."""
        seen = (one["epoch"] for one in self.records if one["alignment"]["verdict"] == "aligned")
        return next(seen, self.outcome.aligned_epoch)


@dataclass(frozen=True)
class Findings:
    """A study as it stands: its plan, and what was found of every run that has begun or is over.

    study: whether it is one; else they are ordinary runs, put side by side
    """

    folder: Path
    plan: Plan
    runs: Mapping[str, Found]
    study: bool

    def of(self, row: Row) -> list[Found]:
        """A row's runs, in the order of their seeds; none that nothing is known of."""
        names = [row.runs[seed] for seed in sorted(row.runs)]
        return [self.runs[name] for name in names if name in self.runs]

    @property
    def states(self) -> dict[str, int]:
        """How many runs of the plan are in each state."""
        counts: dict[str, int] = {}
        for name in self.plan.runs:
            state = self.runs[name].outcome.state if name in self.runs else "waiting"
            counts[state] = counts.get(state, 0) + 1
        return counts

    @property
    def going_on(self) -> bool:
        """Whether anything may change by itself, as it is now: somebody runs the study, or has
        written something of an ordinary run of late."""
        if not self.study:
            return any(_is_fresh(run.folder, run.recipe, run.records) for run in self.runs.values())
        held = is_held(StudyFolder(self.folder).lock)
        if held is None:
            return any(self.states.get(state) for state in ("running", "waiting"))
        return held


def find(path: Path) -> Findings:
    """What the folder of a study holds, or a folder of ordinary runs, or a single run.

    Raises StudyError if there is none of these.
    """
    folder = StudyFolder(path)
    if folder.plan.is_file():
        plan = folder.read_plan()
        places = {name: folder.run(name) for name in plan.runs}
        there = {name: place for name, place in places.items() if place.path.is_dir()}
        found = {name: _found(name, place) for name, place in there.items()}
        if is_held(folder.lock) is False:
            found = {name: _left(run) for name, run in found.items()}
        return Findings(path, plan, found, True)
    if (path / "recipe.yaml").is_file():
        places = {path.name: RunFolder(path)}
    else:
        recipes = sorted(path.glob("*/recipe.yaml"))
        places = {recipe.parent.name: RunFolder(recipe.parent) for recipe in recipes}
    if not places:
        raise StudyError(_nothing_at(path))
    found = {name: _found(name, place) for name, place in places.items()}
    # A language model's run has neither a listener nor attention.
    runs = {name: run for name, run in found.items() if "listener" in run.recipe}
    if not runs:
        raise StudyError(_nothing_at(path))
    return Findings(path, _side_by_side(path, runs), runs, False)


def _nothing_at(path: Path) -> str:
    """What is wrong with a path at which there is no study, and which would be right."""
    if path.is_file():
        return (
            f"{path} is a page: a report is made of what its runs left in a folder, which is "
            f"{STUDIES / path.stem} unless it was told otherwise"
        )
    studies = ", ".join(sorted(plan.parent.name for plan in STUDIES.glob("*/plan.json"))[:10])
    there = f"; studies in {STUDIES}: {studies}" if studies else ""
    if not path.is_dir():
        return f"there is no folder {path}{there}"
    return (
        f"{path} holds neither a study (a plan.json) nor runs (folders with a recipe.yaml){there}. "
        "`spelldown study FILE` makes a study"
    )


def _found(name: str, folder: RunFolder) -> Found:
    recipe: Any = {}
    with suppress(OSError, yaml.YAMLError):
        recipe = yaml.load(folder.recipe.read_text(encoding="utf-8"), Loader=_LOADER)
    recipe = recipe if isinstance(recipe, dict) else {}
    records = folder.read_metrics()
    outcome = read_outcome(folder.path) or _ordinary(name, folder, recipe, records)
    outgrown, repairs = _lines(folder.memory), _lines(folder.repairs)
    remedies = [str(one["remedy"]) for one in repairs if "remedy" in one]
    return Found(
        folder, outcome, recipe, records, read_scores(folder.path), len(outgrown), remedies
    )


def _left(run: Found) -> Found:
    """A run of a study that nobody runs: what was begun has been killed together with it."""
    if run.outcome.state != "running":
        return run
    reason = f"interrupted after {len(run.records)} of {run.planned} epochs"
    return replace(run, outcome=run.outcome.now("waiting", reason))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines, those written to their ends; none if it is not there."""
    found = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _ordinary(
    name: str, folder: RunFolder, recipe: Mapping[str, Any], records: Sequence[Record]
) -> Outcome:
    """How far a run is that no study keeps a record of."""
    outcome = Outcome(name=name, seed=int(recipe.get("seed", 0)), identity="")
    kept: dict[str, Any] = {"epochs": len(records)}
    if records:
        best = [one["epoch"] for one in records if one.get("best")]
        kept |= {"updates": records[-1]["updates"], "best_epoch": best[-1] if best else None}
    if _is_fresh(folder, recipe, records):
        return outcome.now("running", **kept)
    return outcome.now("finished" if records else "waiting", **kept)


def _is_fresh(folder: RunFolder, recipe: Mapping[str, Any], records: Sequence[Record]) -> bool:
    """Whether an ordinary run is likely to be trained now."""
    if len(records) == recipe.get("training", {}).get("epochs"):
        return False
    place = folder.metrics if records else folder.recipe
    each = records[-1]["seconds"] if records else 0.0
    try:
        quiet = time.time() - place.stat().st_mtime
    except OSError:
        return False
    return bool(quiet < FRESH_SECONDS + FRESH_EPOCHS * each)


def _side_by_side(path: Path, runs: Mapping[str, Found]) -> Plan:
    """A plan for ordinary runs: those whose recipes differ in the seed alone are one row."""
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        alike = {k: v for k, v in run.recipe.items() if k not in ("name", "seed")}
        groups.setdefault(json.dumps(alike, sort_keys=True, default=str), []).append(name)
    rows = []
    for names in groups.values():
        found: dict[int, str] = {}
        for name in names:
            seed = runs[name].seed
            while seed in found:  # the same run twice counts as two
                seed += 1
            found[seed] = name
        label = names[0] if len(names) == 1 else _shared_name(names)
        rows.append(Row(name=label, runs=found))
    identities = {name: hashlib.sha256(name.encode()).hexdigest() for name in runs}
    name = path.resolve().name
    return Plan(name, tuple(rows), None, ("dev",), identities, title=f"Runs in {name}")


def _shared_name(names: Sequence[str]) -> str:
    """What the names of several runs begin with: `an4-seed` for an4-seed1 and an4-seed2."""
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    return shared.rstrip("-_. ") or names[0]
