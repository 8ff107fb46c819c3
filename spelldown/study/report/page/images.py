"""Pictures of attention for a page: which of them, and small enough to be carried in it."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spelldown.study.report.findings import Found
from spelldown.study.report.rows import RowFigures

NAME = re.compile(r"epoch-(\d+)-(.+)\.png")
BUDGET = 6_000_000  # bytes of pictures in a page, so that a phone opens it
EACH = 10_000  # bytes that one is reckoned with before it is encoded
UTTERANCES, EPOCHS, FEWEST = 2, 24, 4  # shown at most, and of epochs at least
COLOURS = 48  # of a palette: attention's scale of colours and grey letters
WIDEST = 1100  # pixels
EARLY = 1.5  # above 1: more of the early epochs, in which attention aligns


@dataclass(frozen=True)
class Strip:
    """One row's attention for one utterance: a picture for each epoch, as data URLs."""

    row: str
    utterance: str
    seed: int
    pictures: Mapping[int, str]


def strips(rows: Sequence[RowFigures]) -> list[Strip]:
    """For each row its first run that drew pictures, for the same utterances and epochs in all.

    As many epochs as BUDGET allows, evenly spread but for the early ones, which are more.
    """
    drawn = {one.name: pick for one in rows if (pick := _first_drawn(one.runs)) is not None}
    if not drawn:
        return []
    chosen = _utterances(files for _, files in drawn.values())
    count = BUDGET // (EACH * len(drawn) * len(chosen))
    epochs = {epoch for _, files in drawn.values() for _, epoch in files}
    kept = _spread(sorted(epochs), min(max(count, FEWEST), EPOCHS))
    found = []
    for name, (run, files) in drawn.items():
        for utterance in chosen:
            there = {e: files[utterance, e] for e in kept if (utterance, e) in files}
            shown = {epoch: url for epoch, path in there.items() if (url := _encoded(path))}
            if shown:
                found.append(Strip(name, utterance, run.seed, shown))
    return found


Files = Mapping[tuple[str, int], Path]


def _first_drawn(runs: Iterable[Found]) -> tuple[Found, Files] | None:
    for run in runs:
        files = {}
        for path in run.folder.pictures.glob("epoch-*.png"):
            if match := NAME.fullmatch(path.name):
                files[match[2], int(match[1])] = path
        if files:
            return run, files
    return None


def _utterances(rows: Iterable[Files]) -> list[str]:
    """Those that most rows have drawn; of equals, in the order of their names."""
    counts: dict[str, int] = {}
    for files in rows:
        for utterance in {utterance for utterance, _ in files}:
            counts[utterance] = counts.get(utterance, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))[:UTTERANCES]


def _spread(epochs: Sequence[int], count: int) -> list[int]:
    """At most `count` epochs, the first and the last among them."""
    if len(epochs) <= count:
        return list(epochs)
    places = {round((len(epochs) - 1) * (n / (count - 1)) ** EARLY) for n in range(count)}
    return [epochs[place] for place in sorted(places)]


_ENCODED: dict[tuple[Path, int], str] = {}  # a page that is written again and again reads each once


def _encoded(path: Path) -> str:
    """A picture as a data URL of few colours; empty if it cannot be read, or is gone."""
    try:
        key = path, path.stat().st_mtime_ns
        if key not in _ENCODED:
            _ENCODED[key] = _smaller(path)
        return _ENCODED[key]
    except OSError:
        return ""


def _smaller(path: Path) -> str:
    from PIL import Image  # matplotlib, which drew it, brings it

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > WIDEST:
        height = round(picture.height * WIDEST / picture.width)
        picture = picture.resize((WIDEST, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
