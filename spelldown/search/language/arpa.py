"""ARPA files, which every n-gram toolkit reads and writes.

    \\data\\
    ngram 1=31
    ngram 2=603
    <blank line>
    \\1-grams:
    -1.2041<tab>E<tab>-0.8239        log10 of the probability, the n-gram, log10 of the backoff
    ...
    \\end\\
"""

import gzip
import math
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from spelldown.data.vocabulary import PAD, SOS
from spelldown.errors import LanguageModelError
from spelldown.search.language.kneser_ney import Estimated, Order
from spelldown.search.language.tokens import BEGIN, END, UNKNOWN, tokens_of
from spelldown.writing import to_disk

NEVER = -99.0  # what ARPA files write for the logarithm of 0
UNKNOWN_MISSING = -100.0  # kenlm's, for what a file without <unk> does not have; the least there is
BLOCK = 1 << 16  # n-grams written at once
SHOWN = 8


@dataclass(frozen=True)
class Grams:
    """The n-grams of one length: symbols (M, length), log10 of probabilities and backoffs (M,)."""

    symbols: NDArray[np.uint32]
    log_probs: NDArray[np.float64]
    backoffs: NDArray[np.float64]


@dataclass(frozen=True)
class Arpa:
    """What an ARPA file holds of a vocabulary's symbols: the orders from 1 on, and <unk>.

    Symbols that are not in the file, `missing`, are as likely as <unk>.
    """

    orders: tuple[Grams, ...]
    unknown: float
    missing: tuple[str, ...] = ()


def write_arpa(path: Path, model: Estimated, symbols: Sequence[str]) -> None:
    """Writes an estimated model over a vocabulary's `symbols`, safe on disk on return."""
    tokens = np.array(tokens_of(symbols), dtype=object)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        for length, order in enumerate(model.orders, 1):
            # <pad> has none, <unk> is one more.
            file.write(f"ngram {length}={len(order)}\n")
        for length, order in enumerate(model.orders, 1):
            file.write(f"\n\\{length}-grams:\n")
            if length == 1:
                file.write(f"{math.log10(model.unknown):.7g}\t{UNKNOWN}\n")
            for lines in _lines(order, tokens, length == 1):
                file.writelines(lines)
        file.write("\n\\end\\\n")
        to_disk(file)


def _lines(order: Order, tokens: NDArray[np.object_], single: bool) -> Iterator[Iterable[str]]:
    """An order's lines, in blocks."""
    for start in range(0, len(order), BLOCK):
        symbols = order.packing.unpack(order.keys.read(start, start + BLOCK))
        with np.errstate(divide="ignore"):
            log_probs = np.log10(order.probabilities.read(start, start + BLOCK))
            backoffs = np.log10(order.backoffs.read(start, start + BLOCK))
        if single:
            log_probs[SOS] = NEVER
            symbols, log_probs, backoffs = symbols[1:], log_probs[1:], backoffs[1:]  # no <pad>
        words = map(" ".join, tokens[symbols].tolist())
        numbers = zip(log_probs.tolist(), backoffs.tolist(), words, strict=True)
        yield (
            f"{p:.7g}\t{ngram}\t{b:.7g}\n" if b else f"{p:.7g}\t{ngram}\n"
            for p, b, ngram in numbers
        )


def read_arpa(path: Path, symbols: Sequence[str]) -> Arpa:
    """What an ARPA file, perhaps gzipped, says of a vocabulary's `symbols`.

    Raises LanguageModelError, with the line, for a broken file, and naming some of them, for words
    that are no symbols.
    """
    tokens = {token: number for number, token in enumerate(tokens_of(symbols)) if number != PAD}
    try:
        with _opened(path) as file:
            reader = _Reader(path, file, tokens, symbols)
            return reader.read()
    except UnicodeDecodeError as error:
        raise LanguageModelError(
            f"{path}, after line {reader.number}: not a text in UTF-8: {error.reason}"
        ) from None
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzipped file that is damaged
        reason = getattr(error, "strerror", None) or error
        raise LanguageModelError(f"{path}: cannot be read: {reason}") from None


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")


