"""Text to symbol ids and back, one symbol a character."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

from spelldown.errors import DataError
from spelldown.settings import Settings

PAD, SOS, EOS = 0, 1, 2
SPECIAL = ("<pad>", "<sos>", "<eos>")
COURSE = (*SPECIAL, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'", " ")


class VocabularySettings(Settings):
    """Where the symbols come from.

    `course`: the 31 symbols of the CMU 11-685/785 homework, in its order. `characters`: every
    character of the training texts, any script.
    """

    kind: Literal["course", "characters"] = "course"

    def build(self, texts: Iterable[str] = ()) -> "Vocabulary":
        """The vocabulary; `texts`, the training texts, are read by `characters` alone."""
        return Vocabulary.course() if self.kind == "course" else Vocabulary.of_texts(texts)


def normalised(text: str) -> str:
    """`text` in Unicode's composed form NFC, so that a letter has one spelling."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Vocabulary:
    """The symbols a recognizer can spell; a symbol's id is its place.

    Ids 0, 1, 2 are always `<pad>`, `<sos>`, `<eos>`; all others are single characters. `<pad>`
    serves the CTC head as its blank.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        characters = self.symbols[len(SPECIAL) :]
        counts = Counter(characters)
        wrong = sorted(s for s, count in counts.items() if len(s) != 1 or count > 1)
        if self.symbols[: len(SPECIAL)] != SPECIAL or not characters or wrong:
            raise DataError(
                "a vocabulary is <pad>, <sos>, <eos> and then single characters, each once; "
                f"found {list(self.symbols[:4])} ..., wrong: {wrong}"
            )

    @classmethod
    def course(cls) -> Self:
        """The course's 31 symbols: `<pad>` `<sos>` `<eos>`, A to Z, apostrophe, space."""
        return cls(COURSE)

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Self:
        """Every character of `texts` (NFC), in code point order.

        Code points rather than counts, so that a little more text adds its new characters
        without moving the others about for no reason.
        """
        characters: set[str] = set()
        for text in texts:
            characters.update(normalised(text))
        if not characters:
            raise DataError("no vocabulary: the training texts hold no characters")
        return cls((*SPECIAL, *sorted(characters)))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {s: i for i, s in enumerate(self.symbols) if i >= len(SPECIAL)}

    def __len__(self) -> int:
        return len(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that have no symbol, each once, in code point order."""
        return sorted(set(normalised(text)).difference(self._ids))

    def encode(self, text: str) -> list[int]:
        """The ids of the characters of `text`, without `<sos>` and `<eos>`.

        Raises DataError naming the characters that have no symbol.
        """
        try:
            return [self._ids[character] for character in normalised(text)]
        except KeyError:
            raise DataError(f"{describe_unknown(self.unknown(text), self)}: {text!r}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: ends before the first `<eos>`, leaves out `<pad>` and `<sos>`."""
        text = []
        for number in ids:
            if number == EOS:
                break
            if not 0 <= number < len(self.symbols):
                raise ValueError(f"symbol id {number} is not in 0..{len(self.symbols) - 1}")
            if number not in (PAD, SOS):
                text.append(self.symbols[number])
        return "".join(text)

    def to_json(self) -> str:
        """The symbols as one JSON object."""
        return json.dumps({"symbols": list(self.symbols)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, page: str) -> Self:
        """The vocabulary that `to_json` wrote. Raises DataError on anything else."""
        try:
            symbols = json.loads(page)["symbols"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f'a vocabulary is {{"symbols": [...]}}; found {page[:60]!r}') from error
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise DataError(f"a vocabulary's symbols are a list of texts; found {page[:60]!r}")
        return cls(tuple(symbols))


def describe_unknown(characters: Sequence[str], vocabulary: Vocabulary) -> str:
    """A message that names the characters outside the vocabulary, and the likely cause."""
    names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters)
    message = f"characters outside the vocabulary of {len(vocabulary)} symbols: {names}"
    if any(c.upper() in vocabulary.symbols for c in characters):
        message += "; it has these letters in upper case only"
    return message
