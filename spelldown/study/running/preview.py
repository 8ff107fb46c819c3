"""What a study would do, and what that takes: `spelldown study FILE --dry-run`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from spelldown.errors import DataError
from spelldown.progress import Progress, quiet
from spelldown.recipe.recipe import Recipe
from spelldown.study.axes import OptunaSettings, in_short
from spelldown.study.folder import Outcome, Row, StudyFolder, counted
from spelldown.study.plan import Planned, plan_study
from spelldown.study.running.claim import hold_rows, left_out
from spelldown.study.running.estimates import Sizes, sizes_of
from spelldown.study.study import Study
from spelldown.study.trials import begun, hold_sampler
from spelldown.study.where.local import LocalPlace
from spelldown.training.guard.limit import bytes_of
from spelldown.training.run.tracking import duration

DIFFERENCES = 12  # of a row that are listed; the rest are counted
LONGEST = 60  # letters of a value


def preview(
    study: Study,
    folder: StudyFolder,
    out: Console,
    only: Sequence[str] = (),
    measure: bool = True,
    progress: Progress = quiet,
) -> None:
    """Prints the rows, how each differs from the base, and what they take; nothing is written.

    only: rows to show, all if empty. measure: an update of each kind of row, for sizes and times.
    Raises StudyError for what is wrong with the study, and, once the rows are shown, DataError
    where a corpus cannot be used.
    """
    hold_sampler(study.settings.explore)
    problem: DataError | None = None
    try:
        planned = plan_study(study, folder)
    except DataError as error:
        problem = error
        planned = plan_study(study, folder, check=_unread)
    further = begun(planned, folder)
    hold_rows(only, planned.plan)
    known = folder.known()
    shown = [row for row in planned.plan.rows if not only or row.name in only]
    asked = {run: planned.recipes[run] for row in shown for run in row.runs.values()}
    sizes: Mapping[str, Sizes] = {}
    if measure and problem is None:
        sizes = sizes_of(asked or planned.each(), progress)
    trials = 0
    if isinstance(study.settings.explore, OptunaSettings) and not only:
        every = study.settings.explore.trials * len(study.settings.every_seed)
        trials = every if further is None else further.to_come()
    _Preview(planned, out, known, sizes).show(shown, trials, problem is None)
    if problem is not None:
        raise problem
    searched = isinstance(study.settings.explore, OptunaSettings)  # its trials are not planned here
    if not searched and (told := left_out(folder, planned.plan)):
        out.print(told)


def _unread(recipes: Iterable[Recipe]) -> None:
    """Leaves corpora alone."""


@dataclass
class _Preview:
    planned: Planned
    out: Console
    known: Mapping[str, Outcome]
    sizes: Mapping[str, Sizes]
    first: dict[str, str] = field(default_factory=dict)  # row that has a run

    def show(self, rows: Sequence[Row], trials: int, read: bool) -> None:
        """The rows, and their sum. trials: runs of a search that are not thought of yet; read:
        whether the corpora were, by which a budget of updates becomes epochs."""
        updates = None if read else self.planned.study.settings.budget.updates
        for row in rows:
            self._row(row, f"epochs of {updates:,} updates in all" if updates else "")
        self._total(list(dict.fromkeys(run for row in rows for run in row.runs.values())),
                    len(rows), trials)  # fmt: skip

    def _row(self, row: Row, length: str) -> None:
        runs = list(row.runs.values())
        shared = {self.first.setdefault(name, row.name) for name in runs} - {row.name}
        over = sum(self.known[name].over for name in runs if name in self.known)
        base = row.name == self.planned.plan.base
        compared = ", which the others are compared with" if base else ""
        self.out.print(f"{row.name}{compared}", style="bold")
        if row.remark:
            self.out.print(f"  {row.remark}")
        changes = list(row.changes.items())
        for path, (there, here) in changes[:DIFFERENCES]:
            self.out.print(f"  {path}: {in_short(there, LONGEST)} -> {in_short(here, LONGEST)}")
        if len(changes) > DIFFERENCES:
            self.out.print(f"  ... and {len(changes) - DIFFERENCES} more")
        if shared:
            named = " and ".join(sorted(shared))
            self.out.print(f"  asks for the same as {named}, and shares its runs")
            return
        told = f"  seeds {', '.join(map(str, row.runs))}"
        told += f"; {over} of {len(runs)} done already" if over else ""
        recipe = self.planned.recipes[runs[0]]
        length = length or counted(recipe.training.epochs, "epoch")
        self.out.print(f"{told}; {'; '.join(_sized(self.sizes.get(runs[0]), recipe, length))}")

    def _total(self, runs: Sequence[str], rows: int, trials: int) -> None:
        """How many runs there are, and what all that is missing takes."""
        missing = [name for name in runs if not (name in self.known and self.known[name].over)]
        every = f"{counted(rows, 'row')}, {counted(len(runs), 'run')}"
        self.out.print(f"\n{every}, {len(missing)} to do")
        if trials:
            self.out.print(f"and {counted(trials, 'run')} of trials that Optuna thinks of")
        each = {name: one.seconds for name, one in self.sizes.items()}
        if not (missing or trials) or not each or None in each.values():
            return
        minutes = self.planned.plan.minutes
        limit = 60 * minutes if minutes else float("inf")
        takes = {name: min(seconds or 0.0, limit) for name, seconds in each.items()}
        mean = sum(takes.values()) / len(takes)  # of trials nobody knows yet what they change
        total = sum(takes[name] for name in missing) + trials * mean
        told = f"about {duration(total)} one after the other, where nothing else runs"
        settings = self.planned.study.settings
        if settings.on == "local":
            place = LocalPlace.shared(settings.local, self.planned.each(), len(missing) + trials)
            if place.lanes > 1:
                told += f"; on this machine, {place.lanes} would run side by side"
        self.out.print(told)


def _sized(sizes: Sizes | None, recipe: Recipe, length: str) -> list[str]:
    if sizes is None:
        return [length]
    if sizes.problem:
        return [length, f"cannot be measured: {sizes.problem}"]
    memory, limit = sizes.memory or 0, recipe.training.memory
    held = f"{memory / 2**30:.1f} GiB"
    if limit is not None and memory > bytes_of(limit):
        held += f" without its limit of {limit}, within which updates are made in parts"
    told = [f"{sizes.weights:,} weights", held, length]
    if sizes.seconds is not None:
        told.append(f"about {duration(sizes.seconds)} each, validations included")
    return told
