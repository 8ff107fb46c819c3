"""Tables that name an audio file and its text a row: CSV, TSV, JSON lines."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.forms import FORMS, Form, find_tables
from spelldown.data.preparing.sources.reading.columns import SAYS_WHICH, WHERE, left, nearest
from spelldown.data.preparing.sources.reading.entries import Entries, each_once
from spelldown.data.preparing.sources.reading.files import missing
from spelldown.data.preparing.sources.reading.lines import Encoding, read_lines, shown
from spelldown.data.preparing.sources.reading.naming import Names, place_name
from spelldown.data.preparing.sources.reading.rows import (
    DELIMITERS,
    Row,
    delimited,
    json_lines,
    split_line,
)
from spelldown.data.preparing.utterance import Remark, Utterance
from spelldown.errors import DataError
from spelldown.settings import Settings

PLAIN = ("plain", "nemo")  # forms of which nobody knows all columns
JSON = (".jsonl", ".ndjson", ".json")


class Columns(Settings):
    """What the columns are called. Optional ones are used where they are there."""

    audio: str = Field("audio", description="the audio file; relative: from the table's folder")
    text: str | None = Field("text", description="what is said; null: nobody wrote it down")
    id: str = Field("id", description="the utterance's name; without one, it has its file's")
    speaker: str = Field("speaker", description="who says it")
    start: str | None = Field("start", description="where it begins in the file, in seconds")
    end: str | None = Field("end", description="where it ends in the file, in seconds")
    duration: str | None = Field(
        None, description="how many seconds it lasts, where no end is told"
    )
    channel: str | None = Field(None, description="the channel of the file, counted from 0")
    split: str = Field("split", description="the part that it belongs to: train, dev, test")
    language: str = Field("language", description="the language, by any name")
    gender: str = Field("gender", description="the speaker's gender, in any words")
    age: str = Field("age", description="the speaker's age")


class TableSettings(Settings):
    """A table, or a folder of several, each a split by its name."""

    kind: Literal["table"] = "table"
    form: Literal["plain", "common-voice", "ljspeech", "nemo"] = Field(
        "plain", description="a known form that sets what follows, unless you do"
    )
    columns: Columns = Field(
        Columns(),
        description="what the columns are called, as in audio=path or text=sentence; also id, "
        "speaker, start, end, duration, channel, split, language, gender, age; null: not used",
    )
    names: tuple[str, ...] = Field(
        (), description="the columns in order, for a table without a header row"
    )
    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe"] = Field(
        "auto", description="what stands between fields; auto: what the header row is made with"
    )
    quotes: bool = Field(
        True, description="fields may stand in quotation marks; false: those are characters"
    )
    audio_folder: Path = Field(
        Path(), description="where relative audio paths start, from the table's folder"
    )
    audio_suffix: str = Field("", description="put behind each audio path that lacks it")
    parts: tuple[str, ...] = Field(
        (), description="the tables of the folder to read; none named: all, or the form's own"
    )
    encoding: Encoding = "utf-8"


def read(source: Path, settings: TableSettings) -> Iterator[Utterance | Problem]:
    """The utterances of a table row by row, and what is wrong with the other rows.

    `source` is a table or a folder of tables. CSV and TSV have a header row unless
    `settings.names` are given; files ending in .jsonl, .ndjson or .json hold a JSON object a line.
    An id may occur once in all. A `Remark` tells of columns that are not used, once for all tables
    that have the same. Ids are kept on disk once they are many. Raises DataError for what
    is no table, and for tables without the columns that are needed.
    """
    form = FORMS[settings.form]
    tables = find_tables(source, form, settings.parts)
    with Entries() as entries:
        names = Names(entries)
        every = (_Table(path, split, settings, form, names) for path, split in tables)
        yield from each_once(_told_once(found for table in every for found in table.read()))


def _told_once(every: Iterable[Utterance | Problem]) -> Iterator[Utterance | Problem]:
    """All, but of equal remarks the first."""
    told: set[str] = set()
    for found in every:
        if isinstance(found, Remark):
            if found.found in told:
                continue
            told.add(found.found)
        yield found


class _Table:
    """One table while it is read."""

    def __init__(
        self, path: Path, split: str | None, settings: TableSettings, form: Form, names: Names
    ) -> None:
        self.path = path
        self.names = names
        self.split = split
        self.settings = settings
        self.form = form
        self.base: Path = path.parent / self.setting("audio_folder")
        self.suffix = str(self.setting("audio_suffix"))
        self.columns: dict[str, str] = {}  # those that are there
        self.remarks: list[str] = []

    def setting(self, name: str) -> Any:
        """A setting as it was given, or else as the form has it."""
        given = name in self.settings.model_fields_set
        return getattr(self.settings if given else self.form, name)

    @cached_property
    def wanted(self) -> dict[str, str]:
        """What each column is called in this table."""
        columns = self.settings.columns
        given = {name: getattr(columns, name) for name in columns.model_fields_set}
        every = {**columns.model_dump(), **self.form.columns, **given}
        return {name: column for name, column in every.items() if column is not None}

    def read(self) -> Iterator[Utterance | Problem]:
        rows = self.rows()
        yield from (Remark("columns", str(self.path), line) for line in self.remarks)
        empty = True
        for row in rows:
            empty = False
            where = f"{self.path}, line {row.line}"
            if row.wrong:
                yield Problem(f"line {row.line}", where, row.wrong)
            else:
                yield self.utterance(row, where)
        if empty:
            raise DataError(f"{self.path}: a table without rows; a row an utterance expected")

    def rows(self) -> Iterator[Row]:
        """The rows, after the columns have been found."""
        lines = read_lines(self.path, self.settings.encoding)
        if self.path.suffix in JSON:
            top = next(lines, None)
            if top is not None and top.text.lstrip().startswith("["):
                raise DataError(
                    f"{self.path}, line {top.number}: a JSON array; JSON lines expected, one "
                    "object a line and nothing around them"
                )
            lines = chain([top] if top else [], lines)
            names, rows = json_lines(lines)
            if not names:
                raise self.no_json(next(rows, None))
            self.find_columns(names)
            return rows
        names = list(self.setting("names"))
        quotes = bool(self.setting("quotes"))
        top = next(lines, None)
        if top is None or not top.text.strip():
            raise DataError(f"{self.path}: the first line is empty; a table expected")
        if top.wrong and not names:
            raise DataError(
                f"{self.path}, line 1: {top.wrong}; a table of text with a header row expected"
            )
        delimiter = self.delimiter(top.text, quotes)
        if names:
            lines = chain([top], lines)
        else:
            names = [name.strip() for name in split_line(top.text, delimiter, quotes)]
        self.find_columns(names)
        return delimited(lines, names, delimiter, quotes)

    def no_json(self, first: Row | None) -> DataError:
        if first is None:
            return DataError(f"{self.path}: an empty file; a JSON object a line expected")
        found = first.wrong or "an object with nothing in it"
        return DataError(f"{self.path}, line {first.line}: {found}; a JSON object a line expected")

    def delimiter(self, header: str, quotes: bool) -> str:
        """The delimiter that is set, or else that which finds most of the wanted columns."""
        named = str(self.setting("delimiter"))
        if named != "auto":
            return DELIMITERS[named]
        wanted = set(self.wanted.values())

        def fits(delimiter: str) -> tuple[int, bool, int]:
            fields = split_line(header, delimiter, quotes)
            found = len(wanted.intersection(field.strip() for field in fields))
            return found, self.path.suffix == ".tsv" and delimiter == "\t", len(fields)

        return max(DELIMITERS.values(), key=fits)

    def find_columns(self, names: list[str]) -> None:
        """Keeps those wanted columns that are there.

        Raises DataError for columns that are needed or were named in the settings, and are not.
        """
        needed = {"audio", "text"} | self.settings.columns.model_fields_set
        problems = []
        for name, column in self.wanted.items():
            if column in names:
                self.columns[name] = column
                if names.count(column) > 1:
                    problems.append(f"two columns are called {column!r}")
            elif name in needed:
                close = nearest(name, column, names, self.columns.values())
                hint = f"; did you mean {close!r}? Say --columns {name}={close}" if close else ""
                problems.append(f"no column {column!r} for the {name}{hint}")
        problems += self.unused(names)
        self.remarks += self.left(names)
        if problems:
            raise DataError(
                f"{self.path}: the columns are {', '.join(map(repr, map(shown, names)))}",
                [*problems, *self.advice(names)],
            )

    def unused(self, names: list[str]) -> Iterator[str]:
        """Columns that say which sound is meant, and that nothing is made of."""
        given = self.settings.columns.model_fields_set
        used = set(self.columns.values())
        for name, called in SAYS_WHICH.items():
            found = [one for one in names if one.casefold() in called and one not in used]
            told = name in given or name in self.columns
            if found and not told and not (name == "duration" and "end" in self.columns):
                yield (
                    f"column {found[0]!r} is not used: say --columns {name}={found[0]} if it is "
                    f"the {name} of an utterance{WHERE[name]}, or --columns {name}=null if not"
                )

    def left(self, names: list[str]) -> Iterator[str]:
        """The columns that nothing is made of, in words, and what one of them may be."""
        columns = self.settings.columns
        declined = {name for name in columns.model_fields_set if getattr(columns, name) is None}
        of_others = declined.union(*SAYS_WHICH.values())  # of which `unused` tells
        used = self.columns.values()
        others = [one for one in names if one not in used and one.casefold() not in of_others]
        if others and self.settings.form in PLAIN:
            yield left(others, speaker="speaker" in self.columns)

    def advice(self, names: list[str]) -> list[str]:
        if self.settings.form == "plain" and {"path", "sentence", "client_id"} <= set(names):
            return ["these are Common Voice's columns: say --form common-voice"]
        if any(not missing(self.base / name) for name in names if name):
            return ["the first row names a file: without a header row, name the columns by --names"]
        return []

    def utterance(self, row: Row, where: str) -> Utterance | Problem:
        """The utterance of a row, or what is wrong with it."""
        has = {name: row.fields.get(column, "") for name, column in self.columns.items()}
        cell = has["audio"].strip()
        audio = self.audio(cell)
        try:
            start = _seconds(has, "start") or 0.0
            end = _seconds(has, "end")
            duration = _seconds(has, "duration")
            end = start + duration if end is None and duration is not None else end
            channel = _channel(has)
        except ValueError as error:
            return Problem(has.get("id") or cell or f"line {row.line}", where, str(error))
        given = has.get("id", "").strip()
        name = given or (place_name(audio, self.base, start, end) if cell else "")
        wrong = self.wrong(has, cell, audio, start, end)
        if wrong:
            return Problem(name or f"line {row.line}", where, wrong)
        name = given or self.names.apart(name, audio, end, channel)
        age = has.get("age", "").strip()
        kept = {one: row.fields[one] for one in self.form.kept if row.fields.get(one)}
        return Utterance(
            id=name,
            where=where,
            text=has.get("text"),
            audio=audio,
            start=start,
            end=end,
            channel=channel,
            split=has.get("split", "").strip() or self.split,
            speaker=has.get("speaker", "").strip() or None,
            gender=has.get("gender", "").strip() or self.form.gender,
            age=int(age) if age.isdecimal() else None,
            language=has.get("language", "").strip() or self.form.language,
            more={**kept, "age": age} if age and not age.isdecimal() else kept,
        )

    def audio(self, cell: str) -> Path:
        path = self.base / (cell if cell.endswith(self.suffix) else cell + self.suffix)
        if "\\" in cell and missing(path):  # written on Windows
            return self.base / cell.replace("\\", "/")
        return path

    def wrong(
        self, has: dict[str, str], cell: str, audio: Path, start: float, end: float | None
    ) -> str:
        """What is wrong with a row; empty when nothing is."""
        if not cell:
            return f"no audio file in column {self.columns['audio']!r}"
        if "text" in has and not has["text"].strip():
            return f"no text in column {self.columns['text']!r}"
        if end is not None and end <= start:
            return f"from {start:g} to {end:g} s is no stretch of a recording"
        return missing(audio)


def _channel(has: dict[str, str]) -> int | None:
    said = has.get("channel", "").strip()
    if said and not said.isdecimal():
        raise ValueError(f"channel {said!r}; a number from 0 on expected")
    return int(said) if said else None


def _seconds(has: dict[str, str], name: str) -> float | None:
    """A time in seconds; None where there is none."""
    said = has.get(name, "").strip()
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        raise ValueError(f"{name} {said!r}; seconds expected") from None
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"{name} {said!r}; seconds from the file's beginning expected")
    return seconds
