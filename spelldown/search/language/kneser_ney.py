"""Interpolated modified Kneser-Ney smoothing: from sentences to the numbers of an ARPA file.

Chen and Goodman 1998 (TR-10-98, section 3), as kenlm's lmplz computes it (Heafield et al. 2013):

- An n-gram of the highest order counts as often as it was there; a shorter one counts how many
  different symbols stood before it, but as often as it was there if it begins with <s>.
- Each order takes D1, D2 and D3+ from counts of 1, 2 and more; what is taken is shared out as the
  next lower order has it, and at the end evenly over all symbols, </s> and <unk>, but not <s>.
- Where the counts of an order cannot tell the discounts (no n-gram was there once, or twice, or
  three times, as with the 30 letters), they are 0.5, 1 and 1.5: lmplz --discount_fallback.

Different from lmplz in one thing: the even share goes to every symbol of the vocabulary, seen or
not, so that a recognizer's symbol is never impossible. Where all were seen, the numbers are equal.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.errors import DataError
from spelldown.search.language.counting import (
    Column,
    Counter,
    Counts,
    Keys,
    Packing,
    Table,
    groups,
    merge,
)

FALLBACK = (0.5, 1.0, 1.5)
BYTES = 8  # in memory for each of a key's that is held, where most is needed
PIECE = 1 << 20  # symbols of text that become keys at once

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Discounts:
    """What is taken from counts of 1, 2, and 3 or more; `fallen_back` if counts could not tell."""

    amounts: tuple[float, float, float]
    fallen_back: bool

    @classmethod
    def of(cls, counts_of_counts: Sequence[int]) -> "Discounts":
        """From how many n-grams have the counts 0 to 4 (Chen and Goodman, equation 26)."""
        t = counts_of_counts
        if min(t[1:4]) == 0:
            return cls(FALLBACK, True)
        y = t[1] / (t[1] + 2 * t[2])
        amounts = tuple(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
        # At 0 nothing would be left for what was not seen.
        if not all(0 < amount <= k for k, amount in enumerate(amounts, 1)):
            return cls(FALLBACK, True)
        return cls((amounts[0], amounts[1], amounts[2]), False)

    def of_counts(self, counts: Counts) -> Numbers:
        """What is taken from each count."""
        table = np.array([0.0, *self.amounts])
        return table[np.minimum(counts, 3)]


@dataclass(frozen=True)
class Order:
    """The n-grams of one length, in order of their keys, on disk.

    probabilities: float64; 0 for what never follows. backoffs: what is left for the order below,
    float64; 1 where nothing was seen to follow.
    """

    packing: Packing
    keys: Column
    probabilities: Column
    backoffs: Column
    discounts: Discounts

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Estimated:
    """An n-gram model as numbers.

    orders: from single symbols, of which all of the vocabulary are there, to the longest n-grams.
    unknown: the probability of <unk>. sentences and symbols (<eos> counted) that were seen.
    """

    orders: tuple[Order, ...]
    unknown: float
    sentences: int
    symbols: int


def estimate(
    sentences: Iterable[Sequence[int]],
    order: int,
    vocabulary: int,
    folder: Path,
    memory: int,
    tell: Callable[[str], None] = lambda message: None,
) -> Estimated:
    """The model of these sentences, each symbols without <sos> and <eos>.

    folder: an empty one for files that the result reads from. memory: bytes to be held, about.
    tell: what is being done, for people. Raises DataError if there is no sentence.
    """
    packings = [Packing.of(length, vocabulary) for length in range(1, order + 1)]
    held = max(memory // (BYTES * packings[-1].dtype.itemsize), 1024)
    counters = [
        Counter(folder, f"text-{packing.length}", packing, held // 8) for packing in packings[:-1]
    ]
    counters.append(Counter(folder, f"text-{order}", packings[-1], held))
    seen = symbols = 0
    for text, count in _pieces(sentences):
        seen, symbols = seen + count, symbols + len(text) - count
        _count(text, counters)
    if not seen:
        raise DataError("no sentence to learn from: all texts are empty")
    tell(f"{seen:,} sentences, {symbols:,} symbols; counting what stands before what")
    tables = _adjusted([counter.counted() for counter in counters], folder, held)
    single, unknown = _single(tables[0], vocabulary, folder)
    orders = [single]
    for table in tables[1:]:
        tell(f"{len(table):,} n-grams of {table.packing.length} symbols")
        orders.append(_interpolated(table, orders[-1], folder, held // 8))
        table.counts.remove()
    return Estimated(tuple(orders), unknown, seen, symbols)


# --- counting


def _pieces(sentences: Iterable[Sequence[int]]) -> Iterator[tuple[NDArray[np.uint32], int]]:
    """Whole sentences side by side, <sos> and <eos> around each, and how many they are."""
    held: list[int] = []
    count = 0
    for sentence in sentences:
        held.append(SOS)
        held.extend(sentence)
        held.append(EOS)
        count += 1
        if len(held) >= PIECE:
            yield np.array(held, np.uint32), count
            held, count = [], 0
    if held:
        yield np.array(held, np.uint32), count


def _count(text: NDArray[np.uint32], counters: Sequence[Counter]) -> None:
    """The n-grams of the highest order within sentences, and the beginnings of sentences.

    Shorter n-grams elsewhere follow from the highest order, see `_adjusted`.
    """
    ended = np.concatenate([[0], np.cumsum(text == EOS)])
    for number, counter in enumerate(counters, 1):
        if len(text) < number:
            return
        windows = sliding_window_view(text, number)
        # Within a sentence: none ends before the last symbol.
        starts = np.arange(len(windows))
        within = ended[starts + number - 1] == ended[starts]
        begins = text[: len(windows)] == SOS
        if number == 1:
            within &= ~begins  # <s> alone is never foretold
        if number < len(counters):
            within &= begins
        counter.add(counter.packing.pack(windows[within]))


def _adjusted(from_text: Sequence[Table], folder: Path, held: int) -> list[Table]:
    """The counts of every order, by length: an n-gram's is how many symbols stood before it."""
    tables = [from_text[-1]]
    for begun in reversed(from_text[:-1]):
        longer, packing = tables[0], begun.packing
        counter = Counter(folder, f"after-{packing.length}", packing, held)
        for keys, _ in longer.blocks(held // 4):
            counter.add(longer.packing.without_first(keys, packing))
        table = Table.at(folder / f"adjusted-{packing.length}", packing)
        parts = [counter.counted(), begun]
        for keys, counts in merge(parts, held):
            table.append(keys, counts)
        for part in parts:
            part.remove()
        tables.insert(0, table)
    return tables


def _discounts(table: Table, block: int) -> Discounts:
    total = np.zeros(6, np.int64)
    for _, counts in table.blocks(block):
        total += np.bincount(np.minimum(counts, 5), minlength=6)
    return Discounts.of([int(count) for count in total[:5]])


# --- probabilities


def _single(table: Table, vocabulary: int, folder: Path) -> tuple[Order, float]:
    """The order of single symbols, and the probability of <unk>."""
    keys, counts = table.read(0, len(table))
    discounts = _discounts(table, vocabulary)
    taken = discounts.of_counts(counts)
    total = counts.sum()
    share = float(taken.sum() / total) / (vocabulary - 1)  # <unk>'s too; <pad> and <sos> have none
    probabilities = np.full(vocabulary, share)
    probabilities[table.packing.last(keys)] += (counts - taken) / total
    probabilities[[PAD, SOS]] = 0
    table.remove()
    order = _new_order(folder, table.packing, discounts)
    every = np.arange(vocabulary, dtype=np.uint32)[:, None]
    order.keys.append(table.packing.pack(every))
    order.probabilities.append(probabilities)
    order.backoffs.append(np.ones(vocabulary))
    return order, share


def _new_order(
    folder: Path, packing: Packing, discounts: Discounts, keys: Column | None = None
) -> Order:
    path = folder / f"order-{packing.length}"
    return Order(
        packing,
        keys or Column(path.with_suffix(".keys"), packing.dtype),
        Column(path.with_suffix(".probabilities"), np.float64),
        Column(path.with_suffix(".backoffs"), np.float64),
        discounts,
    )


def _interpolated(table: Table, lower: Order, folder: Path, block: int) -> Order:
    """The probabilities of a table's n-grams; what their contexts leave goes to the order below."""
    packing, discounts = table.packing, _discounts(table, block)
    order = _new_order(folder, packing, discounts, table.keys)
    known, below = lower.keys.mapped(), lower.probabilities.mapped()
    backoffs = lower.backoffs.mapped(writing=True)
    for keys, counts in _whole_contexts(table, lower.packing, block):
        contexts = packing.without_last(keys, lower.packing)
        first, sizes = groups(contexts)
        taken = discounts.of_counts(counts)
        total = np.add.reduceat(counts, first)
        left = np.add.reduceat(taken, first) / total
        # Both are looked for in ascending order, or nearly so: the disk is read along.
        backoffs[np.searchsorted(known, contexts[first])] = left
        shorter = below[np.searchsorted(known, packing.without_first(keys, lower.packing))]
        seen = (counts - taken) / np.repeat(total, sizes)
        order.probabilities.append(seen + np.repeat(left, sizes) * shorter)
        order.backoffs.append(np.ones(len(keys)))
    return order


def _whole_contexts(table: Table, shorter: Packing, block: int) -> Iterator[tuple[Keys, Counts]]:
    """A table in blocks that end between contexts."""
    keys, counts = table.read(0, 0)
    for more_keys, more_counts in table.blocks(block):
        keys, counts = np.concatenate([keys, more_keys]), np.concatenate([counts, more_counts])
        contexts = table.packing.without_last(keys, shorter)
        end = int(np.searchsorted(contexts, contexts[-1]))
        if end:
            yield keys[:end], counts[:end]
        keys, counts = keys[end:], counts[end:]
    if len(keys):
        yield keys, counts
