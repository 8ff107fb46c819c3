"""Several ways to search side by side, over one run or over several seeds of one recipe.

The listener hears each utterance once; every way to search goes over what it made of it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spelldown.errors import DataError, RecipeError, RunError
from spelldown.progress import Progress, quiet
from spelldown.recipe.reading.page import Page, merged, pages_nearby, read_page
from spelldown.recipe.recipe import ROOT, recipe_of
from spelldown.recipe.run import Run
from spelldown.recipe.using.evaluation import ToScore, evaluated, part_to_score
from spelldown.recipe.using.ready import LANDSCAPE, make_ready
from spelldown.recipe.using.ready import TUNED as RECORD
from spelldown.recipe.using.trained_on import known_to_tuning
from spelldown.search.metrics import Interval
from spelldown.search.paired import MEASURES, MeanScores, Verdict
from spelldown.search.search import SearchSettings
from spelldown.search.transcribing.transcriber import Listened

OWN, TUNED = "as it is", "tuned"
Searches = Mapping[str, Sequence[SearchSettings]]
"""By the row's name, how each run is to search."""


@dataclass(frozen=True)
class Row:
    """One way to search: the runs' means, and the seconds that searching took all of them."""

    name: str
    searches: tuple[SearchSettings, ...]
    scores: MeanScores
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A table of ways to search; `speech` is how many seconds long the part is."""

    runs: tuple[Path, ...]
    part: str
    speech: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; rates are fractions."""
        return {
            "runs": [str(path) for path in self.runs],
            "split": self.part,
            "utterances": self.rows[0].scores.runs[0].utterances,
            "rows": [self._row(row) for row in self.rows],
            "notes": list(self.notes),
        }

    def _row(self, row: Row) -> dict[str, Any]:
        told: dict[str, Any] = {"search": row.name}
        for measure in MEASURES:
            told[measure] = row.scores.mean(measure)
            told[f"{measure}_interval"] = [*row.scores.interval(measure)]
            told[f"{measure}_each"] = [getattr(scores, measure) for scores in row.scores.runs]
        if row is not self.rows[0]:
            difference, ends = self.against_first(row)
            told |= {"wer_difference": difference, "wer_difference_interval": [*ends]}
            told["verdict"] = self.verdict(row)
        told["real_time_factor"] = row.seconds / (self.speech * len(self.runs))
        told["settings"] = [search.model_dump(mode="json") for search in row.searches]
        return told

    def against_first(self, row: Row) -> tuple[float, Interval]:
        """How much more WER a row has than the first, with its interval."""
        return row.scores.difference(self.rows[0].scores, "wer")

    def verdict(self, row: Row) -> Verdict:
        """Whether a row's WER is better than the first row's."""
        return row.scores.verdict(self.rows[0].scores, "wer")

    def as_markdown(self) -> str:
        """The table as Markdown, with what it was made from above and below."""
        several = len(self.runs) > 1
        heads = ["search", "WER (95 %)", "CER", "distance"]
        heads += ["WER of each run"] if several else []
        heads += ["WER against the first (95 %)"] if len(self.rows) > 1 else []
        lines = [heads, ["---"] * len(heads)]
        for row in self.rows:
            mean, (low, high) = row.scores.mean, row.scores.interval("wer")
            cells = [row.name, f"{mean('wer'):.2%} ({low:.2%} to {high:.2%})"]
            cells += [f"{mean('cer'):.2%}", f"{mean('distance'):.2f}"]
            if several:
                cells.append(", ".join(f"{scores.wer:.2%}" for scores in row.scores.runs))
            if len(self.rows) > 1:
                cells.append(self._difference(row))
            lines.append(cells)
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        utterances = self.rows[0].scores.runs[0].utterances
        of = f"mean of {len(self.runs)} runs" if several else str(self.runs[0])
        drawn = "utterances and runs" if several else "utterances"
        return f"{self.part}: {utterances} utterances, {of}\n\n{table}\n\nBootstrap over {drawn}."

    def _difference(self, row: Row) -> str:
        if row is self.rows[0]:
            return ""
        difference, (low, high) = self.against_first(row)
        points = [f"{100 * value:+.2f}" for value in (difference, low, high)]
        return f"{points[0]} ({points[1]} to {points[2]}): {self.verdict(row)}"


def read_searches(path: Path, runs: Sequence[Run]) -> Searches:
    """The ways to search that a page names, laid over what each run's recipe says.

        greedy: {kind: greedy}
        beam and CTC: {kind: beam, beam: 8, ctc_weight: 0.3}
        tuned: tuned                # by each run's own search.yaml

    A run whose tuning found nothing better than the recipe's own search has no search.yaml, and is
    searched by the recipe (`notes_on_tuned` tells). Raises RecipeError for a page that is not such,
    with everything that is wrong in it, and RunError for a run that was not tuned where that is
    asked for.
    """
    if not path.is_file():
        raise RecipeError(f"no page of ways to search at {path}{pages_nearby(path, 'pages')}")
    page = read_page(path, ROOT)
    problems = [problem.text(page.origins) for problem in page.problems]
    for name, value in page.data.items():
        if not isinstance(value, dict) and value != TUNED:
            problems.append(
                f"{name}: should be settings such as {{kind: beam, beam: 8}}, or `tuned`; found "
                f"{value!r} ({page.origins.get((name,), path)})"
            )
    if not page.data:
        problems.append("names no way to search; write for instance  greedy: {kind: greedy}")
    found: dict[str, list[SearchSettings]] = {}
    for name in [name for name, value in page.data.items() if isinstance(value, dict)]:
        try:
            found[name] = [_laid_over(run, _section(page, name), name) for run in runs]
        except RecipeError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(f"{path} is no page of ways to search", problems)
    return {name: found.get(name) or [_tuned(run) for run in runs] for name in page.data}


