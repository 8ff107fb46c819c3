"""Greedy search over toys whose answers are known, and over the real recognizer."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from toy_spellers import Listening, Reader, Words, recognizer, words

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.search.search import GreedySettings, Hypothesis, SearchSettings, greedy


def test_each_utterance_is_spelled_up_to_its_own_end() -> None:
    found = greedy(Reader(), words([3, 4, 5], [6], [4, 4, 4, 4, 4]))
    assert [one.symbols for one in found] == [(3, 4, 5), (6,), (4, 4, 4, 4, 4)]
    assert all(one.ended for one in found)


def test_the_score_is_the_log_probability_of_the_symbols_and_the_end() -> None:
    ended, unended = words([3, 4, 5], [6]), GreedySettings(longest=2)
    assert [one.score for one in greedy(Reader(), ended)] == pytest.approx([-2.0, -1.0])
    assert [one.score for one in greedy(Reader(), ended, unended)] == pytest.approx([-1.0, -1.0])


def test_padding_and_start_are_never_spelled_however_likely() -> None:
    assert not {PAD, SOS} & set(greedy(Reader(), words([3, 4]))[0].symbols)


def test_what_was_spelled_is_fed_back_and_the_start_first() -> None:
    reader = Reader()
    greedy(reader, words([3, 4], [5, 6]))
    assert reader.fed == [[SOS, SOS], [3, 5], [4, 6]]


def test_utterances_that_have_ended_cost_nothing_more() -> None:
    reader = Reader()
    greedy(reader, words(*[[3]] * 15, [3] * 40))
    assert reader.rows == [16, 16] + [1] * 39


def test_a_few_ended_rows_are_held_rather_than_copied_around_and_change_nothing() -> None:
    reader, lengths = Reader(), range(1, 33)
    found = greedy(reader, words(*[[3] * length for length in lengths]), keep_weights=True)
    assert [len(one.symbols) for one in found] == list(lengths)
    assert [one.score for one in found] == pytest.approx([-0.5 * (n + 1) for n in lengths])
    assert len(set(reader.rows)) < 20
    assert sum(reader.rows) < 1.1 * sum(length + 1 for length in lengths)


def test_a_recognizer_that_never_ends_stops_at_the_longest() -> None:
    found = greedy(Reader(endless=True), words([3, 4], [5]))
    assert [len(one.symbols) for one in found] == [600, 600]
    assert not any(one.ended for one in found)


def test_the_limit_by_seconds_is_each_utterance_s_own() -> None:
    settings = GreedySettings(longest=30, longest_per_second=20)
    memory = words([3] * 11, [4] * 25, [5] * 100, [6])
    found = greedy(Reader(endless=True), memory, settings, seconds_per_frame=0.04)
    assert [len(one.symbols) for one in found] == [9, 20, 30, 1]
    alone = greedy(Reader(endless=True), words([3] * 11), settings, seconds_per_frame=0.04)
    assert alone[0].symbols == found[0].symbols


def test_a_limit_by_seconds_asks_for_the_seconds_of_a_frame() -> None:
    with pytest.raises(ValueError, match="needs seconds_per_frame"):
        greedy(Reader(), words([3]), GreedySettings(longest_per_second=20))


def test_weights_are_kept_step_by_step_without_padding_when_asked() -> None:
    found = greedy(Reader(), words([3, 4, 5], [6]), keep_weights=True)
    assert found[1].weights is not None and found[0].weights is not None
    assert found[0].weights.tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]]
    assert found[1].weights.tolist() == [[[1], [1]]]
    assert greedy(Reader(), words([3]))[0].weights is None


def test_no_utterances_are_no_hypotheses() -> None:
    empty = Words(torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert greedy(Reader(), empty) == []


def same(one: Hypothesis, other: Hypothesis) -> bool:
    assert one.weights is not None and other.weights is not None
    return (
        one.symbols == other.symbols
        and one.ended == other.ended
        and math.isclose(one.score, other.score, rel_tol=1e-4, abs_tol=1e-4)
        and one.weights.shape == other.weights.shape
        and torch.allclose(one.weights, other.weights, atol=1e-5)
    )


def test_an_utterance_is_spelled_the_same_alone_or_padded_in_a_batch() -> None:
    torch.manual_seed(4)
    speller, settings = Listening(), GreedySettings(longest=40)
    lengths = torch.tensor([3, 17, 1, 9, 12, 17])
    frames = torch.randn(6, 17, 8)
    together = greedy(speller, Listening.Heard(frames, lengths), settings, keep_weights=True)
    assert {one.ended for one in together} == {True, False}
    for row, length in enumerate(lengths.tolist()):
        memory = Listening.Heard(frames[row : row + 1, :length], lengths[row : row + 1])
        (alone,) = greedy(speller, memory, settings, keep_weights=True)
        assert same(alone, together[row])


@pytest.mark.parametrize("kind", ["dot", "additive", "cosine", "location"])
@pytest.mark.parametrize("batch", [2, 16])
def test_the_recognizer_spells_an_utterance_the_same_alone_or_padded_in_a_batch(
    kind: str, batch: int
) -> None:
    # In float64: a norm makes much of the little that a speller of random weights hears.
    speller, settings = recognizer({"kind": kind}).double(), GreedySettings(longest=25)
    lengths = torch.tensor(([37, 9, 2, 60, 23, 14, 41, 1] * 2)[:batch])
    frames = torch.randn(batch, 60, 5, dtype=torch.float64)  # junk behind every utterance's end
    with torch.inference_mode():
        heard = speller.listen(frames, lengths)
        together = greedy(speller, heard, settings, keep_weights=True)
        for row, length in enumerate(lengths.tolist()):
            memory = speller.listen(frames[row : row + 1, :length], lengths[row : row + 1])
            (alone,) = greedy(speller, memory, settings, keep_weights=True)
            assert same(alone, together[row])
            assert alone.weights is not None
            steps = len(alone.symbols) + alone.ended
            assert alone.weights.shape == (2, steps, memory.lengths.item())
            assert torch.allclose(alone.weights.sum(-1), torch.tensor(1.0))
    if batch > 2:
        assert {one.ended for one in together} == {True, False}
        assert len({one.symbols for one in together}) > 2


def test_the_most_likely_symbol_is_taken_at_every_step() -> None:
    torch.manual_seed(1)
    speller = Listening()
    memory = Listening.Heard(torch.randn(1, 5, 8), torch.tensor([5]))
    (found,) = greedy(speller, memory, GreedySettings(longest=20))
    state, fed, score = speller.start(memory), torch.tensor([SOS]), 0.0
    for symbol in [*found.symbols, *([EOS] if found.ended else [])]:
        log_probs, state = speller.step(fed, state)
        assert symbol == log_probs[0, EOS:].argmax() + EOS
        score += log_probs[0, symbol].item()
        fed = torch.tensor([symbol])
    assert found.score == pytest.approx(score, abs=1e-4)


def test_settings_are_greedy_and_the_seed_s_length_unless_said() -> None:
    settings = TypeAdapter(SearchSettings).validate_python({"kind": "greedy"})
    assert (settings.kind, settings.longest, settings.longest_per_second) == ("greedy", 600, None)


@pytest.mark.parametrize("wrong", [{"longest": 0}, {"longest_per_second": 0}, {"kind": "beams"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SearchSettings).validate_python(wrong)
