"""A study's table in plain text: Markdown for a README, CSV for a spreadsheet."""

import csv
import io
from collections.abc import Mapping, Sequence

from spelldown.search.metrics import Interval
from spelldown.study.columns import COLUMNS
from spelldown.study.report.findings import Findings
from spelldown.study.report.reckoning.intervals import MEASURES, Difference
from spelldown.study.report.remarks import remark
from spelldown.study.report.rows import InPart, Measured, RowFigures
from spelldown.training.run.tracking import duration

MINUS = "\N{MINUS SIGN}"
TITLES = {"distance": "distance", "cer": "CER", "wer": "WER"}
COSTS = ("parameters", "epochs", "time", "utterances/s", "peak memory")
CLIPPED = 9.995  # rates above a thousand per cent are told without decimals


def figure(measure: str, value: float) -> str:
    """A value as a person reads it: `20.68` edits, `9.3 %`."""
    if measure == "distance":
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    percent = 100 * value
    return f"{percent:.1f} %" if abs(value) < CLIPPED else f"{percent:,.0f} %"


def between(measure: str, interval: Interval) -> str:
    """`8.1 to 10.4`: an interval without its unit, its low end no lower than nothing."""
    low, high = (figure(measure, max(end, 0.0)).removesuffix(" %") for end in interval)
    return f"{low} to {high}"


def change(measure: str, found: Difference) -> str:
    """`−1.2 (−2.0 to −0.4)`: a difference in points, with its interval."""
    value, low, high = (_signed(measure, each) for each in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _signed(measure: str, value: float) -> str:
    text = figure(measure, abs(value)).removesuffix(" %")
    if not float(text.replace(",", "")):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def aligned(one: RowFigures) -> str:
    """`2 of 3, epochs 5, 7`: how many runs' attention has aligned, and when."""
    if not one.aligned:
        return ""
    epochs = [epoch for _, epoch in one.aligned if epoch is not None]
    share = f"{len(epochs)} of {len(one.aligned)}"
    return share + (f", epoch {', '.join(map(str, epochs))}" if epochs else "")


def cost(one: RowFigures) -> dict[str, str]:
    """Each of COSTS, as words."""
    spent = one.cost
    speed = spent.utterances_per_second
    told = (
        "" if spent.weights is None else f"{spent.weights / 1e6:.2f} M",
        "" if spent.epochs is None else f"{spent.epochs:g}",
        "" if not spent.seconds else duration(spent.seconds),
        "" if speed is None else f"{speed:.1f}",
        "" if spent.peak_mib is None else f"{spent.peak_mib / 1024:.1f} GiB",
    )
    return dict(zip(COSTS, told, strict=True))


def markdown(findings: Findings, rows: Sequence[RowFigures]) -> str:
    """The table as Markdown, with a line on how to read it."""
    parts = findings.plan.parts
    titles = ["row", *COLUMNS, "aligned"]
    titles += [_titled(TITLES[m], part, parts) for part in parts for m in MEASURES]
    others = any(one.row.published for one in rows)
    titles += ["published"] * others
    titles += [*COSTS, "runs", "remark"]
    base = next((one for one in rows if one.base), None)
    lines = [_line(titles), _line(["---"] * len(titles))]
    for one in rows:
        cells = [f"**{one.name}**" if one.base else one.name]
        cells += [one.setup[name] for name in COLUMNS] + [aligned(one)]
        cells += [_cell(one.parts[part], m) for part in parts for m in MEASURES]
        cells += [published(one.row.published)] * others
        cells += [*cost(one).values(), _runs(one), remarks(one, base)]
        lines.append(_line(cells))
    head = f"# {findings.plan.title or findings.plan.name}\n\n"
    return head + "\n".join(lines) + "\n\n" + _legend(rows) + "\n"


def remarks(one: RowFigures, base: RowFigures | None) -> str:
    """What the study says of a row, and what happened."""
    said = one.row.remark.strip()
    said = said[:1].upper() + said[1:]
    said += "." if said and not said.endswith((".", "!", "?")) else ""
    return " ".join(text for text in (said, remark(one, base)) if text)


def published(found: Mapping[str, str | float]) -> str:
    """What others gave for a row: `20.68; took very long`; a distance needs no name."""
    return "; ".join(
        str(value) if name in ("distance", "remark") else f"{name} {value}"
        for name, value in found.items()
    )


def _runs(one: RowFigures) -> str:
    over = sum(run.outcome.over for run in one.runs)
    return f"{over} of {len(one.row.runs)}"


def _titled(name: str, part: str, parts: Sequence[str]) -> str:
    return f"{part} {name}" if len(parts) > 1 else name


def _cell(found: InPart, measure: str) -> str:
    """`9.3 % (8.1 to 10.4), better: −1.2 (−2.0 to −0.4)`."""
    if measure not in found.measures:
        return ""
    value = found.measures[measure]
    text = figure(measure, value.mean)
    if value.interval is not None:
        text += f" ({between(measure, value.interval)})"
    if found.not_final:
        text += f" {found.not_final}"
    if measure in found.against:
        against = found.against[measure]
        text += f", {against.call}: {change(measure, against)}"
        text += "" if against.seeds else " of one seed"
    return text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _legend(rows: Sequence[RowFigures]) -> str:
    base = next((one.name for one in rows if one.base), None)
    told = (
        "In brackets: 95 % intervals, over seeds (Student's t), of a single run over utterances "
        "(bootstrap)."
    )
    if base is None:
        return told
    return (
        f"{told} Better, worse or not known: against **{base}**, by the paired bootstrap over the "
        "utterances of both (Bisani and Ney 2004) with the scatter over seeds added."
    )


def comma_separated(findings: Findings, rows: Sequence[RowFigures]) -> str:
    """The table as CSV: plain numbers, rates as fractions, seconds and MiB; a line for each row."""
    base = next((one for one in rows if one.base), None)
    lines = [_plain(one, findings.plan.parts, base) for one in rows]
    titles = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, titles, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _plain(
    one: RowFigures, parts: Sequence[str], base: RowFigures | None
) -> Mapping[str, str | float | int | None]:
    line: dict[str, str | float | int | None] = {"row": one.name, "base": int(one.base)}
    line |= {f"axis {axis}": label for axis, label in one.row.values.items()}
    line |= dict(one.setup)
    for part in parts:
        found = one.parts[part]
        for measure in MEASURES:
            line |= _numbers(f"{part} {measure}", found.measures.get(measure))
            if measure in found.against:
                against = found.against[measure]
                line |= {
                    f"{part} {measure} difference": against.value,
                    f"{part} {measure} difference low": against.low,
                    f"{part} {measure} difference high": against.high,
                    f"{part} {measure} verdict": against.call,
                }
        line[f"{part} final"] = int(bool(found.measures) and not found.not_final)
    line |= {f"published {name}": value for name, value in one.row.published.items()}
    line |= {
        "runs": len(one.row.runs),
        "runs over": sum(run.outcome.over for run in one.runs),
        "runs aligned": sum(epoch is not None for _, epoch in one.aligned),
        "aligned epochs": " ".join(str(epoch) for _, epoch in one.aligned if epoch is not None),
        "parameters": one.cost.weights,
        "epochs": one.cost.epochs,
        "seconds": one.cost.seconds,
        "utterances per second": one.cost.utterances_per_second,
        "peak memory MiB": one.cost.peak_mib,
        "remark": remarks(one, base),
    }
    return line


def _numbers(name: str, found: Measured | None) -> dict[str, float | str | None]:
    if found is None:
        return {}
    low, high = found.interval or (None, None)
    return {name: found.mean, f"{name} low": low, f"{name} high": high}
