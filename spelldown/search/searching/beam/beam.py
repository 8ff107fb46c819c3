"""Beam search: the best few beginnings of each sentence, all of them one step at a time.

In every step each hypothesis may go on with any symbol; of all that come from one utterance's
hypotheses the best K are kept. Those that end in `<eos>` are finished and leave; the others take
the next step. So a beam of 1 is greedy search, and a beam as wide as the world is exhaustive.

All hypotheses of all utterances take a step together, as N rows in the utterances' order. They are
as many as are open, and a few that are not, so that N is one of few numbers (`rows`): an utterance
whose others have ended, or were pruned, costs less. One transfer from the device a step, which asks
who goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spelldown.data.vocabulary import EOS, SOS
from spelldown.search.searching.beam.ending import Ending, Loops
from spelldown.search.searching.beam.judges import Judge, Stepping
from spelldown.search.searching.beam.record import CUT, DROPPED, ENDED, OPEN, Record, Step
from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.hypothesis import Hypothesis
from spelldown.search.searching.rows import held

SPARE = 1 / 8
"""Share of the utterances held that must have ended before they are forgotten, which copies what is
remembered of all others."""

LOOKED_AT = 0.5
"""Attention that a frame must have had to count as covered (Chorowski and Jaitly 2017, section
3.3)."""


@dataclass
class _Rows:
    """The N hypotheses that take a step.

    utterances (U,): those that have any. owners (N,): which of them each is of, rising. places
    (N,): where it stands in the grid (U K), rising; came_from (N,): where it stood in that of the
    step before, of utterances that have been forgotten since too. scores (N,): the sum of all
    judges; -inf for those that are over, of which there are some if `over`. looked (N, T):
    attention that each frame has had, if coverage counts.
    """

    utterances: Tensor
    owners: Tensor
    places: Tensor
    came_from: Tensor
    fed: Tensor
    scores: Tensor
    over: bool
    looked: Tensor | None


class BeamSearch:
    """One search over a batch of utterances; `judges` begin with the speller.

    lengths (B,): of the utterances in listener frames.
    """

    def __init__(
        self,
        speller: Stepping,
        others: Sequence[Judge],
        settings: BeamSettings,
        lengths: Tensor,
        ending: Ending,
        keep_weights: bool,
    ) -> None:
        self.speller, self.judges = speller, [speller, *others]
        self.settings, self.lengths, self.ending = settings, lengths, ending
        self.keep_weights = keep_weights
        self.beam = settings.beam
        names, weights = zip(*((judge.name, judge.weight) for judge in self.judges), strict=True)
        self.record = Record(names, weights, settings)
        device, batch = lengths.device, len(lengths)
        self.loops = Loops(batch, settings.loops, device) if settings.loops else None
        every = torch.arange(batch, device=device)
        scores = torch.zeros(batch, dtype=torch.float64, device=device)
        fed, places = torch.full_like(every, SOS), every * self.beam
        self.rows = _Rows(every, every, places, places, fed, scores, False, None)

    def run(self, most: int) -> list[list[Hypothesis]]:
        """The best finished hypotheses of each utterance, `most` at most, best first."""
        going = len(self.lengths) > 0
        while going:
            going = self._step()
        return self.record.hypotheses(self.lengths, most)

    def _step(self) -> bool:
        """One step of all hypotheses; whether any is left open."""
        number = len(self.record.steps) + 1
        given = [judge.step(self.rows.fed) for judge in self.judges]
        coverage = self._coverage()
        chosen, rows, symbols = self._chosen(self._totals(given, coverage, number))
        # Coverage is of the whole so far, and not carried on.
        scores = chosen if coverage is None else chosen - coverage[rows]
        what, ranked = self._judge(chosen, scores, rows, symbols, number)
        self.record.steps.append(
            Step(
                self.rows.utterances,
                self.rows.came_from,
                rows,
                symbols,
                torch.stack([one[rows, symbols].double() for one in given], 2),
                ranked,
                what,
                None if coverage is None else coverage[rows],
                self.speller.state.weights if self.keep_weights else None,
            )
        )
        return self._go_on(what, scores, rows, symbols)

    def _totals(self, given: Sequence[Tensor], coverage: Tensor | None, number: int) -> Tensor:
        """The score (N, V) of every hypothesis with every symbol at its end; -inf if it may not."""
        totals = self.rows.scores[:, None].expand_as(given[0]).clone()
        for judge, log_probs in zip(self.judges, given, strict=True):
            if judge.weight:
                totals.add_(log_probs, alpha=judge.weight)
        if coverage is not None:
            totals += coverage[:, None]
        totals[:, :EOS] = -torch.inf  # <pad> and <sos>
        barred = self.ending.barred(given[0], self.rows.owners, number)
        if barred is not None:
            totals[:, EOS].masked_fill_(barred, -torch.inf)
        if self.rows.over:
            totals.masked_fill_((self.rows.scores == -torch.inf)[:, None], -torch.inf)
        return totals

    def _chosen(self, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each utterance the best K: scores, the rows they come from, symbols, all (U, K)."""
        utterances, (number, vocabulary) = len(self.rows.utterances), totals.shape
        grid = totals.new_full((utterances * self.beam, vocabulary), -torch.inf)
        grid.index_copy_(0, self.rows.places, totals)
        chosen, best = grid.view(utterances, -1).topk(self.beam)
        count = torch.arange(max(number, len(grid)), device=totals.device)
        row_at = torch.zeros_like(count[: len(grid)])
        row_at.index_copy_(0, self.rows.places, count[:number])
        slots = best.div(vocabulary, rounding_mode="floor")
        rows = row_at[slots.add_(count[: len(grid) : self.beam, None])]
        return chosen, rows, best.remainder_(vocabulary)

    def _judge(
        self, chosen: Tensor, scores: Tensor, rows: Tensor, symbols: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        """What becomes of the chosen (U, K), and the scores (U, K) that they are ranked by."""
        real = chosen > -torch.inf
        ended = real & (symbols == EOS)
        ranked = self.ending.ranked(chosen, number, ended)
        self.ending.finish(ranked, ended)
        open_ = real & ~ended
        cut = open_ & (self.ending.limits[:, None] <= number)
        if self.loops is not None:
            cut |= open_ & self.loops.seen(rows, symbols)
        open_ &= ~(cut | self.ending.hopeless(scores, number))
        if self.settings.prune is not None:
            best = chosen.masked_fill(~open_, -torch.inf).amax(1, keepdim=True)
            open_ &= chosen >= best - self.settings.prune
        what = real * DROPPED + open_ * (OPEN - DROPPED)
        return what.add_(ended, alpha=ENDED - DROPPED).add_(cut, alpha=CUT - DROPPED), ranked

    def _coverage(self) -> Tensor | None:
        """The part (N,) of the score for frames that were never looked at, 0 or less; or None.

        Chorowski and Jaitly (2017) count frames whose attention sums to more than a half in the
        hypothesis' favour; counting the others against it differs by the utterance's length alone.
        """
        looked, penalty = self.rows.looked, self.settings.coverage_penalty
        if not penalty:
            return None
        weights = self.speller.state.weights.double().mean(1)
        self.rows.looked = weights if looked is None else looked + weights
        covered = (self.rows.looked > LOOKED_AT).sum(1)
        frames = self.lengths[self.rows.utterances[self.rows.owners]]
        return -penalty * (frames - covered).double()

    def _go_on(self, what: Tensor, scores: Tensor, rows: Tensor, symbols: Tensor) -> bool:
        """Takes the open hypotheses (U, K) to the next step; whether there are any."""
        told = what.cpu()  # the step's one transfer
        going = _going(told.flatten())
        if len(going) == 0:
            return False
        device, utterances = what.device, self.rows.utterances
        over = bool((told.flatten()[going] != OPEN).any())
        places = going.to(device, non_blocking=True)
        if over:
            scores = scores.masked_fill(what != OPEN, -torch.inf)
        parents, fed = rows.flatten()[places], symbols.flatten()[places]
        for judge in self.judges:
            judge.select(parents)
        if self.loops is not None:
            self.loops.select(parents, fed)
        looked = None if self.rows.looked is None else self.rows.looked[parents]
        owners = places.div(self.beam, rounding_mode="floor")
        scores = scores.flatten()[places]
        self.rows = _Rows(utterances, owners, places, places, fed, scores, over, looked)
        kept = going.div(self.beam, rounding_mode="floor").unique_consecutive()
        if len(kept) <= (1 - SPARE) * len(utterances):
            self._forget(kept.to(device, non_blocking=True))
        return True

    def _forget(self, kept: Tensor) -> None:
        """Goes on with utterances `kept` (U,) alone, which all hypotheses are of."""
        for judge in self.judges:
            judge.forget(kept)
        self.ending.forget(kept)
        rows = self.rows
        rows.owners, slots = torch.searchsorted(kept, rows.owners), rows.places % self.beam
        rows.places = rows.owners * self.beam + slots
        rows.utterances = rows.utterances[kept]


def _going(told: Tensor) -> Tensor:
    """Which places of the grid, of which this is told (U K,), take the next step; none if all is
    over. Some that are over go along, so that their number is round."""
    going = told == OPEN
    count = int(going.sum())
    if 0 < count < held(count):
        others = ((told != 0) & ~going).nonzero().squeeze(1)
        going[others[: held(count) - count]] = True
    return going.nonzero().squeeze(1)
