"""How sure the speller was of each word.

A word's confidence is the geometric mean of the probabilities of its letters and of the space or
end that closes it, each given the sound and the letters before it: 0 to 1, and no lower for a word
that is long. Closing a word counts, since a letter too few or too many is doubtful there and
nowhere else. How well it tells right words from wrong is in docs/log.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Stretch(NamedTuple):
    """A word, and the places of the symbols that it begins and ends in."""

    text: str
    first: int
    last: int


def word_stretches(letters: Sequence[str]) -> list[Stretch]:
    """The words of a spelling, parted by white space.

    letters: the text that each symbol adds, one character or a piece of several. A script that does
    not part words by spaces gives one word.
    """
    places = [place for place, letter in enumerate(letters) for _ in letter]
    text = "".join(letters)
    found = []
    began: int | None = None
    for at, character in enumerate(f"{text} "):
        if not character.isspace():
            began = at if began is None else began
        elif began is not None:
            found.append(Stretch(text[began:at], places[began], places[at - 1]))
            began = None
    return found


def confidence(log_probs: Sequence[float], word: Stretch) -> float:
    """The geometric mean of the probabilities of a word's symbols and of the one that closes it.

    log_probs: of all symbols, natural logarithms; with that of `<eos>` behind them where it came,
    else the last word is taken without
    """
    part = log_probs[word.first : word.last + 2]
    return math.exp(sum(part) / len(part))


def word_confidences(letters: Sequence[str], log_probs: Sequence[float]) -> list[tuple[str, float]]:
    """Each word of a spelling with its confidence; for `log_probs` see `confidence`."""
    return [(word.text, confidence(log_probs, word)) for word in word_stretches(letters)]
