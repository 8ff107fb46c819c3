"""Synthetic speech: what is said, who says it, and how it sounds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from spoken import command
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.data.preparing.text import TextForm, TextSettings
from spelldown.data.synthesis.engines.speaking import SilentError, Speech, Voice
from spelldown.data.synthesis.planning import (
    SharesSettings,
    VarietySettings,
    plan,
    split,
)
from spelldown.data.synthesis.sound import Take, record
from spelldown.data.synthesis.texts import Sentence, compared, read_sentences
from spelldown.errors import DataError

OWN = TextForm(TextSettings())


# --- what is said


def test_sentences_are_each_said_once_and_written_as_they_are_spelled(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(
        "\ufeffHello, World!\r\nhello world\n\n  Two   words \nÉtude: ça va?\nx\n".encode()
        + b"a" * 300
    )
    found = read_sentences(text, OWN, (2, 200))
    assert found.sentences == [
        Sentence("Hello, World!", "HELLO WORLD"),
        Sentence("Two words", "TWO WORDS"),
        Sentence("Étude: ça va?", "ÉTUDE ÇA VA"),
    ]
    assert found.dropped == {"there already": 1, "too short": 1, "too long": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "DON'T GO\nDON'T STAY\nTO GO\n"),
        ("text", "utt7 Don't go.\nutt7 To go.\n"),  # one name twice
        ("test.csv", 'path,sentence\na.wav,"DON\u00b4T GO"\n'),
        ("test.tsv", "a.wav\tdon\u2018t go\tspeaker 1\n"),
        ("text", "spk1-utt7\tdon\u2019t go\nspk1-utt8\tto go"),
        ("text", "utt7 Don't go.\nutt8 To go.\n"),
        ("test.jsonl", '{"supervisions": [{"text": "dont go"}]}\n'),
    ],
)
def test_sentences_of_a_test_set_stay_unheard(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Come!\nDon't - go?\n", encoding="utf-8")
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = read_sentences(tmp_path / "text.txt", OWN, (1, 99), [tmp_path / name])
    assert [sentence.said for sentence in found.sentences] == ["Come!"]
    assert found.dropped == {"left out": 1}
    assert [one.matched for one in found.unheard] == [1]


def test_a_file_of_which_nothing_is_left_out_is_told_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, good = tmp_path / "wav,and,text.lst", tmp_path / "good.txt"
    odd.write_text("a.wav,SENTENCE NUMBER 3 ΈΤΣΙ\n")
    good.write_text("SENTENCE NUMBER 3 ΈΤΣΙ\nNOT THERE\n")
    more = ["--leave-out", str(odd), "--leave-out", str(good), str(tmp_path / "out")]
    result = CliRunner().invoke(app, command(tmp_path, *more))
    assert result.exit_code == 0, result.output
    assert f"{odd}: none of 1 sentences is in the text" in result.output
    assert "the first reads 'a wav sentence number 3 έτσι'" in result.output
    assert f"{good}: 1 of 2 sentences are in the text, and are not spoken" in result.output
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert [one["matched"] for one in record["unheard"]] == [0, 1]


def test_sentences_are_compared_in_every_script_without_losing_vowel_signs() -> None:
    assert compared("Καλημέρα, ΚΌΣΜΕ!") == compared("καλημέρα κόσμε")
    assert compared("कि") != compared("का")
    assert compared("e\u0301") == compared("\u00e9")
    for apostrophe in "\u2019\u02bc\uff07\u00b4\u0060\u2032\u2018":
        assert compared(f"Don{apostrophe}t go") == "dont go"
    assert compared("He said \u2018go\u2019") == "he said go"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nna\xefve\n", "line 2: not UTF-8"),
        (b"\n \n", "no sentence to be spoken"),
        (b"!\n?\n", "2 too short"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sentences(tmp_path / "text.txt", OWN, (2, 200))
    with pytest.raises(DataError, match="nowhere"):
        read_sentences(tmp_path / "nowhere", OWN, (2, 200))


# --- who says it, and how


SENTENCES = [Sentence(f"s{number}", f"S{number}") for number in range(40)]
CAST = [Voice(f"v{number}", (f"a+v{number}", f"b+v{number}"), "el") for number in range(10)]


def test_parts_share_neither_voices_nor_sentences() -> None:
    shares = SharesSettings(split={"train": 0.8, "dev": 0.1, "test": 0.1}, hours=2)
    parts = split(SENTENCES, CAST, shares, seed=3)
    assert [(p.name, len(p.sentences), len(p.voices)) for p in parts] == [
        ("train", 32, 8),
        ("dev", 4, 1),
        ("test", 4, 1),
    ]
    assert [p.seconds for p in parts] == pytest.approx([5760, 720, 720])
    for what in ("sentences", "voices"):
        everything = [one for part in parts for one in getattr(part, what)]
        assert len(set(everything)) == len(everything)
    assert split(SENTENCES, CAST, shares, seed=3) == parts != split(SENTENCES, CAST, shares, 4)
    few = split(SENTENCES, CAST[:3], shares, seed=3)  # small shares still get one
    assert [len(part.voices) for part in few] == [1, 1, 1]
    with pytest.raises(DataError, match="3 parts need at least as many voices"):
        split(SENTENCES, CAST[:2], shares, seed=3)


def test_when_all_is_said_it_is_said_again_by_other_voices() -> None:
    (part,) = split(SENTENCES, CAST, SharesSettings(hours=1), seed=1)
    coming = iter(plan(part, VarietySettings()).utterances)
    rounds = [[next(coming) for _ in SENTENCES] for _ in range(3)]
    texts = [[u.text for u in one] for one in rounds]
    assert texts[0] == texts[1] == texts[2] and set(texts[0]) == {s.written for s in SENTENCES}
    for said in zip(*rounds, strict=True):
        assert len({u.speaker for u in said}) == 3
    every = [u for one in rounds for u in one]
    assert len({u.id for u in every}) == len({u.path for u in every}) == 120
    assert {u.request.voice[0] for u in every} == {"a", "b"}
    assert len({u.request.seed for u in every}) == 120


def test_what_is_drawn_stays_within_its_span() -> None:
    (part,) = split(SENTENCES, CAST, SharesSettings(), seed=1)
    variety = VarietySettings(
        speeds=(0.5, 0.7), pitches=(1.2, 1.3), noise=(3, 5), loudness=(-9, -8), seed=4
    )
    for u in plan(part, variety).utterances:
        assert 0.5 <= u.request.speed * u.take.pitch <= 0.701
        assert 1.2 <= u.take.pitch <= 1.3 and -9 <= u.take.loudness <= -8
        assert u.take.noise is not None and 3 <= u.take.noise <= 5 and 0 <= u.take.colour <= 2
        assert 0 <= u.take.before <= 0.5 and 0 <= u.take.after <= 0.5
    clean = next(iter(plan(part, VarietySettings(clean=True)).utterances))
    assert clean.take.noise is None


def test_a_command_that_cannot_be_told_how_fast_is_not_asked_to() -> None:
    (part,) = split(SENTENCES, CAST, SharesSettings(), seed=1)
    assert {u.request.speed for u in plan(part, VarietySettings(), paced=False).utterances} == {1.0}
    with pytest.raises(DataError, match=r"put .speed. into it"):
        plan(part, VarietySettings(speeds=(0.8, 1.2)), paced=False)


def test_shares_are_of_one_whole() -> None:
    for wrong in ({"train": 0.9}, {"train": 1.5, "dev": -0.5}, {}, {"../up": 1.0}):
        with pytest.raises(ValidationError):
            SharesSettings(split=wrong)
    with pytest.raises(ValidationError, match="least, most"):
        VarietySettings(noise=(40, 10))


# --- how it sounds


def tone(pitch: float, seconds: float = 1.0, rate: int = 22050) -> Speech:
    time = np.arange(round(seconds * rate)) / rate
    return Speech((8000 * np.sin(2 * np.pi * pitch * time)).astype(np.int16), rate)


def spectrum(samples: Any, rate: int) -> tuple[Any, Any]:
    return np.fft.rfftfreq(len(samples), 1 / rate), np.abs(np.fft.rfft(samples)) ** 2


def test_a_smaller_speaker_is_higher_and_as_much_faster() -> None:
    samples = record(tone(400), Take(-20, None, 1, pitch=1.25), 16000)
    assert len(samples) == pytest.approx(16000 / 1.25, abs=2)
    frequencies, power = spectrum(samples, 16000)
    assert frequencies[power.argmax()] == pytest.approx(500, abs=2)


def test_loudness_and_noise_are_as_loud_as_they_say() -> None:
    quiet = record(tone(400), Take(-30, None, 1), 16000)
    assert 20 * np.log10(np.sqrt(np.mean(quiet**2))) == pytest.approx(-30, abs=0.2)
    for colour in (0.0, 1.0, 2.0):
        noisy = record(tone(400), Take(-30, 12, 1, colour), 16000)
        noise = noisy - quiet
        ratio = 10 * np.log10(np.mean(quiet**2) / np.mean(noise**2))
        assert ratio == pytest.approx(12, abs=0.3)
    loud = record(tone(400), Take(-1, 20, 1), 16000)
    assert np.abs(loud).max() <= 1 and np.mean(np.abs(loud) > 0.999) < 0.01


def test_before_and_after_the_speech_there_is_only_the_room() -> None:
    plain = record(tone(400), Take(-30, None, 1), 16000)
    edged = record(tone(400), Take(-30, None, 1, before=0.25, after=0.5), 16000)
    assert not edged[:4000].any() and not edged[-8000:].any()
    np.testing.assert_allclose(edged[4000:-8000], plain, atol=1e-6)
    noisy = record(tone(400), Take(-30, 12, 1, before=0.25, after=0.5), 16000)
    for edge in (noisy[:4000], noisy[-8000:]):
        assert 20 * np.log10(np.sqrt(np.mean(edge**2))) == pytest.approx(-42, abs=0.5)
    with pytest.raises(ValidationError, match="within 0 to 10 seconds"):
        VarietySettings(silence=(-1, 0))


def test_brown_noise_falls_with_frequency_and_white_noise_does_not() -> None:
    falls = []
    for colour in (0.0, 1.0, 2.0):
        silence = record(tone(60), Take(-30, -20, 3, colour), 16000)
        frequencies, power = spectrum(silence, 16000)
        low, high = (
            power[(frequencies > a) & (frequencies < 2 * a)].mean() for a in (500.0, 2000.0)
        )
        falls.append(10 * np.log10(low / high))
    assert falls == pytest.approx([0, 6, 12], abs=1.5)  # two octaves: 3 dB each, and 6


def test_silence_and_speech_that_breaks_off_are_no_speech() -> None:
    for nothing in (Speech(np.zeros(9000, np.int16), 16000), Speech(np.zeros(0, np.int16), 16000)):
        with pytest.raises(SilentError, match="silent"):
            record(nothing, Take(-20, 20, 1), 16000)
    with pytest.raises(SilentError, match=r"0\.10 s of speech for 60 letters"):
        record(tone(400, 0.1), Take(-20, 20, 1), 16000, letters=60)
