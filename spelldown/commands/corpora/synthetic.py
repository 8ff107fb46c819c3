"""`spelldown prepare synthetic --text FILE OUT`: sentences spoken by whatever can speak here."""

import json
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from spelldown.commands.corpora.prepared import nothing_judges
from spelldown.terminal import console

if TYPE_CHECKING:
    from spelldown.commands.corpora.kind_options import Section
    from spelldown.data.synthesis.engines.kinds import Listed
    from spelldown.data.synthesis.synthetic import Result

NAME = "synthetic"
HELP = "Prepare speech made of a text: by eSpeak NG, hibari, Piper or a command of yours."
FIRST = 10  # languages and voices of an engine in the short list


def synthetic_command() -> TyperCommand:
    """The command, with an option for every setting."""
    sections = _sections()

    def run(**given: Any) -> None:
        if given["list_"]:
            _list(given["engine"] and given["engine"].value, given["json_"])
            return
        if given["out"] is None or given["text"] is None:
            raise typer.BadParameter("--text FILE and the folder OUT expected, or --list")
        _make(given, sections)

    options = [option for section in sections.values() for option in section.parameters()]
    run.__signature__ = Signature([_out(), *options, *_result()])  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(NAME, help=HELP)(run)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _sections() -> dict[str, "Section"]:
    from spelldown.commands.corpora.kind_options import Section
    from spelldown.data.preparing.text import TextSettings
    from spelldown.data.synthesis.planning import SharesSettings, VarietySettings
    from spelldown.data.synthesis.synthetic import SayingSettings, SpeakingSettings

    text_names = {"form": "text_form", "language": "text_language", "unicode": "unicode_form"}
    return {
        "saying": Section(SayingSettings, "What is said", {}, {}),
        "speaking": Section(SpeakingSettings, "Who says it", {"languages": "language"}, {}),
        "variety": Section(VarietySettings, "How it is said", {}, {}),
        "shares": Section(SharesSettings, "How much", {}, {}),
        "form": Section(TextSettings, "Texts", text_names, {}),
    }


def _out() -> Parameter:
    said = typer.Argument(metavar="OUT", help="The folder of the new corpus.", show_default=False)
    return _keyword("out", Path | None, said, None)


def _result() -> list[Parameter]:
    jobs = typer.Option(min=1, help="Engines at work at once; the processor's cores.")
    here = typer.Option("--list", help="Show what can speak here; with --engine, all its voices.")
    summary = typer.Option("--json", help="Machine-readable, and nothing else.")
    return [
        _keyword("jobs", int | None, jobs, None),
        _keyword("list_", bool, here, False),
        _keyword("json_", bool, summary, False),
    ]


def _keyword(name: str, annotation: Any, said: Any, default: Any) -> Parameter:
    kind = Annotated[annotation, said]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _make(given: dict[str, Any], sections: dict[str, "Section"]) -> None:
    from spelldown.data.synthesis.synthetic import SyntheticSettings, make_synthetic

    read: dict[str, Any] = {name: section.read(given) for name, section in sections.items()}
    if read["form"].language is None and read["speaking"].languages:
        language = read["speaking"].languages[0]
        read["form"] = read["form"].model_copy(update={"language": language})
    result = make_synthetic(given["out"], SyntheticSettings(**read), given["jobs"])
    if given["json_"]:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
    else:
        _show(console(), given["out"], result)


# --- what is told


def _show(out: Console, folder: Path, result: "Result") -> None:
    """How much was made, and how to train on it."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("part")
    for name in ("hours", "utterances", "voices", "sentences"):
        table.add_column(name, justify="right")
    for name, part in result.parts.items():
        numbers = (part.utterances, len(part.speakers), result.sentences[name])
        table.add_row(name, f"{part.seconds / 3600:.2f}", *(f"{number:,}" for number in numbers))
    out.print(table)
    for why, count in result.dropped.items():
        out.print(f"not spoken: {count:,} lines, {why}")
    if result.said_again:
        out.print(f"said again, by other voices: {result.said_again:,} sentences")
    if result.with_digits:
        out.print(
            f"{result.with_digits:,} sentences are spelled with digits that were spoken as words: "
            "--numbers words spells them so",
            style="yellow",
        )
    left_out = sum(len(part.left_out) for part in result.parts.values())
    if left_out:
        out.print(f"{left_out:,} could not be spoken: {folder / 'left_out.txt'}", style="yellow")
    if result.doubtful:
        found = ", ".join(f"{count:,} {reason}" for reason, count in result.doubtful.items())
        out.print(f"doubtful: {found}")
    out.print(f"a look at it: {folder / 'look.html'}")
    out.print(f"{result.engine}, {result.took:.0f} seconds")
    out.print(f"in a recipe: data: {{kind: cuts, root: {folder}}}")
    if nothing_judges(result.parts):
        out.print(
            "no part of it judges a run, and a recipe needs one (data.dev): hear it beside a "
            f"corpus, data.also: [{{root: {folder}}}], or make one, --split train=0.9,dev=0.1",
            markup=False,
        )


def _list(engine: str | None, json_: bool) -> None:
    """The engines, or all languages and voices of one."""
    from dataclasses import asdict

    from spelldown.data.synthesis.engines.kinds import list_engines

    found = [one for one in list_engines() if engine in (None, one.name)]
    if json_:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    for one in found:
        _show_engine(console(), one, everything=engine is not None)


def _show_engine(out: Console, one: "Listed", everything: bool) -> None:
    if one.install:
        out.print(f"{one.name:8} {one.install}")
        return
    out.print(f"{one.name:8} {one.version}")
    for what, names in (("languages", one.languages), ("voices", one.voices)):
        if everything and len(names) > FIRST:
            out.print(f"         {len(names)} {what}:")
            for name in names:
                out.print(f"           {name}")
        elif names:
            more = f", ... ({len(names)} in all)" if len(names) > FIRST else ""
            out.print(f"         {what}: {', '.join(names[:FIRST])}{more}")
    if not one.voices:
        out.print("         no voice is here yet")
