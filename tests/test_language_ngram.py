"""n-gram models: counted in bounded memory, smoothed as kenlm's lmplz does, the same for kenlm."""

import json
import math
import random
from collections import Counter as Tally
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary
from spelldown.errors import DataError, LanguageModelError
from spelldown.search.language.arpa import read_arpa, write_arpa
from spelldown.search.language.counting import Counter, Packing, merge
from spelldown.search.language.kneser_ney import Discounts, Estimated, estimate
from spelldown.search.language.language_model import load_language_model, log_probs_of
from spelldown.search.language.ngram import NGram
from spelldown.search.language.nodes import nodes_of
from spelldown.search.language.tokens import tokens_of

CPU = torch.device("cpu")
WORDS = ("ONE", "TWO", "THREE", "FOUR", "SEVEN", "ENTER", "RUBOUT", "GO", "IT'S", "O'CLOCK")
ABC = Vocabulary.of_texts(["ab c"])


def sentences(count: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(count)]


def model_of(
    texts: list[str], vocabulary: Vocabulary, order: int, folder: Path, memory: int = 1 << 22
) -> Estimated:
    folder.mkdir()
    return estimate(map(vocabulary.encode, texts), order, len(vocabulary), folder, memory)


def arpa_of(texts: list[str], vocabulary: Vocabulary, order: int, folder: Path) -> Path:
    path = folder / "model.arpa"
    write_arpa(path, model_of(texts, vocabulary, order, folder / "counts"), vocabulary.symbols)
    return path


def log_probs(model: NGram, ids: list[int]) -> list[float]:
    """log10 of the probability of each symbol and of the end, asked one step at a time."""
    state, found = model.start(1, CPU), []
    for now, following in zip([SOS, *ids], [*ids, EOS], strict=True):
        rows, state = model.step(torch.tensor([now]), state)
        found.append(rows[0, following].item() / math.log(10))
    return found


# --- counting


@pytest.mark.parametrize("vocabulary", [31, 70_000], ids=["numbers", "bytes"])
def test_counts_are_the_same_whatever_memory_holds(tmp_path: Path, vocabulary: int) -> None:
    packing = Packing.of(5, vocabulary)
    assert bool(packing.bits) == (vocabulary == 31)
    draw = np.random.default_rng(1)
    symbols = draw.choice([0, 3, vocabulary - 1], (1000, 5)).astype(np.uint32)
    counter = Counter(tmp_path, "some", packing, 100)
    for piece in np.array_split(symbols, 37):
        counter.add(packing.pack(piece))
    keys, counts = counter.counted().read(0, 10_000)
    found = dict(zip(map(tuple, packing.unpack(keys).tolist()), counts.tolist(), strict=True))
    assert found == Tally(map(tuple, symbols.tolist()))
    assert list(found) == sorted(found)
    assert len(list(tmp_path.glob("*.keys"))) == 1  # runs are gone once they are merged


def test_merging_nothing_gives_nothing() -> None:
    assert list(merge([], 10)) == []


def test_a_key_gives_back_its_context_and_its_ending() -> None:
    for size in (31, 70_000):
        long, short = Packing.of(4, size), Packing.of(3, size)
        keys = long.pack(np.array([[1, 2, 30, 4], [7, 0, 0, 0]], np.uint32))
        assert short.unpack(long.without_last(keys, short)).tolist() == [[1, 2, 30], [7, 0, 0]]
        assert short.unpack(long.without_first(keys, short)).tolist() == [[2, 30, 4], [0, 0, 0]]
        assert long.last(keys).tolist() == [4, 0]


# --- smoothing


def test_discounts_are_chen_and_goodmans_or_those_that_kenlm_falls_back_to() -> None:
    y = 40 / (40 + 2 * 20)
    found = Discounts.of([0, 40, 20, 10, 5])
    assert found.amounts == pytest.approx((1 - 2 * y * 0.5, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5))
    for cannot_tell in ([0, 0, 2, 3, 4], [9, 5, 0, 1, 1], [0, 5, 5, 0, 1], [0, 1, 1, 50, 1]):
        assert Discounts.of(cannot_tell) == Discounts((0.5, 1.0, 1.5), True)


