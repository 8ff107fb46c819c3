"""`spelldown study`: many runs from one file; `spelldown report`: what came of them."""

import json
import shlex
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from spelldown.commands.options import FAILED, INTERRUPTED
from spelldown.terminal import console, working

if TYPE_CHECKING:
    from spelldown.study.folder import Outcome, Row, StudyFolder
    from spelldown.study.plan import Planned
    from spelldown.study.report.report import Report
    from spelldown.study.running.estimates import Sizes
    from spelldown.study.study import Study
    from spelldown.study.where.local import LocalPlace
    from spelldown.study.where.place import Place

DIFFERENCES = 12  # of a row that are listed; the rest are counted


class PlaceName(StrEnum):
    """Where runs happen."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


def study(
    file: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="A page, recipes/studies/demo.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Of the study (budget.epochs=3, seeds=[1,2]), or of every recipe (data.root=...).",
        ),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The study's folder; else studies/NAME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Do only what is missing of a study that was begun.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the rows, their sizes and times; train nothing.")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Measure an update of each row for --dry-run, some seconds each.")
    ] = True,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Do only this row now; give it again for others."),
    ] = None,
    on: Annotated[
        PlaceName, typer.Option(help="This machine, a Ray cluster, or Slurm.")
    ] = PlaceName.local,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most that each run may hold, as 6GB or 512MiB."),
    ] = None,
    side_by_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Runs at a time on this machine.",
            show_default="one a GPU; without, by cores and memory",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of studies, for editors.")
    ] = False,
) -> None:
    """Run a study: every row and seed, whatever happens to them, and then the report."""
    from spelldown.recipe.reading.schema import schema_text
    from spelldown.study.folder import STUDIES, StudyFolder
    from spelldown.study.study import StudySettings, read_study

    if (file is None) != schema:
        raise typer.BadParameter("give a study to run, or --schema (one of the two)")
    if file is None:
        print(schema_text(StudySettings, "spelldown study"), end="")
        return
    asked = list(overrides or ())
    if side_by_side is not None:
        asked.append(f"local.side_by_side={side_by_side}")
    if memory is not None:
        asked.append(f"training.memory={memory}")
    read = read_study(file, asked)
    folder = StudyFolder(into or STUDIES / read.settings.name)
    if dry_run:
        _show(read, folder, measure)
    else:
        _run(read, folder, on, resume, only or [])


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's folder, as studies/demo, or a run's.")
    ],
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to leave it; else in the study.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it anew while the study runs, until it is over.")
    ] = False,
) -> None:
    """Make the page of a study, and its table as Markdown and CSV."""
    from spelldown.study.report.report import watch_report, write_report

    out = console()
    if watch:
        out.print("open it in a browser: it follows by itself. Ctrl-C ends this, not the study")
        told: set[Path] = set()

        def tell(written: "Report") -> None:
            if written.html not in told:
                out.print(str(written.html))
            told.add(written.html)

        written = watch_report(folder, into, told=tell)
    else:
        written = write_report(folder, into)
    out.print(f"{written.html}\n{written.markdown}\n{written.csv}")


def _run(
    read: "Study", folder: "StudyFolder", on: PlaceName, resume: bool, only: list[str]
) -> None:
    from spelldown.study.axes import OptunaSettings
    from spelldown.study.folder import counted
    from spelldown.study.plan import plan_study
    from spelldown.study.running.claim import alone, hold_new, left_out
    from spelldown.study.running.runner import Runner
    from spelldown.study.running.view import View, show_table
    from spelldown.study.trials import Trials
    from spelldown.writing import write_whole

    out, err = console(), console(stderr=True)
    if not resume:
        hold_new(folder)
    with alone(folder), View(folder, out) as view:
        planned = plan_study(read, folder)
        searched = isinstance(read.settings.explore, OptunaSettings)
        further = Trials(planned, folder) if searched else None
        _hold_rows(only, planned)
        if told := left_out(folder, planned.plan):
            view.message(told)
        write_whole(folder.settings, read.resolved(folder.path))
        runner = Runner(planned, folder, view, further, frozenset(only))
        runner.prepare()
        view.message(f"{folder}: {view.summary(runner)}")
        done = runner.run(_place(on, planned, runner.side_by_side(), folder.path))
    failed = [name for name in planned.plan.runs if runner.outcomes[name].state == "failed"]
    if not done:
        err.print(f"interrupted; to go on: {_again()}")
        raise typer.Exit(INTERRUPTED)
    if failed:
        err.print(
            f"{len(failed)} of {counted(len(planned.plan.runs), 'run')} failed: "
            f"{', '.join(failed)}. Why, "
            f"stands in outcome.json and output.log of each in {folder.rows}. To try them again: "
            f"{_again()}",
            style="red",
        )
    show_table(out, folder)
    _report(folder, out, err)
    if failed:
        raise typer.Exit(FAILED)


def _report(folder: "StudyFolder", out: Console, err: Console) -> None:
    """Leaves the report of a study that is over; what is wrong with it must not end the study."""
    from spelldown.study.report.report import write_report

    try:
        written = write_report(folder.path)
    except Exception as error:
        err.print(f"no report yet ({type(error).__name__}: {error}): spelldown report {folder}")
        return
    out.print(f"the table, the curves and the attention: {written.html}")


def _hold_rows(only: list[str], planned: "Planned") -> None:
    from spelldown.errors import StudyError

    names = [row.name for row in planned.plan.rows]
    if unknown := [name for name in only if name not in names]:
        raise StudyError(f"--only: there is no row {', '.join(unknown)}; rows: {', '.join(names)}")


def _again() -> str:
    """The command that was given, to do what is missing."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["spelldown", *words, "--resume"])


