"""What makes attention align: one table of runs that were made at different times and places.

    python benchmarks/align_table.py [--runs docs/studies/align.csv]
    python benchmarks/align_table.py STUDY ... --machine WORDS --commit COMMIT

recipes/studies/align.yaml has 66 runs and takes a processor most of a day. Its folder does not
always live that long, so what each run came to when it was over is kept in a CSV file, a line a
run. Runs of the studies that are named are added to it, those of the same row, seed and machine
replaced.

Prints the table in Markdown: how many runs aligned and when, the errors on test with the mean's
Student-t interval over the seeds (of a seed that was run on two machines, their mean), and the
errors as a multiple of the recipe's, as the mean of pairs of runs with the same seed on the same
machine (`spelldown.study.report.reckoning.effects`). That asks whether a difference would hold for
other seeds; a study's own report asks it of other utterances too, for which it has to have all that
was spelled.
"""

import argparse
import csv
import io
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spelldown.search.metrics import Interval
from spelldown.study.folder import StudyFolder
from spelldown.study.report.reckoning.effects import ELSEWHERE, Ratio, Trial, effects
from spelldown.study.report.reckoning.intervals import over_seeds
from spelldown.writing import write_whole

RUNS = Path(__file__).parents[1] / "docs" / "studies" / "align.csv"
BASE = "the recipe"
HEADS = (
    "",
    "aligned",
    "in epoch",
    "alignment at the end",
    "test CER, %",
    "test WER, %",
    "mean WER (95 %)",
    "times the recipe's",
)


@dataclass(frozen=True)
class Run:
    """A line of the file. aligned: in which epoch, empty if it never did. alignment: in the last
    epoch, of 1. Error rates are those of the best dev epoch's weights on test, in percent."""

    row: str
    seed: int
    aligned: str
    alignment: float
    cer: float
    wer: float
    date: str
    machine: str
    commit: str


def read(place: Path) -> list[Run]:
    """The runs of a file; none if there is no file."""
    if not place.exists():
        return []
    with place.open(encoding="utf-8", newline="") as lines:
        return [
            Run(
                row=line["row"],
                seed=int(line["seed"]),
                aligned=line["aligned"],
                alignment=float(line["alignment"]),
                cer=float(line["cer"]),
                wer=float(line["wer"]),
                date=line["date"],
                machine=line["machine"],
                commit=line["commit"],
            )
            for line in csv.DictReader(lines)
        ]


def written(runs: Iterable[Run]) -> str:
    """The runs as a file, those of a row together."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(Run)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(run) for group in by_row(runs).values() for run in group)
    return text.getvalue()


def by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each row by their seeds; the base first, then as they came."""
    rows: dict[str, list[Run]] = {BASE: []}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return {row: sorted(group, key=lambda run: run.seed) for row, group in rows.items()}


def over(study: Path, machine: str, commit: str) -> Iterable[Run]:
    """The runs of a study that are over, each once, its rows named for what they change."""
    folder = StudyFolder(study)
    plan, told = folder.read_plan(), set[str]()
    for row in plan.rows:
        for seed, name in row.runs.items():
            outcome = folder.read_outcome(name)
            if name in told or outcome is None or not outcome.over:
                continue
            told.add(name)
            test = outcome.scores.get("test", {})
            if "cer" not in test:
                raise SystemExit(f"{study}: run {name} has no scores on test")
            metrics = folder.run(name).metrics.read_text(encoding="utf-8").splitlines()
            yield Run(
                row=BASE if row.name == plan.base else row.name.replace("=", ": "),
                seed=seed,
                aligned=str(outcome.aligned_epoch or ""),
                alignment=round(json.loads(metrics[-1])["alignment"]["value"], 3),
                cer=round(100 * test["cer"], 2),
                wer=round(100 * test["wer"], 2),
                date=(outcome.ended or "")[:10],
                machine=machine,
                commit=commit,
            )


def table(runs: Iterable[Run]) -> str:
    """The runs as a Markdown table, a line a row."""
    rows = by_row(runs)
    if not rows[BASE]:
        raise SystemExit(f"there is no run of {BASE!r} to compare others with")
    pairs: dict[tuple[int, str], int] = {}  # seeds and machines, numbered: what makes a pair
    trials = [
        Trial(
            {} if row == BASE else {"row": row},
            run.wer / 100,
            int(run.aligned) if run.aligned else None,
            pairs.setdefault((run.seed, run.machine), len(pairs)),
        )
        for row, group in rows.items()
        for run in group
    ]
    levels = [level for effect in effects(trials, {"row": ELSEWHERE}) for level in effect.levels]
    ratios = {level.name: level.ratio for level in levels}
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for row, group in rows.items():
        seeds = [statistics.fmean(r.wer for r in group if r.seed == seed) for seed in _seeds(group)]
        cells = (
            f"**{row}**" if row == BASE else row,
            f"{sum(bool(run.aligned) for run in group)} of {len(group)}",
            ", ".join(run.aligned or "-" for run in group),
            ", ".join(f"{run.alignment:.2f}" for run in group),
            ", ".join(f"{run.cer:.1f}" for run in group),
            ", ".join(f"{run.wer:.1f}" for run in group),
            f"{statistics.fmean(seeds):.1f}{_range(over_seeds(seeds))}",
            _times(ratios.get(row)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeds(group: Iterable[Run]) -> list[int]:
    return sorted({run.seed for run in group})


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f" ({max(interval.low, 0):.1f} to {interval.high:.1f})"


def _times(ratio: Ratio | None) -> str:
    if ratio is None or ratio.interval is None or not ratio.pairs:
        return ""  # of one pair nobody knows how it would be with another seed
    call = {"fewer errors": "**fewer**, ", "more errors": "**more**, "}.get(ratio.call, "")
    return f"{call}{ratio.value:.2f} ({ratio.interval.low:.2f} to {ratio.interval.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("studies", nargs="*", type=Path, metavar="STUDY")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--machine", help="what the studies ran on, a word or two")
    parser.add_argument("--commit", help="of the code that they ran with")
    asked = parser.parse_args()
    if asked.studies and not (asked.machine and asked.commit):
        parser.error("with a STUDY, --machine and --commit must say what it ran on and with")
    known = {(run.row, run.seed, run.machine): run for run in read(asked.runs)}
    for study in asked.studies:
        for run in over(study, asked.machine, asked.commit):
            known[run.row, run.seed, run.machine] = run
    told = table(known.values())
    if asked.studies:
        write_whole(asked.runs, written(known.values()))
    print(told)


if __name__ == "__main__":
    main()
