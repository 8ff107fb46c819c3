"""How well a trained run spells a part of its corpus."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from spelldown.data.checks import Problem, text_of
from spelldown.data.corpora import read_part
from spelldown.data.groups import grouped_by
from spelldown.data.loading.speakers import speaker_of
from spelldown.data.recordings import file_of
from spelldown.errors import DataError
from spelldown.progress import Progress, quiet
from spelldown.recipe.parts import checked_part
from spelldown.recipe.recipe import Recipe
from spelldown.recipe.run import Run
from spelldown.recipe.using.trained_on import known_to, known_to_tuning
from spelldown.search.metrics import Counts, Scores, edit_counts, score
from spelldown.search.search import SearchSettings
from spelldown.search.transcribing.confidence import word_confidences
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Failure, Item, Transcript
from spelldown.training.guard.scoring import within_memory
from spelldown.training.run.pictures import Shown, attention_page
from spelldown.writing import write_whole

WORST = 10


@dataclass(frozen=True)
class Evaluation:
    """The measures of a run over one part, with the utterances that could not be scored.

    `groups` has the measures of each group of utterances, where groups were asked for; `unended`
    counts utterances that ran to the search's limit without `<eos>`. `oracle`: the word edits if
    of each utterance's hypotheses the best were chosen, None where search gives but one. `spelled`:
    each utterance's transcript, in the scores' order. `notes`: what should be known with the
    numbers, such as utterances that were trained on.
    """

    run: Path
    part: str
    epoch: int
    search: SearchSettings
    scores: Scores
    left_out: tuple[Problem, ...]
    unended: int
    groups: Mapping[str, Scores]
    oracle: Counts | None
    spelled: tuple[Transcript, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        oracle = {} if self.oracle is None else {"oracle_wer": self.oracle.rate}
        return {
            "run": str(self.run),
            "split": self.part,
            "epoch": self.epoch,
            "search": self.search.model_dump(mode="json"),
            **self.scores.as_dict(),
            **oracle,
            "unended": self.unended,
            "left_out": [str(problem) for problem in self.left_out],
            "groups": {name: scores.as_dict() for name, scores in self.groups.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class ToScore:
    """A part that can be scored: its utterances, those left out, and what should be known of it."""

    name: str
    cuts: tuple[Cut, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def items(self, transcriber: Transcriber) -> list[Item]:
        """The utterances for a transcriber, each speaker's normalised as it was trained."""
        return transcriber.by_speaker(
            [Item(cut.id, cut) for cut in self.cuts], [speaker_of(cut) for cut in self.cuts]
        )


def part_named(recipe: Recipe, split: str) -> str:
    """The part that `train`, `dev` or `test` means in a recipe; any other name means itself."""
    if split == "test" and recipe.data.test is None:
        raise DataError("the recipe names no test part (data.test); choose another --split")
    named: dict[str, str] = {"train": recipe.data.train, "dev": recipe.data.dev}
    return named.get(split, str(recipe.data.test) if split == "test" else split)


def part_to_score(run: Run, split: str) -> ToScore:
    """A part with its transcripts; see `evaluate` for `split` and for what is raised."""
    part = part_named(run.recipe, split)
    found = checked_part(run.recipe, read_part(run.recipe.data, part))
    cuts = tuple(found.cuts)
    notes = known_to(run.folder, run.recipe, part, cuts)
    return ToScore(part, cuts, tuple(found.problems), (*run.notes, *notes))


def evaluate(
    run: Run,
    split: str = "test",
    progress: Progress = quiet,
    by: Sequence[str] = (),
    memory: str | None = None,
) -> Evaluation:
    """Spells every utterance of a part and compares it with its transcript.

    split: train, dev or test of the recipe, or the name of any part. by: score groups of utterances
    apart too, as `gender` or `age:16` (data/groups.py). memory: a limit that is held meanwhile, as
    6GB. What does not fit into memory is spelled in smaller batches.

    Raises DataError for a part that has no transcripts, for groups of which nothing is known, or
    for unusable utterances where `data.problems` is `stop`; DoesNotFitError for an utterance that
    does not fit into memory alone. A text with characters that the run cannot spell is scored like
    any other.
    """
    part = part_to_score(run, split)
    known = known_to_tuning(run.folder, run.transcriber.search, part.name, part.cuts)
    part = replace(part, notes=(*part.notes, *known))
    for way in by:
        grouped_by(part.cuts, way)  # what cannot be grouped is told before the work
    spelled = within_memory(run.transcriber, part.items(run.transcriber), memory)
    results = list(progress("spelling", spelled, len(part.cuts)))
    return evaluated(run, part, results, by)


