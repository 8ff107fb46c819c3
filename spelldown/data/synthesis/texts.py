"""What is to be spoken: a file of sentences, less those that must stay unheard."""

import csv
import gzip
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spelldown.data.preparing.text import APOSTROPHES, OPENING, TextForm
from spelldown.errors import DataError

TABLES = {".csv": ",", ".tsv": "\t"}
STRAIGHT = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))
WITHIN = re.compile(rf"(?<=\w)[{OPENING}](?=\w)")  # of a word, where nothing is quoted


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as it is given to the engine, and as it is to be spelled."""

    said: str
    written: str


@dataclass(frozen=True)
class Unheard:
    """A file of sentences that must stay unheard, and how many of them the text had.

    first: the first of them, as it is compared with others
    """

    path: Path
    sentences: int
    matched: int
    first: str


@dataclass(frozen=True)
class Text:
    """The sentences to be spoken, in the file's order, and why others of its lines are not."""

    sentences: Sequence[Sentence]
    dropped: Counter[str]
    unheard: Sequence[Unheard] = ()

    def digest(self) -> str:
        """A short name for exactly these sentences."""
        found = hashlib.sha256()
        for sentence in self.sentences:
            found.update(f"{sentence.said}\t{sentence.written}\n".encode())
        return found.hexdigest()[:16]


def read_sentences(
    path: Path, form: TextForm, letters: tuple[float, float], leave_out: Sequence[Path] = ()
) -> Text:
    """The sentences of a file, one a line, each once.

    letters: how many a sentence may have as it is spelled, [least, most].
    leave_out: files of sentences that must not be spoken, such as a test set's: lists, a sentence a
        line, with or without an utterance's name before it (a Kaldi `text`), CSV or TSV tables, or
        manifests of cuts. Each line counts as it is and without its first word, and every field of
        a table does: rather too much stays unheard than too little. Two sentences are the same if
        they are so without case, punctuation and apostrophes.
    Raises DataError for a file that cannot be read, is no UTF-8, or has nothing to say.
    """
    files = {file: list(forbidden_in(file)) for file in leave_out}
    forbidden = {key for lines in files.values() for keys in lines for key in keys}
    met: set[str] = set()
    found: list[Sentence] = []
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    for line in read_lines(path):
        said = " ".join(line.split())
        if not said:
            continue
        written = form.said(said).text
        key = compared(written)
        hits = forbidden & {key, compared(said)} if forbidden else None
        if hits:
            met |= hits
            dropped["left out"] += 1
        elif not key or len(written) < letters[0]:
            dropped["too short"] += 1
        elif len(written) > letters[1]:
            dropped["too long"] += 1
        elif key in seen:
            dropped["there already"] += 1
        else:
            seen.add(key)
            found.append(Sentence(said, written))
    if not found:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(f"{path}: no sentence to be spoken ({why or 'the file is empty'})")
    return Text(found, dropped, [_unheard(file, lines, met) for file, lines in files.items()])


def _unheard(path: Path, lines: Sequence[Sequence[str]], met: set[str]) -> Unheard:
    matched = sum(not met.isdisjoint(keys) for keys in lines)
    return Unheard(path, len(lines), matched, lines[0][0] if lines else "")


class _Kept(dict[int, str | None]):
    """What each character is in a comparison: letters, marks and numbers stay, the rest parts."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN" and character not in APOSTROPHES
        self[code] = character if kept else (None if character == "'" else " ")
        return self[code]


_KEPT = _Kept()


def compared(text: str) -> str:
    """A text as it is compared with others: without case, punctuation and apostrophes."""
    if not text.isascii() or "`" in text:
        text = WITHIN.sub("'", text).translate(STRAIGHT)  # NFKC takes some of them apart
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).split())


def scripts(sentences: Iterable[Sentence]) -> Counter[str]:
    """The scripts of the letters, as `LATIN` or `GREEK`, by how many letters they have."""
    letters = Counter(c for sentence in sentences for c in sentence.said if c.isalpha())
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        found[unicodedata.name(letter, "?").split()[0]] += count
    return found


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file in UTF-8, with or without a byte-order mark.

    Raises DataError, with the line, for other encodings.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not UTF-8 ({error.reason}); "
            "save the file anew in that encoding"
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def forbidden_in(path: Path) -> Iterator[list[str]]:
    """What each sentence of a file may be, as it is compared: where names end, nobody knows.

    Files are those of `leave_out` in `read_sentences`. Raises DataError as that does.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".jsonl":
        lines = _manifest(path)
    elif suffix in TABLES:
        lines = _table(path, TABLES[suffix])
    else:
        lines = ([line, *line.split(None, 1)[1:]] for line in read_lines(path))
    for line in lines:
        keys = [key for key in map(compared, line) if key]
        if keys:
            yield keys


def _manifest(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield from ([one.get("text") or ""] for one in json.loads(line)["supervisions"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a cut ({error!r})") from error


def _table(path: Path, delimiter: str) -> Iterator[list[str]]:
    rows = csv.reader(read_lines(path), delimiter=delimiter)
    try:
        yield from ([" ".join(row), *row] for row in rows)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error
