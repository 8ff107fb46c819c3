"""A study's page, put together: HTML with its style, its script and all its data inside."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spelldown.study.axes import in_short
from spelldown.study.columns import COLUMNS
from spelldown.study.folder import counted
from spelldown.study.report.findings import Findings
from spelldown.study.report.page.axes import groups
from spelldown.study.report.page.charts import colours, curve_data, forests, panels
from spelldown.study.report.page.images import Strip, strips
from spelldown.study.report.page.spelled import utterances
from spelldown.study.report.reckoning.intervals import MEASURES
from spelldown.study.report.rows import InPart, RowFigures
from spelldown.study.report.tables import (
    COSTS,
    TITLES,
    between,
    change,
    cost,
    figure,
    published,
    remarks,
)

HERE = Path(__file__).parent
STATES = ("finished", "stopped", "failed", "running", "waiting")
MANY = 5  # rows from which it is worth a word that one of twenty is called different by chance


def page(findings: Findings, rows: Sequence[RowFigures], refresh: float | None = None) -> str:
    """The page as HTML. refresh: seconds after which an open page looks for a newer one."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = _parts_with_figures(findings, rows)
    own = [one for one in rows if not one.as_base]  # the others would only lie over the base
    drawn = strips(own)
    epochs = sorted({epoch for strip in drawn for epoch in strip.pictures})
    shown = [(part, utterances(own, part)) for part in parts]
    data = {
        "refresh": refresh,
        "rows": curve_data(own),
        "curves": panels(),
        "epochs": epochs,
        "strips": [strip.pictures for strip in drawn],
    }
    return environment.get_template("page.html").render(
        breakable=_breakable,
        title=findings.plan.title or findings.plan.name,
        state=_state(findings),
        live=refresh is not None,
        progress=_progress(findings),
        about=_about(findings, rows),
        rows=_views(rows, parts),
        parts=parts,
        part_options=[(part, part) for part in parts],
        measure_options=[(measure, TITLES[measure]) for measure in MEASURES],
        columns=COLUMNS,
        costs=COSTS,
        forests=forests(own, parts),
        effects=groups(rows, parts),
        curves=any(run.records for one in rows for run in one.runs),
        strips=_strip_views(drawn, rows),
        epochs=epochs,
        utterance_options=[(u, u) for u in dict.fromkeys(strip.utterance for strip in drawn)],
        spelled=[
            {"part": part, "hidden": part != parts[0], "utterances": _coloured(each, rows)}
            for part, each in shown
            if each
        ],
        method=list(_method(findings, rows)),
        data=_as_json(data),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
    )


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after its signs, but not in a number."""
    parts = re.split(r"(?<=[=_/-])(?=.)|(?<=[.])(?=\D)", name)
    return Markup("<wbr>").join(parts)


def _as_json(data: Any) -> Markup:
    """JSON that no text in it can end: `<` is written by its code."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _parts_with_figures(findings: Findings, rows: Sequence[RowFigures]) -> tuple[str, ...]:
    """The parts that any row has figures for; the first of the plan if none has."""
    there = [part for part in findings.plan.parts if any(one.parts[part].measures for one in rows)]
    return tuple(there) or findings.plan.parts[:1]


def _state(findings: Findings) -> str:
    """`12 runs: 9 finished, 1 failed, 2 waiting`."""
    states = findings.states
    total = sum(states.values())
    if not total:
        return "no run yet"
    runs = counted(total, "run")
    if set(states) == {"finished"}:
        return f"{runs}, all finished" if total > 1 else f"{runs}, finished"
    return f"{runs}: " + ", ".join(f"{states[s]} {s}" for s in STATES if s in states)


def _progress(findings: Findings) -> list[tuple[str, float]]:
    """The share of the runs in each state, in per cent, while not all are over."""
    states = findings.states
    total = sum(states.values())
    if not findings.study or not set(states) - {"finished"}:
        return []
    return [(s, round(100 * states[s] / total, 2)) for s in STATES[:-1] if s in states]


def _about(findings: Findings, rows: Sequence[RowFigures]) -> str:
    seeds = sorted({seed for one in rows for seed in one.row.runs})
    told = [counted(len(rows), "row")]
    if findings.study and seeds:
        told.append(f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}")
    for part in findings.plan.parts:
        counts = {r.scores[part].utterances for o in rows for r in o.runs if part in r.scores}
        if counts:
            told.append(f"{part}: {max(counts):,} utterances")
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{'; '.join(told)}. Written {written}."


def _views(rows: Sequence[RowFigures], parts: Sequence[str]) -> list[dict[str, Any]]:
    base = next((one for one in rows if one.base), None)
    shades = colours(rows)
    return [
        {
            "name": one.name,
            "base": one.base,
            "colour": shades[one.name].colour,
            "dash": shades[one.name].dash % 3,
            "tags": _tags(one),
            "setup": one.setup,
            "differing": one.differing,
            "cells": {part: {m: _cell(one.parts[part], m) for m in MEASURES} for part in parts},
            "told": {m: any(_tells(one, part, m) for part in parts) for m in MEASURES},
            "missing": {part: _missing(one, part) for part in parts},
            "published": published(one.row.published),
            "remark": _remark(one, base),
            "changes": [_change(path, what) for path, what in one.row.changes.items()],
            "verdicts": list(one.verdicts.items()),
            "runs_told": len(one.aligned),
            "epochs_aligned": _epochs_aligned(one),
            "cost": cost(one),
            "runs_over": f"{sum(run.outcome.over for run in one.runs)} of {len(one.row.runs)}",
        }
        for one in rows
    ]