def _place(on: PlaceName, planned: "Planned", runs: int, folder: Path) -> "Place":
    """The place for so many runs at a time at the most."""
    settings = planned.study.settings
    if on == PlaceName.ray:
        from spelldown.study.where.ray import RayPlace

        return RayPlace(settings.ray, runs)
    if on == PlaceName.slurm:
        from spelldown.study.where.slurm import SlurmPlace

        return SlurmPlace(settings.slurm, runs, folder)
    return here(planned, runs)


def here(planned: "Planned", runs: int) -> "LocalPlace":
    """This machine, shared by what the recipes say that they need."""
    from spelldown.study.where.local import LocalPlace
    from spelldown.training.guard.limit import bytes_of

    recipes = planned.recipes.values() or ([planned.base] if planned.base else [])
    stated = [recipe.training for recipe in recipes]
    threads = max((training.threads or 1 for training in stated), default=1)
    most = max((bytes_of(training.memory) for training in stated if training.memory), default=0)
    on_gpus = any(training.device != "cpu" for training in stated)
    return LocalPlace(planned.study.settings.local, runs, threads, most / 2**30, on_gpus)


def _show(read: "Study", folder: "StudyFolder", measure: bool) -> None:
    """What a study would do: its rows, how they differ, what they take."""
    from spelldown.study.axes import OptunaSettings
    from spelldown.study.plan import plan_study
    from spelldown.study.running.claim import left_out
    from spelldown.study.running.estimates import Sizes, sizes_of
    from spelldown.study.trials import hold_installed

    out, err = console(), console(stderr=True)
    hold_installed(read.settings.explore)
    planned = plan_study(read, folder)
    known = folder.known()
    sizes: Mapping[str, Sizes] = {}
    if measure:
        sizes = sizes_of(planned, working(err))
    first: dict[str, str] = {}  # row that has a run
    for row in planned.plan.rows:
        runs = list(row.runs.values())
        shared = {first.setdefault(name, row.name) for name in runs} - {row.name}
        over = sum(known[name].over for name in runs if name in known)
        compared = ", which the others are compared with" if row.name == planned.plan.base else ""
        out.print(f"{row.name}{compared}", style="bold")
        _show_row(out, row)
        if shared:
            out.print(f"  asks for the same as {' and '.join(sorted(shared))}, and shares its runs")
            continue
        seeds = ", ".join(map(str, row.runs))
        told = f"  seeds {seeds}" + (f"; {over} of {len(runs)} done already" if over else "")
        out.print(told + _sized(sizes.get(runs[0]), planned.recipes[runs[0]].training.epochs))
    _show_total(out, planned, known, sizes)
    searched = isinstance(read.settings.explore, OptunaSettings)  # its trials are not planned here
    if not searched and (told := left_out(folder, planned.plan)):
        out.print(told)


def _show_row(out: Console, row: "Row") -> None:
    if row.remark:
        out.print(f"  {row.remark}")
    changes = list(row.changes.items())
    for path, (there, here) in changes[:DIFFERENCES]:
        out.print(f"  {path}: {_short(there)} -> {_short(here)}")
    if len(changes) > DIFFERENCES:
        out.print(f"  ... and {len(changes) - DIFFERENCES} more")


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) and "kind" in item for item in value):
        return ", ".join(item["kind"] for item in value)  # the blocks of a listener
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _sized(sizes: "Sizes | None", epochs: int) -> str:
    from spelldown.study.folder import counted
    from spelldown.training.run.tracking import duration

    length = counted(epochs, "epoch")
    if sizes is None:
        return f"; {length}"
    if sizes.problem:
        return f"; {length}; cannot be measured: {sizes.problem}"
    told = [
        f"{sizes.weights:,} weights",
        f"{(sizes.memory or 0) / 2**30:.1f} GiB",
        length,
    ]
    if sizes.seconds is not None:
        told.append(f"about {duration(sizes.seconds)} each, validations included")
    return "; " + ", ".join(told)


def _show_total(
    out: Console,
    planned: "Planned",
    known: "Mapping[str, Outcome]",
    sizes: "Mapping[str, Sizes]",
) -> None:
    """How many runs there are, and what all that is missing takes."""
    from spelldown.study.folder import counted
    from spelldown.study.running.estimates import trials_left
    from spelldown.training.run.tracking import duration

    runs = [name for name in planned.plan.runs if not (name in known and known[name].over)]
    rows, every = counted(len(planned.plan.rows), "row"), counted(len(planned.plan.runs), "run")
    out.print(f"\n{rows}, {every}, {len(runs)} to do")
    trials = trials_left(planned, known)
    if trials:
        out.print(f"and {counted(trials, 'run')} of trials that Optuna thinks of")
    each = {name: one.seconds for name, one in sizes.items()}
    if not (runs or trials) or not each or None in each.values():
        return
    minutes = planned.plan.minutes
    limit = 60 * minutes if minutes else float("inf")
    takes = {name: min(seconds or 0.0, limit) for name, seconds in each.items()}
    mean = sum(takes.values()) / len(takes)  # of trials nobody knows yet what they change
    total = sum(takes[name] for name in runs) + trials * mean
    lanes = here(planned, len(runs) + trials).lanes
    told = f"about {duration(total)} one after the other, where nothing else runs"
    if lanes > 1:
        told += f"; on this machine, {lanes} would run side by side"
    out.print(told)
