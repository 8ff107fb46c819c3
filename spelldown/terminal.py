"""What the commands print for people: a recipe's parts, the errors of a run, what was spelled."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.syntax import Syntax
from rich.table import Table

from spelldown.progress import Progress
from spelldown.training.run.tracking import QUIET_SECONDS, duration

if TYPE_CHECKING:
    from spelldown.recipe.estimate import Estimate
    from spelldown.recipe.overview import PartRow
    from spelldown.recipe.using.evaluation import Evaluation
    from spelldown.search.metrics import Counts
    from spelldown.search.search import SearchSettings

WIDTH = 100  # letters of a sentence in one line


def console(stderr: bool = False) -> Console:
    """A console that writes plain text to a pipe, without cutting or wrapping lines.

    Square brackets in paths and texts mean nothing to it.
    """
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False)


def show_page(out: Console, page: str) -> None:
    """A recipe's page, coloured on a terminal."""
    if out.is_terminal:
        out.print(Syntax(page, "yaml", background_color="default"))
    else:
        out.print(page, end="")


def show_parts(out: Console, rows: Iterable["PartRow"]) -> None:
    """The parts of a model with what each gives and how many weights it learns."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("part", "kind", "gives"):
        table.add_column(name, no_wrap=True)
    table.add_column("weights", justify="right")
    total = 0
    for row in rows:
        total += row.parameters
        table.add_row(row.name, row.kind, row.output, f"{row.parameters:,}")
    table.add_row("total", "", "", f"{total:,}", style="bold")
    out.print(table)


def show_estimate(out: Console, estimate: "Estimate", epochs: int) -> None:
    """Time and memory, and what they were reckoned from, for a run of so many epochs."""
    size = f"{estimate.utterances} utterances of {estimate.frames} frames"
    out.print(
        f"largest batch: {size} and {estimate.symbols} symbols on {estimate.device} in "
        f"{estimate.precision}: {estimate.seconds:.2f} s an update, "
        f"{estimate.memory / 2**30:.1f} GiB of memory at its highest (measured)"
    )
    if estimate.epoch_seconds is None:
        out.print("an epoch: unknown, since the corpus is not there")
    else:
        out.print(
            f"an epoch: {estimate.epoch_batches} batches, about "
            f"{duration(estimate.epoch_seconds)} of training (validation comes on top)\n"
            f"all {epochs} epochs: about {duration(epochs * estimate.epoch_seconds)}"
        )


def show_evaluation(out: Console, evaluation: "Evaluation") -> None:
    """The measures with their intervals, the worst utterances, and those left out."""
    scores = evaluation.scores
    low, high = scores.intervals["distance"]
    out.print(
        f"{evaluation.part}: {scores.utterances} utterances, by the weights of epoch "
        f"{evaluation.epoch} of {evaluation.run}\n"
        f"search: {described(evaluation.search)}\n"
        f"distance {scores.distance:.2f} character edits an utterance ({low:.2f} to {high:.2f})"
    )
    if scores.edge_distance:
        out.print(
            f"  of these {scores.edge_distance:.2f} are spaces before or after a text, which CER "
            "and WER do not see"
        )
    for name, counts, unit in (
        ("CER", scores.characters, "characters"),
        ("WER", scores.words, "words"),
    ):
        out.print(_rate(name, counts, unit, scores.intervals[name.lower()]))
    out.print("intervals: 95 %, bootstrap over utterances")
    if evaluation.oracle is not None:
        out.print(f"WER if the best of each utterance's hypotheses was chosen: "
                  f"{evaluation.oracle.rate:.2%}")  # fmt: skip
    if evaluation.unended:
        out.print(f"{evaluation.unended} ran to the search's limit without <eos>")
    for name, group in evaluation.groups.items():
        (cer_low, cer_high), (low, high) = group.intervals["cer"], group.intervals["wer"]
        out.print(
            f"{name}: {group.utterances} utterances, CER {group.cer:.2%} ({cer_low:.2%} to "
            f"{cer_high:.2%}), WER {group.wer:.2%} ({low:.2%} to {high:.2%})"
        )
    _show_worst(out, evaluation)
    if evaluation.left_out:
        out.print(f"\nleft out, {len(evaluation.left_out)} problems:", style="bold")
        for problem in evaluation.left_out:
            out.print(f"  {problem}")


def described(search: "SearchSettings") -> str:
    """`beam 8, ctc_weight 0.3`: the kind of search and what is not as it is by default."""
    told = search.model_dump(mode="json", exclude_defaults=True)
    told.pop("kind", None)
    if search.kind == "beam":
        kind = f"beam {search.beam}"
        told.pop("beam", None)
    else:
        kind = search.kind
    return ", ".join([kind, *(f"{name} {value}" for name, value in told.items())])


def _rate(name: str, counts: "Counts", unit: str, interval: tuple[float, float]) -> str:
    return (
        f"{name} {counts.rate:6.2%} ({interval[0]:.2%} to {interval[1]:.2%}): "
        f"{counts.insertions} inserted, {counts.deletions} deleted, "
        f"{counts.substitutions} substituted of {counts.length} {unit}"
    )


def _show_worst(out: Console, evaluation: "Evaluation") -> None:
    from spelldown.search.metrics import aligned

    worst = [one for one in evaluation.scores.worst() if one.distance]
    if not worst:
        out.print("\nevery utterance is spelled as it was said", style="bold")
        return
    out.print(f"\nthe {len(worst)} worst:", style="bold")
    for one in worst:
        out.print(f"{one.id}  {one.distance} edits")
        for line in aligned(one.reference, one.hypothesis).lines(WIDTH):
            out.print(f"  {line}")


def working(err: Console) -> Progress:
    """A bar with an estimate on a terminal, which goes when done; in a log a line now and then."""

    def progress(doing: str, done: Iterable[Any], total: int | None) -> Iterator[Any]:
        if err.is_terminal:
            yield from track(done, doing, total=total, console=err, transient=True)
            return
        began = said = time.monotonic()
        for count, one in enumerate(done, 1):
            yield one
            now = time.monotonic()
            if now - said > QUIET_SECONDS and count != total:
                said, left = now, ""
                if total:
                    left = (
                        f" of {total:,}, {duration((now - began) / count * (total - count))} left"
                    )
                err.print(f"{doing}: {count:,}{left}")

    return progress
