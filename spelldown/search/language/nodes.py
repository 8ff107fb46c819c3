"""An n-gram model as a machine of nodes and arcs, made from the n-grams of an ARPA file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spelldown.search.language.arpa import Arpa, Grams
from spelldown.search.language.counting import Keys, Packing, groups
from spelldown.search.language.kneser_ney import Estimated, Order


@dataclass(frozen=True)
class Nodes:
    """The machine as numbers: S nodes, A arcs.

    arcs (S + 1,): where each node's arcs begin; symbols (A,), ascending within a node; log_probs
    (A,) natural; leads_to (A,) the node after it; backoffs (S,) natural; falls_to (S,) a node of
    lower number. Node 0 remembers nothing and has an arc for every symbol.
    """

    arcs: NDArray[np.int64]
    symbols: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    leads_to: NDArray[np.int32]
    backoffs: NDArray[np.float32]
    falls_to: NDArray[np.int32]


def nodes_of(model: Arpa | Estimated) -> Nodes:
    """The machine that gives the probabilities of an ARPA file, or of a model just estimated."""
    if isinstance(model, Arpa):
        vocabulary = len(model.orders[0].log_probs)
        levels = _with_all_contexts([_Level.of(grams, vocabulary) for grams in model.orders])
    else:
        levels = [_Level.of_order(order) for order in model.orders]
    return _nodes(levels)


def _nodes(levels: "list[_Level]") -> Nodes:
    count = 1
    parents, falls_to, backoffs = [], [np.zeros(1, np.int64)], [np.zeros(1)]
    for number, level in enumerate(levels):
        parent = np.zeros(len(level.keys), np.int64)
        if number:
            below = levels[number - 1]
            parent = below.leads_to[below.places(level.prefixes(below))]
        endings = _endings(level, levels)
        kept = np.zeros(len(level.keys), bool)
        if number + 1 < len(levels):  # what is followed by something, or makes its ending dearer
            kept |= level.backoffs != 0
            kept[level.places(levels[number + 1].prefixes(level))] = True
        level.leads_to = np.where(kept, count - 1 + np.cumsum(kept), endings)
        count += int(kept.sum())
        parents.append(parent)
        falls_to.append(endings[kept])
        backoffs.append(level.backoffs[kept])
    _fill(levels)
    arcs = np.bincount(np.concatenate(parents), minlength=count)
    natural = math.log(10)
    return Nodes(
        np.concatenate([[0], np.cumsum(arcs)]),
        np.concatenate([level.packing.last(level.keys) for level in levels]).astype(np.int32),
        (np.concatenate([level.log_probs for level in levels]) * natural).astype(np.float32),
        np.concatenate([level.leads_to for level in levels]).astype(np.int32),
        (np.concatenate(backoffs) * natural).astype(np.float32),
        np.concatenate(falls_to).astype(np.int32),
    )


class _Level:
    """The n-grams of one length as sorted keys; `leads_to` is the node that each leads to."""

    def __init__(
        self,
        packing: Packing,
        keys: Keys,
        log_probs: NDArray[np.float64],
        backoffs: NDArray[np.float64],
    ) -> None:
        self.packing, self.keys = packing, keys
        self.log_probs, self.backoffs = log_probs, backoffs
        self.leads_to = np.empty(0, np.int64)

    @classmethod
    def of(cls, grams: Grams, vocabulary: int) -> "_Level":
        packing = Packing.of(grams.symbols.shape[1], vocabulary)
        return cls(packing, packing.pack(grams.symbols), grams.log_probs, grams.backoffs.copy())

    @classmethod
    def of_order(cls, order: Order) -> "_Level":
        with np.errstate(divide="ignore"):
            log_probs = np.log10(order.probabilities.read(0, len(order)))
        keys, backoffs = order.keys.read(0, len(order)), order.backoffs.read(0, len(order))
        return cls(order.packing, keys, log_probs, np.log10(backoffs))

    def prefixes(self, below: "_Level") -> Keys:
        """The context of each n-gram, as a key of the level below."""
        return self.packing.without_last(self.keys, below.packing)

    def places(self, keys: Keys) -> NDArray[np.intp]:
        """Where these keys are, all of which are there."""
        return np.searchsorted(self.keys, keys)

    def find(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where these keys are, and whether they are there."""
        places = np.searchsorted(self.keys, keys).clip(max=max(len(self.keys) - 1, 0))
        there = np.zeros(len(keys), bool) if len(self.keys) == 0 else self.keys[places] == keys
        return places, there


def _with_all_contexts(levels: list[_Level]) -> list[_Level]:
    """Adds contexts that were pruned from the file though n-grams begin with them.

    Their log_probs are nan until `_fill` works them out.
    """
    for number in range(len(levels) - 1, 0, -1):
        below = levels[number - 1]
        contexts = levels[number].prefixes(below)
        contexts = contexts[groups(contexts)[0]]
        lacking = contexts[~below.find(contexts)[1]]
        if len(lacking):
            keys = np.concatenate([below.keys, lacking])
            order = np.argsort(keys)
            unknown = np.full(len(lacking), math.nan)
            log_probs = np.concatenate([below.log_probs, unknown])[order]
            backoffs = np.concatenate([below.backoffs, np.zeros(len(lacking))])[order]
            levels[number - 1] = _Level(below.packing, keys[order], log_probs, backoffs)
    return levels


def _endings(level: _Level, levels: Sequence[_Level]) -> NDArray[np.int64]:
    """The node of the longest ending of each n-gram, itself not counted."""
    endings = np.zeros(len(level.keys), np.int64)
    rows, keys, packing = np.arange(len(level.keys)), level.keys, level.packing
    while packing.length > 1 and len(rows):
        below = levels[packing.length - 2]
        keys, packing = packing.without_first(keys, below.packing), below.packing
        places, there = below.find(keys)
        endings[rows[there]] = below.leads_to[places[there]]
        rows, keys = rows[~there], keys[~there]
    return endings


def _fill(levels: Sequence[_Level]) -> None:
    """Works out the log_probs that are nan, by backing off."""
    for level in levels:
        for place in np.flatnonzero(np.isnan(level.log_probs)):
            symbols = level.packing.unpack(level.keys[place : place + 1])
            backoff, shorter = 0.0, symbols
            for below in reversed(levels[: level.packing.length - 1]):
                context = shorter[:, :-1]
                places, there = below.find(below.packing.pack(context))
                backoff += below.backoffs[places[0]] if there[0] else 0.0
                shorter = shorter[:, 1:]
                places, there = below.find(below.packing.pack(shorter))
                if there[0]:
                    level.log_probs[place] = backoff + below.log_probs[places[0]]
                    break
