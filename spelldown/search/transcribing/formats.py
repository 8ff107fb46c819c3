"""Results written down: text, JSON lines, SubRip (SRT), WebVTT and CTM.

Subtitles hold at most two lines of 42 columns and seven seconds, as broadcasters ask for, and stand
for 0.8 s at least where the next leaves room. Times are rounded to the millisecond, once.
"""

import html
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from spelldown.search.transcribing.joined import Heard
from spelldown.search.transcribing.words import Word

Format = Literal["text", "json", "srt", "vtt", "ctm"]

ENDINGS: dict[Format, str] = {
    "text": ".txt", "json": ".jsonl", "srt": ".srt", "vtt": ".vtt", "ctm": ".ctm"
}  # fmt: skip
COLUMNS = 42  # of a line; Chinese, Japanese and Korean characters take two
LINES = 2
LONGEST, SHORTEST = 7.0, 0.8  # seconds of a subtitle


@dataclass(frozen=True)
class Cue:
    """A subtitle: its lines, and when it is shown, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def written(
    heard: Heard, format: Format, alone: bool = False, channel: int | None = None
) -> str:  # fmt: skip
    """A result in a format, ending with a line end.

    alone: it is all that its file holds; text then goes without the id, a line a segment. SRT and
    VTT are whole files in any case. channel: which was heard, from 0; None for the mean of all.
    """
    if format == "text":
        if not alone:
            return heard.line() + "\n"
        texts = [" ".join(segment.text.split()) for segment in heard.segments]
        return "".join(f"{text}\n" for text in texts if text)
    writers: dict[Format, Callable[[Heard], str]] = {
        "json": json_line, "srt": srt, "vtt": vtt, "ctm": partial(ctm, channel=channel)
    }  # fmt: skip
    return writers[format](heard)


def json_line(heard: Heard) -> str:
    """One JSON object on one line."""
    return json.dumps(heard.as_dict(), ensure_ascii=False) + "\n"


def srt(heard: Heard) -> str:
    """SubRip: numbered subtitles. An arrow in a text becomes one character, as it would end it."""
    return "\n".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n"
        + "".join(f"{line.replace('-->', '→')}\n" for line in cue.lines)
        for number, cue in enumerate(cues(heard), start=1)
    )


def vtt(heard: Heard) -> str:
    """WebVTT, as the W3C has it: UTF-8, with `&`, `<` and `>` escaped."""
    return "WEBVTT\n" + "".join(
        f"\n{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n"
        + "".join(f"{html.escape(line, quote=False)}\n" for line in cue.lines)
        for cue in cues(heard)
    )


def ctm(heard: Heard, channel: int | None = None) -> str:
    """NIST's time-marked words: recording, channel, start, duration, word, confidence; a line each.

    channel: which was heard, from 0; NIST counts from 1, and so does the column, which is 1 for the
    mean of all, too. Without a confidence, there is no such column. Spaces in the recording's name
    become underscores, since they part the columns.
    """
    number = 1 if channel is None else channel + 1
    name = "_".join(heard.id.split()) or "_"
    if name.startswith(";"):  # begins a comment
        name = f"_{name}"
    lines = []
    for word in heard.words:
        start, end = milliseconds(word.start), milliseconds(word.end)
        times = f"{start / 1000:.3f} {(end - start) / 1000:.3f}"
        sure = "" if word.confidence is None else f" {word.confidence:.3f}"
        lines.append(f"{name} {number} {times} {word.text}{sure}\n")
    return "".join(lines)


def milliseconds(seconds: float) -> int:
    """The nearest whole number of milliseconds."""
    return round(seconds * 1000)


def clock(milliseconds: int, point: str) -> str:
    """`01:02:03.004`, with a point or a comma before the milliseconds; hours have no limit."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{rest:03d}"


def cues(heard: Heard) -> list[Cue]:
    """The words of a result as subtitles, in order; they do not overlap.

    Each segment begins one, and a new one begins where lines or seconds would be too many.
    """
    groups: list[list[Word]] = []
    for segment in heard.segments:
        words = [piece for word in segment.words for piece in _pieces(word)]
        groups += _grouped(words)
    starts = [milliseconds(group[0].start) for group in groups]
    found = []
    for place, group in enumerate(groups):
        start, end = starts[place], milliseconds(group[-1].end)
        following = starts[place + 1] if place + 1 < len(groups) else None
        least = start + milliseconds(SHORTEST)
        end = max(end, least if following is None else min(least, following))
        end = end if following is None else min(end, max(following, start + 1))
        found.append(Cue(start, max(end, start + 1), tuple(_lines([w.text for w in group]))))
    return found


def _pieces(word: Word) -> Iterator[Word]:
    """A word in pieces that fit into a line each, its time shared out by their characters.

    Scripts without spaces give words that are as long as sentences.
    """
    pieces = [""]
    for character in word.text:
        if _width(pieces[-1] + character) > COLUMNS:
            pieces.append("")
        pieces[-1] += character
    said = 0
    each = (word.end - word.start) / max(len(word.text), 1)
    for piece in pieces:
        yield Word(piece, word.start + said * each, word.start + (said + len(piece)) * each)
        said += len(piece)


def _grouped(words: Sequence[Word]) -> Iterator[list[Word]]:
    """A segment's words in groups that each fit into a subtitle."""
    group: list[Word] = []
    for word in words:
        longer = [*group, word]
        long = word.end - longer[0].start > LONGEST
        if group and (long or len(_lines([one.text for one in longer])) > LINES):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _lines(words: Sequence[str]) -> list[str]:
    """Words in as few lines as they fit into; two lines are made as even as can be."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and _width(" ".join([*lines[-1], word])) > COLUMNS:
            lines.append([])
        lines[-1].append(word)
    if len(lines) == 2:
        halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words))]
        return list(min(halves, key=lambda pair: max(map(_width, pair))))
    return [" ".join(line) for line in lines]


def _width(text: str) -> int:
    """Columns that a text takes: two for wide characters, none for marks above others."""
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )
