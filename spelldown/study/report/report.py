"""`spelldown report`: the page and the tables of a study, once or as long as it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spelldown.study.report.findings import Findings, find
from spelldown.study.report.page.page import page
from spelldown.study.report.rows import RowFigures, figures
from spelldown.study.report.tables import comma_separated, markdown
from spelldown.writing import write_whole

SECONDS = 15.0
"""Between two looks at a running study."""


@dataclass(frozen=True)
class Report:
    """The files of a report, and what they tell."""

    html: Path
    markdown: Path
    csv: Path
    findings: Findings
    rows: tuple[RowFigures, ...]


def write_report(folder: Path, into: Path | None = None, refresh: float | None = None) -> Report:
    """Writes report.html, report.md and report.csv of a study, as far as it is.

    folder: a study's, one with ordinary runs in it, or a single run's
    into: another folder for the report. refresh: seconds after which an open page looks for a newer
    one, for a study that runs

    Raises StudyError if there is neither a study nor a run. What is half-written by a run that goes
    on is passed over; the page is there whole or not at all.
    """
    findings = find(folder)
    rows = figures(findings)
    place = into or folder
    found = Report(
        place / "report.html",
        place / "report.md",
        place / "report.csv",
        findings,
        tuple(rows),
    )
    write_whole(found.html, page(findings, rows, refresh), lasting=False)
    write_whole(found.markdown, markdown(findings, rows), lasting=False)
    write_whole(found.csv, comma_separated(findings, rows), lasting=False)
    return found


def watch_report(
    folder: Path,
    into: Path | None = None,
    seconds: float = SECONDS,
    told: Callable[[Report], None] = lambda report: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Writes the report anew whenever something has changed, as long as the study is run.

    told: called after each time it was written. An open page follows by itself; the last one
    written stays as it is.
    """
    report: Report | None = None
    seen: object = None
    try:
        while True:
            now = _traces(folder)
            if report is None or now != seen:
                seen = now
                report = write_report(folder, into, refresh=seconds)
                told(report)
            if not report.findings.going_on:
                break
            sleep(seconds)
    except KeyboardInterrupt:
        write_report(folder, into)  # an open page is not to look for newer ones for ever
        raise
    return write_report(folder, into)


def _traces(folder: Path) -> dict[Path, tuple[int, int]]:
    """When the files that a report is made from were written last, and their sizes."""
    found = {}
    names = ("plan.json", "outcome.json", "scores.json", "metrics.jsonl", "recipe.yaml")
    for name in names:
        for path in folder.glob(f"**/{name}"):
            try:
                stat = path.stat()
            except OSError:
                continue  # gone meanwhile
            found[path] = stat.st_mtime_ns, stat.st_size
    return found
