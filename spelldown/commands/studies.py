"""`spelldown study`: many runs from one file; `spelldown report`: what came of them."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from spelldown.commands.options import FAILED, INTERRUPTED
from spelldown.terminal import console, working

if TYPE_CHECKING:
    from spelldown.study.folder import StudyFolder
    from spelldown.study.plan import Planned
    from spelldown.study.report.report import Report
    from spelldown.study.study import Study, StudySettings
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
        PlaceName | None,
        typer.Option(
            help="This machine, a Ray cluster, or Slurm.", show_default="as the study says"
        ),
    ] = None,
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
    if not (measure or dry_run):
        raise typer.BadParameter("--no-measure goes with --dry-run: nothing else is measured")
    asked = list(overrides or ())
    if side_by_side is not None:
        asked.append(f"local.side_by_side={side_by_side}")
    if memory is not None:
        asked.append(f"training.memory='{memory}'")
    if on is not None:
        asked.append(f"on={on.value}")
    read = read_study(file, asked)
    folder = StudyFolder(into or STUDIES / read.settings.name)
    _hold_ready(read.settings)
    if dry_run:
        from spelldown.study.running.preview import preview

        preview(read, folder, console(), only or [], measure, working(console(stderr=True)))
    else:
        _run(read, folder, resume, only or [])


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

    out, told = console(), set[Path]()
    if watch:
        out.print("open it in a browser: it follows by itself. Ctrl-C ends this, not the study")

        def tell(written: "Report") -> None:
            if written.html not in told:
                out.print(str(written.html))
            told.add(written.html)

        written = watch_report(folder, into, told=tell)
        out.print("nobody runs the study now: this is how it stands")
    else:
        written = write_report(folder, into)
    for path in (written.html, written.markdown, written.csv):
        if path not in told:
            out.print(str(path))


def _hold_ready(settings: "StudySettings") -> None:
    """Raises StudyError where runs cannot be where the study wants them, before anything is done
    of it."""
    from spelldown.study.where import ray, slurm

    if settings.on == "ray":
        ray.hold_ready()
    elif settings.on == "slurm":
        slurm.hold_ready(settings.slurm)


def _run(read: "Study", folder: "StudyFolder", resume: bool, only: list[str]) -> None:
    from spelldown.study.axes import OptunaSettings
    from spelldown.study.folder import counted
    from spelldown.study.plan import plan_study
    from spelldown.study.running.claim import alone, hold_new, hold_rows, left_out
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
        hold_rows(only, planned.plan)
        if told := left_out(folder, planned.plan):
            view.message(told)
        write_whole(folder.settings, read.resolved(folder.path))
        runner = Runner(planned, folder, view, further, frozenset(only))
        runner.prepare()
        view.message(f"{folder}: {view.summary(runner)}")
        done = runner.run(_place(planned, runner.side_by_side(), folder.path))
    failed = [name for name in runner.asked() if runner.outcomes[name].state == "failed"]
    if not done:
        err.print(f"interrupted; to go on: {_again()}")
        raise typer.Exit(INTERRUPTED)
    if failed:
        err.print(
            f"{len(failed)} of {counted(len(runner.wanted()), 'run')} failed: "
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


def _again() -> str:
    """The command that was given, to do what is missing."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["spelldown", *words, "--resume"])


def _place(planned: "Planned", runs: int, folder: Path) -> "Place":
    """The place for so many runs at a time at the most."""
    settings = planned.study.settings
    if settings.on == "ray":
        from spelldown.study.where.ray import RayPlace

        return RayPlace(settings.ray, runs)
    if settings.on == "slurm":
        from spelldown.study.where.slurm import SlurmPlace

        return SlurmPlace(settings.slurm, runs, folder)
    from spelldown.study.where.local import LocalPlace

    return LocalPlace.shared(settings.local, planned.each(), runs)
