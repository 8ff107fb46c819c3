"""Beam search against greedy search, against all there is, and against its own parts."""

import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_spellers import VOCABULARY, Listening, Reader, recognizer, words

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.errors import SearchError
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.search.search import BeamSettings, GreedySettings, greedy, search
from spelldown.search.searching.beam.ctc_prefix import CTCPrefix

FRAMES = 4  # of the small world
LONGEST = 4  # steps in it
WORLD = BeamSettings(beam=200, nbest=30, longest=LONGEST)


class Bigrams:
    """A language model of random bigrams, with the contract of every language model."""

    symbols = tuple("0123456")

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
        table[:, [PAD, SOS]] = -math.inf
        self.table = table.log_softmax(1)

    @dataclass
    class State:
        last: Tensor

        def select(self, rows: Tensor) -> "Bigrams.State":
            return Bigrams.State(self.last[rows])

    def start(self, rows: int, device: torch.device) -> "Bigrams.State":
        return self.State(torch.full((rows,), -1, device=device))

    def step(self, symbols: Tensor, state: "Bigrams.State") -> tuple[Tensor, "Bigrams.State"]:
        return self.table.to(symbols.device)[symbols], self.State(symbols)

    def read(self, symbols: tuple[int, ...]) -> float:
        return sum(float(self.table[a, b]) for a, b in zip((SOS, *symbols), symbols, strict=False))


class World(Listening):
    """A speller of three symbols besides `<eos>`, with a CTC head and a language model inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.head = torch.randn(2, FRAMES, VOCABULARY) * 2
        self.inner = Bigrams(3)

    def step(self, symbols: Tensor, state: Any) -> tuple[Tensor, Any]:
        log_probs, state = super().step(symbols, state)
        log_probs = log_probs.double()
        log_probs[:, 6] = -math.inf  # 3, 4 and 5 are the world
        return log_probs.log_softmax(1), state

    def ctc_logits(self, memory: Any) -> Tensor:
        return self.head[: len(memory.lengths)]

    def without_listening(self, kind: str) -> Bigrams:
        return self.inner


@pytest.fixture
def world() -> tuple[World, Any]:
    torch.manual_seed(1)
    speller = World()
    return speller, speller.Heard(torch.randn(2, FRAMES, 8), torch.tensor([4, 3]))


def everything(longest: int) -> list[tuple[int, ...]]:
    """All that can be spelled: with `<eos>` at its end, or as long as the limit without it."""
    ended = [(*said, EOS) for n in range(longest) for said in product((3, 4, 5), repeat=n)]
    return ended + list(product((3, 4, 5), repeat=longest))


def of_paths(head: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of all that the CTC head may read, by counting all paths."""
    probs = head.double().softmax(1).tolist()
    found: dict[tuple[int, ...], float] = {}
    for path in product(range(VOCABULARY), repeat=len(probs)):
        joined = [c for c, before in zip(path, (PAD, *path), strict=False) if c != before]
        read = tuple(c for c in joined if c != PAD)
        chance = math.prod(row[c] for row, c in zip(probs, path, strict=True))
        found[read] = found.get(read, 0.0) + chance
    return found


def of_ctc(readings: dict[tuple[int, ...], float], symbols: tuple[int, ...]) -> float:
    """log P that the CTC head reads just these symbols, or begins with them if none is `<eos>`."""
    if symbols[-1] == EOS:
        total = readings.get(symbols[:-1], 0.0)
    else:
        total = sum(p for read, p in readings.items() if read[: len(symbols)] == symbols)
    return math.log(total) if total else -math.inf


def judged(speller: World, heard: Any, row: int, symbols: tuple[int, ...]) -> tuple[float, float]:
    """The speller's log P of the symbols, and how many frames they did not look at."""
    length = int(heard.lengths[row])
    state = speller.start(
        speller.Heard(heard.frames[row : row + 1, :length], torch.tensor([length]))
    )
    total, looked = 0.0, torch.zeros(length)
    for fed, said in zip((SOS, *symbols), symbols, strict=False):
        log_probs, state = speller.step(torch.tensor([fed]), state)
        total, looked = total + float(log_probs[0, said]), looked + state.weights[0, 0]
    return total, float((looked <= 0.5).sum())


