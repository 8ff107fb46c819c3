"""Pictures of a tuning: how each weight moves the error, alone and with each other.

One SVG, in one HTML page that needs nothing else. Only what was measured is drawn: a dot a trial,
a line through the trials that differ in one weight alone, and a ring around the best, which need
not lie on every line. A weight whose line is flat hardly matters; a best at the end of its range
asks for a wider one.
"""

import html
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

from spelldown.recipe.using.trials import Judge, Trial, Weight, best_of
from spelldown.writing import write_whole

WIDE, HIGH = 300, 220  # of a panel's plot, in the SVG's units
LEFT, TOP, RIGHT, BELOW = 58, 34, 22, 46  # around it
LEGEND = 24  # below all panels
ACROSS = 3  # panels side by side
CLIPPED = (
    0.85  # share of the trials that the scale of errors has room for; the rest stand at its top
)
SHOWN = 12  # trials in the table
COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""From the fewest errors to the most: viridis (van der Walt and Smith), which all eyes can tell."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .15rem .8rem .15rem 0 } th { font-weight: 600 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem } div.wide { overflow-x: auto }
"""
SVG_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#555}"
    ".axis{stroke:#999;fill:none}.line{stroke:#21918c;stroke-width:2;fill:none}"
    ".before{stroke:#b33;stroke-dasharray:5 4}.dot{fill:#777;fill-opacity:.45}"
    ".on{fill:#21918c}.best{fill:none;stroke:#b30;stroke-width:2.5}"
)

Scale = Callable[[float], float]


def write_landscape(
    page: Path,
    trials: Sequence[Trial],
    weights: Sequence[Weight],
    through: Trial,
    *,
    judge: Judge,
    before: float,
    title: str,
) -> None:
    """Writes the page and, beside it, its picture alone (.svg); each whole or not at all.

    through: the trial that lines were tried through, the best before them. before: the judge's
    measure of the search that the tuning is held against
    """
    picture = landscape(trials, weights, through, judge=judge, before=before)
    write_whole(page.with_suffix(".svg"), picture)
    heads = [*(weight.name for weight in weights), "WER", "CER", "distance", "unended", "seconds"]
    rows = sorted(trials, key=lambda trial: trial.rank(judge))[:SHOWN]
    table = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(trial, weights))}</tr>"
        for trial in rows
    )
    write_whole(
        page,
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{len(trials)} trials. Each dot is one; point at it for "
        f"its weights. The lines go through trials that differ in one weight alone from the best "
        f"of those where all weights were tried at once. The ring is the best of all, the dashed "
        f"line the recipe's own search. In panels of two weights, darker is better. More errors "
        f"than fit stand at the top of the scale.</p>"
        f'<div class="wide">{picture}</div><h2>The best {len(rows)}</h2><div class="wide"><table>'
        f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>{table}</table>"
        f"</div></html>\n",
    )


def _cells(trial: Trial, weights: Sequence[Weight]) -> list[str]:
    found = trial.measured
    return [
        *(f"{trial.weights[weight.name]:g}" for weight in weights),
        f"{found.wer:.2%}",
        f"{found.cer:.2%}",
        f"{found.distance:.2f}",
        str(found.unended),
        f"{found.seconds:.1f}",
    ]


def landscape(
    trials: Sequence[Trial],
    weights: Sequence[Weight],
    through: Trial,
    *,
    judge: Judge,
    before: float,
) -> str:
    """The picture, as SVG: a panel for each weight, then one for each pair of weights."""
    best = best_of(trials, judge)
    errors = _Errors(trials, best, judge, before)
    panels = [_alone(trials, weight, through, best, errors) for weight in weights]
    rows = -(-len(panels) // ACROSS)  # pairs begin a row of their own
    panels += [""] * (rows * ACROSS - len(panels))
    panels += [_pair(trials, one, other, best, errors) for one, other in combinations(weights, 2)]
    across = LEFT + WIDE + RIGHT
    down = TOP + HIGH + BELOW
    width = across * min(ACROSS, max(len(weights), 1) if len(weights) < ACROSS else ACROSS)
    foot = down * -(-len(panels) // ACROSS)
    legend = _legend(errors) if len(weights) > 1 else ""
    height = foot + (LEGEND if legend else 0)
    placed = "".join(
        f'<g transform="translate({place % ACROSS * across} {place // ACROSS * down})">{panel}</g>'
        for place, panel in enumerate(panels)
        if panel
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img"><style>{SVG_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{placed}'
        f'<g transform="translate(0 {foot})">{legend}</g></svg>\n'
    )


class _Errors:
    """The measure that is judged by: its values, how they are written, and its scale."""

    def __init__(self, trials: Sequence[Trial], best: Trial, judge: Judge, before: float) -> None:
        self.judge, self.before = judge, before
        values = sorted(self.of(trial) for trial in trials)
        self.low = min(self.of(best), before)
        most = values[min(int(len(values) * CLIPPED), len(values) - 1)]
        self.high = max(most, before, self.low + 1e-6)
        room = 0.08 * (self.high - self.low)
        self.low, self.high = max(self.low - room, 0.0), self.high + room

    @property
    def name(self) -> str:
        return "distance" if self.judge == "distance" else self.judge.upper()

    def of(self, trial: Trial) -> float:
        return float(getattr(trial.measured, self.judge))

    def said(self, value: float) -> str:
        return f"{value:.2f}" if self.judge == "distance" else f"{value:.1%}"

    def place(self, value: float) -> float:
        """From the foot of a panel (fewest errors) to its top; more than fits stands at the top."""
        return TOP + HIGH * (1 - min((value - self.low) / (self.high - self.low), 1.0))

    def colour(self, value: float) -> str:
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) * (len(COLOURS) - 1)
        at = min(int(share), len(COLOURS) - 2)
        mixed = (
            round(a + (b - a) * (share - at))
            for a, b in zip(COLOURS[at], COLOURS[at + 1], strict=True)
        )
        return f"rgb({','.join(map(str, mixed))})"


def _alone(
    trials: Sequence[Trial], weight: Weight, through: Trial, best: Trial, errors: _Errors
) -> str:
    """One weight from left to right, errors upwards."""
    across = _across(weight)
    line = sorted(
        (trial for trial in trials if _differing(trial, through) <= {weight.name}),
        key=lambda trial: trial.weights[weight.name],
    )
    points = " ".join(
        f"{across(one.weights[weight.name]):.1f},{errors.place(errors.of(one)):.1f}" for one in line
    )
    before = errors.place(errors.before)
    parts = [
        _frame(weight, f"{errors.name} by {weight.name}", _levels(errors)),
        f'<path class="before" d="M{LEFT} {before:.1f}h{WIDE}">'
        f"<title>the recipe's own search: {errors.said(errors.before)}</title></path>",
    ]
    for trial in sorted(trials, key=lambda trial: trial in line):
        x, y = across(trial.weights[weight.name]), errors.place(errors.of(trial))
        name = "on" if trial in line else "dot"
        parts.append(_dot(x, y, name, trial, errors))
    x, y = across(best.weights[weight.name]), errors.place(errors.of(best))
    parts.append(f'<polyline class="line" points="{points}"/>')
    parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
    return "".join(parts)


def _pair(trials: Sequence[Trial], one: Weight, other: Weight, best: Trial, errors: _Errors) -> str:
    """Two weights against each other, errors as colours; the better trials lie on top."""
    across, upwards = _across(one), _upwards(other)
    parts = [
        _frame(one, f"{one.name} across, {other.name} upwards", _heights(other)),
    ]
    for trial in sorted(trials, key=errors.of, reverse=True):
        x, y = across(trial.weights[one.name]), upwards(trial.weights[other.name])
        fill = f' style="fill:{errors.colour(errors.of(trial))}"'
        parts.append(_dot(x, y, "", trial, errors, fill))
    x, y = across(best.weights[one.name]), upwards(best.weights[other.name])
    parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="8"/>')
    return "".join(parts)


def _legend(errors: _Errors) -> str:
    """Which colour is which error: a strip with its ends named."""
    wide, steps, left = 120, 24, LEFT + 100
    parts = [
        f'<text class="small" x="{left - 6}" y="10" text-anchor="end">'
        f"{errors.name} {errors.said(errors.low)}</text>",
        f'<text class="small" x="{left + wide + 6}" y="10">{errors.said(errors.high)}</text>',
    ]
    for step in range(steps):
        value = errors.low + (errors.high - errors.low) * step / (steps - 1)
        parts.append(
            f'<rect x="{left + wide * step / steps:.1f}" y="1" '
            f'width="{wide / steps:.1f}" height="10" fill="{errors.colour(value)}"/>'
        )
    return "".join(parts)


def _differing(one: Trial, other: Trial) -> set[str]:
    return {name for name, value in one.weights.items() if value != other.weights[name]}


def _dot(x: float, y: float, name: str, trial: Trial, errors: _Errors, fill: str = "") -> str:
    weights = ", ".join(f"{key} {value:g}" for key, value in trial.weights.items())
    told = html.escape(f"{errors.name} {errors.said(errors.of(trial))}: {weights}")
    return (
        f'<circle class="{name}"{fill} cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
        f"<title>{told}</title></circle>"
    )


def _across(weight: Weight) -> Scale:
    return lambda value: LEFT + WIDE * (value - weight.low) / (weight.high - weight.low)


def _upwards(weight: Weight) -> Scale:
    return lambda value: TOP + HIGH * (1 - (value - weight.low) / (weight.high - weight.low))


def _levels(errors: _Errors) -> Iterator[tuple[float, str]]:
    """Where errors are written beside a panel, and what."""
    for step in range(5):
        value = errors.low + (errors.high - errors.low) * step / 4
        yield errors.place(value), errors.said(value)


def _heights(weight: Weight) -> Iterator[tuple[float, str]]:
    for step in range(5):
        value = weight.low + (weight.high - weight.low) * step / 4
        yield _upwards(weight)(value), f"{value:.3g}"


def _frame(weight: Weight, title: str, marks: Iterator[tuple[float, str]]) -> str:
    """A panel's box with its title, the weight's numbers below and the marks at its left."""
    foot = TOP + HIGH
    parts = [
        f'<text x="{LEFT}" y="{TOP - 12}">{html.escape(title)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{foot}H{LEFT + WIDE}"/>',
        f'<text class="small" x="{LEFT + WIDE / 2}" y="{foot + 34}" text-anchor="middle">'
        f"{html.escape(weight.name)}</text>",
    ]
    for step in range(5):
        value = weight.low + (weight.high - weight.low) * step / 4
        parts.append(
            f'<text class="small" x="{_across(weight)(value):.1f}" y="{foot + 17}" '
            f'text-anchor="middle">{value:.3g}</text>'
        )
    for y, said in marks:
        parts.append(
            f'<text class="small" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>'
        )
    return "".join(parts)
