"""What a row of a study comes to, over all its seeds: the numbers that the table shows."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spelldown.search.metrics import Interval, Scores
from spelldown.study.columns import COLUMNS, setup
from spelldown.study.folder import Row
from spelldown.study.report.findings import Findings, Found
from spelldown.study.report.reckoning.effects import Trial
from spelldown.study.report.reckoning.intervals import (
    MEASURES,
    Difference,
    differences,
    over_seeds,
)

FAILED = "until it failed"


@dataclass(frozen=True)
class Measured:
    """A measure of a row: the mean over its runs, with a 95 % interval.

    each: (seed, value) of every run. over: what the interval is over: "seeds" (Student's t), or
    "utterances" (bootstrap) for a single run; "" where there is none
    """

    mean: float
    each: tuple[tuple[int, float], ...]
    interval: Interval | None = None
    over: Literal["seeds", "utterances", ""] = ""


@dataclass(frozen=True)
class InPart:
    """How a row spells one part: by measure, and against the base.

    not_final: what to say of figures that are not: `so far`, from the validations of runs that are
               not over; `until it failed`, of what there was of runs that did
    """

    measures: Mapping[str, Measured] = field(default_factory=dict)
    against: Mapping[str, Difference] = field(default_factory=dict)
    not_final: str = ""


@dataclass(frozen=True)
class Cost:
    """What a row took: the median of its runs' epochs, means of time and speed, the highest memory;
    None where not known. `weights` are the numbers that the model learns."""

    weights: int | None
    epochs: float | None
    seconds: float | None
    utterances_per_second: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class RowFigures:
    """A row with all its numbers.

    as_base:  whether another row, but with the base's very runs
    setup:    in the words of the seed's table (columns.COLUMNS); differing: those of them that are
              not as the base's
    aligned:  (seed, first epoch of aligned attention or None) of every run that tells
    """

    row: Row
    base: bool
    as_base: bool
    runs: tuple[Found, ...]
    setup: Mapping[str, str]
    differing: frozenset[str]
    parts: Mapping[str, InPart]
    aligned: tuple[tuple[int, int | None], ...]
    cost: Cost

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def verdicts(self) -> dict[str, int]:
        """How many runs have each last verdict on their attention."""
        counts: dict[str, int] = {}
        for run in self.runs:
            if run.alignment is not None:
                counts[run.alignment] = counts.get(run.alignment, 0) + 1
        return counts


def figures(findings: Findings) -> list[RowFigures]:
    """Every row of the plan, in its order. One that has not begun has no numbers."""
    base = next((row for row in findings.plan.rows if row.name == findings.plan.base), None)
    reference = _setup(base, findings.of(base)) if base is not None else {}
    found = []
    for row in findings.plan.rows:
        runs = findings.of(row)
        said = _setup(row, runs)
        against = findings.of(base) if base is not None and row.runs != base.runs else []
        found.append(
            RowFigures(
                row=row,
                base=row is base,
                as_base=base is not None and row is not base and row.runs == base.runs,
                runs=tuple(runs),
                setup=said,
                differing=frozenset(
                    name
                    for name, text in said.items()
                    if text and reference.get(name, text) != text
                ),
                parts={part: _in_part(part, runs, against) for part in findings.plan.parts},
                aligned=tuple((run.seed, run.aligned_epoch) for run in runs if run.alignment),
                cost=_cost(runs),
            )
        )
    return found


def _setup(row: Row, runs: Sequence[Found]) -> dict[str, str]:
    """As its runs' recipes have it (a run repaired itself, say); before they begin, as planned."""
    begun = next((run.recipe for run in runs if run.recipe), None)
    return dict.fromkeys(COLUMNS, "") | dict(row.setup) if begun is None else setup(begun)


def _final(runs: Sequence[Found], part: str) -> list[tuple[int, Scores]]:
    """The scores of the runs that count: those that failed on their way would not be comparable."""
    return [(r.seed, r.scores[part]) for r in runs if r.outcome.over and part in r.scores]


def _in_part(part: str, runs: Sequence[Found], base: Sequence[Found]) -> InPart:
    final = _final(runs, part)
    if final:
        others = [scores for _, scores in _final(base, part)]
        return InPart(_measured(final), differences([scores for _, scores in final], others))
    failed = [(r.seed, r.scores[part]) for r in runs if part in r.scores]
    if failed and all(run.outcome.state == "failed" for run in runs):
        return InPart(_measured(failed), not_final=FAILED)
    return _so_far(part, runs)


def _measured(scored: Sequence[tuple[int, Scores]]) -> dict[str, Measured]:
    measures = {}
    for measure in MEASURES:
        each = tuple((seed, float(getattr(scores, measure))) for seed, scores in scored)
        interval, over = over_seeds([value for _, value in each]), "seeds"
        if interval is None:
            interval, over = scored[0][1].intervals[measure], "utterances"
        measures[measure] = Measured(_mean(each), each, interval, over)  # type: ignore[arg-type]
    return measures


def _so_far(part: str, runs: Sequence[Found]) -> InPart:
    """The best validations of runs without scores, if this is the part that they validate on."""
    there = [run for run in runs if run.best and _is_dev(part, run)]
    well = [run for run in there if run.outcome.state != "failed"]
    over = all(run.outcome.over for run in there)
    measures = {}
    for measure in MEASURES:
        values = [(run.seed, run.best["dev"][measure]) for run in well or there if run.best]
        each = tuple((seed, float(value)) for seed, value in values if value is not None)
        if each:
            # Runs that are not equally far do not scatter by chance alone.
            interval = over_seeds([value for _, value in each]) if over else None
            measures[measure] = Measured(_mean(each), each, interval, "seeds" if interval else "")
    return InPart(measures, not_final="" if over else "so far" if well else FAILED)


def _is_dev(part: str, run: Found) -> bool:
    return part in ("dev", run.recipe.get("data", {}).get("dev"))


def _mean(each: Sequence[tuple[int, float]]) -> float:
    return statistics.fmean(value for _, value in each)


def _cost(runs: Sequence[Found]) -> Cost:
    begun = [run for run in runs if run.records or run.outcome.epochs]
    speeds = [s for run in begun if (s := run.utterances_per_second) is not None]
    peaks = [peak for run in begun if (peak := run.peak_mib) is not None]
    weights = [w for run in runs if (w := run.outcome.weights) is not None]
    epochs = [max(run.outcome.epochs, len(run.records)) for run in begun]
    return Cost(
        weights=max(weights, default=None),
        epochs=statistics.median(epochs) if epochs else None,
        seconds=statistics.fmean(run.seconds for run in begun) if begun else None,
        utterances_per_second=statistics.fmean(speeds) if speeds else None,
        peak_mib=max(peaks, default=None),
    )


def base_values(rows: Sequence[RowFigures]) -> dict[str, str]:
    """Where the recipe itself stands on each axis: the labels that change nothing."""
    unchanged = [one.row.values for one in rows if not one.row.changes]
    return {axis: label for values in unchanged for axis, label in values.items()}


def trials(rows: Sequence[RowFigures], part: str, measure: str) -> list[Trial]:
    """Every run of the axes that was scored on a part, for their effects; none twice."""
    there = base_values(rows)
    found: dict[Any, Trial] = {}
    for one in rows:
        if not one.row.values and one.row.changes:
            continue  # a named row, which stands on no axis
        values = {**there, **one.row.values}
        for run in one.runs:
            if run.outcome.over and part in run.scores:
                error = float(getattr(run.scores[part], measure))
                key = run.folder.path, tuple(sorted(values.items()))
                found[key] = Trial(values, error, run.aligned_epoch, run.seed)
    return list(found.values())
