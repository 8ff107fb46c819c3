"""What beam search has done, step by step, from which hypotheses are put together at the end.

Nothing is carried along with a hypothesis but where it came from: at the end the best are followed
back to their beginnings, all of them together, and all leaves the device once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.hypothesis import Hypothesis

DROPPED, OPEN, ENDED, CUT = 1, 2, 3, 4
"""What becomes of a hypothesis: is given up; goes on; has spelled `<eos>`; was cut off, by a limit
or as a loop. 0 where there is none."""


@dataclass(frozen=True)
class Step:
    """One step of U utterances with K hypotheses each.

    utterances (U,): which they are. places (N,): where in the step before's grid (U K) each of the
    N hypotheses stood that took this step. rows (U, K): which of them these come from, symbols
    (U, K): and what they end in. judged (U, K, J): what each judge gave that symbol, unweighted.
    ranked (U, K): the score. what (U, K): what becomes of them. coverage (U, K): the part of the
    score that is for coverage, or None. weights (N, H, T): attention, or None.
    """

    utterances: Tensor
    places: Tensor
    rows: Tensor
    symbols: Tensor
    judged: Tensor
    ranked: Tensor
    what: Tensor
    coverage: Tensor | None
    weights: Tensor | None


class Record:
    """The steps of one search, and the hypotheses in them."""

    def __init__(
        self, names: Sequence[str], weights: Sequence[float], settings: BeamSettings
    ) -> None:
        self.names, self.weights = list(names), np.array(weights)
        self.settings = settings
        self.steps: list[Step] = []

    def hypotheses(self, lengths: Tensor, most: int) -> list[list[Hypothesis]]:
        """The best finished hypotheses of each utterance, `most` at most, best first.

        Those that ended come before those that were cut off. lengths (B,): in listener frames.
        """
        found: list[list[Hypothesis]] = [[] for _ in lengths]
        if not self.steps:
            return found
        grid = _Grid(self.steps)
        best, utterances = grid.best(most)
        symbols, judged, attended = grid.followed_back(best)
        ranked, ended = grid.ranked[best].tolist(), (grid.what[best] == ENDED).tolist()
        coverage = [0.0] * len(best) if grid.coverage is None else grid.coverage[best].tolist()
        frames = lengths.tolist()
        for one, (utterance, said) in enumerate(zip(utterances.tolist(), symbols, strict=True)):
            weights = attended[one] if attended else None
            hypothesis = Hypothesis(
                tuple(said[: len(said) - ended[one]].tolist()),
                ranked[one],
                ended[one],
                None if weights is None else weights[..., : frames[utterance]].clone(),
                self._parts(judged[one], coverage[one], ended[one]),
                tuple(judged[one][:, 0].tolist()),
            )
            found[utterance].append(hypothesis)
        return found

    def _parts(self, judged: np.ndarray, coverage: float, ended: bool) -> dict[str, float]:
        """What the score is made of, weighted and shared out over the length as it is.

        judged (L, J): what each judge gave each symbol.
        """
        steps = len(judged)
        given = judged.sum(0)
        parts = {
            name: float(weight * one) if weight else 0.0
            for name, weight, one in zip(self.names, self.weights, given, strict=True)
        }
        if self.settings.coverage_penalty:
            parts["coverage"] = coverage
        if self.settings.length_bonus:
            parts["length"] = self.settings.length_bonus * (steps - ended)
        share = steps**self.settings.length_power
        return {name: part / share for name, part in parts.items()}


class _Grid:
    """All steps one behind the other, off the device: U K places each, of which `offsets` says
    where a step's begin."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps, self.beam = steps, steps[0].symbols.shape[1]
        self.offsets = _offsets([one.symbols.numel() for one in steps])
        self.row_offsets = _offsets([len(one.places) for one in steps])
        self.utterances = _joined([one.utterances for one in steps])
        self.places = _joined([one.places for one in steps])
        self.rows = _joined([one.rows.flatten() for one in steps])
        self.symbols = _joined([one.symbols.flatten() for one in steps])
        self.judged = _joined([one.judged.flatten(0, 1) for one in steps])
        self.ranked = _joined([one.ranked.flatten() for one in steps])
        self.what = _joined([one.what.flatten() for one in steps])
        covered = [one.coverage.flatten() for one in steps if one.coverage is not None]
        self.coverage = _joined(covered) if covered else None

    def best(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Places (M,) of the best finished hypotheses, and the utterance of each, rising.

        Of each utterance `most` at most, from better to worse.
        """
        done = (self.what >= ENDED).nonzero()[0]
        of = self.utterances[done // self.beam]
        order = np.lexsort((-self.ranked[done], self.what[done] != ENDED, of))
        done, of = done[order], of[order]
        among = np.arange(len(of)) - np.searchsorted(of, of)
        return done[among < most], of[among < most]

    def followed_back(
        self, found: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[Tensor]]:
        """Of the hypotheses at places (M,): symbols (L,), what was given to each (L, J), and
        attention (H, L, T) if it was kept."""
        last = np.searchsorted(self.offsets, found, side="right") - 1  # the step of each
        places = found - self.offsets[last]
        steps = int(last.max(initial=-1)) + 1
        symbols = np.zeros((len(found), steps), np.int64)
        judged = np.zeros((len(found), steps, self.judged.shape[1]))
        attended = _Attended(self.steps, len(found), steps)
        for step in reversed(range(steps)):
            those = (last >= step).nonzero()[0]
            here = self.offsets[step] + places[those]
            symbols[those, step], judged[those, step] = self.symbols[here], self.judged[here]
            rows = self.rows[here]
            attended.note(step, those, rows)
            places[those] = self.places[self.row_offsets[step] + rows]
        ends = (last + 1).tolist()
        return (
            [row[:end] for row, end in zip(symbols, ends, strict=True)],
            [row[:end] for row, end in zip(judged, ends, strict=True)],
            attended.weights(ends),
        )


class _Attended:
    """Gathers the attention of M hypotheses, step by step, where it was kept."""

    def __init__(self, steps: Sequence[Step], hypotheses: int, longest: int) -> None:
        self.steps, self.table = steps, None
        first = steps[0].weights
        if first is not None:
            _, heads, frames = first.shape
            shape = (hypotheses, heads, longest, frames)
            self.table = torch.zeros(shape, dtype=torch.float32, device=first.device)

    def note(self, step: int, those: np.ndarray, rows: np.ndarray) -> None:
        """Hypotheses `those` come from `rows` of a step."""
        weights = self.steps[step].weights
        if self.table is None or weights is None:
            return
        device = weights.device
        looked = weights.index_select(0, torch.from_numpy(rows).to(device)).float()
        self.table[torch.from_numpy(those).to(device), :, step] = looked

    def weights(self, ends: Sequence[int]) -> list[Tensor]:
        """Of each hypothesis (H, L, T), on the CPU; none if it was not kept."""
        if self.table is None:
            return []
        return [one[:, :end] for one, end in zip(self.table.cpu(), ends, strict=True)]


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    joined: np.ndarray = torch.cat(list(parts)).cpu().numpy()
    return joined


def _offsets(sizes: Sequence[int]) -> np.ndarray:
    offsets: np.ndarray = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return offsets
