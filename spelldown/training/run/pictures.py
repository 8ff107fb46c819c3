"""Pictures of what attention did, and of how a run went.

Drawn off screen, one figure at a time, without touching matplotlib's global state; every file is
written beside its place and then moved there, so that whoever looks sees a whole one.
"""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from spelldown.search.metrics import edit_counts, pieces
from spelldown.writing import write_whole

DPI = 100
COLUMN, WIDE_COLUMN = 0.078, 0.2  # inches a letter: no overlap at seven points; roomy for few
PIECE_COLUMN = 0.12  # inches a piece of several letters, whose name stands upright below it
LETTER = 0.06  # inches that each of its letters takes
FEW = 25  # letters up to which columns are roomy
FASTEST, FEWEST = 30, 60  # letters a second, and in all, from which on a text has run away
MOST = 600  # letters that each have a column of their own; a picture is then 4700 pixels wide
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 0.55, 0.15, 0.35, 0.55, 0.3  # margins in inches
SPACE, END = "␣", "∎"


def attention_picture(
    path: Path,
    weights: Tensor,
    letters: Sequence[str],
    seconds_per_frame: float,
    title: str = "",
) -> None:
    """A PNG of attention: letters from left to right, as one reads, and seconds upwards.

    One panel a head, each scaled to its own brightest weight, which it names. A text with more
    letters than can be said in the time has run away: its end is left out, and the title says so.

    weights: (H, L, T'), a row for each letter
    letters: the text that each of the L symbols adds, `<eos>` included where it came
    seconds_per_frame: of the listener's frames

    Raises ValueError if letters and weights differ in number.
    """
    write_whole(path, attention_png(weights, letters, seconds_per_frame, title))


def attention_png(
    weights: Tensor, letters: Sequence[str], seconds_per_frame: float, title: str = ""
) -> bytes:
    """The PNG that `attention_picture` writes."""
    heads, steps, frames = weights.shape
    if steps != len(letters):
        raise ValueError(f"weights for {steps} steps, but {len(letters)} letters")
    seconds = frames * seconds_per_frame
    sayable = max(FEWEST, round(FASTEST * seconds))
    if steps > sayable:
        title = f"{title} (the first {sayable} of {steps} letters)".strip()
        weights, letters, steps = weights[:, :sayable], letters[:sayable], sayable
    longest = max(map(len, _names(letters)), default=1)
    column = COLUMN if longest == 1 else PIECE_COLUMN
    width = max(3.5, min(steps, MOST) * (WIDE_COLUMN if steps <= FEW else column))
    below = BOTTOM + LETTER * (longest - 1)
    height = min(max(1.6, 1.0 + 0.25 * seconds), 4.0)
    whole = (LEFT + width + RIGHT, TOP + heads * (height + BETWEEN) - BETWEEN + below)
    figure = Figure(figsize=whole)
    for head, shown in enumerate(weights.detach().float().cpu().numpy()):
        bottom = below + (heads - 1 - head) * (height + BETWEEN)
        box = (LEFT / whole[0], bottom / whole[1], width / whole[0], height / whole[1])
        panel = figure.add_axes(box)
        panel.imshow(shown.T, aspect="auto", origin="lower", vmin=0, extent=(0, steps, 0, seconds))
        name = f"head {head + 1}, " if heads > 1 else ""
        panel.set_title(f"{name}brightest {shown.max():.2f}", fontsize=7, loc="right", pad=2)
        panel.set_ylabel("seconds", fontsize=7)
        panel.tick_params(labelsize=7)
        _name_letters(panel, letters if head == heads - 1 else [])
    figure.text(LEFT / whole[0], 1 - 0.07 / whole[1], title, fontsize=8, va="top", parse_math=False)
    return _png(figure)


def _name_letters(panel: Axes, letters: Sequence[str]) -> None:
    """A tick in the middle of each column; every n-th where there are too many.

    Names of several letters stand upright.
    """
    names = _names(letters)
    every = math.ceil(max(len(names), 1) / MOST)
    ticks = [place + 0.5 for place in range(len(names))]
    upright = 90 if any(len(name) > 1 for name in names) else 0
    panel.set_xticks(
        ticks[::every],
        names[::every],
        fontsize=7,
        family="monospace",
        parse_math=False,
        rotation=upright,
    )
    panel.tick_params(axis="x", length=0, pad=2)
    if names:
        panel.set_xlabel(f"letters  ({SPACE} space, {END} end)", fontsize=7, loc="left")


def _names(letters: Sequence[str]) -> list[str]:
    return [END if letter == "<eos>" else letter.replace(" ", SPACE) for letter in letters]


