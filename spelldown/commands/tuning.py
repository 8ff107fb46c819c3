"""`spelldown tune`: find the weights of a run's search on its development part."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spelldown.commands.options import INTERRUPTED, Json, RunPath
from spelldown.commands.search_options import Searching, with_options_of_a_search_to_tune
from spelldown.terminal import console, described, working

if TYPE_CHECKING:
    from spelldown.recipe.run import Run
    from spelldown.recipe.using.trials import Searched
    from spelldown.recipe.using.tuning import Tuned


END = 0.05  # share of a range that counts as its end


class JudgeName(StrEnum):
    """What the best search has least of; the values of trials.Judge."""

    wer = "wer"
    cer = "cer"
    distance = "distance"


@with_options_of_a_search_to_tune
def tune(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="data.root=..., search.longest=..., ..."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="WEIGHT=LOW:HIGH",
            help="Tune these alone, as in ctc_weight=0:0.5; several times.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=2, help="Of all weights at once.")] = 60,
    points: Annotated[
        int, typer.Option(min=0, help="And along each weight then, for the picture; 0 for none.")
    ] = 7,
    judge: Annotated[JudgeName, typer.Option(help="What the best has least of.")] = JudgeName.wer,
    split: Annotated[
        str, typer.Option(help="The part to tune on; never the one to report.")
    ] = "dev",
    seed: Annotated[int, typer.Option(min=0, help="Of what is tried.")] = 1,
    json_: Json = False,
    *,
    searching: Searching,
) -> None:
    """Find the weights of the search on dev, draw how each moves the error, keep the best.

    A tuning that was stopped goes on when it is called again. The best search is written into the
    run, and is how `evaluate` and `transcribe` search from then on.
    """
    from spelldown.recipe.run import load_run
    from spelldown.recipe.using.trials import weights_to_tune
    from spelldown.recipe.using.tuning import Asked
    from spelldown.recipe.using.tuning import tune as tuned

    ranges = _ranges(weights or [])
    err = console(stderr=True)
    changes = tuple(overrides or ())
    loaded = load_run(run, changes, tuned=False)
    search = _search(loaded, run, (*searching.overrides, *changes))
    has_ctc = loaded.transcriber.recognizer.ctc is not None
    tuning = weights_to_tune(search, has_ctc, ranges)
    asked = Asked(search, tuning, judge.value, trials, points, seed)
    try:
        found = tuned(loaded, asked, split, working(err))
    except KeyboardInterrupt:
        err.print("interrupted; the trials so far are kept, and the same command goes on with them")
        raise typer.Exit(INTERRUPTED) from None
    for note in found.notes:
        err.print(note, style="yellow")
    if json_:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        _show(found)


def _search(run: "Run", path: Path, changes: tuple[str, ...]) -> "Searched":
    """The search to tune: the recipe's with what is asked for over it; beam unless another is."""
    from spelldown.recipe.recipe import read_recipe
    from spelldown.search.search import GreedySettings

    asked = any(change.startswith("search.kind=") for change in changes)
    if isinstance(run.recipe.search, GreedySettings) and not asked:
        changes = ("search.kind=beam", *changes)
    return read_recipe(run.folder.recipe, changes).search  # type: ignore[return-value]


def _ranges(asked: list[str]) -> dict[str, tuple[float, float]]:
    found = {}
    for text in asked:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(":"))
        except ValueError:
            raise typer.BadParameter(
                f"--try {text}: write a weight and its range, as in ctc_weight=0:0.5"
            ) from None
        found[name.removeprefix("search.").replace("-", "_")] = (low, high)
    return found


def _show(found: "Tuned") -> None:
    out = console()
    judge = found.asked.judge
    before, after = (getattr(one.scores, judge) for one in (found.before, found.after))
    difference, (low, high) = found.difference

    def said(value: float, sign: str = "") -> str:
        return f"{value:{sign}.2f}" if judge == "distance" else f"{100 * value:{sign}.2f} %"

    name = judge if judge == "distance" else judge.upper()
    out.print(
        f"{found.part}: {found.after.scores.utterances} utterances, {len(found.trials)} trials"
    )
    out.print(f"the best search: {described(found.search)}")
    out.print(
        f"{name} {said(after)}, and {said(before)} by the recipe's own search "
        f"({described(found.before.search)})"
    )
    verdict = {
        "better": "better beyond doubt by these utterances",
        "worse": "worse",
        "not known": "too little to know on so few utterances",
    }[found.verdict]
    out.print(
        f"difference {said(difference, '+')} ({said(low, '+')} to {said(high, '+')}): {verdict}; "
        "chosen on these utterances, it flatters itself a little"
    )
    weights = found.asked.weights
    for name, weight in (("lm", "lm_weight"), ("rescore_lm", "rescore_weight")):
        if found.best.weights.get(weight) == 0:
            out.print(f"the language model ({name}) is left out: the best trial was without it")
    ends = [
        one.name
        for one in weights
        if found.best.weights[one.name] > one.high - END * (one.high - one.low)
    ]
    if ends:
        further = " ".join(
            f"--try {one.name}={one.low:g}:{(2 if one.name in ends else 1) * one.high:g}"
            for one in weights
        )
        out.print(
            f"{' and '.join(ends)}: best at the end of the range; to look further: {further}",
            style="yellow",
        )
    out.print(f"how each weight moves it: {found.page}")
    if found.written:
        out.print(f"written to {found.run}/search.yaml; next: spelldown evaluate {found.run}")
    else:
        out.print("the recipe's own search is no worse, and nothing was written")
