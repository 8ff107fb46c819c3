"""What beam search has done, step by step, from which hypotheses are put together at the end.

Nothing is carried along with a hypothesis but where it came from: at the end the best are followed
back to their beginnings, and all leaves the device once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spelldown.search.searching.beam.ending import Ending
from spelldown.search.searching.hypothesis import Hypothesis

OPEN, ENDED, CUT = 1, 2, 3  # goes on; has spelled <eos>; was cut off, by a limit or as a loop


@dataclass(frozen=True)
class Step:
    """One step of U utterances with K hypotheses each.

    utterances (U,): which they are. places (N,): where in the step before's grid (U K) each of the
    N hypotheses stood that took this step. rows (U, K): which of them these come from, symbols
    (U, K): and what they end in. judged (U, K, J): what each judge gave that symbol, unweighted.
    coverage, ranked (U, K): the part of the score that is for coverage; the score. what (U, K):
    OPEN, ENDED, CUT or 0. weights (N, H, T): attention, or None.
    """

    utterances: Tensor
    places: Tensor
    rows: Tensor
    symbols: Tensor
    judged: Tensor
    coverage: Tensor
    ranked: Tensor
    what: Tensor
    weights: Tensor | None

    def cpu(self) -> "Step":
        """The same off the device."""
        moved = {name: value.cpu() for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class Found:
    """Where a finished hypothesis stands in the record, and how it is ranked."""

    step: int
    row: int  # in the step's first dimension
    slot: int
    ended: bool
    ranked: float


class Record:
    """The steps of one search, and the hypotheses in them."""

    def __init__(self, names: Sequence[str], weights: Sequence[float], ending: Ending) -> None:
        self.names, self.weights = list(names), torch.tensor(weights, dtype=torch.float64)
        self.settings = ending.settings
        self.steps: list[Step] = []

    def hypotheses(self, lengths: Tensor, most: int) -> list[list[Hypothesis]]:
        """The best finished hypotheses of each utterance, `most` at most, best first.

        Those that ended come before those that were cut off.
        """
        self.steps = [step.cpu() for step in self.steps]
        pool: list[list[Found]] = [[] for _ in lengths]
        for number, step in enumerate(self.steps):
            done = (step.what >= ENDED).nonzero().tolist()
            for row, slot in done:
                ended = int(step.what[row, slot]) == ENDED
                found = Found(number, row, slot, ended, float(step.ranked[row, slot]))
                pool[int(step.utterances[row])].append(found)
        return [
            [self._hypothesis(found, frames) for found in _best(all_found, most)]
            for all_found, frames in zip(pool, lengths.tolist(), strict=True)
        ]

    def _hypothesis(self, found: Found, frames: int) -> Hypothesis:
        """Follows a hypothesis back to its beginning."""
        symbols: list[int] = []
        judged: list[Tensor] = []
        weights: list[Tensor] = []
        row, slot = found.row, found.slot
        for step in reversed(self.steps[: found.step + 1]):
            symbols.append(int(step.symbols[row, slot]))
            judged.append(step.judged[row, slot])
            parent = int(step.rows[row, slot])
            if step.weights is not None:
                weights.append(step.weights[parent, :, :frames])
            row, slot = divmod(int(step.places[parent]), step.symbols.shape[1])
        given = torch.stack(judged[::-1])
        coverage = float(self.steps[found.step].coverage[found.row, found.slot])
        return Hypothesis(
            tuple(symbols[found.ended :][::-1]),
            found.ranked,
            found.ended,
            torch.stack(weights[::-1], 1).float() if weights else None,
            self._parts(given, coverage, found),
            tuple(given[:, 0].tolist()),
        )

    def _parts(self, judged: Tensor, coverage: float, found: Found) -> dict[str, float]:
        """What the score is made of, weighted and shared out over the length as it is."""
        steps = len(judged)
        sums = torch.where(self.weights == 0, 0.0, judged.sum(0) * self.weights).tolist()
        parts = dict(zip(self.names, sums, strict=True))
        if self.settings.coverage_penalty:
            parts["coverage"] = coverage
        if self.settings.length_bonus:
            parts["length"] = self.settings.length_bonus * (steps - found.ended)
        share = steps**self.settings.length_power
        return {name: part / share for name, part in parts.items()}


def _best(found: Sequence[Found], most: int) -> list[Found]:
    return sorted(found, key=lambda one: (one.ended, one.ranked), reverse=True)[:most]
