"""A tracker outside the run, which can neither end the run nor hold it up.

Each notebook is kept by a thread of its own, to which the run hands what it has to tell and goes
on: a server that is slow costs no training time, and whatever fails becomes one line in the log.
All numbers are in metrics.jsonl in any case.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spelldown.training.run.trackers.notebook import EPOCH_PARTS, About, Notebook, numbers_of
from spelldown.training.run.tracking import Tracker

WITHIN_SECONDS = 10.0  # between two losses within an epoch
FAILURES = 5  # in a row, after which a notebook is left out
OPENING_SECONDS = 15.0  # that a run waits for its notebooks to be ready, so that it can say early
# what is wrong with them, and their modules are not loaded while batches are timed
CLOSING_SECONDS = 60.0  # that the end of a run waits for what is not yet written
PATIENCE = 3.0  # of them that pass without a word
LONGEST = 200  # letters of what is said of a failure

Task = Callable[[], None]


class Outside(Tracker):
    """Hands what a run tells to a notebook, by a thread.

    tell: where to say that the notebook fails; called by the run's own thread
    """

    def __init__(self, notebook: Notebook, about: About, tell: Callable[[str], None]) -> None:
        self.notebook, self.about, self.tell = notebook, about, tell
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=self._work, name=f"spelldown-{notebook.kind}", daemon=True
        )
        self.ready = threading.Event()
        self.epoch, self.batches = 1, 1
        self.loss, self.utterances, self.spoke = 0.0, 0, time.monotonic()

    def __enter__(self) -> "Outside":
        self.tasks.put(lambda: self.notebook.open(self.about))
        self.thread.start()
        self.ready.wait(OPENING_SECONDS)
        self._pass_on()
        return self

    def __exit__(self, *problem: object) -> None:
        healthy = problem[0] is None
        self.tasks.put(lambda: self.notebook.close(healthy))
        self.tasks.put(None)
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            self.tell(f"waiting for {self.notebook.kind}, at most {CLOSING_SECONDS:.0f} s")
            self.thread.join(CLOSING_SECONDS - PATIENCE)
        self._pass_on()
        if self.thread.is_alive():
            self.tell(f"{self.notebook.kind} is not done yet and is left as it is")

    def message(self, text: str) -> None:
        self._pass_on()

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.epoch, self.batches = epoch, max(batches, 1)
        self.loss, self.utterances, self.spoke = 0.0, 0, time.monotonic()

    def updated(self, done: int, utterances: int, loss: float) -> None:
        self.loss, self.utterances = self.loss + loss * utterances, self.utterances + utterances
        if time.monotonic() - self.spoke < WITHIN_SECONDS:
            return
        position = round(EPOCH_PARTS * (self.epoch - 1 + done / self.batches))
        mean = self.loss / max(self.utterances, 1)
        self.tasks.put(lambda: self.notebook.within(position, mean))
        self.loss, self.utterances, self.spoke = 0.0, 0, time.monotonic()
        self._pass_on()

    def validating(self) -> None:
        pass

    def validated(self, record: Mapping[str, Any]) -> None:
        numbers = dict(numbers_of(record))
        alignment = record.get("alignment") or {}
        facts = {"attention": str(alignment["verdict"])} if alignment.get("verdict") else {}
        if alignment.get("reason"):
            facts["attention because"] = str(alignment["reason"])
        self.tasks.put(lambda: self.notebook.epoch(int(record["epoch"]), numbers, facts))
        self._pass_on()

    def pictured(self, epoch: int, paths: Sequence[Path]) -> None:
        self.tasks.put(lambda: self.notebook.pictures(epoch, list(paths)))

    def _pass_on(self) -> None:
        while not self.news.empty():
            self.tell(self.news.get())

    def _work(self) -> None:
        """Does the tasks in turn; those after too many failures are let go."""
        failed, opened = 0, False
        while (task := self.tasks.get()) is not None:
            if failed >= FAILURES:
                continue
            try:
                task()
                failed, opened = 0, True
            except Exception as error:
                failed = failed + 1 if opened else FAILURES
                self._tell_failure(error, failed)
            self.ready.set()

    def _tell_failure(self, error: Exception, failed: int) -> None:
        left_out = "; it is left out from here on, the run goes on without it"
        if failed in (1, FAILURES):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            first = lines[0] if len(lines[0]) <= LONGEST else lines[0][:LONGEST] + "..."
            lost = left_out if failed >= FAILURES else "; the run goes on"
            self.news.put(f"{self.notebook.kind} failed ({first}){lost}")


class Together(Tracker):
    """Several trackers as one; the first is the display."""

    def __init__(self, display: Tracker, others: Sequence[Tracker]) -> None:
        self.all: tuple[Tracker, ...] = (display, *others)

    def __enter__(self) -> "Together":
        for tracker in self.all:
            tracker.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        for tracker in reversed(self.all):  # the display last: others tell by it how they ended
            tracker.__exit__(*problem)

    def message(self, text: str) -> None:
        for tracker in self.all:
            tracker.message(text)

    def epoch_begins(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        for tracker in self.all:
            tracker.epoch_begins(epoch, epochs, batches, done)

    def updated(self, done: int, utterances: int, loss: float) -> None:
        for tracker in self.all:
            tracker.updated(done, utterances, loss)

    def validating(self) -> None:
        for tracker in self.all:
            tracker.validating()

    def validated(self, record: Mapping[str, Any]) -> None:
        for tracker in self.all:
            tracker.validated(record)

    def pictured(self, epoch: int, paths: Sequence[Path]) -> None:
        for tracker in self.all:
            tracker.pictured(epoch, paths)
