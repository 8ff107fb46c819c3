"""What a run tells while it trains: a live display on a terminal, plain lines anywhere else.

The numbers themselves go to metrics.jsonl (`RunFolder.append_metrics`); a tracker only shows them.
Trackers that keep them elsewhere too are in `trackers/`.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

SHOWN = 8  # validations in the live table
QUIET_SECONDS = 30.0  # between two plain lines within an epoch


def duration(seconds: float | None) -> str:
    """`42 s`, `7 min`, `3 h 20 min`, `2 d 5 h`; `?` for None."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@dataclass
class Clock:
    """Where a run stands in time, judged by what it has taken so far.

    An epoch's remainder is reckoned from the batches done in it since the start or the resumption;
    batches hold about as many frames each, since buckets fill a frame budget. The run's remainder
    is reckoned from the mean of the last whole epochs with their validations: the longest it can
    take, for it may stop early.
    """

    epochs: int
    epoch: int = 0
    batches: int = 0
    done: int = 0
    utterances: int = 0
    before: int = 0  # batches of the epoch that an earlier process did
    now: Callable[[], float] = time.monotonic
    began: float = 0.0
    whole: deque[float] = field(default_factory=lambda: deque(maxlen=3))

    def epoch_begins(self, epoch: int, batches: int, done: int) -> None:
        self.epoch, self.batches, self.done, self.before = epoch, batches, done, done
        self.utterances, self.began = 0, self.now()

    def updated(self, done: int, utterances: int) -> None:
        self.done, self.utterances = done, self.utterances + utterances

    def epoch_ends(self) -> None:
        if self.before == 0:
            self.whole.append(self.now() - self.began)

    @property
    def utterances_per_second(self) -> float | None:
        spent = self.now() - self.began
        return self.utterances / spent if self.utterances and spent > 0 else None

    @property
    def epoch_left(self) -> float | None:
        """Seconds of training left in the epoch, or None before its first update."""
        fresh = self.done - self.before
        if fresh <= 0:
            return None
        return (self.now() - self.began) / fresh * (self.batches - self.done)

    @property
    def run_left(self) -> float | None:
        """Seconds left if the run goes to its last epoch, or None while that is a guess."""
        later = self.epochs - self.epoch
        if self.whole:
            each = sum(self.whole) / len(self.whole)
            share = 1 - self.done / self.batches if self.batches else 0.0
            return each * (later + share)
        if self.epoch_left is None or self.before:
            return None
        return self.epoch_left + later * (self.now() - self.began + self.epoch_left)


class Tracker(ABC):
    """Shows how a run goes. Used as a context: what it shows ends with it."""

    @abstractmethod
    def message(self, text: str) -> None:
        """One line that stays."""

    @abstractmethod
    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        """An epoch begins, or is resumed when `done` batches are done already."""

    @abstractmethod
    def updated(self, done: int, utterances: int, loss: float) -> None:
        """`done` batches of the epoch are done, `utterances` in this update."""

    @abstractmethod
    def validating(self) -> None:
        """The epoch's training is done; validation begins."""

    @abstractmethod
    def validated(self, record: Mapping[str, Any]) -> None:
        """An epoch is over; its line for metrics.jsonl."""

    def pictured(self, epoch: int, paths: Sequence[Path]) -> None:  # noqa: B027 (few show them)
        """Pictures of attention have been drawn after an epoch."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:  # noqa: B027 (nothing to close by default)
        pass


class Silent(Tracker):
    """Shows nothing."""

    def message(self, text: str) -> None:
        pass

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        pass

    def updated(self, done: int, utterances: int, loss: float) -> None:
        pass

    def validating(self) -> None:
        pass

    def validated(self, record: Mapping[str, Any]) -> None:
        pass


class PlainLines(Tracker):
    """A line an epoch, and one now and then within a long one: for files and pipes."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self.write = write or (lambda text: print(text, flush=True))
        self.clock = Clock(0)
        self.spoke = 0.0

    def message(self, text: str) -> None:
        self.write(text)

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.clock.epochs = epochs
        self.clock.epoch_begins(epoch, batches, done)
        self.spoke = self.clock.now()

    def updated(self, done: int, utterances: int, loss: float) -> None:
        self.clock.updated(done, utterances)
        if self.clock.now() - self.spoke >= QUIET_SECONDS:
            self.spoke = self.clock.now()
            clock = self.clock
            self.write(
                f"epoch {clock.epoch}/{clock.epochs}  {done}/{clock.batches} batches  "
                f"loss {loss:.3f}  {clock.utterances_per_second or 0:.1f} utterances/s  "
                f"{duration(clock.epoch_left)} left in the epoch, "
                f"at most {duration(clock.run_left)} in the run"
            )

    def validating(self) -> None:
        pass

    def validated(self, record: Mapping[str, Any]) -> None:
        self.clock.epoch_ends()
        self.clock.done = self.clock.batches
        cells = [f"{name} {value}" for name, value in summary(record).items() if value]
        left = duration(self.clock.run_left) if self.clock.run_left else None
        self.write("  ".join(cells) + (f"  (at most {left} left)" if left else ""))


