"""What is to be spoken: a file of sentences, less those that must stay unheard."""

import gzip
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spelldown.data.preparing.text import TextForm
from spelldown.errors import DataError

MANIFESTS = (".jsonl.gz", ".jsonl")
APOSTROPHES = "'\u2019\u02bc"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as it is given to the engine, and as it is to be spelled."""

    said: str
    written: str


@dataclass(frozen=True)
class Text:
    """The sentences to be spoken, in the file's order, and why others of its lines are not."""

    sentences: Sequence[Sentence]
    dropped: Counter[str]

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
        line, with or without an utterance's name before it (a Kaldi `text`), or manifests of cuts.
        Two sentences are the same if they are so without case, punctuation and apostrophes.
    Raises DataError for a file that cannot be read, is no UTF-8, or has nothing to say.
    """
    forbidden = {key for file in leave_out for key in _forbidden(file)}
    found: list[Sentence] = []
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    for line in read_lines(path):
        said = " ".join(line.split())
        if not said:
            continue
        written = form.said(said).text
        key = compared(written)
        if not key or len(written) < letters[0]:
            dropped["too short"] += 1
        elif len(written) > letters[1]:
            dropped["too long"] += 1
        elif forbidden and (key in forbidden or compared(said) in forbidden):
            dropped["left out"] += 1
        elif key in seen:
            dropped["there already"] += 1
        else:
            seen.add(key)
            found.append(Sentence(said, written))
    if not found:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(f"{path}: no sentence to be spoken ({why or 'the file is empty'})")
    return Text(found, dropped)


class _Kept(dict[int, str | None]):
    """What each character is in a comparison: letters, marks and numbers stay, the rest parts."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN"
        self[code] = character if kept else (None if character in APOSTROPHES else " ")
        return self[code]


_KEPT = _Kept()


def compared(text: str) -> str:
    """A text as it is compared with others: without case, punctuation and apostrophes."""
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


def _forbidden(path: Path) -> Iterator[str]:
    """The keys of the sentences of a file that must not be spoken."""
    texts = _manifest(path) if path.name.endswith(MANIFESTS) else _list(path)
    yield from filter(None, map(compared, texts))


def _manifest(path: Path) -> Iterator[str]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield from [one.get("text") or "" for one in json.loads(line)["supervisions"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a cut ({error!r})") from error


def _list(path: Path) -> Iterator[str]:
    """The lines; where all begin with another word, also without it: it may be a name."""
    fields = [line.split(None, 1) for line in read_lines(path) if line.strip()]
    named = len({first for first, *_ in fields}) == len(fields)
    for first, *rest in fields:
        yield " ".join([first, *rest])
        if named and rest:
            yield rest[0]
