"""Several hypotheses of one utterance, and one copy of what was heard of it.

Search follows K hypotheses of each utterance. What attention projected of an utterance is the same
for all of them and by far the largest part of their state, so it is kept once, and each hypothesis
knows whose it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CACHED = 2**18  # numbers, a MiB of float32: what stays in a core's cache while it is worked on


@dataclass(frozen=True)
class Projected:
    """The listener's output as attention uses it: made once an utterance.

    keys (B, H, T, D/H), values (B, H, T, C/H), mask (B, T) with True for real frames.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> Projected:
        """The same for utterances `rows` (N,), which may repeat or be left out."""
        return Projected(self.keys[rows], self.values[rows], self.mask[rows])


@dataclass(frozen=True)
class Owners:
    """Which utterance each of N hypotheses is of.

    of (N,): rising. utterances: B. most: K, hypotheses an utterance may have.
    """

    of: Tensor
    utterances: int
    most: int

    @classmethod
    def one_each(cls, utterances: int, most: int, device: torch.device) -> Owners:
        """Each utterance has one hypothesis."""
        return cls(torch.arange(utterances, device=device), utterances, most)

    def select(self, rows: Tensor) -> Owners:
        """The owners of hypotheses `rows` (M,), those of one utterance still side by side."""
        return Owners(self.of[rows], self.utterances, self.most)

    def forget(self, kept: Tensor) -> Owners:
        """The same hypotheses where only utterances `kept` (U,), rising, are remembered."""
        place = torch.zeros(self.utterances, dtype=torch.int64, device=self.of.device)
        place[kept] = torch.arange(len(kept), device=self.of.device)
        return Owners(place[self.of], len(kept), self.most)

    @cached_property
    def _places(self) -> Tensor:
        """Where each hypothesis stands in the grid (B K): the n-th of its utterance, n-th."""
        count = torch.arange(len(self.of), device=self.of.device)
        return self.of * self.most + count - torch.searchsorted(self.of, self.of)

    def grid(self, rows: Tensor) -> Tensor:
        """Rows (N, ...) of hypotheses -> (B, K, ...), zero where an utterance has fewer."""
        shape = (self.utterances * self.most, *rows.shape[1:])
        grid = rows.new_zeros(shape).index_copy_(0, self._places, rows)
        return grid.view(self.utterances, self.most, *rows.shape[1:])

    def rows(self, grid: Tensor) -> Tensor:
        """(B, K, ...) -> rows (N, ...), the reverse of `grid`."""
        return grid.flatten(0, 1).index_select(0, self._places)


def sigmoids_weighed(
    keys: Tensor, of: Tensor, query: Tensor, trails: tuple[Tensor, Tensor] | None, vector: Tensor
) -> Tensor:
    """sigmoid(key + query + trail) vector, (N, T, H), for N hypotheses and all of their frames.

    keys (B, T, D), of (N,): whose each is, query (N, D), vector (D, H); trails: two factors, (N, X,
    T) and (X, D), or None. A few hypotheses at a time, all in one place, to stay in the cache.
    """
    energies = vector.new_empty(len(query), keys.shape[1], vector.shape[1])
    at_once = max(CACHED // keys[0].numel(), 1) if keys.device.type == "cpu" else len(query)
    room = keys.new_empty(min(at_once, len(query)), *keys.shape[1:])
    added = (query[:, None],) if trails is None else _beside(*trails, query)
    parts = zip(*(each.split(at_once) for each in (of, energies, *added)), strict=True)
    for part, found, *factors in parts:
        places = room[: part.shape[0]]
        torch.index_select(keys, 0, part, out=places)
        if trails is None:
            places.add_(*factors)
        else:
            places.baddbmm_(*factors)
        torch.matmul(places.sigmoid_(), vector, out=found)
    return energies


def _beside(trails: Tensor, spread: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors (N, T, X+1) and (N, X+1, D) whose product is trails^T spread + query.

    trails (N, X, T), spread (X, D), query (N, D).
    """
    rows, channels, frames = trails.shape
    left = query.new_ones(rows, channels + 1, frames)
    left[:, :channels] = trails
    right = torch.cat([spread.expand(rows, -1, -1), query[:, None]], 1)
    return left.transpose(1, 2), right
