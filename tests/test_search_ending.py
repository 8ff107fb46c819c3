"""When hypotheses of a beam search end, are cut off, or are given up."""

import pytest
import torch
from pydantic import ValidationError
from test_search_beam import Bigrams
from toy_spellers import Reader, words

from spelldown.data.vocabulary import EOS
from spelldown.search.search import BeamSettings, search
from spelldown.search.searching.beam.ending import Ending, Loops


def test_no_utterance_ends_before_its_least_nor_after_its_greatest_length() -> None:
    memory = words([3] * 10, [4] * 40)
    settings = BeamSettings(beam=3, shortest_per_second=30, longest_per_second=35)
    found = search(Reader(), memory, settings, seconds_per_frame=0.04)
    assert [len(one.symbols) for one in found] == [12, 48]  # 0.4 s and 1.6 s
    endless = search(Reader(endless=True), memory, BeamSettings(beam=1, longest=20))
    assert [(len(one.symbols), one.ended) for one in endless] == [(20, False), (20, False)]


def test_an_end_is_taken_only_where_it_is_likely_enough_against_the_best_symbol() -> None:
    log_probs = torch.tensor([[-9, -9, -1.4, -1.0], [-9, -9, -1.6, -1.0]])
    settings = BeamSettings(eos_threshold=1.5)
    ending = Ending(settings, torch.tensor([5]), None, 1)
    barred = ending.barred(log_probs, torch.tensor([0, 0]), 1)
    assert barred is not None and barred.tolist() == [False, True]


def test_an_end_is_judged_by_the_speller_whatever_a_language_model_thinks_of_it() -> None:
    class Ends(Bigrams):  # would end anything at once
        def __init__(self) -> None:
            super().__init__(1)
            self.table = torch.full_like(self.table, -50.0)
            self.table[:, EOS] = 0.0

    settings = BeamSettings(beam=3, lm_weight=1.0, lm="any", longest=10)
    for threshold, symbols in ((None, ()), (1.5, (3, 4, 5))):
        asked = settings.model_copy(update={"eos_threshold": threshold})
        (found,) = search(Reader(), words([3, 4, 5]), asked, language_model=Ends())
        assert found.symbols == symbols


def test_symbols_that_repeat_more_often_than_allowed_are_seen_whatever_their_number() -> None:
    for stretch in ([3], [3, 4], [5, 3, 3, 4]):
        loops, seen = Loops(1, 2, torch.device("cpu")), []
        for symbol in stretch * 4:
            symbols = torch.tensor([symbol])
            seen.append(bool(loops.seen(torch.tensor([0]), symbols)))
            loops.select(torch.tensor([0]), symbols)
        assert seen.index(True) == 3 * len(stretch) - 1


def test_the_search_is_over_once_no_open_hypothesis_can_win() -> None:
    reader = Reader()
    search(reader, words([3, 4, 5]), BeamSettings(beam=8, longest=500))
    assert len(reader.rows) <= 6


def test_pruned_hypotheses_take_no_further_step() -> None:
    wide, narrow = Reader(), Reader()
    for reader, prune in ((wide, None), (narrow, 5.0)):
        (found,) = search(reader, words([3, 4, 5, 6]), BeamSettings(nbest=8, prune=prune))
        assert found.symbols == (3, 4, 5, 6)
    assert set(narrow.rows) == {1}
    assert max(wide.rows) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam": 0},
        {"beam": 4, "nbest": 5},
        {"ctc_weight": 1.1},
        {"lm_weight": -1},
        {"eos_threshold": 0.5},
        {"loops": 1},
        {"prune": 0},
    ],
)
def test_weights_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BeamSettings.model_validate(wrong)