class LiveDisplay(Tracker):
    """A progress bar with the time left, over a table of the last validations, on a terminal."""

    def __init__(self, console: Console) -> None:
        self.clock = Clock(0)
        self.rows: deque[dict[str, str]] = deque(maxlen=SHOWN)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
        )
        self.task = self.progress.add_task("", total=1, told="")
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.live.stop()

    def render(self) -> RenderableType:
        if not self.rows:
            return self.progress
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for name in self.rows[-1]:
            table.add_column(name, justify="right")
        for row in (row for row in self.rows if row.keys() == self.rows[-1].keys()):
            table.add_row(*row.values(), style="bold green" if row["best"] else None)
        return Group(table, self.progress)

    def message(self, text: str) -> None:
        self.live.console.print(text, highlight=False, markup=False)

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.clock.epochs = epochs
        self.clock.epoch_begins(epoch, batches, done)
        self.progress.update(
            self.task, description=f"epoch {epoch}/{epochs}", total=batches, completed=done, told=""
        )

    def updated(self, done: int, utterances: int, loss: float) -> None:
        clock = self.clock
        clock.updated(done, utterances)
        told = (
            f"loss {loss:.3f}  {clock.utterances_per_second or 0:.1f} utt/s  "
            f"{duration(clock.epoch_left)} left, run at most {duration(clock.run_left)}"
        )
        self.progress.update(self.task, completed=done, told=told)

    def validating(self) -> None:
        self.progress.update(self.task, told="validating")

    def validated(self, record: Mapping[str, Any]) -> None:
        self.clock.epoch_ends()
        self.rows.append(summary(record))


def tracker_for(console: Console | None = None) -> Tracker:
    """A live display if the output is a terminal, else plain lines."""
    console = console or Console()
    return LiveDisplay(console) if console.is_terminal else PlainLines()


def summary(record: Mapping[str, Any]) -> dict[str, str]:
    """An epoch's line in few words, by heading."""
    train, dev = record["train"], record["dev"]
    return {
        "epoch": str(record["epoch"]),
        "loss": _number(train["loss"], ".3f"),
        "dev loss": _number(dev["loss"], ".3f"),
        **(_of_reading(record) if "perplexity" in dev else _of_spelling(record)),
        "took": duration(record["seconds"]),
        "best": "yes" if record["best"] else "",
    }


def _of_spelling(record: Mapping[str, Any]) -> dict[str, str]:
    dev = record["dev"]
    return {
        "distance": _number(dev["distance"], ".2f"),
        "CER": _number(dev["cer"], ".1%"),
        "WER": _number(dev["wer"], ".1%"),
        "attention": str(record["alignment"]["verdict"]),
        "rate": _number(record["rate"], ".1e"),
        "forced": _number(record["teacher_forcing"], ".2f"),
    }


def _of_reading(record: Mapping[str, Any]) -> dict[str, str]:
    """Of a model that only reads: a language model, or the speller before it listens."""
    return {
        "perplexity": _number(record["dev"]["perplexity"], ".3f"),
        "rate": _number(record["rate"], ".1e"),
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