class Textbook:
    """Chen and Goodman's formulas over dictionaries, to compare with."""

    def __init__(self, texts: list[list[int]], order: int, size: int) -> None:
        self.size, self.counts = size, [Tally[tuple[int, ...]]() for _ in range(order)]
        padded = [(SOS, *text, EOS) for text in texts]
        for text in padded:
            for place in range(len(text) - order + 1):
                if text[place : place + order] != (SOS,):  # which is never foretold
                    self.counts[-1][text[place : place + order]] += 1
        for length in range(order - 1, 0, -1):
            for longer in self.counts[length]:
                self.counts[length - 1][longer[1:]] += 1
            for text in padded:
                if 1 < length <= len(text):
                    self.counts[length - 1][text[:length]] += 1
        self.discounts = [
            Discounts.of([sum(c == k for c in counts.values()) for k in range(5)]).amounts
            for counts in self.counts
        ]

    def probability(self, context: tuple[int, ...], symbol: int) -> float:
        length = len(context) + 1
        taken = (0.0, *self.discounts[length - 1])
        after = {g[-1]: c for g, c in self.counts[length - 1].items() if g[:-1] == context}
        even = 1 / (self.size - 1)
        lower = self.probability(context[1:], symbol) if context else even
        if not after:
            return lower
        total, own = sum(after.values()), after.get(symbol, 0)
        share = sum(taken[min(count, 3)] for count in after.values()) / total
        return (own - taken[min(own, 3)]) / total + share * lower


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_are_those_of_the_formulas(tmp_path: Path, order: int) -> None:
    draw = random.Random(3)
    texts = ["".join(draw.choices("ab c", (5, 3, 1, 2), k=draw.randint(1, 9))) for _ in range(60)]
    texts.append("a")  # shorter than an n-gram
    encoded = [ABC.encode(text) for text in texts]
    textbook = Textbook(encoded, order, len(ABC))
    model = NGram(nodes_of(model_of(texts, ABC, order, tmp_path / "c")), ABC.symbols, order)
    for text in ("abba", "c c", "", "aaaaaa"):
        ids = ABC.encode(text)
        whole = (SOS, *ids)
        wanted = []
        for place, symbol in enumerate([*ids, EOS], 1):
            context = whole[max(0, place - order + 1) : place]
            wanted.append(math.log10(textbook.probability(context, symbol)))
        assert log_probs(model, ids) == pytest.approx(wanted, abs=1e-5)


def test_a_model_is_the_same_whatever_memory_it_is_counted_in(tmp_path: Path) -> None:
    texts, course = sentences(400), Vocabulary.course()
    small = model_of(texts, course, 5, tmp_path / "small", memory=1)
    large = model_of(texts, course, 5, tmp_path / "large")
    for one, other in zip(small.orders, large.orders, strict=True):
        assert (one.keys.mapped() == other.keys.mapped()).all()
        assert one.probabilities.mapped() == pytest.approx(other.probabilities.mapped())
        assert one.backoffs.mapped() == pytest.approx(other.backoffs.mapped())


def test_what_follows_any_text_adds_up_to_one_with_unknown_words(tmp_path: Path) -> None:
    course = Vocabulary.course()
    arpa = arpa_of(sentences(200), course, 5, tmp_path)
    kenlm: Any = pytest.importorskip("kenlm", reason="kenlm is not installed: pip install kenlm")
    oracle, model = kenlm.Model(str(arpa)), NGram.read(arpa, course.symbols)
    tokens, state = tokens_of(course.symbols), model.start(1, CPU)
    for place, symbol in enumerate([SOS, *course.encode("FOUR QXZ")]):
        rows, state = model.step(torch.tensor([symbol]), state)
        said = " ".join(tokens[s] for s in course.encode("FOUR QXZ")[:place])
        unknown = list(oracle.full_scores(f"{said} NONE", bos=True, eos=False))[-1][0]
        assert rows[0].exp().sum().item() + 10**unknown == pytest.approx(1, abs=1e-5)
        assert rows[0, [PAD, SOS]].tolist() == [-math.inf, -math.inf]


# --- kenlm reads what we write, and we what it reads


