"""How well a trained run spells a part of its corpus."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from spelldown.data.checks import Problem, text_of
from spelldown.data.corpora import read_part
from spelldown.data.groups import grouped_by
from spelldown.data.recordings import file_of
from spelldown.errors import DataError
from spelldown.recipe.parts import checked_part
from spelldown.recipe.recipe import Recipe
from spelldown.recipe.run import Run
from spelldown.search.metrics import Scores, score
from spelldown.search.transcribing.transcriber import Failure, Item, Transcript
from spelldown.training.run.pictures import Shown, attention_page

WORST = 10

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes through what is done, knowing how much there is to do, and may show it."""


@dataclass(frozen=True)
class Evaluation:
    """The measures of a run over one part, with the utterances that could not be scored.

    `groups` has the measures of each group of utterances, where groups were asked for; `unended`
    counts utterances that ran to the search's limit without `<eos>`.
    """

    run: Path
    part: str
    epoch: int
    scores: Scores
    left_out: tuple[Problem, ...]
    unended: int
    groups: Mapping[str, Scores]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "run": str(self.run),
            "split": self.part,
            "epoch": self.epoch,
            **self.scores.as_dict(),
            "unended": self.unended,
            "left_out": [str(problem) for problem in self.left_out],
            "groups": {name: scores.as_dict() for name, scores in self.groups.items()},
        }


def part_named(recipe: Recipe, split: str) -> str:
    """The part that `train`, `dev` or `test` means in a recipe; any other name means itself."""
    if split == "test" and recipe.data.test is None:
        raise DataError("the recipe names no test part (data.test); choose another --split")
    named: dict[str, str] = {"train": recipe.data.train, "dev": recipe.data.dev}
    return named.get(split, str(recipe.data.test) if split == "test" else split)


def evaluate(
    run: Run, split: str = "test", progress: Progress | None = None, by: str | None = None
) -> Evaluation:
    """Spells every utterance of a part and compares it with its transcript.

    split: train, dev or test of the recipe, or the name of any part. by: score groups of utterances
    apart too, as `gender` or `age:16` (data/groups.py). Raises DataError for a part that has no
    transcripts, for groups of which nothing is known, or for unusable utterances where
    `data.problems` is `stop`. A text with characters that the run cannot spell is scored like any
    other.
    """
    part = part_named(run.recipe, split)
    found = checked_part(run.recipe, read_part(run.recipe.data, part))
    cuts = list(found.cuts)
    if by is not None:
        grouped_by(cuts, by)  # what cannot be grouped is told before the work
    spelled = run.transcriber.transcribe(Item(cut.id, cut) for cut in cuts)
    results = list(progress(spelled, len(cuts)) if progress else spelled)
    pairs = [(cut, done) for cut, done in zip(cuts, results, strict=True)]
    problems = (*found.problems, *_failures(pairs, run.recipe))
    heard = [(cut, done) for cut, done in pairs if isinstance(done, Transcript)]
    scores = score(
        [text_of(cut) or "" for cut, _ in heard],
        [done.text for _, done in heard],
        [cut.id for cut, _ in heard],
    )
    places = grouped_by([cut for cut, _ in heard], by) if by is not None else {}
    groups = {
        name: Scores(tuple(scores.each[place] for place in group)) for name, group in places.items()
    }
    unended = sum(not done.ended for _, done in heard)
    return Evaluation(run.folder.path, part, run.epoch, scores, problems, unended, groups)


def _failures(pairs: list[tuple[Cut, Transcript | Failure]], recipe: Recipe) -> list[Problem]:
    """What could not be read after all, such as a recording that is damaged inside."""
    failed = [
        Problem(cut.id, file_of(cut), done.error)
        for cut, done in pairs
        if isinstance(done, Failure)
    ]
    if failed and (recipe.data.problems == "stop" or len(failed) == len(pairs)):
        raise DataError(
            f"{len(failed)} utterances cannot be used; mend or remove them, or set "
            "data.problems: leave-out",
            [str(problem) for problem in failed],
        )
    return failed


def write_page(run: Run, evaluation: Evaluation, path: Path) -> None:
    """An HTML page of the worst utterances and as many that are ordinary, with their attention."""
    each = sorted(evaluation.scores.each, key=lambda one: (one.characters.rate, one.id))
    middle = len(each) // 2
    ordinary = each[max(middle - WORST // 2, 0) : middle + WORST // 2]
    worst = evaluation.scores.worst(WORST)
    chosen = {one.id: one.reference for one in (*worst, *ordinary)}
    cuts = {cut.id: cut for cut in read_part(run.recipe.data, evaluation.part).cuts}
    items = [Item(name, cuts[name]) for name in chosen]
    shown = [
        Shown(
            done.id, chosen[done.id], done.text, done.weights, done.letters, done.seconds_per_frame
        )
        for done in run.transcriber.transcribe(items, keep_weights=True)
        if isinstance(done, Transcript)
    ]
    scores = evaluation.scores
    attention_page(
        path,
        shown,
        title=f"{run.recipe.name} on {evaluation.part}",
        summary=f"{scores.utterances} utterances, distance {scores.distance:.2f}, "
        f"CER {scores.cer:.1%}, WER {scores.wer:.1%}. First the worst, then the most ordinary.",
    )
