"""Lines of a text file, one at a time: a line that cannot be decoded is told, and the rest goes on.

Sources are found on disks of every age: with or without a byte-order mark, with line ends of any
system, in encodings that nobody wrote down.
"""

import codecs
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from spelldown.errors import DataError

# Told by its first bytes; UTF-8's own mark is simply taken off. The longer one comes first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings that are tried on a word that is not UTF-8: Western, Eastern, Cyrillic twice, Greek.
ONE_BYTE = ("windows-1252", "windows-1250", "windows-1251", "koi8-r", "windows-1253")
QUOTES = "\u2018\u2019\u201c\u201d\u201e«»"
APOSTROPHES = {0x2018: None, 0x2019: None}
LOOKED_AT = 1024  # bytes by which an encoding is told that has left no mark


def _known(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError(
            f"no encoding is called {encoding!r}; utf-8, windows-1252, gb18030 ... are"
        ) from None
    return encoding


Encoding = Annotated[
    str,
    AfterValidator(_known),
    Field(description="how the source's texts are encoded, by Python's name for it"),
]


class Line(NamedTuple):
    """A line of a file: its number, counted from 1, what it says, and what is wrong with it."""

    number: int
    text: str
    wrong: str = ""


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[Line]:
    """The lines of a file without their ends (LF or CRLF), read as they are asked for.

    A byte-order mark is taken off. A line with bytes that are not of the encoding has them named
    in `wrong`, and is followed by the next line. Raises DataError for a file that is not there,
    that cannot be read, or that is of another encoding altogether.
    """
    number = 0
    try:
        utf8 = codecs.lookup(encoding).name == "utf-8"
        if utf8:
            _not_utf8_at_all(path)
        # Bytes that do not fit become lone surrogates, which no text has: found line by line.
        with path.open(
            encoding="utf-8-sig" if utf8 else encoding, errors="surrogateescape", newline="\n"
        ) as file:
            for number, line in enumerate(file, start=1):
                text = line.rstrip("\r\n")
                yield Line(number, text, "" if text.isascii() else _wrong(text, encoding))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:  # UTF-16 and its like cannot go on after a mistake
        raise DataError(f"{path}, line {number + 1}: not {encoding}: {error}") from error


def _not_utf8_at_all(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
        size = os.fstat(file.fileno()).st_size
    for mark, encoding in MARKS:
        if start.startswith(mark):
            raise DataError(
                f"{path}: written in {encoding.upper()}, not in UTF-8, by its first bytes; "
                f"say --encoding {encoding}"
            )
    # UTF-16 without its mark: every second byte is 0 where the text is ASCII.
    even, odd = start[0::2].count(0), start[1::2].count(0)
    most = max(even, odd)
    if size % 2 == 0 and most > 1 and most * 32 > len(start) and most > 4 * min(even, odd):
        encoding = "utf-16-be" if even > odd else "utf-16-le"
        raise DataError(
            f"{path}: not text in UTF-8, by its zero bytes; perhaps --encoding {encoding}"
        )


def _wrong(text: str, encoding: str) -> str:
    """What cannot be decoded in a line; empty where all can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        before = text[: error.start].encode(encoding, "surrogateescape")
        byte = ord(text[error.start]) & 0xFF
        found = f"byte {len(before) + 1} of the line, 0x{byte:02X}, is not {encoding.upper()}"
        if encoding.lower() in ("utf-8", "utf8"):
            raw = text.encode("utf-8", "surrogateescape")
            every = _readings(raw, len(before)).items()
            words = [f"{name} reads {word!r}" for word, name in every]
            told = f" ({', '.join(words)})" if words else ""
            found += f"; say --encoding if it is another{told}"
        return found
    return ""


def _readings(line: bytes, place: int) -> dict[str, str]:
    """What the word around a byte may be, and the first encoding of a byte a character that reads
    it so: as letters of one script between ASCII, Latin ones not without any of ASCII."""
    found: dict[str, str] = {}
    for encoding in ONE_BYTE:
        text = line.decode(encoding, "replace")
        start, end = place, place + 1
        while start and text[start - 1].isalpha():
            start -= 1
        while end < len(text) and text[end].isalpha():
            end += 1
        around = text[max(start - 1, 0) : start] + text[end : end + 1]
        if _is_a_word(text[start:end]) and all(c.isascii() or c in QUOTES for c in around):
            found.setdefault(text[start:end], encoding)
    return found


def _is_a_word(word: str) -> bool:
    """Whether it may be one: letters of one script, with an apostrophe in them or a quotation mark
    at an end."""
    letters = word.strip(QUOTES).translate(APOSTROPHES)
    scripts = {unicodedata.name(one, "?").split()[0] for one in letters}
    if not letters.isalpha() or len(scripts) != 1:
        return False
    return scripts != {"LATIN"} or len(letters) == 1 or any(map(str.isascii, letters))


def shown(text: str) -> str:
    """Text of which some may not be decodable, fit to be shown."""
    return text.encode("utf-8", "replace").decode()