@dataclass(frozen=True)
class Shown:
    """One utterance on a page: what was said (None if nobody knows), and what was made of it.

    weights (H, L, T') with one row for each of the L `letters`; None for no picture.
    """

    id: str
    said: str | None
    spelled: str
    weights: Tensor | None = None
    letters: Sequence[str] = ()
    seconds_per_frame: float = 0.01


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h2 { font-size: 1rem; margin: 2.5rem 0 .3rem; overflow-wrap: anywhere }
p.text { font-family: ui-monospace, monospace; margin: .1rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere }
p.text b { display: inline-block; width: 5.5rem; font-weight: normal; color: #777 }
del { background: #fde0dc; color: #a01010; text-decoration: none }
ins { background: #dcefdc; color: #0b5f0b; text-decoration: none }
div.wide { overflow-x: auto; margin-top: .6rem }
small { color: #777; font-weight: normal }
"""


def attention_page(
    path: Path, items: Iterable[Shown], title: str = "What was heard", summary: str = ""
) -> None:
    """One self-contained HTML page: each utterance's texts, differences marked, and its attention.

    Pictures are inlined; the page needs no other file and no network.
    """
    body = "\n".join(map(_section, items))
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(summary)}</p>\n{body}\n</body></html>\n"
    )
    write_whole(path, page.encode())


def _section(item: Shown) -> str:
    """One utterance's part of a page."""
    edits = ""
    if item.said is not None:
        counts = edit_counts(item.said, item.spelled)
        edits = f" <small>{counts.edits} of {counts.length} characters wrong</small>"
    lines = [f"<h2>{html.escape(item.id)}{edits}</h2>"]
    if item.said is None:
        lines.append(_text_line("spelled", html.escape(item.spelled)))
    else:
        said, spelled = marked(item.said, item.spelled)
        lines += [_text_line("said", said), _text_line("spelled", spelled)]
    if item.weights is not None:
        png = attention_png(item.weights, item.letters, item.seconds_per_frame)
        data = base64.b64encode(png).decode()
        alt = html.escape(f"attention while spelling {item.spelled}", quote=True)
        image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
        lines.append(f'<div class="wide">{image}</div>')
    return "\n".join(lines)


def _text_line(label: str, text: str) -> str:
    return f'<p class="text"><b>{label}</b>{text}</p>'


def marked(said: str, spelled: str) -> tuple[str, str]:
    """Both texts as HTML, with <del> around what was not spelled and <ins> around what came."""
    left, right = [], []
    for piece in pieces(said, spelled):
        one, other = html.escape(piece.said), html.escape(piece.spelled)
        equal = piece.kind == "equal"
        left.append(one if equal or not one else f"<del>{one}</del>")
        right.append(other if equal or not other else f"<ins>{other}</ins>")
    return "".join(left), "".join(right)


CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "cross entropy a symbol": {"train": ("train", "ce"), "dev": ("dev", "loss")},
    "error (dev), cut off at 200 %": {"CER": ("dev", "cer"), "WER": ("dev", "wer")},
    "attention and forcing": {
        "alignment": ("alignment", "value"),
        "teacher forcing": ("teacher_forcing",),
    },
    "learning rate": {"": ("rate",)},
}


def curves_picture(metrics: Path, path: Path) -> None:
    """A PNG of how a run went, epoch by epoch, from its metrics.jsonl.

    Loss, error rates, alignment with the teacher forcing rate, and learning rate. What is missing
    or null in a line leaves a gap. A line that was not written to its end is passed over.
    """
    records = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    figure = Figure(figsize=(9, 6), layout="constrained")
    for panel, (name, curves) in zip(figure.subplots(2, 2).ravel(), CURVES.items(), strict=True):
        for label, keys in curves.items():
            epochs = [record["epoch"] for record in records]
            values = [_number(record, keys) for record in records]
            panel.plot(epochs, values, marker=".", markersize=3, linewidth=1, label=label)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
        panel.set_xlabel("epoch", fontsize=7)
        if any(curves):
            panel.legend(fontsize=7)
        if name.startswith(("attention", "error")):
            panel.set_ylim(bottom=0)
        if name.startswith("error"):
            panel.set_ylim(top=min(panel.get_ylim()[1], 2.0))
            panel.yaxis.set_major_formatter("{x:.0%}")
    write_whole(path, _png(figure))


def _number(record: dict[str, Any], keys: tuple[str, ...]) -> float:
    """The number at the end of `keys`, or NaN."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else math.nan


def _png(figure: Figure) -> bytes:
    canvas: Callable[[Figure], Any] = FigureCanvasAgg
    canvas(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
