import base64
import json
import pickle
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spelldown.data.checks import problems_of
from spelldown.data.vocabulary import (
    EOS,
    PAD,
    SOS,
    CharactersVocabularySettings,
    CourseVocabularySettings,
    PiecesVocabularySettings,
    Vocabulary,
)
from spelldown.errors import DataError


def test_the_course_has_31_symbols_in_its_order() -> None:
    symbols = Vocabulary.course().symbols
    assert symbols == ("<pad>", "<sos>", "<eos>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'", " ")
    assert len(Vocabulary.course()) == 31
    assert (PAD, SOS, EOS) == (0, 1, 2)


@given(st.text(min_size=1))
def test_any_text_is_the_same_after_encoding_and_decoding(text: str) -> None:
    import unicodedata

    vocabulary = Vocabulary.of_texts([text])
    assert vocabulary.decode(vocabulary.encode(text)) == unicodedata.normalize("NFC", text)


def test_a_letter_and_its_accent_are_one_symbol_however_they_are_written() -> None:
    vocabulary = Vocabulary.of_texts(["cafe\u0301"])
    assert vocabulary.encode("caf\u00e9") == vocabulary.encode("cafe\u0301")
    assert vocabulary.symbols[3:] == ("a", "c", "f", "\u00e9")


def test_characters_are_in_code_point_order_whatever_the_order_of_texts() -> None:
    assert Vocabulary.of_texts(["ba", "c a"]).symbols[3:] == (" ", "a", "b", "c")
    assert Vocabulary.of_texts(["c a", "ba"]) == Vocabulary.of_texts(["ba", "c a"])


def test_decoding_ends_at_eos_and_leaves_out_pad_and_sos() -> None:
    vocabulary = Vocabulary.course()
    assert vocabulary.decode([SOS, 3, PAD, 4, EOS, 5]) == "AB"
    assert vocabulary.decode([]) == ""


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    for number in (31, -1):
        with pytest.raises(ValueError, match=r"not in 0\.\.30"):
            Vocabulary.course().decode([number])


def test_unknown_characters_are_named() -> None:
    with pytest.raises(DataError, match=r"'1' \(U\+0031\), 'É' \(U\+00C9\)"):
        Vocabulary.course().encode("AÉ1")


def test_lower_case_letters_come_with_the_likely_cause() -> None:
    with pytest.raises(DataError, match="in upper case only"):
        Vocabulary.course().encode("abc")


def test_special_symbols_cannot_be_written_in_a_text() -> None:
    assert Vocabulary.course().unknown("<eos>") == sorted(set("<eos>"))


def test_a_vocabulary_survives_json() -> None:
    for vocabulary in (Vocabulary.course(), Vocabulary.of_texts(["שלום ß \U0001f40d"])):
        assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    "page",
    [
        "",
        "[]",
        "{}",
        '{"symbols": "ABC"}',
        '{"symbols": ["<pad>", "<sos>", "<eos>"]}',
        '{"symbols": ["<sos>", "<pad>", "<eos>", "A"]}',
        '{"symbols": ["<pad>", "<sos>", "<eos>", "A", "A"]}',
        '{"symbols": ["<pad>", "<sos>", "<eos>", "AB"]}',
    ],
)
def test_a_page_that_is_no_vocabulary_is_refused(page: str) -> None:
    with pytest.raises(DataError, match="a vocabulary"):
        Vocabulary.from_json(page)


def test_texts_without_characters_make_no_vocabulary() -> None:
    with pytest.raises(DataError, match="hold no characters"):
        Vocabulary.of_texts(["", ""])


def test_settings_choose_the_vocabulary() -> None:
    assert CourseVocabularySettings().build() == Vocabulary.course()
    assert CharactersVocabularySettings().build(["ab"]) == Vocabulary.of_texts(["ab"])
    pieces = PiecesVocabularySettings(size=40, model="bpe").build(SENTENCES)
    assert pieces == Vocabulary.of_pieces(SENTENCES, 40, "bpe") and len(pieces) == 40


# --- pieces

random = Random(1)
STEMS = [a + b + c for a in "bdgklmst" for b in ("a", "ee", "o") for c in ("n", "rt", "ng")]
WORDS = [stem + end for stem in random.sample(STEMS, 30) for end in ("", "s", "ing")]
SENTENCES = [" ".join(random.choices(WORDS, k=random.randint(1, 7))) for _ in range(400)]
SENTENCES += ["the caf\u00e9"]


@pytest.fixture(params=["unigram", "bpe"])
def pieces(request: pytest.FixtureRequest) -> Vocabulary:
    return Vocabulary.of_pieces(SENTENCES, 60, request.param)


