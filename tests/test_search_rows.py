"""Search takes its steps with round numbers of rows, and finds what it would with any."""

from typing import Any

import pytest
import torch
from test_search_beam import spelled
from toy_spellers import Reader, recognizer, words

from spelldown.search.search import BeamSettings, greedy, search
from spelldown.search.searching import greedy as greedily
from spelldown.search.searching.beam import beam
from spelldown.search.searching.rows import held


def test_few_numbers_serve_for_all_and_each_is_little_more_than_needed() -> None:
    assert [held(rows) for rows in (1, 2, 7, 15, 16, 17, 100, 129, 500)] == [
        1, 2, 7, 15, 16, 18, 104, 144, 512,
    ]  # fmt: skip
    assert all(rows <= held(rows) < 1.125 * rows for rows in range(1, 5000))
    assert len({held(rows) for rows in range(1, 513)}) < 60


def lengths(found: list[Any]) -> list[int]:
    return [len(one.symbols) for one in found]


@pytest.mark.parametrize("beam_", [BeamSettings(beam=3, nbest=3, prune=20.0), None])
def test_steps_are_taken_with_round_numbers_of_rows_and_hardly_more_than_needed(
    beam_: BeamSettings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = words(*[[3] * (5 + row % 37) for row in range(111)])
    taken = []
    for rounded in (held, lambda rows: rows):
        for module in (beam, greedily):
            monkeypatch.setattr(module, "held", rounded)
        reader = Reader()
        found = search(reader, memory, beam_) if beam_ else greedy(reader, memory)
        assert lengths(found) == [5 + row % 37 for row in range(111)]
        taken.append(reader.rows)
    round_, any_ = taken
    whole = 3 if beam_ else 111  # all hypotheses of some utterances, where nothing is to fill up
    assert all(rows == held(rows) or rows % whole == 0 for rows in round_)
    assert beam_ or not all(rows == held(rows) or rows % whole == 0 for rows in any_)
    assert sum(any_) <= sum(round_) < 1.1 * sum(any_)


@pytest.mark.parametrize("kind", ["dot", "location"])
@torch.inference_mode()
def test_rows_that_only_fill_up_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speller = recognizer({"kind": kind}, ctc=True).double()
    frames = torch.randn(24, 60, 5, dtype=torch.float64)
    heard = speller.listen(frames, torch.arange(60, 12, -2))

    def everything() -> list[Any]:
        return [*spelled(speller, heard), *greedy(speller, heard)]

    filled = everything()
    for module in (beam, greedily):
        monkeypatch.setattr(module, "held", lambda rows: rows)
    for one, other in zip(filled, everything(), strict=True):
        assert [each.symbols for each in (one, *one.nbest)] == [
            each.symbols for each in (other, *other.nbest)
        ]
        assert one.score == pytest.approx(other.score, abs=1e-9)
        assert one.parts == pytest.approx(other.parts, abs=1e-9)
