"""Distances, rates, intervals and aligned texts, held against jiwer."""

import itertools

import jiwer
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spelldown.search.metrics import (
    GAP,
    Counts,
    Scores,
    aligned,
    bootstrap,
    edit_counts,
    pieces,
    score,
)

texts = st.text(alphabet="AB' ", max_size=30)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


@settings(deadline=None)
@given(pairs)
def test_rates_and_edits_are_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    ours = score(references, hypotheses)
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    assert ours.wer == pytest.approx(words.wer)
    assert ours.cer == pytest.approx(characters.cer)
    for mine, theirs in ((ours.words, words), (ours.characters, characters)):
        expected = (theirs.insertions, theirs.deletions, theirs.substitutions, theirs.hits)
        assert (mine.insertions, mine.deletions, mine.substitutions, mine.hits) == expected


def fewest_edits(reference: str, hypothesis: str) -> int:
    """Levenshtein's distance by its textbook recurrence."""
    above = list(range(len(hypothesis) + 1))
    for row, said in enumerate(reference, start=1):
        line = [row]
        for column, spelled in enumerate(hypothesis, start=1):
            change = above[column - 1] + (said != spelled)
            line.append(min(change, above[column] + 1, line[-1] + 1))
        above = line
    return above[-1]


@settings(deadline=None)
@given(pairs)
def test_distance_is_the_mean_character_edits_of_the_texts_as_they_are(
    pairs: list[tuple[str, str]],
) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    expected = sum(itertools.starmap(fewest_edits, pairs)) / len(pairs)
    assert score(references, hypotheses).distance == pytest.approx(expected)


@settings(deadline=None)
@given(texts, texts)
def test_pieces_joined_are_the_texts_and_differ_where_they_say(said: str, spelled: str) -> None:
    cut = list(pieces(said, spelled))
    assert "".join(piece.said for piece in cut) == said
    assert "".join(piece.spelled for piece in cut) == spelled
    assert all((piece.kind == "equal") == (piece.said == piece.spelled) for piece in cut)


@settings(deadline=None)
@given(texts, texts)
def test_aligned_texts_are_of_one_length_and_marked_as_counted(said: str, spelled: str) -> None:
    reference, hypothesis, marks = aligned(said, spelled)
    assert len(reference) == len(hypothesis) == len(marks)
    assert reference.replace(GAP, "").replace("␣", " ") == said
    assert hypothesis.replace(GAP, "").replace("␣", " ") == spelled
    counts = Counts(marks.count("I"), marks.count("D"), marks.count("S"), marks.count(" "))
    assert counts == edit_counts(said, spelled)


def test_aligned_texts_show_each_kind_of_edit() -> None:
    assert aligned("THE CAT SAT", "THE BAT SATS") == (
        f"THE CAT SAT{GAP}",
        "THE BAT SATS",
        "    S      I",
    )
    assert aligned("CAT", "AT") == ("CAT", f"{GAP}AT", "D  ")


def test_aligned_texts_show_white_space_where_they_differ_in_it_and_leave_it_elsewhere() -> None:
    assert aligned("A B C", "A BC") == ("A B␣C", f"A B{GAP}C", "   D ")
    assert aligned("A\tB", "A B") == ("A⇥B", "A␣B", " S ")


def test_long_aligned_texts_wrap_with_their_labels() -> None:
    lines = aligned("ABCDEF", "ABXDEF").lines(width=4)
    assert lines == [
        "said     ABCD",
        "spelled  ABXD",
        "           S",
        "said     EF",
        "spelled  EF",
        "",
    ]
    assert str(aligned("", "")) == "said\nspelled\n"


def test_an_empty_reference_adds_insertions_and_no_length() -> None:
    scores = score(["", "AB"], ["A", "AB"])
    assert scores.cer == 0.5
    assert scores.wer == 1.0
    assert scores.characters == Counts(insertions=1, hits=2)
    assert score([""], [""]).cer == 0.0
    assert score([""], ["AAA"]).cer == 3.0


def test_spaces_around_a_text_count_in_the_distance_alone() -> None:
    scores = score(["AB"], ["AB "])
    assert (scores.distance, scores.cer, scores.wer) == (1.0, 0.0, 0.0)
    assert scores.edge_distance == 1.0
    assert score(["A B"], ["AB"]).edge_distance == 0.0


def test_what_does_not_pair_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="2 references, 1 hypotheses and 2 ids"):
        score(["A", "B"], ["A"])
    with pytest.raises(ValueError, match="no utterances"):
        score([], [])


def test_the_worst_come_first_and_equals_by_length_then_name() -> None:
    scores = score(["AAA", "BB", "CCCC", "D", "E"], ["", "", "CC", "", "E"], ids=[*"wxabc"])
    assert [one.id for one in scores.worst(4)] == ["w", "x", "a", "b"]
    assert len(scores.worst(10)) == 5


def noisy_set(count: int, rate: float, seed: int) -> Scores:
    """Texts of 50 letters of which each is wrong with probability `rate`."""
    random = numpy.random.default_rng(seed)
    wrong = random.random((count, 50)) < rate
    return score(["A" * 50] * count, ["".join("B" if w else "A" for w in row) for row in wrong])


def test_intervals_hold_the_true_rate_about_95_times_in_100() -> None:
    held = 0
    for seed in range(200):
        low, high = bootstrap(noisy_set(60, 0.2, seed).each, draws=1000)["cer"]
        held += low <= 0.2 <= high
    assert 180 <= held <= 198


def test_intervals_surround_the_measure_and_come_out_the_same_again() -> None:
    scores = noisy_set(40, 0.3, seed=1)
    assert scores.intervals == noisy_set(40, 0.3, seed=1).intervals
    for name, (low, high) in scores.intervals.items():
        assert low <= getattr(scores, name) <= high
    low, high = scores.intervals["cer"]
    normal = 1.96 * (numpy.var([one.characters.rate for one in scores.each]) / 40) ** 0.5
    assert (high - low) / 2 == pytest.approx(normal, rel=0.1)


def test_one_utterance_has_intervals_of_no_width() -> None:
    assert score(["AB"], ["AC"]).intervals["cer"] == (0.5, 0.5)


def test_scores_as_plain_numbers_hold_every_measure() -> None:
    told = score(["A B", "C"], ["A", "C"]).as_dict()
    assert told["utterances"] == 2
    assert (told["distance"], told["cer"], told["wer"]) == (1.0, 0.5, 1 / 3)
    assert all(len(told[f"{name}_interval"]) == 2 for name in ("distance", "cer", "wer"))
    assert told["words"]["deletions"] == 1
    assert told["sentence_error_rate"] == 0.5
