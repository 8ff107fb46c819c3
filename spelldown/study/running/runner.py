"""Does what is missing of a study, whatever happens to its runs, and records it.

A run that fails is a row with a reason, and the next one begins. What was finished is never
repeated; what was interrupted goes on from its last checkpoint. A machine that is lost is no fault
of the run's, which is begun again elsewhere.
"""

import errno
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from spelldown.errors import NotNowError, RecipeError, StudyError
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.study.folder import Outcome, StudyFolder, moment, write_outcome
from spelldown.study.identity import IDLE
from spelldown.study.plan import Planned
from spelldown.study.running.single import INTERRUPTED, NO_SPACE
from spelldown.study.where.place import Ended, Handle, Job, Place, memory_of
from spelldown.training.run.checkpoint import newest
from spelldown.training.run.tracking import duration
from spelldown.writing import FULL, write_whole

TICK = 0.5  # seconds between looks at what runs
LOST = 3  # machines that may be lost under a run before it counts as failed
WAITS = (5.0, 20.0, 60.0, 120.0, 300.0)
"""Seconds until the next try, while a place takes no runs; then it is taken at its word."""
STOPPING = 120.0  # seconds that runs may take to save all, when the study is to end
PLAN = "plan.json"
PLACE = ("room", "submit")  # what a place is asked
SINGLE = "spelldown.study.running.single"
SAID = {NO_SPACE: FULL[errno.ENOSPC], INTERRUPTED: "interrupted"}


class Watcher(Protocol):
    """Sees how a study goes."""

    def changed(self, outcome: Outcome) -> None:
        """A run has come to another state."""

    def message(self, text: str) -> None:
        """One line that stays."""

    def tick(self, runner: "Runner") -> None:
        """A moment has passed."""


class More(Protocol):
    """Thinks of rows while the study runs (`study.trials`)."""

    def more(self, runner: "Runner") -> bool:
        """Adds the next row to the plan, if there is one to add now. Raises OSError where the disk
        does not take it, and may be asked again."""

    def to_come(self) -> int:
        """Runs of all rows that are not thought of yet."""

    def at_once(self) -> int:
        """How many of them may go side by side."""


