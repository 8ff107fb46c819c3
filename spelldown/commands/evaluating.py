"""`spelldown evaluate`: what a run, or several, get wrong; by one way to search, or by many."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spelldown.commands.options import Json, RunPath
from spelldown.commands.search_options import Searching, with_search_options
from spelldown.terminal import console, working

Split = Annotated[str, typer.Option(help="train, dev, test, or a part's own name.")]


@with_search_options
def evaluate(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]... [KEY=VALUE]...",
            help="More runs, such as other seeds; data.root=..., search.longest=..., ...",
        ),
    ] = None,
    split: Split = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT", help="Groups apart too: gender, speaker, age:14,16, ...; several times."
        ),
    ] = None,
    json_: Json = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also an HTML page of the worst, with their attention."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also every utterance, as JSON lines with scores."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="A table of several ways to search, named on a page."),
    ] = None,
    *,
    searching: Searching,
) -> None:
    """Score a run: distance, CER and WER with intervals, and the ten worst utterances.

    Given several runs or --compare: a table of their means.
    """
    words = overrides or []
    runs = [run, *(Path(word) for word in words if _is_run(word))]
    changes = (*searching.overrides, *(word for word in words if not _is_run(word)))
    if compare is not None:
        _hold_to_the_page(searching, changes)
    if compare is not None or len(runs) > 1:
        if by or page is not None or out is not None:
            raise typer.BadParameter(
                "--by, --page and --out are for one run and one way to search; not for a table"
            )
        _compare(runs, changes, split, json_, compare, searching.tuned)
        return
    _evaluate(run, changes, split, by or [], json_, page, out, searching.tuned)


def _hold_to_the_page(searching: Searching, changes: tuple[str, ...]) -> None:
    """BadParameter for what would change a row that does not say so."""
    said = [change for change in changes if change.startswith("search.")]
    if said or not searching.tuned:
        named = ", ".join([*said, *([] if searching.tuned else ["--untuned"])])
        raise typer.BadParameter(
            f"{named}: the page alone says how each row searches; write it there"
        )


def _is_run(word: str) -> bool:
    return "=" not in word or Path(word).is_dir()


def _evaluate(
    path: Path,
    changes: tuple[str, ...],
    split: str,
    by: list[str],
    json_: bool,
    page: Path | None,
    out: Path | None,
    tuned: bool,
) -> None:
    from spelldown.recipe.run import load_run
    from spelldown.recipe.using.evaluation import evaluate as evaluated
    from spelldown.recipe.using.evaluation import write_page, write_utterances
    from spelldown.terminal import show_evaluation

    err = console(stderr=True)
    run = load_run(path, changes, tuned=tuned)
    found = evaluated(run, split, working(err), by)
    for note in found.notes:
        err.print(note, style="yellow")
    if json_:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        show_evaluation(console(), found)
    if out is not None:
        write_utterances(found, out)
        err.print(f"utterances: {out}")
    if page is not None:
        write_page(run, found, page)
        err.print(f"page: {page}")


def _compare(
    paths: list[Path],
    changes: tuple[str, ...],
    split: str,
    json_: bool,
    page: Path | None,
    tuned: bool,
) -> None:
    from spelldown.recipe.run import load_run
    from spelldown.recipe.using.comparison import compare, notes_on_tuned, read_searches

    err = console(stderr=True)
    # The rows of a page say everything, laid over the recipe: search.yaml is for the tuned ones.
    runs = [load_run(path, changes, tuned=tuned and page is None) for path in paths]
    searches = None if page is None else read_searches(page, runs)
    notes = () if page is None else notes_on_tuned(page, runs)
    found = compare(runs, split, searches, working(err), notes)
    for note in found.notes:
        err.print(note, style="yellow")
    print(json.dumps(found.as_dict(), ensure_ascii=False) if json_ else found.as_markdown())