WEIGHTS = [
    {},
    {"length_power": 1.0},
    {"length_bonus": 1.5},
    {"length_bonus": -0.5, "length_power": 0.7},
    {"coverage_penalty": 0.7},
    {"lm_weight": 0.8},
    {"lm_weight": 0.8, "ilm": "zero", "ilm_weight": 0.6, "length_power": 0.5},
    {"ctc_weight": 0.4},
    {"ctc_weight": 0.9},
    {"ctc_weight": 0.3, "lm_weight": 0.5, "length_bonus": 0.4, "coverage_penalty": 0.2},
    {"rescore_weight": 0.9, "ctc_weight": 0.2, "length_power": 1.0},
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@torch.inference_mode()
def test_a_beam_as_wide_as_the_world_finds_what_trying_everything_finds(
    world: tuple[World, Any], weights: dict[str, Any]
) -> None:
    speller, heard = world
    settings = WORLD.model_copy(update=weights)
    lm, late = Bigrams(5), Bigrams(6)
    found = search(speller, heard, settings, language_model=lm, rescoring_model=late)
    for row, best in enumerate(found):
        expected = []
        readings = of_paths(speller.head[row, : heard.lengths[row]]) if settings.ctc_weight else {}
        for symbols in everything(LONGEST):
            attention, uncovered = judged(speller, heard, row, symbols)
            total = (1 - settings.ctc_weight) * attention
            total += settings.ctc_weight * of_ctc(readings, symbols) if settings.ctc_weight else 0
            total += settings.lm_weight * lm.read(symbols)
            total -= settings.ilm_weight * speller.inner.read(symbols)
            total += settings.rescore_weight * late.read(symbols)
            total -= settings.coverage_penalty * uncovered
            total += settings.length_bonus * len([c for c in symbols if c != EOS])
            total /= len(symbols) ** settings.length_power
            expected.append((symbols[-1] == EOS, total, symbols))
        expected.sort(reverse=True)
        for one, (ended, total, symbols) in zip((best, *best.nbest), expected, strict=False):
            if total < -100:
                break  # CTC's impossible ones stand in any order
            assert (one.ended, one.symbols) == (ended, symbols[: len(symbols) - ended])
            assert one.score == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("kind", ["dot", "additive", "cosine", "location"])
@torch.inference_mode()
def test_a_beam_of_one_is_greedy_search(kind: str) -> None:
    speller = recognizer({"kind": kind}).double()
    heard = speller.listen(torch.randn(6, 60, 5).double(), torch.tensor([37, 9, 2, 60, 23, 14]))
    plain = greedy(speller, heard, GreedySettings(longest=25), keep_weights=True)
    found = search(speller, heard, BeamSettings(beam=1, longest=25), keep_weights=True)
    for one, other in zip(plain, found, strict=True):
        assert (one.symbols, one.ended) == (other.symbols, other.ended)
        assert other.score == pytest.approx(one.score, abs=1e-4)
        assert other.log_probs == pytest.approx(one.log_probs, abs=1e-5)
        assert one.weights is not None and other.weights is not None
        assert torch.allclose(one.weights, other.weights, atol=1e-5)


FULL = BeamSettings(
    beam=5,
    nbest=3,
    longest=25,
    longest_per_second=60,
    shortest_per_second=2,
    length_power=0.6,
    length_bonus=0.2,
    coverage_penalty=0.1,
    eos_threshold=2,
    ctc_weight=0.3,
    lm_weight=0.3,
    rescore_weight=0.2,
    ilm="zero",
    ilm_weight=0.1,
    loops=3,
    prune=12,
)


def spelled(speller: Recognizer, heard: Memory, settings: BeamSettings = FULL) -> list[Any]:
    return search(
        speller,
        heard,
        settings,
        seconds_per_frame=0.04,
        keep_weights=True,
        language_model=Bigrams(1),
        rescoring_model=Bigrams(2),
    )


@pytest.mark.parametrize("kind", ["dot", "additive", "cosine", "location"])
@pytest.mark.parametrize("heads", [1, 2])
@torch.inference_mode()
def test_an_utterance_is_spelled_the_same_alone_or_in_a_batch(kind: str, heads: int) -> None:
    speller = recognizer({"kind": kind, "heads": heads}, ctc=True).double()
    lengths = torch.tensor([37, 9, 2, 60, 23, 14, 41, 1] * 2)
    frames = torch.randn(16, 60, 5, dtype=torch.float64)
    together = spelled(speller, speller.listen(frames, lengths))
    for row, length in enumerate(lengths.tolist()):
        (alone,) = spelled(
            speller, speller.listen(frames[row : row + 1, :length], lengths[row, None])
        )
        for one, other in zip(
            (alone, *alone.nbest), (together[row], *together[row].nbest), strict=True
        ):
            assert (one.symbols, one.ended) == (other.symbols, other.ended)
            assert one.score == pytest.approx(other.score, abs=1e-6)
            assert torch.allclose(one.weights, other.weights, atol=1e-6)
            assert sum(one.parts.values()) == pytest.approx(one.score, abs=1e-4)
    assert any(len(one.nbest) == 2 for one in together)
    parts = {"attention", "ctc", "lm", "ilm", "coverage", "length", "rescoring"}
    assert set(together[0].parts) == parts


@torch.inference_mode()
def test_each_hypothesis_has_the_attention_and_probabilities_of_its_own_symbols() -> None:
    speller = recognizer({"kind": "location"}, ctc=True).double()
    lengths = torch.tensor([37, 60, 23])
    heard = speller.listen(torch.randn(3, 60, 5).double(), lengths)
    for row, best in enumerate(spelled(speller, heard)):
        for one in (best, *best.nbest):
            symbols = [SOS, *one.symbols, *[EOS] * one.ended]
            state = speller.start(Memory(heard.frames[row, None], heard.lengths[row, None]))
            for step, (fed, said) in enumerate(pairwise(symbols)):
                log_probs, state = speller.step(torch.tensor([fed]), state)
                assert one.log_probs[step] == pytest.approx(float(log_probs[0, said]), abs=1e-6)
                own = state.weights[0, :, : one.weights.shape[2]].float()
                assert torch.allclose(one.weights[:, step], own, atol=1e-6)


@torch.inference_mode()
def test_the_n_best_all_differ_and_fall_in_score() -> None:
    speller = recognizer({"kind": "dot"}, ctc=True)
    heard = speller.listen(torch.randn(4, 60, 5), torch.tensor([60, 50, 40, 30]))
    settings = BeamSettings(beam=8, nbest=8, longest=12)
    for best in search(speller, heard, settings):
        each = (best, *best.nbest)
        assert len({(one.symbols, one.ended) for one in each}) == len(each) == 8
        ranks = [(one.ended, one.score) for one in each]
        assert ranks == sorted(ranks, reverse=True)


@torch.inference_mode()
def test_what_was_heard_is_kept_once_for_all_hypotheses_of_an_utterance() -> None:
    speller = recognizer({"kind": "location"})
    state = speller.start(speller.listen(torch.randn(3, 60, 5), torch.tensor([60, 50, 40])))
    shared = state.share(8).select(torch.arange(3).repeat_interleave(8))
    assert shared.kernel.keys is state.kernel.keys
    assert shared.kernel.values is state.kernel.values
    assert len(shared.hidden[0]) == 24


def test_a_search_that_cannot_be_made_with_this_run_is_refused() -> None:
    speller = recognizer({"kind": "dot"})
    heard = speller.listen(torch.randn(1, 60, 5), torch.tensor([60]))
    for settings, says in [
        (BeamSettings(ctc_weight=0.3), "without a CTC head"),
        (BeamSettings(lm_weight=0.3), "name a language model, `lm`"),
        (BeamSettings(rescore_weight=0.3), "`rescore_lm`"),
        (BeamSettings(ilm="mean", ilm_weight=0.3), "mean context .* use `zero`"),
    ]:
        with pytest.raises(SearchError, match=says):
            search(speller, heard, settings)


@torch.inference_mode()
def test_a_single_frame_and_an_hour_of_silence_are_searched_like_any_other() -> None:
    speller = recognizer({"kind": "dot"}, ctc=True)
    one = speller.listen(torch.randn(1, 1, 5), torch.tensor([1]))
    assert spelled(speller, one)[0].score > -math.inf
    endless = Reader(endless=True)
    search(endless, words([3, 4]), BeamSettings(longest=600, nbest=8, loops=4))
    assert len(endless.rows) < 100
    hour = Memory(torch.zeros(1, 90_000, 16), torch.tensor([90_000]))
    settings = BeamSettings(beam=2, longest=3, ctc_weight=0.3)
    assert len(search(speller, hour, settings)[0].symbols) <= 3


@torch.inference_mode()
def test_prefix_scores_are_those_of_all_paths_and_of_torch_s_loss() -> None:
    torch.manual_seed(2)
    logits, lengths = torch.randn(2, 30, VOCABULARY).double(), torch.tensor([30, 21])
    said = torch.tensor([[3, 3, 5, 4, 4, 4, 6], [6, 6, 3, 3, 3, 5, 5]])
    judge = CTCPrefix(logits, lengths, 1.0, beam=1)
    total = torch.zeros(2).double()
    given = judge.step(torch.tensor([SOS, SOS]))
    for symbols in said.t():
        total += given.gather(1, symbols[:, None]).squeeze(1)
        given = judge.step(symbols)
        # What may follow, or nothing, is all there is (of <eos> the head gives no symbol).
        rest = given[:, [c for c in range(VOCABULARY) if c != PAD]].exp().sum(1)
        assert bool((rest <= 1 + 1e-9).all())
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(2).transpose(0, 1), said, lengths, torch.tensor([7, 7]), reduction="none"
    )
    assert torch.allclose(total + given[:, EOS], -loss)