@pytest.mark.parametrize("pieces", [False, True], ids=["letters", "pieces"])
def test_kenlm_finds_the_same_probabilities_in_our_file(tmp_path: Path, pieces: bool) -> None:
    kenlm: Any = pytest.importorskip("kenlm", reason="kenlm is not installed: pip install kenlm")
    texts = sentences(300)
    vocabulary = Vocabulary.of_pieces(texts, 30) if pieces else Vocabulary.course()
    arpa = arpa_of(texts, vocabulary, 4, tmp_path)
    oracle, model = kenlm.Model(str(arpa)), NGram.read(arpa, vocabulary.symbols)
    tokens = tokens_of(vocabulary.symbols)
    for text in sentences(20, seed=2) + ([] if pieces else ["ZZYZX", "'' Q", ""]):
        ids = vocabulary.encode(text)
        wanted = [one[0] for one in oracle.full_scores(" ".join(tokens[i] for i in ids))]
        assert log_probs(model, ids) == pytest.approx(wanted, abs=2e-5)


def test_symbols_that_arpa_cannot_hold_are_escaped_and_stay_apart(tmp_path: Path) -> None:
    symbols = (*ABC.symbols[:3], " ", "\u2581", "\u00a0", "\t", "a", "\\", "é", "<s>", "<U+00A0>")
    tokens = tokens_of(symbols)
    assert len(set(tokens)) == len(tokens)
    assert not any(set(token) & set(" \t\n\u00a0") for token in tokens)
    assert tokens[3:6] == ["\u2581", "<U+2581>", "<U+00A0>"] and tokens[7] == "a"
    odd = Vocabulary.of_texts(["a\u00a0\u2581 \\é"])
    arpa = arpa_of(["a\u00a0a \u2581", "\\é a", "é\u00a0"], odd, 3, tmp_path)
    model, ids = NGram.read(arpa, odd.symbols), odd.encode("é\u00a0a \u2581")
    kenlm: Any = pytest.importorskip("kenlm", reason="kenlm is not installed: pip install kenlm")
    names = tokens_of(odd.symbols)
    wanted = [one[0] for one in kenlm.Model(str(arpa)).full_scores(" ".join(names[i] for i in ids))]
    assert log_probs(model, ids) == pytest.approx(wanted, abs=2e-5)


PRUNED = """\\data\\
ngram 1=6
ngram 2=6
ngram 3=2

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.4
-0.9\t</s>
-0.5\ta\t-0.3
-0.6\tb\t-0.2
-0.8\t\u2581\t-0.1

\\2-grams:
-0.2\t<s> a\t-0.05
-0.4\tb \u2581\t-0.25
-0.7\ta \u2581\t-0.15
-0.8\tb b
-0.9\t\u2581 a\t-0.35
-0.6\ta </s>

\\3-grams:
-0.1\tb \u2581 b
-0.15\t<s> a b

\\end\\
"""


def test_a_pruned_file_of_another_tool_is_read_as_kenlm_reads_it(tmp_path: Path) -> None:
    kenlm: Any = pytest.importorskip("kenlm", reason="kenlm is not installed: pip install kenlm")
    path = tmp_path / "pruned.arpa"
    path.write_text(PRUNED, encoding="utf-8")  # <s> a b without a b
    oracle, tokens = kenlm.Model(str(path)), tokens_of(ABC.symbols)
    for table in (1 << 20, 1):
        model = NGram(nodes_of(read_arpa(path, ABC.symbols)), ABC.symbols, 3, table)
        for text in ("aba", "abab aba", "b bc a", "", "caba", "b b", "ab b b"):
            ids = ABC.encode(text)
            wanted = [one[0] for one in oracle.full_scores(" ".join(tokens[i] for i in ids))]
            assert log_probs(model, ids) == pytest.approx(wanted, abs=1e-5), text


def test_a_file_may_lack_the_contexts_of_its_ngrams(tmp_path: Path) -> None:
    path = tmp_path / "pruned.arpa"
    path.write_text(PRUNED.replace("b \u2581 b", "a b a"), encoding="utf-8")  # without a b
    model = NGram.read(path, ABC.symbols)
    assert log_probs(model, ABC.encode("aba")) == pytest.approx([-0.2, -0.15, -0.1, -0.6])
    # After a space and a, b falls back twice: -0.35 - 0.3 - 0.6.
    found = log_probs(model, ABC.encode(" aba"))
    assert found == pytest.approx([-1.2, -0.9, -1.25, -0.1, -0.6])


