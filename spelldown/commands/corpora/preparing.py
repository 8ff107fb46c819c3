"""`spelldown prepare KIND SOURCE OUT`: any corpus to manifests that a recipe trains on.

A group of commands, one a kind of source, so that each shows its own options. They are made from
the kinds' settings when they are asked for; published corpora are commands by their names, too.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatch
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from spelldown.commands.corpora.prepared import show_prepared
from spelldown.commands.options import INTERRUPTED
from spelldown.errors import DataError
from spelldown.terminal import console, working

if TYPE_CHECKING:
    from spelldown.commands.corpora.kind_options import Section
    from spelldown.data.preparing.prepare import Prepared
    from spelldown.data.preparing.sources.folder import FolderSettings

TEXT, PARTS, DOUBTS, RESULT = "Texts", "Parts", "What is doubtful", "The result"
SYNTHETIC = "synthetic"  # speech made of a text: no source is read
FOLDERS = 3  # of recordings, from which on they may be speakers
CATALOGUE = "catalogue"  # the kind whose corpora are commands of their own


class _Kinds(TyperGroup):
    """The commands that were declared, and one for every kind of source and published corpus."""

    def list_commands(self, ctx: Any) -> list[str]:
        from spelldown.data.preparing.sources.kinds import source_kinds

        kinds = [name for name in source_kinds() if name != CATALOGUE]
        return [*kinds, SYNTHETIC, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name == SYNTHETIC:
            from spelldown.commands.corpora.synthetic import synthetic_command

            return synthetic_command()
        declared = super().get_command(ctx, name)
        return _command_of(name) if declared is None else declared


prepare = typer.Typer(
    cls=_Kinds,
    no_args_is_help=True,
    invoke_without_command=True,
    help="Prepare a corpus: any source to what a recipe trains on, and a look at it.",
    epilog="Published corpora are kinds by their names (librispeech, yesno, ...): "
    "`spelldown prepare --list`.",
)


@prepare.callback()
def _prepare(
    context: typer.Context,
    list_: Annotated[
        bool, typer.Option("--list", help="Name the published corpora that can be prepared.")
    ] = False,
) -> None:
    if list_:
        _show_catalogue(console())
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def _show_catalogue(out: Console) -> None:
    from spelldown.data.preparing.sources.catalogue import catalogue

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("corpus", "languages", "hours", "licence", "download"):
        table.add_column(name, no_wrap=name == "corpus")
    for entry in catalogue():
        size = (entry.facts.size or "yes") if entry.downloads else "no: needs a copy"
        facts = entry.facts
        table.add_row(entry.name, facts.languages, facts.hours, facts.licence, size)
    out.print(table)


def _command_of(name: str) -> TyperCommand:
    """The command of a kind or of a published corpus."""
    from spelldown.commands.corpora.kind_options import Section
    from spelldown.data.preparing.sources.catalogue import entry_of
    from spelldown.data.preparing.sources.kinds import KINDS

    published = name == CATALOGUE or name not in KINDS
    if name == CATALOGUE:
        raise DataError("name one of the corpora of `spelldown prepare --list`")
    fixed: dict[str, Any] = {}
    if published:
        try:
            fixed = {"corpus": entry_of(name).name}
        except DataError:
            if close := get_close_matches(
                name.lower(), [*KINDS.keys() - {CATALOGUE}, SYNTHETIC], n=1
            ):
                raise DataError(
                    f"no kind of source is called {name!r}; did you mean {close[0]!r}?"
                ) from None
            raise
        kind, about = CATALOGUE, f"the corpus {fixed['corpus']}"
    else:
        kind, about = name, KINDS[name][2]
    own = Section(KINDS[kind][0], "The source", {}, fixed)
    sections = {"source": own, **_sections()}
    places = _corpus_places() if published else _places()
    run = _runner(kind, sections, published)
    options = [option for section in sections.values() for option in section.parameters()]
    run.__signature__ = Signature([*places, *options, *_result()])  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=f"Prepare {about}.")(run)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _sections() -> dict[str, "Section"]:
    """The settings that all kinds share, with the options' names where those differ."""
    from spelldown.commands.corpora.kind_options import Section
    from spelldown.data.preparing.looking.doubts import DoubtSettings
    from spelldown.data.preparing.splits import SplitSettings
    from spelldown.data.preparing.text import TextSettings
    from spelldown.data.preparing.to_arrays import ArraysOutputSettings

    text_names = {"form": "text_form", "language": "text_language", "unicode": "unicode_form"}
    return {
        "text": Section(TextSettings, TEXT, text_names, {}),
        "split": Section(SplitSettings, PARTS, {"by": "split_by"}, {}),
        "doubts": Section(DoubtSettings, DOUBTS, {}, {}),
        "arrays": Section(ArraysOutputSettings, "With --to arrays", {}, {}),
    }


