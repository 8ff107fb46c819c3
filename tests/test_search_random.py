"""Random search: what is drawn, how it is ranked, and that it is drawn the same again."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from toy_spellers import recognizer

from spelldown.data.vocabulary import EOS
from spelldown.search.search import GreedySettings, RandomSettings, greedy, search


@dataclass
class Nowhere:
    """A state of any number of rows."""

    weights: Tensor

    def select(self, rows: Tensor) -> "Nowhere":
        return Nowhere(self.weights[rows])


class Dice:
    """Gives every symbol the same chance at every step, `<eos>` (of 3) among them."""

    chances = torch.tensor([0.0, 0.0, 0.5, 0.3, 0.2])

    def start(self, memory: "Heard") -> Nowhere:
        return Nowhere(torch.zeros(len(memory.lengths), 1, 1))

    def step(self, symbols: Tensor, state: Nowhere) -> tuple[Tensor, Nowhere]:
        return self.chances.log().expand(len(symbols), -1), state


@dataclass
class Heard:
    lengths: Tensor


@torch.inference_mode()
def test_one_draw_is_greedy_search_and_more_are_never_ranked_below_it() -> None:
    speller = recognizer({"kind": "location"})
    heard = speller.listen(torch.randn(5, 60, 5), torch.tensor([60, 50, 40, 30, 3]))
    plain = greedy(speller, heard, GreedySettings(longest=25))
    one = search(speller, heard, RandomSettings(draws=1, longest=25))
    many = search(speller, heard, RandomSettings(draws=8, longest=25))
    assert [found.symbols for found in one] == [found.symbols for found in plain]
    for best, first in zip(many, one, strict=True):
        assert (best.ended, best.score) >= (first.ended, first.score)
    assert [best.symbols for best in many] != [first.symbols for first in one]


@torch.inference_mode()
def test_the_same_is_drawn_alone_or_in_a_batch_and_again_but_not_with_another_seed() -> None:
    speller = recognizer({"kind": "additive"}).double()
    lengths = torch.tensor([37, 9, 60, 23])
    frames = torch.randn(4, 60, 5, dtype=torch.float64)
    settings = RandomSettings(draws=6, temperature=1.0, longest=20)
    together = search(speller, speller.listen(frames, lengths), settings, keep_weights=True)
    for row, length in enumerate(lengths.tolist()):
        heard = speller.listen(frames[row, None, :length], lengths[row, None])
        (alone,) = search(speller, heard, settings, keep_weights=True)
        drawn = [one.symbols for one in (alone, *alone.nbest)]
        assert drawn == [one.symbols for one in (together[row], *together[row].nbest)]
        looked, same = alone.weights, together[row].weights
        assert looked is not None and same is not None
        assert torch.allclose(looked, same, atol=1e-6)
    other = search(
        speller, speller.listen(frames, lengths), settings.model_copy(update={"seed": 2})
    )
    assert {one.symbols for one in other[0].nbest} != {one.symbols for one in together[0].nbest}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_symbols_are_drawn_as_often_as_they_are_likely_at_the_temperature(
    temperature: float,
) -> None:
    settings = RandomSettings(draws=4000, temperature=temperature, longest=1)
    from spelldown.search.searching.sampling import _Drawing

    rows = torch.arange(4000)
    drawn = _Drawing(settings)(Dice.chances.log().expand(4000, -1), rows, 0)
    wanted = Dice.chances ** (1 / temperature)
    shares = torch.bincount(drawn, minlength=5) / 4000
    assert torch.allclose(shares, wanted / wanted.sum(), atol=0.03)


def test_draws_are_ranked_by_probability_over_length_and_those_that_differ_are_kept() -> None:
    for power in (0.0, 1.0):
        settings = RandomSettings(draws=64, temperature=1.0, longest=30, length_power=power)
        (best,) = search(Dice(), Heard(torch.tensor([5])), settings)
        each = (best, *best.nbest)
        assert len({one.symbols for one in each}) == len(each) > 4
        assert [one.score for one in each] == sorted((one.score for one in each), reverse=True)
        for one in each:
            chances = [float(Dice.chances[c]) for c in (*one.symbols, EOS)]
            score = sum(map(math.log, chances)) / len(chances) ** power
            assert one.score == pytest.approx(score, abs=1e-4)
            assert sum(one.parts.values()) == pytest.approx(one.score, abs=1e-4)