@dataclass
class Runner:
    """A study's runs, and how far each is."""

    planned: Planned
    folder: StudyFolder
    watcher: Watcher
    further: More | None = None
    only: frozenset[str] = frozenset()  # rows that alone are worked on; all if empty
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, Handle] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    losses: dict[str, int] = field(default_factory=dict)
    unwritten: set[str] = field(default_factory=set)  # outcomes, and the plan
    since: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)  # in a row, by what was asked
    paused: dict[str, float] = field(default_factory=dict)  # until when, by what is not asked
    ending: bool = False

    def run(self, place: Place) -> bool:
        """Does all that is missing there; False if somebody wished it to end before that.

        A second wish kills the runs, which lose what they did since their last checkpoints.
        """
        self.prepare()
        with place, self._wishes():
            while not self.ending:
                self._look()
                if self.ending:  # since
                    break
                self._fill(place)
                self._write_again()
                idle = not self.running and not self._waiting() and not self._add_rows(place)
                if idle and not self._paused(*PLACE, "rows"):
                    break
                self.watcher.tick(self)
                time.sleep(TICK)
            self._end()
        self._write_again()
        return not self.ending

    def prepare(self) -> None:
        """Writes the plan and an outcome for every run that has none. Raises OSError if the plan
        cannot be written, which every run reads."""
        self._write_plan()
        self._take_note()

    def _write_plan(self) -> None:
        self.folder.write_plan(self.planned.plan)

    def _take_note(self) -> None:
        """Finds or makes an outcome for every run of the plan."""
        for name, seed in self.planned.plan.runs.items():
            if name not in self.outcomes:
                identity = self.planned.plan.identities[name]
                found = self.folder.read_outcome(name)
                self.outcomes[name] = found or Outcome(name, seed, identity)
                if found is None:
                    self._write(self.outcomes[name])

    def missing(self) -> list[str]:
        """Runs that are not over, or not scored on every part, in the order of the rows."""
        parts = self.planned.plan.parts
        return [
            name
            for name in self.planned.plan.runs
            if not self.outcomes[name].over
            or any(part not in self.outcomes[name].scores for part in parts)
        ]

    def wanted(self) -> set[str]:
        """The runs of the rows that are asked for."""
        rows = [r for r in self.planned.plan.rows if not self.only or r.name in self.only]
        return {run for row in rows for run in row.runs.values()}

    def asked(self) -> list[str]:
        """What is missing of them, in the order of the rows."""
        wanted = self.wanted()
        return [name for name in self.missing() if name in wanted]

    def to_come(self) -> int:
        """Runs of rows that are not thought of yet."""
        return self.further.to_come() if self.further is not None and not self.only else 0

    def side_by_side(self) -> int:
        """The most runs that there can be at a time."""
        at_once = self.further.at_once() if self.further is not None and not self.only else 0
        return len(self.asked()) + at_once

    def _waiting(self) -> list[str]:
        return [name for name in self.asked() if name not in self.given]

    def _add_rows(self, place: Place) -> bool:
        """Adds rows that are thought of while the study runs; whether one was added."""
        added = False
        if self.further is None or self.only or self._paused("rows"):
            return added
        while len(self._waiting()) < self._room(place):
            try:
                if not self.further.more(self):
                    break
            except OSError as error:  # a full disk: what runs, goes on
                if not (self._has_patience("rows", error) or self.running or self._waiting()):
                    raise
                break
            added = True
            self.refusals.pop("rows", None)
            self._try(PLAN, self._write_plan)
            self._take_note()
        return added

    def _fill(self, place: Place) -> None:
        """Submits as many runs as there is room for."""
        self._add_rows(place)
        for name in self._waiting()[: self._room(place)]:
            self._submit(name, place)
            if self._paused(*PLACE):
                break

    def _room(self, place: Place) -> int:
        """How many runs the place takes now; none while it is left in peace."""
        if self._paused(*PLACE):
            return 0
        try:
            room = place.room()
        except NotNowError as error:
            if not self._has_patience("room", error):
                raise
            return 0
        self.refusals.pop("room", None)
        return max(room, 0)

    def _has_patience(self, asked: str, error: Exception) -> bool:
        """Whether who refuses is to be asked again, which does not happen for a while."""
        refusals = self.refusals.get(asked, 0)
        if refusals == len(WAITS):
            return False
        wait, self.refusals[asked] = WAITS[refusals], refusals + 1
        self.paused[asked] = time.monotonic() + wait
        self.watcher.message(f"{error}; the next try is in {duration(wait)}")
        return True

    def _paused(self, *asked: str) -> bool:
        return any(time.monotonic() < self.paused.get(one, 0.0) for one in asked)

    def _submit(self, name: str, place: Place) -> None:
        recipe = self.planned.recipes[name]
        self.given.add(name)
        try:
            self._give_recipe(name, recipe)
            job = Job(
                name=name,
                command=(sys.executable, "-m", SINGLE, str(self.folder), name),
                directory=Path.cwd(),
                log=self.folder.output(name).absolute(),
                threads=recipe.training.threads,
                gpus=0 if recipe.training.device == "cpu" else 1,
                memory=memory_of(recipe),
            )
            handle = place.submit(job)
        except (OSError, StudyError) as error:  # other runs may be taken, and those under way go on
            if isinstance(error, NotNowError) and self._has_patience("submit", error):
                self.given.discard(name)
            else:
                why = f"it could not be started: {error}"
                self._set(name, self.outcomes[name].now("failed", why))
            return
        self.refusals.pop("submit", None)
        self.running[name], self.since[name] = handle, time.monotonic()
        self._set(name, self.outcomes[name].now("running"), write=False)

    def _give_recipe(self, name: str, recipe: Recipe) -> None:
        """Writes the recipe that a run is to follow; of one that goes on, only what it may change:
        it may have been mended on the way."""
        folder = self.folder.run(name)
        if newest(folder.last) is not None and folder.recipe.is_file():
            with suppress(RecipeError):
                there = read_recipe(folder.recipe)
                kept = {k: v for k, v in dict(recipe.training).items() if k in IDLE}
                training = there.training.model_copy(update=kept)
                recipe = there.model_copy(update={"training": training})
        write_whole(folder.recipe, recipe.as_yaml())

    def _look(self) -> None:
        """Notes which runs have ended, and how."""
        for name, handle in list(self.running.items()):
            ended = handle.poll()
            if ended is not None:
                del self.running[name]
                self._ended(name, ended)

    def _ended(self, name: str, ended: Ended) -> None:
        found = self.folder.read_outcome(name) or self.outcomes[name]
        lost = ended.lost and not found.over and not self.ending
        if lost and self.losses.get(name, 0) < LOST:
            self.losses[name] = self.losses.get(name, 0) + 1
            self.given.discard(name)
            self._set(name, found.now("waiting", f"{ended.reason}; to be begun again"))
            return
        if found.state != "running" and found.starts > self.outcomes[name].starts:
            self._set(name, found, write=False)  # the run itself has said how it ended
            if found.state == "waiting" and not self.ending:
                self._set(name, found.now("failed", f"it was told to stop: {found.reason}"))
            return
        spent = found.seconds + time.monotonic() - self.since[name]
        found = replace(found, ended=moment(), seconds=round(spent, 3))
        reason = SAID.get(ended.status or 0) or ended.reason or "its process ended without a word"
        if self.ending:
            self._set(name, found.now("waiting", "interrupted"))
        else:
            self._set(name, found.now("failed", reason + self._last_words(name)))

    def _last_words(self, name: str) -> str:
        """The last line that a run printed, which may say more than its end."""
        with suppress(OSError):
            text = self.folder.output(name).read_text(encoding="utf-8", errors="replace")
            said = [line.strip() for line in text.split("\n") if line.strip()]
            return f"; its last words: {said[-1][:200]}" if said else ""
        return ""

    def _set(self, name: str, outcome: Outcome, write: bool = True) -> None:
        self.outcomes[name] = outcome
        if write:
            self._write(outcome)
        self.watcher.changed(outcome)

    def _write(self, outcome: Outcome) -> None:
        run = self.folder.rows / outcome.name
        self._try(outcome.name, lambda: write_outcome(run, outcome))

    def _try(self, name: str, write: Callable[[], None]) -> None:
        """Writes, or remembers to do so when the disk has room again."""
        try:
            write()
            self.unwritten.discard(name)
        except OSError as error:
            if name not in self.unwritten:
                self.watcher.message(f"{name}: cannot be written yet: {error}")
            self.unwritten.add(name)

    def _write_again(self) -> None:
        for name in tuple(self.unwritten):
            if name == PLAN:
                self._try(PLAN, self._write_plan)
            elif name not in self.running:
                self._write(self.outcomes[name])

    def _end(self) -> None:
        """Wishes what still runs to end, and waits for it."""
        for handle in self.running.values():
            handle.stop()
        until = time.monotonic() + STOPPING
        while self.running and time.monotonic() < until:
            self._look()
            self.watcher.tick(self)
            time.sleep(TICK / 5)
        for handle in self.running.values():
            handle.kill()
        self._look()

    @contextmanager
    def _wishes(self) -> Iterator[None]:
        """Within this context Ctrl-C and SIGTERM are a wish to end with all saved."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.ending:
                for handle in self.running.values():
                    handle.kill()
            self.ending = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[Any, Any] = {
            number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