def _option(name: str, annotation: Any, said: Any, default: Any = None) -> Parameter:
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, said]
    )


def _places() -> list[Parameter]:
    source = typer.Argument(metavar="SOURCE", help="Where it lies.", show_default=False)
    out = typer.Argument(metavar="OUT", help="The folder to prepare into.", show_default=False)
    empty = Parameter.empty
    return [_option("source", Path, source, empty), _option("out", Path, out, empty)]


def _corpus_places() -> list[Parameter]:
    places = typer.Argument(
        metavar="[SOURCE] OUT",
        help="A copy that is there, and the folder to prepare into. Without a copy the corpus is "
        "downloaded, into OUT/download.",
        show_default=False,
    )
    copy = typer.Option("--from", metavar="DIR", help="The copy that is there, instead of SOURCE.")
    return [
        _option("places", list[Path], places, Parameter.empty),
        _option("from_", Path | None, copy),
    ]


def _result() -> list[Parameter]:
    panel: dict[str, Any] = {"rich_help_panel": RESULT}
    channel = typer.Option(
        metavar="N|mix", help="Of recordings with several, from 0 on; unless told: mixed.", **panel
    )
    to = typer.Option(
        metavar="arrays", help="Also write frames and transcripts in the course's layout.", **panel
    )
    jobs = typer.Option(min=1, help="Recordings decoded at once; the processor's cores.", **panel)
    again = typer.Option("--overwrite", help="Replace another corpus in OUT.", **panel)
    summary = typer.Option("--json", help="Print the record, and nothing else.", **panel)
    return [
        _option("channel", str | None, channel),
        _option("to", str | None, to),
        _option("jobs", int | None, jobs),
        _option("overwrite", bool, again, False),
        _option("json_", bool, summary, False),
    ]


def _runner(kind: str, sections: dict[str, "Section"], published: bool) -> Callable[..., None]:
    """What the command of a kind does."""

    def run(**given: Any) -> None:
        from spelldown.data.preparing.prepare import PrepareSettings
        from spelldown.data.preparing.to_arrays import outdated, to_arrays

        read = {name: section.read(given) for name, section in sections.items()}
        settings = PrepareSettings(
            text=read["text"],
            split=read["split"],
            doubts=read["doubts"],
            channel=_channel(given["channel"]),
        )
        if given["to"] not in (None, "arrays"):
            raise typer.BadParameter(f"--to {given['to']}: only arrays can be written")
        for name in () if given["to"] else sections["arrays"].fields:
            if given[name] is not None:
                raise typer.BadParameter(f"--{name.replace('_', '-')} goes with --to arrays")
        source, out = _source_and_out(given, published)
        jobs = given["jobs"] or min(os.cpu_count() or 1, 16)
        err = console(stderr=True)
        try:
            prepared = _prepared(kind, read["source"], source, out, settings, given, jobs, err)
            parts = list(prepared.record["parts"])
            if given["to"]:
                arrays: Any = read["arrays"]
                to_arrays(out, parts, arrays, jobs=jobs, progress=working(err))
        except KeyboardInterrupt:
            err.print("interrupted; what was done is kept, and the same command goes on from there")
            raise typer.Exit(INTERRUPTED) from None
        if old := outdated(out, parts):
            err.print(f"[bold]the arrays in {', '.join(old)} are of an earlier preparation[/]: ")
            err.print("call again with --to arrays, or remove them")
        if given["json_"]:
            print(json.dumps(prepared.record, ensure_ascii=False))
        else:
            show_prepared(console(), prepared, out if given["to"] else None)

    return run