def test_symbols_that_a_file_lacks_are_told(tmp_path: Path) -> None:
    path = tmp_path / "pruned.arpa"
    path.write_text(PRUNED, encoding="utf-8")
    lacking = [symbol for symbol in ABC.symbols[3:] if symbol not in "ab "]
    missing = NGram.read(path, ABC.symbols).missing
    assert f"{len(lacking)} of the recognizer's symbols ({lacking[0]!r}" in missing
    assert str(path) in missing and "as likely as <unk>" in missing


def test_a_folder_whose_file_has_lost_symbols_is_refused_with_them(tmp_path: Path) -> None:
    page = {"kind": "ngram", "symbols": ABC.symbols}
    (tmp_path / "language_model.json").write_text(json.dumps(page))
    (tmp_path / "model.arpa").write_text(PRUNED, encoding="utf-8")
    with pytest.raises(LanguageModelError, match=r"lacks .* symbols \('.*make it anew"):
        load_language_model(tmp_path, ABC)


# --- asking


def test_rows_are_the_same_laid_down_or_found_by_falling_back(tmp_path: Path) -> None:
    course, texts = Vocabulary.course(), sentences(100)
    nodes = nodes_of(model_of(texts, course, 6, tmp_path / "c"))
    whole, short = NGram(nodes, course.symbols, 6), NGram(nodes, course.symbols, 6, table=9000)
    ids = torch.tensor([course.encode((text + " ENTER")[:6]) for text in sentences(50, seed=5)])
    symbols = torch.cat([torch.full((50, 1), SOS), ids, torch.full((50, 1), EOS)], 1)
    states = whole.start(50, CPU), short.start(50, CPU)
    for fed in symbols.T:
        rows, one = whole.step(fed, states[0])
        others, other = short.step(fed, states[1])
        assert torch.allclose(rows, others, atol=1e-5) and torch.equal(one.nodes, other.nodes)
        states = one.select(torch.arange(49, -1, -1)), other.select(torch.arange(49, -1, -1))


def test_a_text_is_as_likely_alone_as_beside_others(tmp_path: Path) -> None:
    course = Vocabulary.course()
    model = NGram.read(arpa_of(sentences(100), course, 4, tmp_path), course.symbols)
    texts = [course.encode(text) for text in [*sentences(9, seed=8), "", "Q"]]
    together = log_probs_of(model, texts, CPU, rows=4)
    alone = [sum(log_probs(model, ids)) * math.log(10) for ids in texts]
    assert together == pytest.approx(alone, rel=1e-5)


# --- what can be wrong


def broken(tmp_path: Path, before: str, after: str) -> str:
    path = tmp_path / "broken.arpa"
    assert before in PRUNED
    path.write_text(PRUNED.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(LanguageModelError) as error:
        load_language_model(path, ABC)
    return str(error.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("\\data\\", "data", "line 26: no line \\data\\"),
        ("ngram 2=6", "ngram 3=6", "line 3: 'ngram 2=COUNT' expected"),
        ("ngram 2=6", "ngram 2=7", "line 21: \\2-grams: ends with 6 n-grams, and \\data\\ says 7"),
        ("-0.5\ta", "-0,5\ta", "line 10: a logarithm, 1 word and perhaps another logarithm"),
        ("-0.5\ta", "0.5\ta", "line 10: the logarithm of a probability, at most 0"),
        ("-0.5\ta", "nan\ta", "line 10: the logarithm of a probability, at most 0"),
        ("b \u2581 b", "b \u2581", "line 23: a logarithm, 3 words"),
        ("\\2-grams:", "\\3-grams:", "line 14: \\2-grams: expected"),
        ("b \u2581\t", "<s> a\t", "line 16: the n-gram '<s> a' is there for the second time"),
        ("\n\\end\\\n", "", "the file ends here, and \\end\\ was still to come"),
        ("-0.6\tb\t", "-0.6\tbee\t", "1 of its words are none of the recognizer's 7 symbols"),
        ("</s>", "<s>", "\\1-grams: has no </s>"),
        ("-0.8\t\u2581", "-0.8\ta", "line 12: the n-gram 'a' is there for the second time"),
    ],
)
def test_a_broken_file_is_told_with_its_line(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    assert said in broken(tmp_path, before, after)


def test_no_sentence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all texts are empty"):
        model_of([], ABC, 3, tmp_path / "c")