def _laid_over(run: Run, over: Page, name: str) -> SearchSettings:
    whole = merged(Page(run.recipe.model_dump(mode="json")), over, ROOT)
    return recipe_of(whole, name).search


def _section(page: Page, name: str) -> Page:
    """A row of the page as if it were the `search` section of a recipe."""
    origins = {
        ("search", *place[1:]): where for place, where in page.origins.items() if place[0] == name
    }
    return Page({"search": page.data[name]}, origins)


def _tuned(run: Run) -> SearchSettings:
    if _tuned_in_vain(run):
        return run.recipe.search
    if not run.folder.search.is_file():
        raise RunError(f"{run.folder} has no search.yaml; spelldown tune {run.folder} finds one")
    return _laid_over(run, read_page(run.folder.search, ROOT), str(run.folder.search))


def _tuned_in_vain(run: Run) -> bool:
    """Whether tuning came to its end and left the recipe's own search."""
    written = run.folder.search.is_file() or (run.folder.tuning / RECORD).is_file()
    return not written and (run.folder.tuning / LANDSCAPE).is_file()


def notes_on_tuned(path: Path, runs: Sequence[Run]) -> tuple[str, ...]:
    """Which runs have nothing tuned, of a page that asks for that."""
    if TUNED not in read_page(path, ROOT).data.values():
        return ()
    return tuple(
        f"{run.folder}: tuning found nothing better than the recipe's own search, which is what "
        "stands in its place here"
        for run in runs
        if _tuned_in_vain(run)
    )


def compare(
    runs: Sequence[Run],
    split: str = "test",
    searches: Searches | None = None,
    progress: Progress = quiet,
    told: Sequence[str] = (),
) -> Comparison:
    """The measures of each way to search over a part, as means of the runs.

    searches: by name, of each run; None for one row, each run's own. told: notes beside those on
    the runs. Raises DataError as `evaluate`
    does, and where the runs do not score the same utterances; LanguageModelError for a language
    model that is not there or does not fit.
    """
    searches = searches or {OWN: [run.transcriber.search for run in runs]}
    for ways in searches.values():
        for run, way in zip(runs, ways, strict=True):
            make_ready(run, way)  # what is not there is told before the work
    parts = [part_to_score(run, split) for run in runs]
    texts = [[(cut.id, cut.supervisions[0].text) for cut in part.cuts] for part in parts]
    if any(each != texts[0] for each in texts):
        raise DataError(
            "the runs are to be scored on different utterances; give all of them one corpus and "
            "part, as in data.root=..."
        )
    results: dict[str, list[Any]] = {name: [] for name in searches}
    seconds = dict.fromkeys(searches, 0.0)
    work = _spelling(runs, parts, searches)
    for name, took, scores in progress("spelling", work, len(runs) * len(searches)):
        results[name].append(scores)
        seconds[name] += took
    rows = tuple(
        Row(name, tuple(searches[name]), MeanScores(tuple(found)), seconds[name])
        for name, found in results.items()
    )
    speech = float(sum(cut.duration for cut in parts[0].cuts))
    notes = dict.fromkeys(
        f"{run.folder}: {note}"
        for place, (run, part) in enumerate(zip(runs, parts, strict=True))
        for note in (*part.notes, *_notes_on_tuning(run, part, searches, place))
    )
    return Comparison(
        tuple(run.folder.path for run in runs), parts[0].name, speech, rows, (*told, *notes)
    )


def _notes_on_tuning(run: Run, part: ToScore, searches: Searches, place: int) -> Iterator[str]:
    """Which rows have weights that were tuned on what is scored, of the run at a place."""
    for name, ways in searches.items():
        for note in known_to_tuning(run.folder, ways[place], part.name, part.cuts):
            yield note if name == OWN else f"{name}: {note}"


def _spelling(runs: Sequence[Run], parts: Sequence[ToScore], searches: Searches) -> Any:
    """Row, seconds and scores of each way for each run, one run's memory held at a time."""
    for place, (run, part) in enumerate(zip(runs, parts, strict=True)):
        pools: list[Listened] = list(run.transcriber.listened(part.items(run.transcriber)))
        for name, ways in searches.items():
            began = time.perf_counter()
            results = [one for pool in pools for one in run.transcriber.spelled(pool, ways[place])]
            took = time.perf_counter() - began
            yield name, took, evaluated(run, part, results, search=ways[place]).scores
