"""What a sentence as written becomes to be spelled: case, punctuation, numbers, Unicode form.

Nothing is lost silently: every character that is taken away is counted, and what was no punctuation
is told apart, since a word without it is another word.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import Field, model_validator

from spelldown.errors import DataError
from spelldown.settings import Settings

APOSTROPHES = "\u2019\u02bc\uff07\u00b4\u0060\u2032"  # ’ ʼ ＇ ´ ` ′, all meant as '
OPENING = "\u2018\u201b"  # ‘ ‛ open a quotation, unless a letter stands before them
DOTTED = ("tr", "az", "crh")  # languages whose I is the capital of ı, and İ that of i
# Hyphenation, byte-order marks, and what changes the direction of writing; the joiners of Indian
# and Arabic letters are no such thing.
INVISIBLE = frozenset("\u00ad\ufeff\u200b\u2060\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
                      "\u2066\u2067\u2068\u2069")  # fmt: skip
GAPS = dict.fromkeys(map(ord, INVISIBLE))
READ = frozenset("%‰$€£¥¢₽₹₩&+=@°§")  # signs that are words when a text is read out
FOLDED = str.maketrans({
    "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "ẞ": "SS", "Ħ": "H",
    "Ŋ": "NG", "Ŧ": "T", "ß": "SS", "\u0131": "I",
})  # fmt: skip
# Thousands stand apart by a space that does not break or an apostrophe in groups of three alone:
# 6'2 is two numbers.
BETWEEN = "\u00a0\u202f\u2009'"
NUMBER = re.compile(
    rf"(?:\d{{1,3}}(?P<gap>[{BETWEEN}])\d{{3}}(?:(?P=gap)\d{{3}})*(?!(?P=gap)?\d)|\d+)(?:[.,]\d+)*"
    r"(?:st|nd|rd|th)?(?!\w)|\d+",
    re.IGNORECASE,
)
QUOTED = re.compile(r"(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)")
LOOSE = re.compile(r"(?<!\w)'(?!\w)")  # an apostrophe that touches no letter


class _Spaced(dict[int, str]):
    """A table for `str.translate` that makes white space and control characters spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        blank = character.isspace() or unicodedata.category(character) == "Cc"
        self[code] = " " if blank else character
        return self[code]


SPACED = _Spaced()
GEORGIAN = re.compile(r"[\u1c90-\u1cbf]+")  # its capitals


class TextSettings(Settings):
    """How texts are brought to the form that is spelled."""

    form: Literal["own", "librispeech"] = Field(
        "own",
        description="librispeech: A-Z, apostrophe and space alone, accents folded; "
        "own: as the settings below say",
    )
    case: Literal["upper", "lower", "as-is"] = Field("upper", description="of all letters")
    punctuation: Literal["drop", "keep"] = Field(
        "drop", description="punctuation and symbols; a dropped one leaves a space"
    )
    apostrophes: Literal["keep", "drop"] = Field(
        "keep", description="within words and at their edges; curly ones become straight"
    )
    numbers: Literal["digits", "words"] = Field(
        "digits", description="digits as they are, or written out in the language"
    )
    language: str | None = Field(
        None, description="a code such as de: for numbers, and for Turkish capitals"
    )
    unicode: Literal["NFC", "NFKC"] = Field(
        "NFC", description="Unicode form: NFKC also makes ﬁ two letters and ② a 2"
    )

    @model_validator(mode="after")
    def _as_the_form_has_it(self) -> "TextSettings":
        if self.form == "librispeech" and self.case != "upper":
            raise ValueError(
                f"--text-form librispeech has capitals: leave --case {self.case} away, or the form"
            )
        if self.form == "librispeech" and self.punctuation != "drop":
            raise ValueError(
                "--text-form librispeech has no punctuation: leave --punctuation keep away, or the "
                "form"
            )
        return self


@dataclass(frozen=True, slots=True)
class Said:
    """A text as it will be spelled, and the characters that were taken from it on the way.

    letters: those that were said, as digits and % and & are; punctuation: all others
    """

    text: str
    punctuation: Counter[str]
    letters: Counter[str]


