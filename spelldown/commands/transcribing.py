"""`spelldown transcribe`: recordings of any length to text, subtitles or timed words."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from spelldown.commands.options import FAILED, RunPath
from spelldown.commands.search_options import Searching, with_search_options
from spelldown.terminal import console, working

if TYPE_CHECKING:
    from spelldown.recipe.run import Run
    from spelldown.recipe.using.transcription import Asked
    from spelldown.search.transcribing.joined import Heard
    from spelldown.search.transcribing.sound.pauses import PauseSettings


class FormatName(StrEnum):
    """What results are written as; the values of transcribing.formats.Format."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    ctm = "ctm"


class PausesName(StrEnum):
    """What finds pauses; the values of transcribing.sound.activity.Kind."""

    auto = "auto"
    energy = "energy"
    silero = "silero"


@with_search_options
def transcribe(
    run: RunPath,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Audio files, .npy features, folders of them, patterns such as 'talks/**/*.flac', "
            "or - for standard input.",
        ),
    ] = None,
    format_: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            show_default="text",
            help="srt and vtt: subtitles; ctm: a line a word, with its time.",
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, as --format json.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a file for each input instead.")
    ] = None,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Listen until Enter is pressed, then spell.")
    ] = False,
    longest: Annotated[
        float | None,
        typer.Option(
            min=2,
            show_default="20",
            help="Seconds that no piece is longer than, though nobody pauses.",
        ),
    ] = None,
    pause: Annotated[
        float | None,
        typer.Option(
            min=0.05, show_default="0.3", help="Seconds without speech at which sound is cut."
        ),
    ] = None,
    pauses: Annotated[
        PausesName,
        typer.Option(help="What finds pauses; auto: silero where it is installed, else energy."),
    ] = PausesName.auto,
    channel: Annotated[
        int | None,
        typer.Option(
            min=0, show_default="the mean of all", help="Hear only this channel, counted from 0."
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the course's hand-in (index,label) instead."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Laid over the run's recipe: search.longest_per_second=30, training.device=cpu.",
        ),
    ] = None,
    *,
    searching: Searching,
) -> None:
    """Spell recordings of any length, or features, that have no transcript."""
    if bool(inputs) == microphone:
        raise typer.BadParameter("give inputs, or --microphone (one of the two)")
    if json_ and format_ not in (None, FormatName.json):
        raise typer.BadParameter(f"--json is --format json, not {format_}: choose one")
    format_ = format_ or (FormatName.json if json_ else FormatName.text)
    changes = (*searching.overrides, *(set_ or ()))
    if format_ != FormatName.json and any(one.startswith("search.nbest=") for one in changes):
        raise typer.BadParameter("other hypotheses are given in JSON alone: add --format json")
    if microphone and channel is not None:
        raise typer.BadParameter("--channel chooses among a file's; the microphone is heard as one")
    if out is not None:
        _need_folder(out)
    asked_cuts = {"longest": longest, "pause": pause}
    cut = {name: value for name, value in asked_cuts.items() if value is not None}
    if submission is not None:
        if json_ or format_ != FormatName.text or out is not None or microphone:
            raise typer.BadParameter(
                "--submission writes a file of its own; it goes with neither --json, --format, "
                "--out nor --microphone"
            )
        if cut or pauses != PausesName.auto or channel is not None:
            raise typer.BadParameter(
                "a hand-in has one line a file; nothing is cut for it, and all channels are heard"
            )
        _submit(run, inputs or [], submission, changes, searching.tuned)
        return
    from spelldown.recipe.run import load_run

    settings = _settings(pauses, cut)
    err = console(stderr=True)
    loaded = load_run(run, changes, tuned=searching.tuned)
    _hold_limit(loaded, changes)
    for note in (*loaded.notes, *(_on_times(loaded) if format_ != FormatName.text else ())):
        err.print(note, style="yellow")
    with ExitStack() as stack:
        asked = _asked(loaded, inputs or [], microphone, channel, stack, err)
        if out is None and format_ in ("srt", "vtt") and len(asked.sources) > 1:
            raise typer.BadParameter(
                f"{len(asked.sources)} inputs are as many {format_} files: say where with --out DIR"
            )
        from spelldown.recipe.using.transcription import spelled

        with _bar(asked, err) as progress:
            results = spelled(loaded, asked, settings, progress)
            failed = _give(results, format_.value, out, channel, err)
    if failed:
        if _count(asked) > 1:
            err.print(f"{failed} of {_count(asked)} inputs failed or are incomplete (named above)")
        raise typer.Exit(FAILED)


def _hold_limit(run: "Run", changes: tuple[str, ...]) -> None:
    """Refuses a limit that recordings, which are cut into pieces, do not go by."""
    by_second = run.transcriber.search.longest_per_second
    asked = next((one for one in changes if one.startswith("search.longest=")), None)
    if asked is not None and by_second is not None:
        raise typer.BadParameter(
            f"{asked} would change nothing: pieces of recordings are limited by "
            f"search.longest_per_second={by_second:g} letters; set that, or null to go by the other"
        )