def _tags(one: RowFigures) -> list[dict[str, str]]:
    """Runs that are not simply over."""
    counts: dict[str, int] = {}
    for run in one.runs:
        counts[run.outcome.state] = counts.get(run.outcome.state, 0) + 1
    alike = [{"kind": "", "says": "as the base"}] if one.as_base else []
    told = [state for state in ("running", "failed", "stopped") if state in counts]
    every = len(one.row.runs)
    return alike + [
        {"kind": s, "says": s if counts[s] == every else f"{counts[s]} of {every} {s}"}
        for s in told
    ]


def _cell(found: InPart, measure: str) -> dict[str, Any] | None:
    if measure not in found.measures:
        return None
    value, against = found.measures[measure], found.against.get(measure)
    return {
        "value": figure(measure, value.mean),
        "not_final": found.not_final,
        "between": between(measure, value.interval) if value.interval is not None else "",
        "call": against.call if against else "",
        "change": change(measure, against) if against else "",
        "lone": against is not None and not against.seeds,
    }


def _tells(one: RowFigures, part: str, measure: str) -> bool:
    return measure in one.parts[part].measures or bool(_missing(one, part))


def _missing(one: RowFigures, part: str) -> str:
    """Why there is no figure, where that is known."""
    told = [run.outcome.scores.get(part, {}).get("missing") for run in one.runs]
    return next((str(text) for text in told if text), "")


def _remark(one: RowFigures, base: RowFigures | None) -> Markup:
    """The study's own words on the row, and what happened."""
    return Markup("<span>{}</span>").format(remarks(one, base))


def _change(path: str, what: Any) -> dict[str, str]:
    there, here = what
    return {"path": path, "there": in_short(there, 120), "here": in_short(here, 120)}


def _epochs_aligned(one: RowFigures) -> str:
    epochs = sorted(epoch for _, epoch in one.aligned if epoch is not None)
    if len(set(epochs)) < 2:
        return f"epoch {epochs[0]}" if epochs else ""
    return f"epochs {', '.join(map(str, epochs))}"


def _strip_views(drawn: Sequence[Strip], rows: Sequence[RowFigures]) -> list[dict[str, Any]]:
    shades = colours(rows)
    runs = {one.name: len(one.row.runs) for one in rows}
    return [
        {
            "place": place,
            "row": strip.row,
            "seed": strip.seed if runs[strip.row] > 1 else None,
            "utterance": strip.utterance,
            "hidden": strip.utterance != drawn[0].utterance,
            "colour": shades[strip.row].colour,
            "last": max(strip.pictures),
            "picture": strip.pictures[max(strip.pictures)],
        }
        for place, strip in enumerate(drawn)
    ]


def _coloured(found: Sequence[Any], rows: Sequence[RowFigures]) -> list[dict[str, Any]]:
    shades = colours(rows)
    return [
        {
            "id": one.id,
            "said": one.said,
            "lines": [{**vars(line), "colour": shades[line.row].colour} for line in one.lines],
        }
        for one in found
    ]


def _method(findings: Findings, rows: Sequence[RowFigures]) -> list[str]:
    """What the numbers mean, as far as the page has them."""
    told = [
        "Distance is the mean number of character edits an utterance. CER and WER are edits by "
        "characters and words said, over the whole part. Every run is scored with the weights of "
        "its best epoch; runs that failed do not count.",
        "Intervals are 95 %. Over several seeds they are Student's t: of so few runs a bootstrap "
        "would be far too narrow. Of a single run they are a bootstrap over utterances, and say "
        "nothing of other seeds.",
    ]
    if any(one.row.values for one in rows):
        told.append(
            "The effect of an axis is the mean over pairs of runs that differ in it alone, seeds "
            "being the same, as a ratio of errors; its interval is Student's t over the pairs. "
            "Fitted means that there are too few such pairs: a line is then fitted to all runs at "
            "once, with one scatter for all of them. Effects speak of these utterances. That one "
            "axis may work otherwise where another one changes is part of the scatter."
        )
    base = next((one.name for one in rows if one.base), None)
    if base is not None and len(rows) > 1:
        told.append(
            f"Better and worse compare with {base}, by the paired bootstrap over the utterances "
            "that both spelled (Bisani and Ney, ICASSP 2004), to which the scatter of the runs "
            "over seeds is added (Welch). Not known means that the interval of the difference "
            "reaches over nothing. A ¹ marks a comparison of one seed each: it tells about these "
            "two runs, and not about what other seeds would give."
        )
        if len(rows) > MANY:
            told.append(
                f"{len(rows) - 1} rows are compared: of twenty rows that are no different, one is "
                "called better or worse by chance."
            )
    if any(one.cost.seconds for one in rows):
        told.append(
            "Time is the wall time of a run, on average over seeds; memory the most that its "
            "process held, on a GPU its tensors. Runs that share a machine slow each other down."
        )
    if not findings.study:
        told.append(
            "These are ordinary runs: figures are those of their best validation, and rows are "
            "runs whose recipes differ in their seeds alone."
        )
    return told
