"""A study's folder: what is planned, how far each run is, and what it came to.

All files are written whole or not at all; whoever reads them may do so while the study runs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from spelldown.errors import StudyError
from spelldown.search.metrics import Counts, Scores, Utterance
from spelldown.training.run.run_folder import RunFolder, plain
from spelldown.writing import write_whole

STUDIES = Path("studies")
State = Literal["waiting", "running", "finished", "stopped", "failed"]
"""How far a run is.

    waiting   not begun, or interrupted: `reason` says after how many epochs
    running   a process trains or scores it; or it was killed together with the study
    finished  trained as its recipe says, or until the study's budget was used up, and scored
    stopped   ended by the study's own rule (attention would not align), and scored
    failed    `reason` says why: a crash, a kill, memory or disk at an end, values not finite, a
              lost machine. What there was of it may be scored all the same
"""
OVER: frozenset[State] = frozenset({"finished", "stopped"})
"""States of runs that are never repeated."""


@dataclass(frozen=True)
class Outcome:
    """What a run's outcome.json holds.

    name:       of its folder in rows/
    seed:       of its recipe
    identity:   hash of its resolved recipe, the name left out, and of the study's limits
    state:      see `State`; `reason` says in a sentence why, where there is something to say
    starts:     processes that have worked on it
    began, ended: first start and last end, as ISO 8601 in UTC
    seconds:    wall time over all starts, scoring included; of those that were killed, what their
                epochs say
    epochs, updates: whole ones, that were trained
    best_epoch: whose weights are kept and were scored
    weights:    numbers that the model learns
    peak_mib, gpu_peak_mib: most memory that its process held, and its tensors on the GPU
    utterances_per_second: while training, mean of its epochs
    alignment:  the last verdict on attention (`aligned`, `aligning`, `not aligning`), with
                `aligned_epoch`, the first epoch at which it was found aligned
    scores:     by part ("dev", "test" or a part's own name): utterances, distance, cer, wer and
                unended; or {"missing": why}, for a part without transcripts, say
    repairs:    remedies that it has begun anew with, since attention would not align
    machine:    where it ran last
    """

    name: str
    seed: int
    identity: str
    state: State = "waiting"
    reason: str = ""
    starts: int = 0
    began: str | None = None
    ended: str | None = None
    seconds: float = 0.0
    epochs: int = 0
    updates: int = 0
    best_epoch: int | None = None
    weights: int | None = None
    peak_mib: float | None = None
    gpu_peak_mib: float | None = None
    utterances_per_second: float | None = None
    alignment: str | None = None
    aligned_epoch: int | None = None
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repairs: Sequence[str] = ()
    machine: str | None = None

    @property
    def over(self) -> bool:
        """Whether it is never to be repeated."""
        return self.state in OVER

    def now(self, state: State, reason: str = "", **others: Any) -> "Outcome":
        """The outcome after something happened; `reason` goes with the state."""
        return replace(self, state=state, reason=reason, **others)


@dataclass(frozen=True)
class Row:
    """A row of a study's table.

    name, remark:  as the study names it; rows of axes are named for their values
    changes:       the difference from the base: path in the recipe -> [there, here], as JSON holds
                   them; None where a side has no such path
    values:        of each axis by its name, for rows that came of axes: the label of the value
    published:     figures that others gave for this row (`distance: 20.68`), with their remark
    setup:         its recipe in the words of the seed's table (columns.COLUMNS)
    runs:          seed -> name of the run's folder in rows/
    """

    name: str
    remark: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a study's plan.json holds: its rows, in their order.

    base:       name of the row that the others are compared with; None if no row is the base
    parts:      on which every run is scored
    identities: of each run, by its name
    minutes:    that each run may train; None for no limit
    typed:      changes that were laid over the study's page on the command line, `key=value`
    """

    name: str
    rows: tuple[Row, ...]
    base: str | None
    parts: tuple[str, ...]
    identities: Mapping[str, str]
    title: str = ""
    minutes: float | None = None
    typed: tuple[str, ...] = ()

    @property
    def runs(self) -> dict[str, int]:
        """Every run once, with its seed, in the order of the rows."""
        return {run: seed for row in self.rows for seed, run in row.runs.items()}


class StudyFolder:
    """The places in a study's folder, and its files."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.settings = self.path / "study.yaml"
        self.plan = self.path / "plan.json"
        self.log = self.path / "study.log"
        self.trials = self.path / "trials.log"
        self.rows = self.path / "rows"
        self.lock = self.path / ".lock"

    def __str__(self) -> str:
        return str(self.path)

    def run(self, name: str) -> RunFolder:
        """The folder of a run, which may not be there yet."""
        return RunFolder(self.rows / name)

    def output(self, name: str) -> Path:
        """What a run printed."""
        return self.rows / name / "output.log"

    def read_plan(self) -> Plan:
        """The plan. Raises StudyError if there is no study in the folder."""
        try:
            found = json.loads(self.plan.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise StudyError(f"{self.path} holds no study: there is no {self.plan}") from None
        rows = []
        for row in found.pop("rows"):
            runs = {int(seed): run for seed, run in row.pop("runs").items()}
            rows.append(Row(**row, runs=runs))
        parts = tuple(found.pop("parts"))
        typed = tuple(found.pop("typed", ()))
        return Plan(rows=tuple(rows), parts=parts, typed=typed, **found)

    def write_plan(self, plan: Plan) -> None:
        """Writes plan.json."""
        write_whole(self.plan, json.dumps(asdict(plan), indent=1, ensure_ascii=False) + "\n")

    def read_outcome(self, name: str) -> Outcome | None:
        """How far a run is; None before anything is known of it."""
        return read_outcome(self.rows / name)

    def known(self) -> dict[str, Outcome]:
        """Every run in rows/ that has an outcome, by name, whether the plan has it or not."""
        places = sorted(self.rows.glob("*/outcome.json"))
        found = ((place.parent.name, read_outcome(place.parent)) for place in places)
        return {name: outcome for name, outcome in found if outcome is not None}


def read_outcome(run: Path) -> Outcome | None:
    """The outcome of the run in a folder; None if there is none."""
    try:
        found = json.loads((run / "outcome.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    names = {each.name for each in fields(Outcome)}
    return Outcome(**{key: value for key, value in found.items() if key in names})


def write_outcome(run: Path, outcome: Outcome) -> None:
    """Writes a run's outcome.json."""
    text = json.dumps(plain(asdict(outcome)), indent=1, ensure_ascii=False)
    write_whole(run / "outcome.json", text + "\n")


def write_scores(run: Path, scores: Mapping[str, Scores]) -> None:
    """Writes a run's scores.json: {part: [{id, reference, hypothesis, distance, characters, words},
    ...]}, with edits of characters and words as [insertions, deletions, substitutions, hits]."""
    found = {part: [_as_plain(one) for one in each.each] for part, each in scores.items()}
    write_whole(run / "scores.json", json.dumps(found, ensure_ascii=False) + "\n")


def read_scores(run: Path) -> dict[str, Scores]:
    """Every utterance that a run was scored on, by part; empty if it was not scored."""
    try:
        found = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return {part: Scores(tuple(map(_utterance, each))) for part, each in found.items()}


def _as_plain(one: Utterance) -> dict[str, Any]:
    edits = {name: [*asdict(getattr(one, name)).values()] for name in ("characters", "words")}
    return {"id": one.id, "reference": one.reference, "hypothesis": one.hypothesis,
            "distance": one.distance, **edits}  # fmt: skip


def _utterance(found: Mapping[str, Any]) -> Utterance:
    edits = {name: Counts(*found[name]) for name in ("characters", "words")}
    return Utterance(**{**found, **edits})


def folder_name(text: str) -> str:
    """A row's name as a folder can have it."""
    return re.sub(r"[^A-Za-z0-9._=+,-]+", "_", text).strip("_.") or "row"


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment() -> str:
    """Now, in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
