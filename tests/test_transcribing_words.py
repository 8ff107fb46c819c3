"""When words were said, from attention made by hand."""

import pytest
import torch
from torch import Tensor

from spelldown.search.transcribing.words import letter_spans, words_of

FRAMES = 40


def looking_at(*places: int, width: float = 1.0, frames: int = FRAMES) -> Tensor:
    """One head's attention (1, L, T') with a bell around a frame for each letter."""
    frame = torch.arange(frames)
    rows = [torch.exp(-((frame - place) ** 2) / (2 * width**2)) for place in places]
    weights = torch.stack(rows)
    return (weights / weights.sum(-1, keepdim=True)).unsqueeze(0)


def test_a_word_lasts_from_where_its_first_letter_is_heard_to_where_its_last_is() -> None:
    weights = looking_at(2, 5, 9, 20, 24)
    found = words_of("HI YO", weights, 0.1, 4.0)
    assert [word.text for word in found] == ["HI", "YO"]
    times = [time for word in found for time in (word.start, word.end)]
    assert times == pytest.approx([0.1, 0.7, 1.9, 2.6])  # a bell is over half for a frame around


def test_times_count_from_where_the_segment_begins() -> None:
    (found,) = words_of("A", looking_at(10), 0.1, 4.0, offset=100.0)
    assert [found.start, found.end] == pytest.approx([100.9, 101.2])


def test_words_never_go_back_nor_overlap_wherever_attention_looks() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        weights = torch.rand(3, 30, FRAMES, generator=random).pow(8).softmax(-1)
        letters = "AB CDE F GH  IJKL M NOPQR STUVW"[:30]
        found = words_of(letters, weights, 0.08, FRAMES * 0.08)
        assert [word.text for word in found] == letters.split()
        times = [time for word in found for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0 and times[-1] <= FRAMES * 0.08 + 1e-9


def test_a_letter_that_looks_away_does_not_move_its_word() -> None:
    steady = looking_at(4, 8, 12, 16, 20)
    astray = steady.clone()
    astray[0, 2] = looking_at(38)[0, 0] * 0.5 + steady[0, 2] * 0.5
    expected = words_of("ABCDE", steady, 0.1, 4.0)
    assert words_of("ABCDE", astray, 0.1, 4.0) == expected


def test_the_head_that_looks_at_places_tells_the_time() -> None:
    blurred = torch.full((1, 3, FRAMES), 1 / FRAMES)
    both = torch.cat((blurred, looking_at(5, 15, 25)))
    assert words_of("ABC", both, 0.1, 4.0) == words_of("ABC", looking_at(5, 15, 25), 0.1, 4.0)


def test_no_word_outlasts_its_utterance() -> None:
    (found,) = words_of("A", looking_at(FRAMES - 1), 0.1, 3.95)
    assert found.end == 3.95


def test_pieces_of_several_letters_and_the_end_sign_are_told_apart() -> None:
    weights = looking_at(5, 15, 25, 35)
    pieces = ("GO", "OD DA", "Y")
    found = words_of(pieces, weights, 0.1, 4.0)
    assert [word.text for word in found] == ["GOOD", "DAY"]
    assert found[0].start == pytest.approx(0.4) and found[1].end == pytest.approx(2.7)


def test_a_letter_reaches_no_further_than_its_neighbours_places() -> None:
    broad = looking_at(10, 13, 16, width=8.0)
    assert letter_spans(broad) == [(1, 14), (10, 17), (13, 26)]


@pytest.mark.parametrize("letters", ["", "  "])
def test_no_letters_are_no_words(letters: str) -> None:
    assert words_of(letters, looking_at(1, 2), 0.1, 4.0) == ()


def test_the_path_is_the_best_that_never_goes_back() -> None:
    random = torch.Generator().manual_seed(3)
    weights = torch.rand(1, 4, 5, generator=random, dtype=torch.float64).softmax(-1)
    log = weights[0].log()
    every = [(a, b, c, d) for a in range(5) for b in range(a, 5) for c in range(b, 5)
             for d in range(c, 5)]  # fmt: skip
    best = max(every, key=lambda path: sum(float(log[i, p]) for i, p in enumerate(path)))
    spans = letter_spans(weights)
    assert all(first <= place < after for place, (first, after) in zip(best, spans, strict=True))
