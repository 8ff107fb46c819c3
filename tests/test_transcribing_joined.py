"""Recordings of any length: order, batches, joined texts and times, and what could not be read."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_sound import RATE, Hearing, Samples, bursts, hearing_transcriber, write_sound

from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.search.search import BeamSettings, GreedySettings
from spelldown.search.transcribing.joined import (
    AHEAD,
    Heard,
    Source,
    heard,
    limited_by_seconds,
    seconds_of,
)
from spelldown.search.transcribing.sound.pauses import PauseSettings, segments
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Item, Transcript

SETTINGS = PauseSettings(kind="energy", longest=4.0)
SPANS = ((0.5, 2.0), (2.6, 3.5), (5.0, 5.9), (9.0, 10.5))
LONG = bursts(*SPANS, seconds=12.0)


def sources(*paths: Path) -> list[Source]:
    return [Source(path.stem, path, str(path)) for path in paths]


def transcribed(*paths: Path, made: Transcriber | None = None) -> list[Heard]:
    return list(heard(made or hearing_transcriber(), sources(*paths), SETTINGS))


@pytest.fixture
def long(tmp_path: Path) -> Path:
    return write_sound(tmp_path / "long.wav", LONG)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    return write_sound(tmp_path / "short.wav", LONG[: 3 * RATE])


def test_a_short_recording_is_its_speech_as_a_transcriber_spells_it(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "one.wav", bursts((0.1, 2.9), seconds=3.0))
    (found,) = transcribed(path)
    (alone,) = hearing_transcriber().transcribe([Item("one", path)], times=True)
    assert isinstance(alone, Transcript)
    assert (found.text, found.words) == (alone.text, alone.words)
    assert found.score == pytest.approx(alone.score)
    assert (found.seconds, found.segments[0].start, found.segments[0].end) == (3.0, 0.0, 3.0)
    silence = bursts(seconds=2.0)
    write_sound(path, np.concatenate((silence, bursts((0.1, 2.9), seconds=3.0), silence)))
    (between,) = transcribed(path)
    assert (between.text, between.seconds) == (found.text, 7.0)
    assert between.segments[0].start == pytest.approx(2.0, abs=0.03)
    assert between.segments[0].end == pytest.approx(5.0, abs=0.03)


def test_search_islimited_by_seconds_alone_but_not_in_evaluation(long: Path) -> None:
    made = hearing_transcriber()
    made.search = GreedySettings(longest=3, longest_per_second=10)
    (found,) = transcribed(long, made=made)
    assert max(len(one.text) for one in found.segments) > 3
    for one in found.segments:
        assert len(one.text) <= np.ceil(10 * (one.end - one.start)) + 1
    (whole,) = made.transcribe([Item("long", long)])
    assert isinstance(whole, Transcript) and len(whole.letters) <= 3
    made.search = GreedySettings(longest=3)
    (found,) = transcribed(long, made=made)
    assert max(len(one.text) for one in found.segments) <= 3
    assert [one for one in found.segments if not one.ended] == [*found.endless]


def test_a_beam_takes_no_more_steps_than_the_longest_segment_has_though_a_file_is_uncut() -> None:
    beam = BeamSettings(longest=3, longest_per_second=10)
    assert limited_by_seconds(beam, segment=4.0).longest == 40
    assert limited_by_seconds(beam.model_copy(update={"longest": 50}), 4.0).longest == 50


def test_features_of_an_hour_are_refused_and_of_minutes_have_a_limit(tmp_path: Path) -> None:
    np.save(tmp_path / "hour.npy", np.zeros((360_000, 5), np.float32))
    (found,) = transcribed(tmp_path / "hour.npy")
    assert found.error is not None
    assert "features of 60 minutes" in found.error and "hour.npy" in found.error
    greedy = GreedySettings(longest=3, longest_per_second=10)
    assert limited_by_seconds(greedy, segment=4.0).longest == 600


def test_one_channel_is_heard_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([LONG, bursts((1.0, 3.0), seconds=12.0)], axis=1), RATE)
    (one, other, neither, mean) = heard(
        hearing_transcriber(), [Source("x", path, str(path), n) for n in (0, 1, 2, None)], SETTINGS
    )
    assert (len(one.segments), len(other.segments)) == (len(SPANS), 1)
    assert len(mean.segments) == 3  # the first two lie within the other channel's
    assert neither.error == f"{path}: there is no channel 2; the last is 1"
    np.save(tmp_path / "a.npy", np.zeros((9, 5)))
    (array,) = heard(hearing_transcriber(), [Source("a", tmp_path / "a.npy", "a.npy", 1)], SETTINGS)
    assert array.error == "a.npy: features have no channels to choose from"


@pytest.mark.parametrize("wrong", [np.nan, 1e30])
def test_of_a_recording_with_samples_that_are_no_sound_all_others_are_spelled(
    tmp_path: Path, wrong: float
) -> None:
    broken = LONG.copy()
    broken[4 * RATE : 4 * RATE + 10] = wrong  # between two stretches
    path = tmp_path / "broken.wav"
    soundfile.write(path, broken, RATE, subtype="FLOAT")
    (found,) = transcribed(path)
    (whole,) = transcribed(write_sound(tmp_path / "whole.wav", LONG))
    assert (found.error, len(found.segments)) == (None, len(whole.segments))
    assert found.incomplete.startswith("10 samples that are not finite numbers")
    soundfile.write(path, np.full(RATE, wrong), RATE, subtype="FLOAT")
    (found,) = transcribed(path)
    assert found.error and str(path) in found.error and "nothing but samples" in found.error


def test_a_long_recording_is_its_segments_joined(long: Path) -> None:
    (found,) = transcribed(long)
    assert len(found.segments) == len(SPANS)
    said = [one.text.strip() for one in found.segments]
    assert found.text == " ".join(text for text in said if text) and len(set(said)) > 1
    assert found.score == pytest.approx(sum(one.score for one in found.segments))
    assert found.ended == all(one.ended for one in found.segments)
    assert found.seconds == pytest.approx(12.0)
    expected = list(segments(iter([LONG]), RATE, RATE, SETTINGS))
    for one, (start, end), piece in zip(found.segments, SPANS, expected, strict=True):
        assert start - 0.2 < one.start < start and end < one.end < end + 0.2
        (alone,) = hearing_transcriber().transcribe([Item("x", piece.sound)])
        assert isinstance(alone, Transcript) and alone.text == one.text


def test_words_are_timed_from_the_recording_s_beginning_within_their_segment(long: Path) -> None:
    (found,) = transcribed(long)
    assert found.words == tuple(word for one in found.segments for word in one.words)
    assert found.words
    for one in found.segments:
        assert [word.text for word in one.words] == one.text.split()
        assert all(one.start <= word.start <= word.end <= one.end for word in one.words)


def test_results_come_in_order_with_what_failed_in_its_place(
    long: Path, short: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF?")
    write_sound(tmp_path / "click.wav", LONG[:80])
    silence = write_sound(tmp_path / "silence.wav", bursts(seconds=6.0))
    empty = write_sound(tmp_path / "none.wav", LONG[:0])
    names = ["broken", "short", "gone", "long", "click", "silence", "none"]
    paths = [tmp_path / "broken.wav", short, tmp_path / "gone.wav", long, tmp_path / "click.wav"]
    found = transcribed(*paths, silence, empty)
    assert [one.id for one in found] == names
    told = {one.id: one.error for one in found if one.error}
    assert set(told) == {"broken", "gone", "click", "none"}
    for name, error in told.items():
        assert str(tmp_path / f"{name}.wav") in error
    assert "10.0 ms long" in told["click"]
    assert (found[5].text, found[5].segments, found[5].seconds) == ("", (), 6.0)


def test_of_a_recording_that_breaks_off_the_beginning_is_spelled(long: Path) -> None:
    (whole,) = transcribed(long)
    content = long.read_bytes()
    long.write_bytes(content[: len(content) // 2])
    (found,) = transcribed(long)
    assert found.error is None and found.text
    assert found.incomplete == "cut short: 6.0 s of 12.0 s are there"
    assert found.as_dict()["incomplete"] == found.incomplete
    assert found.text.split()[0] == (whole.text or "").split()[0]


def test_segments_of_all_recordings_fill_batches_together(long: Path, short: Path) -> None:
    made = hearing_transcriber()
    transcribed(long, short, long, made=made)
    assert isinstance(made.recognizer, Hearing)
    assert made.recognizer.batches == [2 * len(SPANS) + 2]


def test_only_a_few_batches_are_read_ahead_and_results_come_as_they_get_ready(
    short: Path,
) -> None:
    opened: list[int] = []

    class Told:
        rate, incomplete = RATE, ""

        def blocks(self) -> Iterator[Samples]:
            opened.append(1)
            yield bursts((0.1, 2.9), seconds=3.0)

    def open_() -> AbstractContextManager[Told]:
        return nullcontext(Told())

    made = hearing_transcriber()
    made.batch_frames = 600  # two of them
    found = heard(made, (Source(str(n), open_, "x") for n in range(50)), SETTINGS)
    assert next(found).id == "0"
    assert len(opened) == 2 * AHEAD
    assert [one.id for one in found] == [str(n) for n in range(1, 50)]


def test_progress_adds_up_to_all_seconds(long: Path, short: Path) -> None:
    done: list[float] = []
    list(heard(hearing_transcriber(), sources(long, short), SETTINGS, done.append))
    assert sum(done) == pytest.approx(15.0)
    assert min(done) >= 0 and len(done) > 4


def test_arrays_are_spelled_as_they_are_however_long(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(900, 5)))
    (found,) = transcribed(tmp_path / "a.npy")
    assert found.error is None and len(found.segments) == 1
    assert found.seconds == pytest.approx(9.0) and seconds_of(tmp_path / "a.npy") == 9.0


def test_a_run_that_takes_arrays_says_so_of_sound(short: Path, long: Path) -> None:
    made = hearing_transcriber()
    made.frontend = Frontend(ArraysFrontendSettings(width=5))
    for found in transcribed(short, long, made=made):
        assert found.error and "only takes frames that come ready" in found.error


def test_how_long_a_file_is_is_unknown_where_it_cannot_be_read(tmp_path: Path, long: Path) -> None:
    assert seconds_of(long) == 12.0
    (tmp_path / "odd.npy").write_bytes(b"no")
    assert seconds_of(tmp_path / "odd.npy") is None
    assert seconds_of(tmp_path / "gone.wav") is None