def _prepared(
    kind: str,
    asked: Any,
    source: Path | None,
    out: Path,
    settings: Any,
    given: dict[str, Any],
    jobs: int,
    err: Console,
) -> "Prepared":
    from spelldown.data.preparing.prepare import prepare as prepared
    from spelldown.data.preparing.sources.catalogue import download
    from spelldown.data.preparing.sources.kinds import read_source

    where = out / "download" if source is None else source

    def utterances() -> Iterable[Any]:
        place = where
        if source is None:
            place = download(asked.corpus, where, asked.parts, asked.language, asked.options)
        found = read_source(place, asked)
        return _hinting(found, where, asked, err) if kind == "folder" else found

    about = {
        "kind": asked.corpus if kind == CATALOGUE else kind,
        "source": str(where.absolute()),
        "source_settings": asked.model_dump(mode="json"),
    }
    return prepared(
        utterances,
        about,
        out,
        settings,
        jobs=jobs,
        overwrite=given["overwrite"],
        progress=working(err),
        say=lambda line: err.print(line),
    )


def _hinting(
    found: Iterable[Any], source: Path, settings: "FolderSettings", err: Console
) -> Iterator[Any]:
    """What was found, passing by; tells at the end of folders that may be speakers, or are."""
    from spelldown.data.preparing.sources.folder import speaker_folders

    if settings.speaker != "none":
        yield from _nested(found, source, settings, err)
        return
    splits = settings.splits
    folders: dict[Path, int] = {}
    for one in found:
        if audio := getattr(one, "audio", None):
            folders[audio.parent] = folders.get(audio.parent, 0) + 1
        yield one
    names = sorted(
        str(folder.relative_to(source))
        for folder, count in folders.items()
        if count > 1 and folder != source and not any(fnmatch(folder.name, one) for one in splits)
    )
    if len(names) >= FOLDERS:
        some = ", ".join(names[:FOLDERS])
        nested = any(len(speaker_folders(one / "x", source, settings)) > 1 for one in folders)
        above = " (if the upper folder is one, --speaker top-folder)" if nested else ""
        err.print(
            f"recordings lie in {len(names)} folders ({some}, ...): if each is a speaker, say "
            f"--speaker folder{above}, so that no speaker is in two parts"
        )


def _nested(
    found: Iterable[Any], source: Path, settings: "FolderSettings", err: Console
) -> Iterator[Any]:
    """What was found, passing by; tells at the end of speakers whose folders lie in others."""
    from spelldown.data.preparing.sources.folder import speaker_folders

    inner: set[str] = set()
    for one in found:
        if settings.speaker == "folder" and (audio := getattr(one, "audio", None)):
            path = speaker_folders(audio, source, settings)
            if len(path) > 1:
                inner.add("/".join(path))
        yield one
    if inner:
        many = "1 speaker is" if len(inner) == 1 else f"{len(inner)} speakers are"
        err.print(
            f"{many} named by folders within folders (as {min(inner)}): if the upper folder is "
            "the speaker, say --speaker top-folder, or one voice counts as several",
            markup=False,
        )


def _source_and_out(given: dict[str, Any], published: bool) -> tuple[Path | None, Path]:
    """Where the corpus lies (None: to be downloaded) and where it goes."""
    if not published:
        return given["source"], given["out"]
    places, copy = given["places"], given["from_"]
    if len(places) > 2 or (len(places) == 2 and copy is not None):
        raise typer.BadParameter("SOURCE OUT, or OUT --from SOURCE, or OUT alone expected")
    return (places[0] if len(places) == 2 else copy), places[-1]


def _channel(given: str | None) -> int | str | None:
    if given is None or given == "mix":
        return given
    if not given.isdecimal():
        raise typer.BadParameter(f"--channel {given}: a number from 0 on, or mix")
    return int(given)
