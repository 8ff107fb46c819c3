"""Results as text, JSON lines, SRT, WebVTT and CTM."""

import json
import re
from itertools import pairwise

import pytest

from spelldown.search.transcribing.formats import (
    COLUMNS,
    Format,
    clock,
    cues,
    milliseconds,
    written,
)
from spelldown.search.transcribing.joined import Heard, SegmentHeard
from spelldown.search.transcribing.words import Word


def segment(text: str, start: float = 0.0, each: float = 0.5) -> SegmentHeard:
    """A segment whose words follow each other, each as long."""
    words = tuple(
        Word(word, start + place * each, start + (place + 1) * each)
        for place, word in enumerate(text.split())
    )
    end = words[-1].end if words else start
    return SegmentHeard(start, end, text, -1.0, True, words)


def heard(*segments: SegmentHeard, id: str = "talk") -> Heard:
    text = " ".join(one.text for one in segments)
    end = segments[-1].end if segments else 0.0
    return Heard(id, text, -1.0, True, end, segments)


TALK = heard(segment("GOOD MORNING", 0.25), segment("AND WELCOME", 3599.5))


def test_srt_is_numbered_with_commas_before_the_milliseconds() -> None:
    assert written(TALK, "srt") == (
        "1\n00:00:00,250 --> 00:00:01,250\nGOOD MORNING\n\n"
        "2\n00:59:59,500 --> 01:00:00,500\nAND WELCOME\n"
    )


def test_vtt_has_its_signature_and_points() -> None:
    assert written(TALK, "vtt") == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.250\nGOOD MORNING\n\n"
        "00:59:59.500 --> 01:00:00.500\nAND WELCOME\n"
    )


def test_ctm_has_a_line_a_word_with_start_and_duration() -> None:
    named = heard(segment("A B", 1.0, each=0.1), id="my talk/part 1")
    assert (
        written(named, "ctm") == "my_talk/part_1 1 1.000 0.100 A\nmy_talk/part_1 1 1.100 0.100 B\n"
    )
    assert written(heard(segment("A"), id=";; x"), "ctm").startswith("_;;_x 1 ")


def test_ctm_tells_the_channel_that_was_heard_counted_from_one() -> None:
    columns = [
        written(heard(segment("A")), "ctm", channel=channel).split()[1] for channel in (None, 0, 1)
    ]
    assert columns == ["1", "1", "2"]


def test_text_is_a_line_each_with_the_id_or_a_line_a_segment_in_its_own_file() -> None:
    assert written(TALK, "text") == "talk\tGOOD MORNING AND WELCOME\n"
    assert written(TALK, "text", alone=True) == "GOOD MORNING\nAND WELCOME\n"


def test_json_holds_words_and_segments_to_the_millisecond() -> None:
    line = written(heard(segment("A B", 1 / 3, each=1 / 3)), "json")
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["words"] == [
        {"text": "A", "start": 0.333, "end": 0.667},
        {"text": "B", "start": 0.667, "end": 1.0},
    ]
    assert found["segments"] == [
        {"start": 0.333, "end": 1.0, "text": "A B", "score": -1.0, "ended": True}
    ]
    assert "error" not in found and "incomplete" not in found
    assert json.loads(written(Heard("x", None, error="gone"), "json")) == {
        "id": "x",
        "error": "gone",
    }


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (0.0, "00:00:00.000"),
        (0.0004, "00:00:00.000"),
        (0.9996, "00:00:01.000"),
        (59.9999, "00:01:00.000"),
        (3599.9996, "01:00:00.000"),
        (36000.001, "10:00:00.001"),
        (360000.5, "100:00:00.500"),
        (0.1 + 0.2, "00:00:00.300"),
    ],
)
def test_times_are_rounded_once_and_carried(seconds: float, shown: str) -> None:
    assert clock(milliseconds(seconds), ".") == shown


def test_marks_of_the_formats_in_a_text_do_no_harm() -> None:
    odd = heard(segment("<b> & --> {x}"))
    assert "&lt;b&gt; &amp; --&gt; {x}\n" in written(odd, "vtt")
    assert written(odd, "vtt").count("-->") == 1
    assert written(odd, "srt").count("-->") == 1


def test_subtitles_have_two_lines_of_like_length_and_seven_seconds_at_most() -> None:
    words = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS INTO THE WOODS " * 6
    for each in (0.1, 0.5, 2.0):
        found = cues(heard(segment(words, each=each)))
        assert " ".join(line for cue in found for line in cue.lines) == " ".join(words.split())
        assert all(len(cue.lines) <= 2 for cue in found)
        assert all(len(line) <= COLUMNS for cue in found for line in cue.lines)
        assert all(cue.end - cue.start <= 7000 for cue in found)
        assert all(a.end <= b.start for a, b in pairwise(found))
    (pair,) = {cue.lines for cue in cues(heard(segment("ABCDE " * 10, each=0.1)))}
    assert abs(len(pair[0]) - len(pair[1])) <= 6


def test_a_script_without_spaces_is_broken_by_columns_and_time() -> None:
    text = "今日は良い天気ですね" * 8
    found = cues(heard(segment(text, each=16.0)))
    assert "".join(line for cue in found for line in cue.lines) == text
    assert all(len(line) <= COLUMNS // 2 for cue in found for line in cue.lines)
    assert all(cue.end - cue.start <= 7000 for cue in found)
    assert found[-1].end == 16000


def test_a_short_word_is_shown_long_enough_where_there_is_room() -> None:
    alone, close, last = cues(
        heard(segment("A", 0, 0.1), segment("B", 5, 0.1), segment("C", 5.3, 0.1))
    )
    assert (alone.end, close.end, last.end) == (800, 5300, 6100)


def test_nothing_said_is_an_empty_file_of_each_format() -> None:
    formats: list[Format] = ["text", "srt", "vtt", "ctm"]
    assert [written(heard(), one, alone=True) for one in formats] == ["", "", "WEBVTT\n", ""]


def test_every_subtitle_of_a_long_talk_can_be_read_back() -> None:
    talk = heard(*(segment("SOME WORDS ARE SAID HERE", 4.0 * place, 0.3) for place in range(50)))
    pattern = re.compile(r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n((?:.+\n)+)")
    blocks = written(talk, "srt").split("\n\n")
    assert len(blocks) == 50
    for number, block in enumerate(blocks, start=1):
        match = pattern.fullmatch(block.rstrip("\n") + "\n")
        assert match and int(match[1]) == number and match[2] < match[3]