def _settings(pauses: PausesName, cut: dict[str, float]) -> "PauseSettings":
    from pydantic import ValidationError

    from spelldown.search.transcribing.sound.pauses import PauseSettings

    try:
        return PauseSettings(kind=pauses.value, **cut)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].partition(", ")[2]) from error


def _submit(
    run: Path, inputs: list[str], file: Path, changes: tuple[str, ...], tuned: bool
) -> None:
    from spelldown.recipe.run import load_run
    from spelldown.recipe.using.transcription import write_submission

    err = console(stderr=True)
    loaded = load_run(run, changes, tuned=tuned)
    count = write_submission(loaded, inputs, file, working(err), err.print)
    err.print(f"{count} utterances in {file}")


def _asked(
    run: "Run",
    inputs: list[str],
    microphone: bool,
    channel: int | None,
    stack: ExitStack,
    err: Console,
) -> "Asked":
    from spelldown.recipe.using import transcription

    if microphone:
        asked = transcription.microphone(run)
        err.print("listening; press Enter to end")
        return asked
    if "-" in inputs and sys.stdin.isatty():
        raise typer.BadParameter("- is standard input: pipe a recording into it, or name a file")
    files = transcription.asked_for(inputs, err.print, sys.stdin.buffer, channel)
    return stack.enter_context(files)


def _on_times(run: "Run") -> Iterator[str]:
    """A warning where attention, which tells the times of words, had not aligned yet."""
    for record in run.folder.read_metrics():
        if record["epoch"] == run.epoch and record["alignment"]["verdict"] != "aligned":
            yield (
                "times of words come from attention, which had not aligned when these weights were "
                f"kept ({record['alignment']['value']:.2f} of 1 in epoch {run.epoch}): take them "
                "with care"
            )


def _count(asked: "Asked") -> int:
    return len(asked.sources) + len(asked.failures)


def _give(
    results: "Iterator[Heard]", format: str, out: Path | None, channel: int | None, err: Console
) -> int:
    """Prints or writes each result; how many failed, in whole or in part."""
    from spelldown.search.transcribing.formats import ENDINGS, written
    from spelldown.writing import write_whole

    failed, names = 0, set[str]()
    for found in results:
        failed += bool(found.error or found.incomplete)
        _complain(found, err)
        if found.error is not None and (out is not None or format != "json"):
            continue
        text = written(found, format, out is not None, channel)  # type: ignore[arg-type]
        if out is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            ending = ENDINGS[format]  # type: ignore[index]
            write_whole(out / _file_name(found.id, ending, names), text)
    return failed


def _complain(found: "Heard", err: Console) -> None:
    from spelldown.search.transcribing.transcript import named

    if found.error is not None:
        err.print(named(found.id, found.error), style="red")
        return
    if found.incomplete:
        err.print(f"{found.id}: {found.incomplete}; what there is was spelled", style="yellow")
    elif not found.segments:
        err.print(f"{found.id}: nobody speaks in it", style="yellow")
    if endless := found.endless:
        some = f"in {len(endless)} of {len(found.segments)} pieces, first in the one "
        err.print(
            f"{found.id}: {some if len(found.segments) > 1 else ''}from {endless[0].start:.1f} to "
            f"{endless[0].end:.1f} s, the spelling had not ended at its limit: the text may be cut "
            "off there, or repeat itself",
            style="yellow",
        )


def _need_folder(out: Path) -> None:
    """Refuses an output folder that could not be made, before hours of work."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise typer.BadParameter(f"--out {out}: {there} is a file; a folder is needed")
    if not os.access(there, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"--out {out}: no permission to write into {there}")


def _file_name(id: str, ending: str, taken: set[str]) -> str:
    """A name within the output folder, of its own for each id."""
    path = PurePath(id)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    plain = "/".join(parts) or "recording"
    name, number = f"{plain}{ending}", 1
    while name in taken:
        number += 1
        name = f"{plain}-{number}{ending}"
    taken.add(name)
    return name


@contextmanager
def _bar(asked: "Asked", err: Console) -> Iterator[Callable[[float], None]]:
    """A bar over seconds of sound with an estimate, where somebody can see it."""
    total = asked.seconds() if err.is_terminal else 0.0
    if not total:
        yield lambda seconds: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from spelldown.training.run.tracking import duration

    whole = duration(total)
    columns = (
        TextColumn("spelling"),
        BarColumn(),
        TextColumn("{task.fields[done]} of " + whole),
        TimeRemainingColumn(),
    )
    # What is printed goes to standard output even while the bar is there; on a terminal, above it.
    plain = sys.stdout.isatty()
    with Progress(*columns, console=err, transient=True, redirect_stdout=plain) as bar:
        task = bar.add_task("spelling", total=total, done=duration(0.0))

        def advance(seconds: float) -> None:
            done = bar.tasks[0].completed + seconds
            bar.update(task, completed=done, total=max(total, done), done=duration(done))

        yield advance