class _Reader:
    """Reads a file line by line, and knows in which it is."""

    def __init__(
        self, path: Path, file: IO[str], tokens: dict[str, int], symbols: Sequence[str]
    ) -> None:
        self.path, self.tokens, self.symbols = path, tokens, symbols
        self.lines = iter(file)
        self.number = 0
        self.unknown = UNKNOWN_MISSING
        self.missing: tuple[str, ...] = ()
        self.skipped: list[int] = []  # lines of this section that hold <unk>

    def read(self) -> Arpa:
        counts = self._header()
        orders = [self._section(length, count) for length, count in enumerate(counts, 1)]
        line = self._next("\\end\\")
        if line != "\\end\\":
            raise self._error(f"\\end\\ expected after the last n-grams, found {line!r}")
        return Arpa(tuple(orders), self.unknown, self.missing)

    def _error(self, found: str, problems: Sequence[str] = ()) -> LanguageModelError:
        return LanguageModelError(f"{self.path}, line {self.number}: {found}", problems)

    def _next(self, wanted: str) -> str:
        """The next line that is not blank."""
        for line in self.lines:
            self.number += 1
            if line := line.strip():
                return line
        raise self._error(f"the file ends here, and {wanted} was still to come: is it whole?")

    def _header(self) -> list[int]:
        """How many n-grams of each length there are said to be."""
        for line in self.lines:
            self.number += 1
            if line.strip() == "\\data\\":
                break
        else:
            if not self.number:
                raise LanguageModelError(f"{self.path} is empty: not an ARPA file")
            raise self._error("no line \\data\\ in the whole file: not an ARPA file")
        counts: list[int] = []
        for line in self.lines:
            self.number += 1
            if not (line := line.strip()):
                if counts:
                    return counts
                continue
            found = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line)
            if found is None or int(found[1]) != len(counts) + 1:
                raise self._error(f"'ngram {len(counts) + 1}=COUNT' expected, found {line!r}")
            counts.append(int(found[2]))
        raise self._error("the file ends within its counts of n-grams: is it whole?")

    def _section(self, length: int, count: int) -> Grams:
        title = f"\\{length}-grams:"
        line = self._next(title)
        if line != title:
            raise self._error(f"{title} expected, found {line!r}")
        first, self.skipped = self.number + 1, []
        words, numbers = array("I"), array("d")
        found = self._entries(length, words, numbers)
        if found != count:
            raise self._error(f"{title} ends with {found} n-grams, and \\data\\ says {count}")
        values = np.frombuffer(numbers, np.float64).reshape(-1, 2)
        grams = Grams(
            np.frombuffer(words, np.dtype("I")).astype(np.uint32).reshape(-1, length),
            values[:, 0],
            values[:, 1],
        )
        return self._whole_vocabulary(grams, first) if length == 1 else self._sorted(grams, first)

    def _entries(self, length: int, words: "array[int]", numbers: "array[float]") -> int:
        """Reads a section up to the blank line after it; how many n-grams there were."""
        id_of = self.tokens.get
        foreign: dict[str, int] = {}
        count = 0
        for line in self.lines:
            self.number += 1
            # Not at any white space, as split() does: a no-break space may be part of a word.
            parts = [part for part in line.rstrip("\r\n").replace("\t", " ").split(" ") if part]
            if not parts:
                break
            count += 1
            log_prob, backoff = self._numbers(length, parts, line)
            ids = list(map(id_of, parts[1 : length + 1]))
            if None not in ids:
                words.extend(ids)  # type: ignore[arg-type]
                numbers.append(log_prob)
                numbers.append(backoff)
            elif length == 1 and parts[1] in (UNKNOWN, UNKNOWN.upper()):
                self.unknown = log_prob
                self.skipped.append(self.number)
            else:
                self.skipped.append(self.number)
                for word in parts[1 : length + 1]:
                    if word not in self.tokens and word not in (UNKNOWN, UNKNOWN.upper()):
                        foreign.setdefault(word, self.number)
        if foreign:
            raise self._foreign(foreign)
        return count

    def _numbers(self, length: int, parts: Sequence[str], line: str) -> tuple[float, float]:
        """The logarithms of a line: of its probability, and of its backoff."""
        if length < len(parts) <= length + 2:
            try:
                log_prob = float(parts[0])
                backoff = float(parts[length + 1]) if len(parts) > length + 1 else 0.0
            except ValueError:
                pass
            else:
                if log_prob <= 1e-6 and backoff < math.inf:  # nan is neither
                    # Minus infinity, which some tools write: nothing could follow any more.
                    return min(max(log_prob, UNKNOWN_MISSING), 0.0), max(backoff, UNKNOWN_MISSING)
                raise self._error(
                    "the logarithm of a probability, at most 0, and of a backoff expected, found "
                    f"{line.strip()!r}"
                )
        raise self._error(
            f"a logarithm, {length} word{'s' * (length > 1)} and perhaps another logarithm "
            f"expected, found {line.strip()!r}"
        )

    def _foreign(self, foreign: dict[str, int]) -> LanguageModelError:
        some = list(foreign.items())[:SHOWN]
        listed = [f"{word!r}, first in line {number}" for word, number in some]
        if len(foreign) > SHOWN:
            listed.append(f"... and {len(foreign) - SHOWN} more")
        spaced = "; the space is written \u2581 (U+2581)" if " " in self.symbols else ""
        return LanguageModelError(
            f"{self.path} is a language model of another vocabulary: {len(foreign)} of its words "
            f"are none of the recognizer's {len(self.symbols)} symbols{spaced}",
            listed,
        )

    def _whole_vocabulary(self, grams: Grams, first: int) -> Grams:
        """A row for each symbol of the vocabulary, in its order."""
        size = len(self.symbols)
        for token in (BEGIN, END):
            if self.tokens[token] not in grams.symbols:
                raise self._error(f"\\1-grams: has no {token}")
        there = {PAD, *grams.symbols[:, 0].tolist()}
        self.missing = tuple(self.symbols[place] for place in range(size) if place not in there)
        log_probs, backoffs = np.full(size, self.unknown), np.zeros(size)
        self._hold_distinct(np.sort(grams.symbols[:, 0]), np.argsort(grams.symbols[:, 0]), first)
        log_probs[grams.symbols[:, 0]] = grams.log_probs
        backoffs[grams.symbols[:, 0]] = grams.backoffs
        log_probs[[PAD, SOS]] = -math.inf
        return Grams(np.arange(size, dtype=np.uint32)[:, None], log_probs, backoffs)

    def _sorted(self, grams: Grams, first: int) -> Grams:
        """The same by symbols, the first one weighing most."""
        order = np.lexsort(grams.symbols.T[::-1])
        symbols = grams.symbols[order]
        self._hold_distinct(symbols, order, first)
        return Grams(symbols, grams.log_probs[order], grams.backoffs[order])

    def _hold_distinct(
        self, symbols: NDArray[np.uint32], order: NDArray[np.intp], first: int
    ) -> None:
        """Raises LanguageModelError if one of the sorted n-grams is there twice."""
        rows = symbols.reshape(len(symbols), -1)
        twice = np.flatnonzero((rows[1:] == rows[:-1]).all(1))
        if len(twice) == 0:
            return
        self.number = first + int(max(order[twice[0]], order[twice[0] + 1]))
        for line in self.skipped:
            self.number += line <= self.number
        names = {number: token for token, number in self.tokens.items()}
        ngram = " ".join(names[number] for number in rows[twice[0]].tolist())
        raise self._error(f"the n-gram {ngram!r} is there for the second time")