class TextForm:
    """Brings texts to a form. Raises DataError for numbers in a language that nobody can count in.

    The same text always gives the same result; a text that is in the form stays as it is.
    """

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings
        self._in_words: Callable[[str], str] | None = None
        if settings.numbers == "words":
            self._in_words = _counting(settings.language)

    def said(self, written: str) -> Said:
        """The text to be spelled, white space collapsed, with all that it lost."""
        settings = self.settings
        lost: Counter[str] = Counter()
        text = unicodedata.normalize(settings.unicode, written)
        lost.update(c for c in text if c in INVISIBLE or _is_control(c))
        text = _straight(text.translate(GAPS))
        if self._in_words is not None:
            text = NUMBER.sub(lambda found: f" {self._words(found[0])} ", text)
        text = text.translate(SPACED)
        letters: Counter[str] = Counter()
        if settings.form == "librispeech":
            text = _folded(text)
            letters.update(c for c in text if not (_is_plain(c) or _is_mark(c)))
            text = "".join(c if _is_plain(c) or _is_mark(c) else " " for c in text)
        else:
            text = self._cased(text)
        if settings.form == "librispeech" or settings.punctuation == "drop":
            letters.update(c for c in text if c in READ)
            text = self._without_marks(text, lost)
        elif settings.apostrophes == "drop":
            text = self._without_apostrophes(text, lost)
        return Said(" ".join(unicodedata.normalize("NFC", text).split()), lost, letters)

    def _cased(self, text: str) -> str:
        case = self.settings.case
        turkish = (self.settings.language or "").partition("-")[0].lower() in DOTTED
        if case == "upper":
            return _upper(text.replace("i", "İ") if turkish else text)
        if case == "lower":
            return (text.replace("I", "\u0131").replace("İ", "i") if turkish else text).lower()
        return text

    def _without_marks(self, text: str, lost: Counter[str]) -> str:
        """Without punctuation and symbols, each of which leaves a space; apostrophes as set."""
        marks = [c for c in text if _is_mark(c)]
        lost.update(c for c in marks if c not in READ)
        if marks:
            text = "".join(" " if _is_mark(c) else c for c in text)
        if "'" in text:
            before = text.count("'")
            while QUOTED.search(text):  # one within another, too
                text = QUOTED.sub(r" \1 ", text)
            text = LOOSE.sub(" ", text)
            lost.update({"'": before - text.count("'")} if before > text.count("'") else {})
        return self._without_apostrophes(text, lost)

    def _without_apostrophes(self, text: str, lost: Counter[str]) -> str:
        if self.settings.apostrophes == "keep" or "'" not in text:
            return text
        lost["'"] += text.count("'")
        return text.replace("'", "")

    def _words(self, number: str) -> str:
        assert self._in_words is not None
        return re.sub("[-,]", " ", self._in_words(number))  # forty-two, and pauses between words


def _upper(text: str) -> str:
    """In capitals, but for Georgian: it has some since 2018, and nobody writes a text in them."""
    upper = text.upper()
    return upper if upper.isascii() else GEORGIAN.sub(lambda found: found[0].lower(), upper)


def _is_plain(character: str) -> bool:
    return "A" <= character <= "Z" or character in "' "


def _is_control(character: str) -> bool:
    """Whether it is a control character that is no white space, and so means nothing in a text."""
    return not character.isprintable() and (
        unicodedata.category(character) == "Cc" and not character.isspace()
    )


@cache
def _is_mark(character: str) -> bool:
    return character != "'" and unicodedata.category(character)[0] in "PS"


def _straight(text: str) -> str:
    """Every apostrophe as the straight one; an opening quotation mark as a quotation mark."""
    if text.isascii() and "`" not in text:
        return text
    for mark in OPENING:
        text = re.sub(rf"(?<=\w){mark}(?=\w)", "'", text).replace(mark, " '")
    return text.translate(dict.fromkeys(map(ord, APOSTROPHES), "'"))


def _folded(text: str) -> str:
    """In capitals, with letters that have accents as those without."""
    upper = text.upper()
    if upper.isascii():
        return upper
    apart = unicodedata.normalize("NFKD", upper.translate(FOLDED))
    return "".join(c for c in apart if not unicodedata.category(c).startswith("M")).upper()


def _counting(language: str | None) -> Callable[[str], str]:
    """A function from a number in digits to its words."""
    if language is None:
        raise DataError("numbers in words need their language: --text-language en")
    try:
        import num2words
    except ImportError:
        raise DataError(
            "numbers in words need the extra `numbers`: pip install 'spelldown[numbers]'"
        ) from None
    known = sorted(num2words.CONVERTER_CLASSES)
    code = next((c for c in (language, language.replace("-", "_")) if c in known), None)
    code = code or next((c for c in (language.split("-")[0].lower(),) if c in known), None)
    if code is None:
        raise DataError(f"nobody can count in the language {language!r}; known: {', '.join(known)}")
    return lambda number: _counted(num2words.num2words, number, code)


def _counted(count: Callable[..., Any], number: str, language: str) -> str:
    """A number as it is read: cardinal, ordinal (1st, 2nd, ...), after a zero digit by digit."""
    digits = number.rstrip("sndrthSNDRTH")
    kind = "ordinal" if digits != number and language.startswith("en") else "cardinal"
    ending = "" if kind == "ordinal" else number[len(digits) :]
    point = "." if language.startswith(("en", "zh", "ja", "ko", "th", "he")) else ","
    thousands = "," if point == "." else "."
    plain = re.sub(f"[{BETWEEN}]", "", digits)
    if re.fullmatch(rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+({re.escape(point)}\d+)?", plain):
        plain = plain.replace(thousands, "")
    try:
        if plain.isdecimal() and len(plain) > 1 and plain.startswith("0"):
            return " ".join(str(count(int(digit), lang=language)) for digit in plain) + ending
        if plain.isdecimal():
            return str(count(int(plain), lang=language, to=kind)) + ending
        whole = plain.replace(point, ".")
        if whole.count(".") == 1 and "," not in whole:
            return str(count(whole, lang=language)) + ending
        parts = re.split(r"\D", plain)  # 3.4.5: each by itself
        return " ".join(str(count(int(part), lang=language)) for part in parts) + ending
    except (NotImplementedError, OverflowError, ValueError, KeyError, IndexError, TypeError):
        return number  # it stays in digits, which the vocabulary then shows
