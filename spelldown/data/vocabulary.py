"""Text to symbol ids and back: a symbol a character, or pieces of words learnt from the texts."""

import base64
import binascii
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from spelldown.errors import DataError
from spelldown.settings import Settings

PAD, SOS, EOS = 0, 1, 2
SPECIAL = ("<pad>", "<sos>", "<eos>")
COURSE = (*SPECIAL, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'", " ")
SPACE = "\u2581"  # what sentencepiece writes for a space
UNKNOWN = len(SPECIAL)  # sentencepiece's <unk> stands here; it is none of our symbols


class CourseVocabularySettings(Settings):
    """The 31 symbols of the CMU 11-685/785 homework, in its order."""

    kind: Literal["course"] = "course"

    def build(self, texts: Iterable[str] = ()) -> "Vocabulary":
        """The vocabulary, whatever the texts."""
        return Vocabulary.course()


class CharactersVocabularySettings(Settings):
    """Every character of the training texts, any script."""

    kind: Literal["characters"] = "characters"

    def build(self, texts: Iterable[str] = ()) -> "Vocabulary":
        """The vocabulary of these training texts."""
        return Vocabulary.of_texts(texts)


class PiecesVocabularySettings(Settings):
    """Letters, parts of words and short words, learnt from the training texts by sentencepiece.

    Fewer steps a sentence than with letters, and more to learn of each: for a hundred hours rather
    than for three. Every character of the training texts is a piece too, so that all of them can
    be spelled.
    """

    kind: Literal["pieces"] = "pieces"
    size: int = Field(ge=8, description="symbols altogether, <pad>, <sos> and <eos> among them")
    model: Literal["unigram", "bpe"] = Field(
        "unigram", description="how pieces are found: by likelihood, or by joining frequent pairs"
    )

    def build(self, texts: Iterable[str] = ()) -> "Vocabulary":
        """The vocabulary learnt from these training texts, the same for the same texts."""
        return Vocabulary.of_pieces(texts, self.size, self.model)


VocabularySettings = Annotated[
    CourseVocabularySettings | CharactersVocabularySettings | PiecesVocabularySettings,
    Field(discriminator="kind"),
]


def normalised(text: str) -> str:
    """`text` in Unicode's composed form NFC, so that a letter has one spelling."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Vocabulary:
    """The symbols a recognizer can spell; a symbol's id is its place.

    Ids 0, 1, 2 are always `<pad>`, `<sos>`, `<eos>`; all others are single characters or, where
    there is a sentencepiece `model` (its own file's bytes), that model's pieces. `<pad>` serves the
    CTC head as its blank.
    """

    symbols: tuple[str, ...]
    model: bytes | None = None

    def __post_init__(self) -> None:
        spelled = self.symbols[len(SPECIAL) :]
        counts = Counter(spelled)
        longest = 1 if self.model is None else max(map(len, spelled), default=0)
        wrong = sorted(s for s, n in counts.items() if not 0 < len(s) <= longest or n > 1)
        if self.symbols[: len(SPECIAL)] != SPECIAL or not spelled or wrong:
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
            raise DataError(NO_CHARACTERS)
        return cls((*SPECIAL, *sorted(characters)))

    @classmethod
    def of_pieces(
        cls, texts: Iterable[str], size: int, model: Literal["unigram", "bpe"] = "unigram"
    ) -> Self:
        """`size` symbols, learnt from `texts` (NFC) by sentencepiece: the same for the same texts.

        Kudo and Richardson 2018; nothing of the text is changed or left out on the way. Raises
        DataError for a size that these texts cannot give.
        """
        learnt = _learn([normalised(text) for text in texts], size, model)
        return cls((*SPECIAL, *_pieces_of(_processor(learnt))), learnt)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {s: i for i, s in enumerate(self.symbols) if i >= len(SPECIAL)}

    @cached_property
    def _characters(self) -> frozenset[str]:
        """The characters that texts may hold."""
        if self.model is None:
            return frozenset(self._ids)
        single = {symbol for symbol in self._ids if len(symbol) == 1}
        return frozenset({" "} | (single - {SPACE}))

    @cached_property
    def _sentencepiece(self) -> Any:
        assert self.model is not None
        return _processor(self.model)

    def __len__(self) -> int:
        return len(self.symbols)

    def __getstate__(self) -> dict[str, Any]:  # to loading workers, without what is made on demand
        return {"symbols": self.symbols, "model": self.model}

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that have no symbol, each once, in code point order."""
        return sorted(set(normalised(text)).difference(self._characters))

    def spellable(self, text: str) -> str:
        """The text without the characters that have no symbol."""
        kept = "".join(c for c in normalised(text) if c in self._characters)
        return text if kept == normalised(text) else " ".join(kept.split())

    def encode(self, text: str) -> list[int]:
        """The ids of the symbols that spell `text`, without `<sos>` and `<eos>`.

        Raises DataError naming the characters that have no symbol.
        """
        if unknown := self.unknown(text):
            raise DataError(f"{describe_unknown(unknown, self)}: {text!r}")
        plain = normalised(text)
        symbols = plain if self.model is None else self._sentencepiece.encode_as_pieces(plain)
        return [self._ids[symbol] for symbol in symbols]

    def letters(self, ids: Iterable[int]) -> list[str]:
        """The text that each of `ids` adds: joined, what `decode` gives.

        Up to the first `<eos>`; `<pad>` and `<sos>` add nothing. A piece that begins a word brings
        the space before it, but for a text's first.
        """
        letters: list[str] = []
        for number in ids:
            if number == EOS:
                break
            if not 0 <= number < len(self.symbols):
                raise ValueError(f"symbol id {number} is not in 0..{len(self.symbols) - 1}")
            letters.append("" if number in (PAD, SOS) else self.symbols[number])
        if self.model is not None:
            letters = [letter.replace(SPACE, " ") for letter in letters]
            for place in (n for n, letter in enumerate(letters) if letter):
                letters[place] = letters[place].removeprefix(" ")  # put before every text
                break
        return letters

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: ends before the first `<eos>`, leaves out `<pad>` and `<sos>`."""
        return "".join(self.letters(ids))

    def to_json(self) -> str:
        """The symbols, with the sentencepiece model if there is one, as one JSON object."""
        page: dict[str, Any] = {"symbols": list(self.symbols)}
        if self.model is not None:
            page["sentencepiece"] = base64.b64encode(self.model).decode()
        return json.dumps(page, ensure_ascii=False)

    @classmethod
    def from_json(cls, page: str) -> Self:
        """The vocabulary that `to_json` wrote. Raises DataError on anything else."""
        try:
            found = json.loads(page)
            symbols, model = found["symbols"], found.get("sentencepiece")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f'a vocabulary is {{"symbols": [...]}}; found {page[:60]!r}') from error
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise DataError(f"a vocabulary's symbols are a list of texts; found {page[:60]!r}")
        if model is None:
            return cls(tuple(symbols))
        return cls(tuple(symbols), _model_of(model, symbols))


NO_CHARACTERS = "no vocabulary: the training texts hold no characters"


def _learn(texts: Sequence[str], size: int, model: str) -> bytes:
    """The bytes of a sentencepiece model of `size` symbols, <unk> not counted."""
    from sentencepiece import SentencePieceTrainer

    if not any(texts):
        raise DataError(NO_CHARACTERS)
    odd = [text for text in texts if SPACE in text or "\0" in text or "\n" in text]
    if odd:
        raise DataError(
            f"a vocabulary of pieces cannot hold {SPACE!r} (U+2581), line breaks or null "
            f"characters, and {len(odd)} training texts do: {odd[0]!r}, ..."
        )
    learnt = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter([text for text in texts if text]),
            model_writer=learnt,
            model_type=model,
            vocab_size=size + 1,
            pad_id=PAD, bos_id=SOS, eos_id=EOS, unk_id=UNKNOWN,
            pad_piece=SPECIAL[PAD], bos_piece=SPECIAL[SOS], eos_piece=SPECIAL[EOS],
            character_coverage=1.0,  # its own choice drops rare characters
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=max(len(text.encode()) for text in texts) + 1,  # or it is left out
            num_threads=1,
            shuffle_input_sentence=False,
            minloglevel=3,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise DataError(_why_not(str(error), size)) from error
    return learnt.getvalue()


def _why_not(error: str, size: int) -> str:
    """Sentencepiece's reason in our words and numbers, which do not count <unk>."""
    begin = f"vocabulary.size: {size} symbols cannot be had from these training texts; "
    if most := re.search(r"Vocabulary size too high.*?<= (\d+)", error):
        return f"{begin}they are enough for {int(most[1]) - 1} at most"
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return f"{begin}every character is one, which makes {int(least[1]) - 1} at least"
    return f"{begin}sentencepiece says: {error}"


def _processor(model: bytes) -> Any:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


def _pieces_of(processor: Any) -> list[str]:
    """The model's pieces in its order, without the special ones."""
    return [processor.id_to_piece(i) for i in range(UNKNOWN + 1, processor.get_piece_size())]


def _model_of(text: object, symbols: Sequence[str]) -> bytes:
    """The model that `to_json` wrote. Raises DataError unless it is one, of these symbols."""
    try:
        model = base64.b64decode(str(text), validate=True)
        pieces = _pieces_of(_processor(model))
    except (binascii.Error, RuntimeError) as error:
        raise DataError(f"a vocabulary whose sentencepiece model is damaged: {error}") from error
    if pieces != list(symbols[len(SPECIAL) :]):
        raise DataError("a vocabulary whose symbols are not those of its sentencepiece model")
    return model


def describe_unknown(characters: Sequence[str], vocabulary: Vocabulary) -> str:
    """A message that names the characters outside the vocabulary, and the likely cause."""
    names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters)
    message = f"characters outside the vocabulary of {len(vocabulary)} symbols: {names}"
    if any(not vocabulary.unknown(c.upper()) for c in characters if c.upper() != c):
        message += "; it has these letters in upper case only"
    return message
