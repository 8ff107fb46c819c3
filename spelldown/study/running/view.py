"""How a study goes, in the terminal: its rows, their state, and the time left.

On a terminal a table that is kept up to date; anywhere else a line when something happens.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spelldown.study.folder import Outcome, Row, StudyFolder, counted
from spelldown.training.run.tracking import duration

if TYPE_CHECKING:
    from spelldown.study.running.runner import Runner

COLOURS = {"running": "bold", "finished": "green", "stopped": "yellow", "failed": "red"}
SHOWN = 24  # runs in the live table; the rest are counted
LOOK = 2.0  # seconds between looks at a run's metrics


@dataclass
class Going:
    """What the last lines of a run's metrics.jsonl say, read again only when they have changed."""

    path: Path
    size: int = -1
    records: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> list[dict[str, Any]]:
        with suppress(OSError):
            size = self.path.stat().st_size
            if size != self.size:
                lines = self.path.read_text(encoding="utf-8").splitlines()
                self.size, self.records = size, list(_parsed(lines))
        return self.records


def _parsed(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


class View:
    """Watches a study and shows it."""

    def __init__(
        self,
        folder: StudyFolder,
        out: Console,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.out, self.now = folder, out, now
        self.going: dict[str, Going] = {}
        self.states: dict[str, str] = {}
        self.runner: Runner | None = None
        self.looked = -LOOK
        self.live = Live(get_renderable=self.render, console=out, auto_refresh=False)

    def __enter__(self) -> Self:
        if self.out.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self.out.is_terminal:
            # Of a study that is over the table of figures comes next, which says more.
            self.live.transient = self.runner is not None and not self.runner.missing()
            self.live.refresh()
            self.live.stop()

    def message(self, text: str) -> None:
        """One line that stays, and is put into the study's log."""
        self.out.print(text)
        with suppress(OSError):  # a full disk stops nothing
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with self.folder.log.open("a", encoding="utf-8") as file:
                file.write(f"{stamp}  {text}\n")

    def changed(self, outcome: Outcome) -> None:
        if self.states.get(outcome.name) == outcome.state == "running":
            return
        self.states[outcome.name] = outcome.state
        self.message(told(outcome))

    def tick(self, runner: "Runner") -> None:
        self.runner = runner
        if self.out.is_terminal and self.now() - self.looked >= LOOK:
            self.looked = self.now()
            self.live.refresh()

    def render(self) -> RenderableType:
        """The rows with their runs, and how long it takes yet."""
        runner = self.runner
        if runner is None:
            return Text("")
        plan, outcomes = runner.planned.plan, runner.outcomes
        first: dict[str, tuple[Row, int, Outcome]] = {}  # rows that share a run show it once
        wanted = runner.wanted()
        for row in plan.rows:
            for seed, run in row.runs.items():
                if run in outcomes and run in wanted:
                    first.setdefault(run, (row, seed, outcomes[run]))
        lines = list(first.values())
        shown = [line for line in lines if not line[2].over] or lines
        table = Table(box=None, padding=(0, 1), header_style="bold", expand=True)
        for name in ("row", "seed", "state", "epoch", "distance", "attention", "left"):
            table.add_column(name, no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1, min_width=10)
        for row, seed, outcome in shown[:SHOWN]:
            table.add_row(*self._cells(row, seed, outcome), style=COLOURS.get(outcome.state))
        return Group(table, Text(self.summary(runner, max(len(shown) - SHOWN, 0))))

    def summary(self, runner: "Runner", hidden: int = 0) -> str:
        """`5 of 12 runs over, 1 failed, 2 running; about 3 h left`."""
        outcomes = [runner.outcomes[name] for name in runner.planned.plan.runs]
        over = sum(outcome.over for outcome in outcomes)
        counts = {s: sum(o.state == s for o in outcomes) for s in ("failed", "running")}
        told = [f"{over} of {counted(len(outcomes) + runner.to_come(), 'run')} over"]
        told += [f"{count} {state}" for state, count in counts.items() if count]
        left = self.left(runner)
        text = ", ".join(told) + ("" if left is None else f"; about {duration(left)} left")
        return text + (f" ({hidden} more runs not shown)" if hidden else "")

    def left(self, runner: "Runner") -> float | None:
        """Seconds until all that is missing is done; None if nothing is, or nobody can tell."""
        missing = [name for name in runner.asked() if runner.outcomes[name].state != "failed"]
        to_come = runner.to_come()
        each = {name: self._takes(runner, name) for name in runner.planned.plan.runs}
        known = [takes for takes in each.values() if takes is not None]
        if not (missing or to_come) or not known:
            return None
        mean = sum(known) / len(known)
        total = to_come * mean
        for name in missing:
            done = self._spent(name)
            total += max((each[name] or mean) - done, 0.0)
        under_way = [self.folder.read_outcome(name) for name in runner.running]  # or in a queue
        return total / max(sum(run is not None and run.state == "running" for run in under_way), 1)

    def _takes(self, runner: "Runner", name: str) -> float | None:
        """Seconds of a whole run: as it was, or as its epochs so far promise."""
        outcome = runner.outcomes[name]
        if outcome.over:
            return outcome.seconds
        records = self._records(name)
        if not records or name not in runner.planned.recipes:
            return None
        each = sum(record["seconds"] for record in records) / len(records)
        whole = float(each) * runner.planned.recipes[name].training.epochs
        minutes = runner.planned.plan.minutes
        return whole if minutes is None else min(whole, 60 * minutes)

    def _spent(self, name: str) -> float:
        return float(sum(record["seconds"] for record in self._records(name)))

    def _records(self, name: str) -> list[dict[str, Any]]:
        going = self.going.setdefault(name, Going(self.folder.run(name).metrics))
        return going.read()

    def _cells(self, row: Row, seed: int, outcome: Outcome) -> tuple[str, ...]:
        records = self._records(outcome.name)
        last: Mapping[str, Any] = records[-1] if records else {}
        distance = last.get("dev", {}).get("distance")
        assert self.runner is not None
        recipe = self.runner.planned.recipes.get(outcome.name)
        epochs = None if recipe is None else recipe.training.epochs
        takes = self._takes(self.runner, outcome.name)
        left = None if takes is None or outcome.over else max(takes - self._spent(outcome.name), 0)
        scoring = outcome.state == "running" and epochs is not None and last.get("epoch") == epochs
        return (
            row.name,
            str(seed),
            outcome.state,
            f"{last.get('epoch', 0)} of {epochs}" if epochs else str(last.get("epoch", "")),
            "" if distance is None else f"{distance:.2f}",
            str(last.get("alignment", {}).get("verdict", "")),
            "" if left is None else "scoring" if scoring else duration(left),
            outcome.reason.replace("\n", " "),
        )


def told(outcome: Outcome) -> str:
    """What has become of a run, in a line."""
    if outcome.state == "running":
        return f"{outcome.name}: begun" if not outcome.starts else f"{outcome.name}: goes on"
    parts = [f"{outcome.name}: {outcome.state}"]
    if outcome.over:
        parts.append(f"after {counted(outcome.epochs, 'epoch')} in {duration(outcome.seconds)}")
        for part, figures in outcome.scores.items():
            if "cer" in figures:
                parts.append(f"{part} CER {figures['cer']:.1%}, WER {figures['wer']:.1%}")
    text = ", ".join(parts)
    return f"{text}: {outcome.reason}" if outcome.reason else text


def show_table(out: Console, folder: StudyFolder) -> None:
    """What the rows of a study came to, in short: means over seeds."""
    plan, known = folder.read_plan(), folder.known()
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("row")
    for name in ("runs", "aligned", *(f"{p} {m}" for p in plan.parts for m in ("CER", "WER"))):
        table.add_column(name, justify="right", no_wrap=True)
    for row in plan.rows:
        runs = [known[run] for run in row.runs.values() if run in known]
        over = [run for run in runs if run.over]
        aligned = sum(run.aligned_epoch is not None for run in over)
        cells = [f"{len(over)} of {len(row.runs)}", f"{aligned} of {len(over)}"]
        for part in plan.parts:
            figures = [run.scores[part] for run in over if "cer" in run.scores.get(part, {})]
            for measure in ("cer", "wer"):
                values = [figure[measure] for figure in figures]
                cells.append(f"{sum(values) / len(values):.1%}" if values else "-")
        table.add_row(row.name, *cells, style="bold" if row.name == plan.base else None)
    out.print(table)
