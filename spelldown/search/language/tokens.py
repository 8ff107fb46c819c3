"""Symbols as the words of an ARPA file, which parts its words by white space.

    <sos>, <eos>    <s>, </s>           as every ARPA file calls them; <pad> is never in one
    space           U+2581              as sentencepiece writes it, whose pieces have it already
    all others      as they are         unless that could be misread; then <U+00A0>, a code point
                                        for each character: white space, control characters, U+2581
                                        in a vocabulary that has a space, and whatever stands in
                                        angle brackets, as a piece "<s>" would

kenlm reads them: it parts words by space, tab and line ends alone, and takes the rest as it comes.
"""

import re
from collections.abc import Sequence

from spelldown.data.vocabulary import EOS, PAD, SOS, SPACE

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
BRACKETED = re.compile(r"<.+>", re.DOTALL)


def tokens_of(symbols: Sequence[str]) -> list[str]:
    """The ARPA word of each of a vocabulary's symbols, all different; `<pad>` has an empty one."""
    spaced = " " in symbols
    tokens = [_token(symbol, spaced) for symbol in symbols]
    tokens[PAD], tokens[SOS], tokens[EOS] = "", BEGIN, END
    return tokens


def _token(symbol: str, spaced: bool) -> str:
    if symbol == " ":
        return SPACE
    plain = symbol.isprintable() and not re.search(r"\s", symbol)
    if plain and not BRACKETED.fullmatch(symbol) and not (spaced and SPACE in symbol):
        return symbol
    return "".join(f"<U+{ord(character):04X}>" for character in symbol)
