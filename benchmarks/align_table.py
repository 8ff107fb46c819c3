"""What makes attention align: one table of runs that were made at different times and places.

    python benchmarks/align_table.py [STUDY ... --machine WORDS] [--runs docs/studies/align.csv]

recipes/studies/align.yaml has 66 runs and takes a processor most of a day. Its folder does not
always live that long, so what each finished run came to is kept in a CSV file, a line a run. Runs
of the studies that are named here are added to it, those of the same row, seed and machine
replaced. Prints the table in Markdown: how many runs aligned and when, the errors on test with
Student's t interval over runs, and the errors as a multiple of the recipe's, by pairs of runs with
the same seed (`spelldown.study.report.reckoning.effects`).
"""

import argparse
import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spelldown.search.metrics import Interval
from spelldown.study.folder import StudyFolder
from spelldown.study.report.reckoning.effects import ELSEWHERE, Ratio, Trial, effects
from spelldown.study.report.reckoning.intervals import over_seeds

RUNS = Path(__file__).parents[1] / "docs" / "studies" / "align.csv"
BASE = "the recipe"
NEVER = "-"
HEADS = (
    "",
    "aligned",
    "in epoch",
    "alignment at the end",
    "test CER, %",
    "test WER, %",
    "mean",
    "times the recipe's",
)


@dataclass(frozen=True)
class Run:
    """A line of the file. aligned: the epoch, empty if it never did. alignment: in the last epoch,
    of 1. Error rates on test, in percent."""

    row: str
    seed: int
    aligned: str
    alignment: float
    cer: float
    wer: float
    date: str
    machine: str


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
            )
            for line in csv.DictReader(lines)
        ]


def write(place: Path, runs: Iterable[Run]) -> None:
    """The runs as a file, those of a row together."""
    with place.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, [each.name for each in fields(Run)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(run) for group in by_row(runs).values() for run in group)


def by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each row by their seeds; the base first, then as they came."""
    rows: dict[str, list[Run]] = {BASE: []}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return {row: sorted(group, key=lambda run: run.seed) for row, group in rows.items()}


def finished(study: Path, machine: str) -> Iterable[Run]:
    """The finished runs of a study's folder, each once, rows named for what they change."""
    folder = StudyFolder(study)
    plan, told = folder.read_plan(), set[str]()
    for row in plan.rows:
        for seed, name in row.runs.items():
            outcome = folder.read_outcome(name)
            if name in told or outcome is None or outcome.state != "finished":
                continue
            told.add(name)
            metrics = folder.run(name).metrics.read_text(encoding="utf-8").splitlines()
            yield Run(
                BASE if row.name == plan.base else row.name.replace("=", ": "),
                seed,
                str(outcome.aligned_epoch or ""),
                round(json.loads(metrics[-1])["alignment"]["value"], 2),
                round(100 * outcome.scores["test"]["cer"], 1),
                round(100 * outcome.scores["test"]["wer"], 1),
                (outcome.ended or "")[:10],
                machine,
            )


def table(runs: Iterable[Run]) -> str:
    """The runs as a Markdown table, a line a row, in the order of their first runs."""
    rows = by_row(runs)
    trials = [
        Trial(
            {} if run.row == BASE else {"row": run.row},
            run.wer / 100,
            int(run.aligned) if run.aligned else None,
            run.seed,
        )
        for group in rows.values()
        for run in group
    ]
    (effect,) = effects(trials, {"row": ELSEWHERE})
    ratios = {level.name: level.ratio for level in effect.levels}
    heads = (
        "",
        "aligned",
        "in epoch",
        "alignment at the end",
        "test CER, %",
        "test WER, %",
        "mean",
    )
    lines = [f"| {' | '.join(heads)} | times the recipe's |", "|---" * (len(heads) + 1) + "|"]
    for row, group in rows.items():
        rates = [run.wer for run in group]
        lines.append(
            f"| {f'**{row}**' if row == BASE else row}"
            f" | {sum(bool(run.aligned) for run in group)} of {len(group)}"
            f" | {', '.join(run.aligned or NEVER for run in group)}"
            f" | {', '.join(f'{run.alignment:.2f}' for run in group)}"
            f" | {', '.join(f'{run.cer:.1f}' for run in group)}"
            f" | {', '.join(f'{rate:.1f}' for rate in rates)}"
            f" | {sum(rates) / len(rates):.1f}{_range(over_seeds(rates))}"
            f" | {_times(ratios.get(row))} |"
        )
    return "\n".join(lines)


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f" ({max(interval.low, 0):.1f} to {interval.high:.1f})"


def _times(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.interval is None or not ratio.pairs:  # a single pair says how, not how surely
        return f"{ratio.value:.2f}"
    call = {"fewer errors": "**fewer**, ", "more errors": "**more**, "}.get(ratio.call, "")
    return f"{call}{ratio.value:.2f} ({ratio.interval.low:.2f} to {ratio.interval.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("studies", nargs="*", type=Path, metavar="STUDY")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--machine", default="", help="what these studies ran on, a word or two")
    asked = parser.parse_args()
    known = {(run.row, run.seed, run.machine): run for run in read(asked.runs)}
    for study in asked.studies:
        for run in finished(study, asked.machine):
            known[run.row, run.seed, run.machine] = run
    if asked.studies:
        write(asked.runs, known.values())
    print(table(known.values()))


if __name__ == "__main__":
    main()
