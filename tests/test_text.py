"""What a text becomes to be spelled, and what it lost on the way."""
# ruff: noqa: RUF001 (letters of many scripts are meant)

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spelldown.data.preparing.text import TextForm, TextSettings
from spelldown.errors import DataError


def said(written: str, **chosen: str) -> str:
    return TextForm(TextSettings(**chosen)).said(written).text


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("WE CALL IT BEAR", "WE CALL IT BEAR"),
        ("Hello,  world!\n", "HELLO WORLD"),
        ("It’s the dogs' bone", "IT'S THE DOGS' BONE"),
        ("the ‘best’ of 'em", "THE BEST OF 'EM"),
        ("he said 'well then' and don`t", "HE SAID WELL THEN AND DON'T"),
        ("rock 'n' roll", "ROCK N ROLL"),
        ("“Über”—das", "ÜBER DAS"),
        ("one,two;three", "ONE TWO THREE"),
        ("co\u00adop", "COOP"),
        ("Привет, мир", "ПРИВЕТ МИР"),
        ("你好，世界。", "你好 世界"),
        ("हिन्दी में", "हिन्दी में"),
        ("გამარჯობა, world", "გამარჯობა WORLD"),
        ("tab\tand\u2028line\x00", "TAB AND LINE"),
        ("...", ""),
    ],
)
def test_a_text_becomes_what_is_said(written: str, becomes: str) -> None:
    assert said(written) == becomes


def test_case_punctuation_and_apostrophes_are_as_they_are_set() -> None:
    assert said("It's Ok.", case="lower") == "it's ok"
    assert said("It's Ok.", case="as-is", punctuation="keep") == "It's Ok."
    assert said("It's Ok.", apostrophes="drop") == "ITS OK"
    assert said("It's Ok.", apostrophes="drop", punctuation="keep") == "ITS OK."


def test_the_librispeech_form_has_nothing_but_its_28_characters() -> None:
    assert said("Café naïve, Straße; Łódź, Œuvre & Ångström's", form="librispeech") == (
        "CAFE NAIVE STRASSE LODZ OEUVRE ANGSTROM'S"
    )


def test_turkish_has_its_own_capitals() -> None:
    assert said("ısı iki", language="tr") == "ISI İKİ"
    assert said("ISPARTA İzmir", language="tr-TR", case="lower") == "ısparta izmir"
    assert said("iki") == "IKI"


def test_what_a_text_loses_is_counted_letters_apart_from_punctuation() -> None:
    found = TextForm(TextSettings(form="librispeech")).said("5 cats, 55 dogs, мир!")
    assert found.text == "CATS DOGS"
    assert found.letters == {"5": 3, "М": 1, "И": 1, "Р": 1}
    assert found.punctuation == {",": 2, "!": 1}
    quoted = TextForm(TextSettings()).said("'a b' isn't")
    assert quoted.text == "A B ISN'T" and quoted.punctuation == {"'": 2}


@pytest.mark.parametrize(
    ("language", "written", "becomes"),
    [
        ("en", "The 3rd of May, 1,000.5", "the third of may one thousand point five"),
        ("en", "42 and 007", "forty two and zero zero seven"),
        ("en", "B2B COVID19", "b two b covid nineteen"),
        ("de", "1.000 Leute, 3,5 Prozent", "eintausend leute drei komma fünf prozent"),
        ("fr", "1\u202f000 ou 80", "mille ou quatre vingts"),
        ("pt-BR", "21", "vinte e um"),
    ],
)
def test_numbers_are_read_in_their_language(language: str, written: str, becomes: str) -> None:
    pytest.importorskip("num2words", reason="no num2words here: pip install num2words")
    assert said(written, numbers="words", language=language, case="lower") == becomes


def test_numbers_need_a_language_that_somebody_can_count_in() -> None:
    with pytest.raises(DataError, match="--text-language en"):
        TextForm(TextSettings(numbers="words"))
    pytest.importorskip("num2words", reason="no num2words here: pip install num2words")
    with pytest.raises(DataError, match=r"'tlh'; known: .*\bde\b"):
        TextForm(TextSettings(numbers="words", language="tlh"))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(DataError, match=r"spelldown\[numbers\]"):
        TextForm(TextSettings(numbers="words", language="en"))


def test_unicode_forms_make_one_spelling_of_several() -> None:
    assert said("cafe\u0301") == said("caf\u00e9")
    assert said("②", unicode="NFKC") == "2"


ANY_FORM = [
    TextForm(TextSettings(case=case, punctuation=marks, unicode=form))
    for case in ("upper", "lower", "as-is")
    for marks in ("drop", "keep")
    for form in ("NFC", "NFKC")
] + [TextForm(TextSettings(form="librispeech")), TextForm(TextSettings(apostrophes="drop"))]


@given(st.text(), st.sampled_from(ANY_FORM))
def test_any_text_takes_a_form_without_white_space_to_spare(text: str, form: TextForm) -> None:
    found = form.said(text).text
    assert found == " ".join(found.split()) == unicodedata.normalize("NFC", found)


@settings(max_examples=500)
@given(st.text("abcXYZ _@ äßé'’‘“”,.-1\u0301\u00a0"), st.sampled_from(ANY_FORM))
def test_a_text_in_form_stays_as_it_is(text: str, form: TextForm) -> None:
    once = form.said(text).text
    assert form.said(once).text == once


@pytest.mark.parametrize(
    ("language", "written", "becomes"),
    [
        ("en", "he is 6'2 tall", "he is six two tall"),
        ("de", "1'000 und 12'345'678", "eintausend und zwölf millionen dreihundert"),
        ("en", "12'34 and 1\u00a000", "twelve thirty four and one zero zero"),
        ("fr", "1\u202f000\u202f000", "un million"),
        ("en", "1\u20090001", "one zero zero zero one"),
    ],
)
def test_only_groups_of_three_digits_are_thousands(
    language: str, written: str, becomes: str
) -> None:
    pytest.importorskip("num2words", reason="no num2words here: pip install num2words")
    found = said(written, numbers="words", language=language, case="lower")
    assert found.startswith(becomes)


def test_signs_that_are_read_out_count_as_lost_and_not_as_punctuation() -> None:
    found = TextForm(TextSettings()).said("5% of $3 & more, at 20°C")
    assert found.text == "5 OF 3 MORE AT 20 C"
    assert found.letters == {"%": 1, "$": 1, "&": 1, "°": 1} and found.punctuation == {",": 1}
    strict = TextForm(TextSettings(form="librispeech")).said("€5 & x")
    assert strict.letters == {"€": 1, "5": 1, "&": 1}
    kept = TextForm(TextSettings(punctuation="keep")).said("5%")
    assert kept.text == "5%" and not kept.letters


def test_characters_that_nobody_sees_are_counted_when_they_go() -> None:
    found = TextForm(TextSettings()).said("co\u00adop\ufeff \u202ba\u202c\x00b\tc")
    assert found.text == "COOP A B C"
    assert found.punctuation == dict.fromkeys(("\u00ad", "\ufeff", "\u202b", "\u202c", "\x00"), 1)


@pytest.mark.parametrize("other", [{"case": "lower"}, {"punctuation": "keep"}])
def test_a_form_is_not_asked_for_what_it_has_not(other: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="or the form"):
        TextSettings(form="librispeech", **other)
