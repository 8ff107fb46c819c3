"""Rows of tables: fields between delimiters, or a JSON object a line; a bad row is told by line.

Python's csv module reads quoted fields here, one row at a time: left alone with a quotation mark
that nobody closed, it would take the rest of the file for one field.
"""

import csv
import json
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from spelldown.data.preparing.sources.reading.lines import Line

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
LOOKED_AT = 100  # JSON objects from which the columns are told


class Row(NamedTuple):
    """A row: the line that it begins in, its fields by column, and what is wrong with it."""

    line: int
    fields: dict[str, str]
    wrong: str = ""


def split_line(text: str, delimiter: str, quotes: bool) -> list[str]:
    """The fields of a row that is one line."""
    if not quotes or '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return text.split(delimiter)


def delimited(
    lines: Iterator[Line], names: list[str], delimiter: str, quotes: bool
) -> Iterator[Row]:
    """Rows with as many fields as there are `names`; empty lines are passed over."""
    pushed_back: deque[Line] = deque()
    while True:
        line = pushed_back.popleft() if pushed_back else next(lines, None)
        if line is None:
            return
        if line.wrong:
            yield Row(line.number, {}, line.wrong)
        elif not line.text.strip() and delimiter not in line.text:
            continue
        elif not quotes or '"' not in line.text:
            yield _row(line.number, line.text.split(delimiter), names, delimiter)
        else:
            feed = _Feed(line, chain(_drained(pushed_back), lines), delimiter, len(names))
            try:
                fields = next(csv.reader(feed, delimiter=delimiter))
            except csv.Error as error:
                pushed_back.extendleft(reversed(feed.taken[1:]))
                yield Row(line.number, {}, str(error))
            else:
                yield _row(line.number, fields, names, delimiter)


def _drained(lines: deque[Line]) -> Iterator[Line]:
    while lines:
        yield lines.popleft()


class _Feed:
    """The lines of one row: more than one where a line break stands between quotation marks.

    What follows is taken for rows again, and csv.Error raised, as soon as a line looks like a whole
    row by itself, or cannot be read, or the file ends.
    """

    def __init__(self, line: Line, following: Iterator[Line], delimiter: str, width: int) -> None:
        self.taken: list[Line] = []
        self._lines = chain([line], following)
        self._delimiter = delimiter
        self._width = width

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.taken.append(line)
            whole = line.text.count(self._delimiter) >= self._width - 1
            if line.wrong or (len(self.taken) > 1 and whole):
                break
            yield f"{line.text}\n"
        raise csv.Error(
            "a quotation mark that is never closed; where they are characters like any other, "
            "say --no-quotes"
        )


def _row(line: int, fields: list[str], names: list[str], delimiter: str) -> Row:
    if len(fields) == len(names):
        return Row(line, dict(zip(names, fields, strict=True)))
    found = f"{len(fields)} field{'s' * (len(fields) != 1)} where there are {len(names)} columns"
    if len(fields) > len(names):
        found += f"; a text with {delimiter!r} in it must stand in quotation marks"
    return Row(line, {}, found)


def json_lines(lines: Iterator[Line]) -> tuple[list[str], Iterator[Row]]:
    """The columns that there are among the first rows, and all rows, as far as they are objects.

    Numbers become text, null and absent fields are left out.
    """
    rows = map(_json_row, (line for line in lines if line.wrong or line.text.strip()))
    first = list(islice(rows, LOOKED_AT))
    names = dict.fromkeys(name for row in first for name in row.fields)
    return list(names), chain(first, rows)


def _json_row(line: Line) -> Row:
    if line.wrong:
        return Row(line.number, {}, line.wrong)
    try:
        read = json.loads(line.text)
    except json.JSONDecodeError as error:
        return Row(line.number, {}, f"not JSON: {error.msg}, column {error.colno}")
    except (RecursionError, ValueError):
        return Row(line.number, {}, "not JSON that can be read: too deep, or too long a number")
    if not isinstance(read, dict):
        return Row(line.number, {}, "not a JSON object; {...} on each line expected")
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in read.items()
        if value is not None
    }
    if "\\u" in line.text:
        try:
            "".join(fields.values()).encode()
        except UnicodeEncodeError as error:
            return Row(line.number, {}, f"half of a character (a surrogate): {error.reason}")
    return Row(line.number, fields)
