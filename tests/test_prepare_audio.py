"""Recordings of every kind, good and bad, as a preparation hears them."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from prepared import RATE, beep, prepared, utterances

from spelldown.data.preparing.cutting import cut_of
from spelldown.data.preparing.hearing import Heard, hear
from spelldown.data.preparing.looking.doubts import DoubtSettings, doubts
from spelldown.data.preparing.prepare import PrepareSettings
from spelldown.data.preparing.sources import table
from spelldown.data.preparing.sources.table import TableSettings
from spelldown.data.preparing.text import Said
from spelldown.data.preparing.utterance import Utterance
from spelldown.data.recordings import samples_of
from spelldown.errors import DataError

FORMATS: dict[str, dict[str, Any]] = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
    "sph": {"format": "NIST"},
    "aiff": {},
    "au": {},
    "rf64": {"format": "RF64"},
    "w64": {},
    "caf": {},
}


def write(path: Path, samples: Any, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **FORMATS[path.suffix[1:]])
    return path


def told(path: Path, channel: Any = None, **about: Any) -> Heard:
    return hear(Utterance("u", "here", audio=path, **about), channel)


def reasons(heard: Heard) -> list[str]:
    return [reason for reason, _ in heard.found]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_recordings_of_all_formats_and_rates_become_cuts(
    tmp_path: Path, ending: str, rate: int
) -> None:
    path = write(tmp_path / f"a b ü.{ending}", beep(1.5, rate=rate), rate)
    heard = told(path, text="x")
    assert heard.rate == rate and heard.found == () and heard.seconds == pytest.approx(1.5, abs=0.1)
    assert heard.level == pytest.approx(-16.7, abs=1.5) and heard.loudest >= heard.level
    cut = cut_of(Utterance("u", "here", text="x", audio=path), heard, "X", tmp_path / "out")
    samples = samples_of(cut)
    assert samples.shape == (1, heard.length) and cut.duration == heard.seconds


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_recording_that_was_cut_short_is_found(tmp_path: Path, ending: str, share: float) -> None:
    path = write(tmp_path / f"whole.{ending}", beep(3))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert reasons(told(path))[0] in ("cut-short", "unreadable")


def test_a_recording_under_the_name_of_another_format_is_read(tmp_path: Path) -> None:
    for ending in ("mp3", "flac", "opus"):
        path = write(tmp_path / f"a.{ending}", beep())
        renamed = path.rename(tmp_path / f"{ending}.wav")
        assert told(renamed).found == ()


@pytest.mark.parametrize("ending", FORMATS)
def test_random_bytes_and_empty_files_are_no_recordings(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert reasons(told(path)) == ["unreadable"]
    assert "not a recording that can be read" in told(path).found[0][1]
    path.write_bytes(b"")
    assert told(path).found == (("unreadable", "an empty file (0 bytes)"),)
    path.unlink()
    assert told(path).found == (("unreadable", "no such recording"),)
    path.mkdir()
    assert reasons(told(path)) == ["unreadable"]


def test_sphere_that_shorten_has_compressed_says_how_to_unpack_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sph"
    header = "NIST_1A\n   1024\nsample_count -i 10\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
    header += "channel_count -i 1\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    path.write_bytes(header.ljust(1024).encode() + b"ajkg\x02" + bytes(60))
    ((reason, words),) = told(path).found
    assert reason == "unreadable"
    assert words.startswith("SPHERE compressed by shorten, which is not read; unpack it first")
    assert "sph2pipe -f wav x.sph x.wav" in words and "sox" in words


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_recording_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", beep())
    path.chmod(0)
    assert told(path).found == (("unreadable", "cannot be read: Permission denied"),)


def test_a_recording_without_samples_or_under_one_window_is_too_short(tmp_path: Path) -> None:
    for seconds in (0, 0.02):
        assert "too-short" in reasons(told(write(tmp_path / "a.wav", beep(seconds))))
    assert told(write(tmp_path / "a.wav", beep(0.03))).found == ()


def test_samples_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    samples = beep()
    samples[[3, 77]] = np.nan, np.inf
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    heard = told(path)
    assert heard.found == (("non-finite", "2 samples are not finite numbers"),)
    assert np.isfinite([heard.level, heard.loudest, heard.peak]).all()


def test_a_stretch_of_a_recording_is_heard_alone(tmp_path: Path) -> None:
    samples = np.concatenate([beep(1, 0.5), np.zeros(RATE, np.float32), beep(1, 0.05)])
    path = write(tmp_path / "a.flac", samples)
    quiet, silence = told(path, start=2.0, end=3.0), told(path, start=1.0, end=2.0)
    assert (quiet.start, quiet.length, quiet.samples) == (2 * RATE, RATE, 3 * RATE)
    assert silence.level < -100 and quiet.level == pytest.approx(-28.7, abs=1)
    assert reasons(told(path, start=2.5, end=4)) == ["cut-short"]
    assert "ends at 4.00 s in a recording of 3.00 s" in told(path, start=2.5, end=4).found[0][1]
    assert "begins at 9.00 s" in told(path, start=9, end=10).found[0][1]
    cut = cut_of(
        Utterance("u", "", text="x", audio=path, start=2.0, end=3.0), quiet, "x", tmp_path / "out"
    )
    assert np.allclose(samples_of(cut).numpy()[0], samples[2 * RATE :], atol=1e-4)


def test_channels_are_mixed_or_chosen(tmp_path: Path) -> None:
    left, right = beep(1, 0.4), np.zeros(RATE, np.float32)
    path = write(tmp_path / "a.wav", np.stack([left, right], 1))
    for channel in (None, "mix"):
        mixed = told(path, channel)
        assert mixed.taken == (0, 1) and mixed.level == pytest.approx(
            told(path, 0).level - 6, abs=0.2
        )
        cut = cut_of(Utterance("u", "", text="x", audio=path), mixed, "x", tmp_path / "out")
        assert samples_of(cut).shape == (2, RATE)
    assert told(path, 1).level < -100 and told(path, 0).taken == (0,)
    known = Utterance("u", "here", audio=path, channel=1)
    assert hear(known, 0).taken == (1,)  # the source knows better
    assert "channel 2 is asked for, and there are 2" in told(path, 2).found[0][1]
    mono = write(tmp_path / "mono.wav", left)
    assert told(mono, 1).taken == (0,) and told(mono, 1).found == ()
    cut = cut_of(Utterance("u", "", text="x", audio=path), told(path, 1), "x", tmp_path / "out")
    assert samples_of(cut).shape == (1, RATE) and not samples_of(cut).any()


def test_loudness_and_clipping_are_what_they_are(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    half = told(write(tmp_path / "a.wav", 0.5 * tone))
    assert half.level == pytest.approx(-9.0, abs=0.1) and half.peak == pytest.approx(0.5, abs=1e-3)
    assert half.clipped == 0
    loud = told(write(tmp_path / "b.wav", (2 * tone).clip(-1, 1)))
    assert loud.clipped == pytest.approx(2 / 3, abs=0.02)
    burst = np.concatenate(
        [np.zeros(RATE, np.float32), 0.5 * tone[:800], np.zeros(RATE, np.float32)]
    )
    heard = told(write(tmp_path / "c.wav", burst))
    assert heard.loudest == pytest.approx(-9.0, abs=0.2) and heard.level < -20


def test_a_long_recording_is_heard_in_pieces_as_it_would_be_whole(tmp_path: Path) -> None:
    from spelldown.data.preparing import hearing

    path = write(tmp_path / "a.wav", beep(5))
    whole = told(path)
    before = hearing.SECONDS_AT_ONCE
    try:
        hearing.SECONDS_AT_ONCE = 1
        assert told(path) == whole
    finally:
        hearing.SECONDS_AT_ONCE = before


def test_every_doubt_has_its_threshold() -> None:
    def found(seconds: float = 4, text: str = "a word or two", **about: Any) -> set[str]:
        length = round(seconds * RATE)
        heard = replace(Heard(RATE, length, 1, 0, length, level=-20.0, loudest=-15.0), **about)
        said = Said(text, Counter(), Counter("5" if text == "five" else ""))
        return {doubt.reason for doubt in doubts(heard, said, DoubtSettings())}

    assert found() == set()
    assert found(loudest=-61.0) == {"silent"}
    assert found(clipped=0.002) == {"clipped"}
    assert found(0.2, "ab") == {"short"}
    assert found(31, "a word or two" * 10) == {"long"}
    assert found(1, "a" * 26) == {"crowded"}
    assert found(10, "a word") == {"sparse"}
    assert found(1, "five") == {"lost"}
    assert found(text="") == {"no-text"}


def test_bad_recordings_stop_the_preparation_with_all_of_them(tmp_path: Path) -> None:
    source = utterances(tmp_path / "ä ö", 30)
    for one in source[3:28]:
        assert one.audio is not None
        one.audio.write_bytes(b"no sound")
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "out", source)
    assert "25 of 30 utterances cannot be used" in str(caught.value)
    assert "--leave-out unreadable" in str(caught.value) and "... and 5 more" in str(caught.value)
    assert f"u003 (table, line 4; {tmp_path}/ä ö/u003.wav): not a rec" in str(caught.value)
    assert len((tmp_path / "out" / "unusable.txt").read_text().splitlines()) == 25
    assert not list((tmp_path / "out").glob("*.gz"))
    found = prepared(
        tmp_path / "out", source, PrepareSettings(doubts=DoubtSettings(leave_out=("unreadable",)))
    )
    assert found.record["left_out"] == {"unreadable": 25}
    left = (tmp_path / "out" / "left_out.txt").read_text().splitlines()
    assert len(left) == 25 and left[0].startswith("u003 (table, line 4;")
    assert not (tmp_path / "out" / "unusable.txt").exists()


@pytest.mark.data
def test_recordings_as_the_nist_published_them_are_prepared(
    tmp_path: Path, shared_data: Path
) -> None:
    settings = TableSettings(names=("audio", "text"), delimiter="tab", audio_suffix=".sph")
    found = prepared(
        tmp_path / "out", lambda: table.read(shared_data / "an4-audio" / "text", settings)
    )
    assert sum(told["utterances"] for told in found.record["parts"].values()) == 8
    assert found.record["rates"] == {"16000": 8} and not found.record["left_out"]
