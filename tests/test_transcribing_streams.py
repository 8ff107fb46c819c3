"""Recordings read block by block: whole ones, cut ones, damaged ones, and what is none at all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from tiny_sound import RATE, Samples, bursts, write_sound

from spelldown.data.recordings import read_audio
from spelldown.errors import AudioError
from spelldown.search.transcribing.sound import streams
from spelldown.search.transcribing.sound.streams import Recording, resampled

SOUND = bursts((0.2, 4.8), seconds=5.0)
FORMATS = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "mp3": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "sph": {"format": "NIST", "subtype": "PCM_16"},
    "aiff": {},
    "au": {},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same five seconds in every format."""
    folder = tmp_path_factory.mktemp("whole")
    for ending, how in FORMATS.items():
        soundfile.write(folder / f"sound.{ending}", SOUND, RATE, **how)
    return folder


def read(path: Path) -> tuple[Samples, Recording]:
    with Recording(path) as recording:
        return np.concatenate(list(recording.blocks())), recording


@pytest.mark.parametrize("ending", FORMATS)
def test_blocks_joined_are_the_recording_and_nothing_is_missing(whole: Path, ending: str) -> None:
    path = whole / f"sound.{ending}"
    found, recording = read(path)
    at_once = read_audio(path)[0].numpy()
    assert len(found) == len(at_once)
    assert np.allclose(found, at_once, atol=1e-3 if ending == "mp3" else 0)
    assert recording.incomplete == ""
    assert recording.seconds == pytest.approx(5.0, abs=0.1)


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([SOUND, -SOUND / 2], axis=1)
    soundfile.write(tmp_path / "two.wav", both, RATE, subtype="FLOAT")
    assert np.allclose(read(tmp_path / "two.wav")[0], SOUND / 4, atol=1e-7)


@pytest.mark.parametrize("ending", FORMATS)
def test_of_a_recording_that_was_cut_short_there_is_the_beginning_and_it_says_so(
    whole: Path, tmp_path: Path, ending: str
) -> None:
    content = (whole / f"sound.{ending}").read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(content[: len(content) // 2])
    found, recording = read(path)
    assert 1.0 < len(found) / RATE < 3.5
    assert "cut short" in recording.incomplete
    assert np.abs(found[: RATE // 2] - SOUND[: RATE // 2]).mean() < 0.06  # lossy formats, too


def test_a_length_that_a_pipe_could_not_know_is_no_sign_of_damage(
    whole: Path, tmp_path: Path
) -> None:
    content = bytearray((whole / "sound.wav").read_bytes())
    place = content.index(b"data") + 4
    for unknown in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"):
        content[4:8] = content[place : place + 4] = unknown
        (tmp_path / "piped.wav").write_bytes(content)
        found, recording = read(tmp_path / "piped.wav")
        assert (len(found), recording.incomplete) == (len(SOUND), "")


def test_a_recording_is_known_by_what_is_in_it_not_by_its_name(whole: Path, tmp_path: Path) -> None:
    for inside, name in (("flac", "wav"), ("mp3", "wav"), ("wav", "mp3"), ("ogg", "flac")):
        path = tmp_path / f"{inside}-as.{name}"
        path.write_bytes((whole / f"sound.{inside}").read_bytes())
        assert len(read(path)[0]) / RATE == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "opus", "sph", "au", "aiff"])
def test_what_is_no_recording_is_told_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"odd.{ending}"
    wrong = {
        b"": "an empty file (0 bytes)",
        np.random.default_rng(0).bytes(20_000): "not a recording that can be read",
        b"<html><body>404 Not found</body></html>": "not a recording that can be read",
        b"\x00\x00\x00\x20ftypM4A " + bytes(100): "convert it to WAV",
        b"PK\x03\x04" + bytes(100): "zip archive",
    }
    for content, why in wrong.items():
        path.write_bytes(content)
        with pytest.raises(AudioError) as caught:
            read(path)
        assert str(path) in str(caught.value) and why in str(caught.value)


def test_missing_unpermitted_and_soundless_recordings_are_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such recording"):
        read(tmp_path / "gone.wav")
    none = write_sound(tmp_path / "none.wav", SOUND[:0])
    with pytest.raises(AudioError, match=r"none\.wav: holds no samples"):
        read(none)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, who may run this, is allowed everything
    with pytest.raises(AudioError, match=r"none\.wav: cannot be read: Permission denied"):
        read(none)


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 1e30])
def test_samples_that_are_no_numbers_are_told_and_silent(tmp_path: Path, wrong: float) -> None:
    broken = SOUND.copy()
    broken[2 * RATE : 2 * RATE + 3] = wrong
    soundfile.write(tmp_path / "odd.wav", broken, RATE, subtype="FLOAT")
    found, recording = read(tmp_path / "odd.wav")
    broken[2 * RATE : 2 * RATE + 3] = 0
    assert np.array_equal(found, broken)
    assert recording.incomplete == (
        "3 samples that are not finite numbers, or far beyond full scale, taken for silence"
    )
    soundfile.write(tmp_path / "odd.wav", np.full(RATE, wrong), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"odd\.wav: holds nothing but samples that"):
        read(tmp_path / "odd.wav")


def test_only_a_block_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "long.wav", np.tile(SOUND, 4))
    with Recording(path) as recording:
        lengths = [len(block) for block in recording.blocks()]
    assert lengths == [round(streams.BLOCK_SECONDS * RATE)] * 20


def test_sound_is_resampled_in_blocks_as_it_would_be_at_once() -> None:
    def blocks() -> Iterator[Samples]:
        yield from np.array_split(SOUND, 7)

    found = np.concatenate(list(resampled(blocks(), RATE, 16_000)))
    at_once = soxr.resample(SOUND, RATE, 16_000, quality="HQ")
    assert len(found) == len(at_once) and np.allclose(found, at_once, atol=1e-5)
    assert np.array_equal(np.concatenate(list(resampled(blocks(), RATE, RATE))), SOUND)
