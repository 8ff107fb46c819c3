"""The page that shows what a prepared corpus holds: one file, no network."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spelldown.data.preparing.looking.doubts import REASONS, UNUSABLE
from spelldown.data.preparing.looking.figures import RARE

WIDTH, HEIGHT, FLOOR = 300.0, 92.0, 74.0  # of a histogram, and where its bars stand
CHARTS = (
    ("durations", "seconds an utterance", "s"),
    ("pace", "characters a second", "a second"),
    ("levels", "loudness, dB below full scale", "dB"),
)
MOST_CHARACTERS = 400  # shown one by one; more are counted


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: where it stands, and what it counts."""

    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True)
class Chart:
    """A histogram, drawn into WIDTH x HEIGHT: its bars and the numbers below them."""

    name: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]


def look_page(record: Mapping[str, Any], name: str) -> str:
    """The page of a corpus from its record, as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = record["parts"]
    ends = {key: _end(parts.values(), key) for key, _, _ in CHARTS}
    vocabulary = record["vocabulary"]
    return environment.get_template("page.html").render(
        name=name,
        record=record,
        parts=parts,
        charts={part: list(_charts(told, ends)) for part, told in parts.items()},
        utterances=sum(told["utterances"] for told in parts.values()),
        hours=sum(told["hours"] for told in parts.values()),
        left_out=sum(record["left_out"].values()),
        characters=_characters(vocabulary["characters"]),
        more=max(0, len(vocabulary["characters"]) - MOST_CHARACTERS),
        rare=_examples(vocabulary, vocabulary["characters"], RARE),
        strange=_examples(vocabulary, vocabulary["not_in_it"], None),
        removed=_characters(record["text"]["punctuation_removed"]),
        lost=_characters(record["text"]["letters_removed"]),
        reasons=REASONS,
        unusable=UNUSABLE,
        rare_below=RARE,
        width=WIDTH,
        height=HEIGHT,
        floor=FLOOR,
    )


def _end(parts: Iterable[Mapping[str, Any]], key: str) -> int:
    """How many bins are shown, in all parts alike: to the last that is not empty."""
    filled = [n for part in parts for n, count in enumerate(part[key]["counts"], 1) if count]
    return max(filled, default=0)


def _charts(part: Mapping[str, Any], ends: Mapping[str, int]) -> Iterator[Chart]:
    for key, name, unit in CHARTS:
        told = part[key]
        if sum(told["counts"]):
            open_end = ends[key] == len(told["counts"])
            counts = told["counts"][: ends[key]]
            yield _chart(name, unit, told["low"], told["step"], counts, open_end)


def _chart(
    name: str, unit: str, low: float, step: float, counts: list[int], open_end: bool
) -> Chart:
    wide, high = WIDTH / len(counts), max(counts)
    bars = []
    name = f"{name}; the highest bar: {high:,}"
    for place, count in enumerate(counts):
        if count:
            tall = max(FLOOR * 0.94 * count / high, 1.0)
            begin, end = f"{low + place * step:g}", f"{low + (place + 1) * step:g}"
            reach = f"{begin} to {end} {unit}"
            if open_end and place == len(counts) - 1:
                reach = f"{begin} {unit} and more"
            if place == 0 and low:
                reach = f"up to {end} {unit}"
            says = f"{reach}: {count:,}"
            bars.append(Bar(place * wide + 0.4, FLOOR - tall, wide - 0.8, tall, says))
    width = len(counts) * step
    every = next(e for e in (1, 2, 5, 10, 20, 50) if width / e <= 8)
    marks = [low + n * every for n in range(1, int(width / every) + 1) if n * every < width]
    return Chart(name, bars, [((mark - low) / width * WIDTH, f"{mark:g}") for mark in marks])


def shown(character: str) -> str:
    """A character so that it can be seen: ␣, marks over a circle, others by their code point."""
    if character == " ":
        return "␣"
    kind = unicodedata.category(character)
    if kind.startswith("M"):
        return f"◌{character}"
    return f"U+{ord(character):04X}" if kind[0] in "CZ" else character


def _characters(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Characters with their counts and how they compare with the most frequent."""
    most = max(counts.values(), default=1)
    return [
        {"shown": shown(c), "name": _name(c), "count": n, "share": n / most}
        for c, n in list(counts.items())[:MOST_CHARACTERS]
    ]


def _examples(
    vocabulary: Mapping[str, Any], counts: Mapping[str, int], below: int | None
) -> list[dict[str, Any]]:
    """Characters that are rarer than `below` (all if None), each with utterances that have it."""
    chosen = [c for c, n in counts.items() if below is None or n < below]
    return [
        {
            "shown": shown(c),
            "name": _name(c),
            "count": counts[c],
            "examples": ", ".join(vocabulary["examples"].get(c, [])),
        }
        for c in chosen[-MOST_CHARACTERS:]
    ]


def _name(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '').lower()}".strip()