def test_pieces_spell_texts_back_with_their_spaces(pieces: Vocabulary) -> None:
    assert len(pieces) == 60 and pieces.symbols[:3] == ("<pad>", "<sos>", "<eos>")
    for text in [*SENTENCES, "sas bad", " a  b ", "", "cafe\u0301"]:
        assert pieces.decode(pieces.encode(text)) == text.replace("e\u0301", "\u00e9")
    assert all(EOS < number < len(pieces) for number in pieces.encode(SENTENCES[0]))
    assert sum(len(pieces.encode(text)) for text in SENTENCES) < len("".join(SENTENCES)) / 2


def test_letters_are_the_text_that_each_symbol_adds(pieces: Vocabulary) -> None:
    for text in SENTENCES:
        symbols = pieces.encode(text)
        letters = pieces.letters(symbols)
        assert len(letters) == len(symbols) and "".join(letters) == text
        assert sum(letter.startswith(" ") for letter in letters) == text.count(" ")
    assert pieces.letters([SOS, EOS, 5]) == [""]
    assert Vocabulary.course().letters([3, 30, PAD, 4, EOS, 5]) == ["A", " ", "", "B"]


@given(st.lists(st.integers(0, 59)))
def test_any_symbols_decode_to_what_their_letters_join_to(symbols: list[int]) -> None:
    vocabulary = Vocabulary.of_pieces(SENTENCES, 60)
    assert "".join(vocabulary.letters(symbols)) == vocabulary.decode(symbols)


def test_pieces_are_the_same_for_the_same_texts_and_survive_json(pieces: Vocabulary) -> None:
    again = [Vocabulary.of_pieces(SENTENCES, 60, kind) for kind in ("unigram", "bpe")]
    assert again[0] != again[1] and pieces in again
    for kept in (Vocabulary.from_json(pieces.to_json()), pickle.loads(pickle.dumps(pieces))):
        assert kept == pieces
        assert [kept.encode(text) for text in SENTENCES] == list(map(pieces.encode, SENTENCES))


def test_characters_that_no_piece_has_are_named(pieces: Vocabulary) -> None:
    assert pieces.unknown("the b\u00f6rt\u2581") == ["\u00f6", "\u2581"]
    with pytest.raises(DataError, match=r"U\+00F6"):
        pieces.encode("b\u00f6rt")
    with pytest.raises(DataError, match="outside the vocabulary"):
        pieces.encode("THE")


def test_every_character_is_a_piece_however_rare() -> None:
    vocabulary = Vocabulary.of_pieces([*SENTENCES * 20, "\u017eq"], 60)
    assert vocabulary.decode(vocabulary.encode("\u017e q")) == "\u017e q"


def test_a_size_that_the_texts_cannot_give_comes_with_one_that_they_can() -> None:
    for model in ("unigram", "bpe"):
        for size, says in ((10, r"(\d+) at least"), (5000, r"(\d+) at most")):
            with pytest.raises(DataError, match=says) as caught:
                Vocabulary.of_pieces(SENTENCES, size, model)
            possible = int(str(caught.value).split()[-3])
            assert len(Vocabulary.of_pieces(SENTENCES, possible, model)) == possible


def test_texts_that_pieces_cannot_hold_are_named() -> None:
    with pytest.raises(DataError, match="U\\+2581"):
        Vocabulary.of_pieces(["a\u2581b"], 20)
    with pytest.raises(DataError, match="hold no characters"):
        Vocabulary.of_pieces(["", ""], 20)


def test_a_damaged_model_is_refused(pieces: Vocabulary) -> None:
    page = json.loads(pieces.to_json())
    for model in ("no base64!", base64.b64encode(b"no model").decode()):
        with pytest.raises(DataError, match=r"damaged|not those"):
            Vocabulary.from_json(json.dumps({**page, "sentencepiece": model}))
    with pytest.raises(DataError, match="not those"):
        Vocabulary.from_json(json.dumps({**page, "symbols": page["symbols"][:-1]}))


def test_ctc_needs_frames_for_symbols_not_for_characters(pieces: Vocabulary) -> None:
    from lhotse import MonoCut, SupervisionSegment

    text = max(SENTENCES, key=len)
    symbols = pieces.encode(text)
    fewest = len(symbols) + sum(a == b for a, b in pairwise(symbols))
    assert fewest < len(text)
    spoken = SupervisionSegment("u", "u", 0, 1, text=text)
    cut = MonoCut("u", 0, 1, 0, supervisions=[spoken])
    cut.features = _features()
    check: dict[str, Any] = {"vocabulary": pieces, "width": 4}
    assert not list(problems_of([cut], output_length=lambda _: fewest, **check))
    (problem,) = problems_of([cut], output_length=lambda _: fewest - 1, **check)
    assert f"{len(text)} characters, {len(symbols)} symbols," in problem.found


def _features() -> object:
    from lhotse import Features

    return Features("mfcc", 100, 4, 0.01, 16000, 0.0, 1.0, "numpy_files", ".", "u.npy", "u", 0)
