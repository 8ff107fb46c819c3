import pytest
from hypothesis import given
from hypothesis import strategies as st

from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary, VocabularySettings
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
    assert VocabularySettings(kind="course").build() == Vocabulary.course()
    assert VocabularySettings(kind="characters").build(["ab"]) == Vocabulary.of_texts(["ab"])
