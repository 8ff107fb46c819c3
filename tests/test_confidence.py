"""Confidences of words: from which letters they come, and where they are written."""

import math
from pathlib import Path

import pytest
import torch
from tiny_sound import bursts, hearing_transcriber, write_sound
from torch import Tensor

from spelldown.search.search import BeamSettings
from spelldown.search.transcribing.confidence import word_confidences, word_stretches
from spelldown.search.transcribing.formats import ctm, json_line
from spelldown.search.transcribing.joined import Heard, SegmentHeard, Source, heard
from spelldown.search.transcribing.sound.pauses import PauseSettings
from spelldown.search.transcribing.transcript import Item, Transcript, Waveform
from spelldown.search.transcribing.words import Word, words_of


def logs(*probabilities: float) -> list[float]:
    return [math.log(probability) for probability in probabilities]


def test_a_word_counts_its_letters_and_what_closes_it() -> None:
    (one, sure), (other, less) = word_confidences(list("AB C"), logs(0.5, 0.4, 0.1, 0.8, 0.2))
    assert (one, other) == ("AB", "C")
    assert sure == pytest.approx((0.5 * 0.4 * 0.1) ** (1 / 3))
    assert less == pytest.approx((0.8 * 0.2) ** (1 / 2))


def test_a_last_word_without_an_end_counts_its_letters_alone() -> None:
    ((_, sure),) = word_confidences(list("AB"), logs(0.5, 0.4))
    assert sure == pytest.approx((0.5 * 0.4) ** (1 / 2))


def test_words_are_found_in_pieces_of_several_letters_and_runs_of_spaces() -> None:
    assert word_stretches(["TH", "E C", "AT", " ", " ", "S"]) == [
        ("THE", 0, 1),
        ("CAT", 1, 2),
        ("S", 5, 5),
    ]
    assert word_stretches([]) == word_stretches([" "]) == []


def test_timed_words_carry_their_confidence() -> None:
    weights: Tensor = torch.eye(4)[None]
    words = words_of(list("A BC"), weights, 0.1, 0.4, log_probs=logs(0.9, 0.9, 0.5, 0.5, 0.5))
    assert [word.confidence for word in words] == pytest.approx([0.9, 0.5])
    assert [word.confidence for word in words_of(list("A BC"), weights, 0.1, 0.4)] == [None] * 2


def test_confidence_is_written_where_it_is_known_and_only_there() -> None:
    words = (Word("A", 0.0, 0.5, 0.75), Word("B", 0.5, 1.0))
    segment = SegmentHeard(0.0, 1.0, "A B", -1.0, True, words)
    found = Heard("x", "A B", -1.0, True, 1.0, (segment,))
    assert ctm(found) == "x 1 0.000 0.500 A 0.750\nx 1 0.500 0.500 B\n"
    assert '"confidence": 0.75' in json_line(found) and json_line(found).count("confidence") == 1
    assert "nbest" not in json_line(found) and "parts" not in json_line(found)


def test_recordings_give_parts_and_alternatives_of_each_segment(tmp_path: Path) -> None:
    made = hearing_transcriber()
    made.search = BeamSettings(beam=4, nbest=3, longest=12, length_bonus=0.5)
    sound = bursts((0.2, 1.0), seconds=1.4)
    (direct,) = made.transcribe([Item("a", Waveform(torch.from_numpy(sound), 8000))])
    assert isinstance(direct, Transcript) and len(direct.nbest) == 2
    write_sound(tmp_path / "a.wav", sound)
    sources = [Source("a", tmp_path / "a.wav", "a")]
    (found,) = heard(made, sources, PauseSettings(kind="energy"))
    (segment,) = found.as_dict()["segments"]
    assert sum(segment["parts"].values()) == pytest.approx(segment["score"], abs=1e-4)
    scores = [segment["score"], *(other["score"] for other in segment["nbest"])]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert all(set(other) == {"text", "score", "ended", "parts"} for other in segment["nbest"])
    assert all(0 < word["confidence"] <= 1 for word in found.as_dict()["words"])