def evaluated(
    run: Run,
    part: ToScore,
    results: Sequence[Transcript | Failure],
    by: Sequence[str] = (),
    search: SearchSettings | None = None,
) -> Evaluation:
    """The measures of what was spelled of each of a part's utterances, by `search` or the run's."""
    pairs = list(zip(part.cuts, results, strict=True))
    problems = (*part.problems, *_failures(pairs, run.recipe))
    heard = [(cut, done) for cut, done in pairs if isinstance(done, Transcript)]
    texts = [text_of(cut) or "" for cut, _ in heard]
    scores = score(texts, [done.text for _, done in heard], [cut.id for cut, _ in heard])
    groups = {
        name: Scores(tuple(scores.each[place] for place in group))
        for way in by
        for name, group in grouped_by([cut for cut, _ in heard], way).items()
    }
    return Evaluation(
        run.folder.path,
        part.name,
        run.epoch,
        search or run.transcriber.search,
        scores,
        problems,
        sum(not done.ended for _, done in heard),
        groups,
        _oracle(texts, [done for _, done in heard]),
        tuple(done for _, done in heard),
        part.notes,
    )


def _oracle(texts: Sequence[str], spelled: Sequence[Transcript]) -> Counts | None:
    """The word edits of the best of each utterance's hypotheses."""
    if not any(done.nbest for done in spelled):
        return None
    best = (
        min(
            (edit_counts(text.split(), one.split()) for one in _all_texts(done)),
            key=lambda counts: counts.edits,
        )
        for text, done in zip(texts, spelled, strict=True)
    )
    return sum(best, Counts())


def _all_texts(done: Transcript) -> list[str]:
    return [done.text, *(other.text for other in done.nbest)]


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


def write_utterances(evaluation: Evaluation, path: Path) -> None:
    """A JSON object a line for each utterance: what was said and spelled, edits, scores, words.

    Written whole or not at all.
    """
    lines = []
    for one, done in zip(evaluation.scores.each, evaluation.spelled, strict=True):
        letters = done.letters[: len(done.letters) - done.ended]
        words = word_confidences(letters, done.log_probs) if done.log_probs else []
        told = {
            "id": one.id,
            "said": one.reference,
            "spelled": one.hypothesis,
            "distance": one.distance,
            "character_edits": one.characters.edits,
            "characters": one.characters.length,
            "word_edits": one.words.edits,
            "words_said": one.words.length,
            "score": done.score,
            "ended": done.ended,
            "parts": dict(done.parts),
            "words": [{"text": text, "confidence": sure} for text, sure in words],
            "nbest": [
                {"text": other.text, "score": other.score, "parts": dict(other.parts)}
                for other in done.nbest
            ],
        }
        lines.append(json.dumps(told, ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines))


def write_page(run: Run, evaluation: Evaluation, path: Path) -> None:
    """An HTML page of the worst utterances and as many that are ordinary, with their attention."""
    each = sorted(evaluation.scores.each, key=lambda one: (one.characters.rate, one.id))
    middle = len(each) // 2
    ordinary = each[max(middle - WORST // 2, 0) : middle + WORST // 2]
    worst = evaluation.scores.worst(WORST)
    chosen = {one.id: one.reference for one in (*worst, *ordinary)}
    part = part_to_score(run, evaluation.part)
    items = {item.id: item for item in part.items(run.transcriber)}
    shown = [
        Shown(
            done.id, chosen[done.id], done.text, done.weights, done.letters, done.seconds_per_frame
        )
        for done in run.transcriber.transcribe([items[name] for name in chosen], keep_weights=True)
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
