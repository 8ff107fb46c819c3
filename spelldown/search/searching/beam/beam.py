"""Beam search: the best few beginnings of each sentence, all of them one step at a time.

In every step each hypothesis may go on with any symbol; of all that come from one utterance's
hypotheses the best K are kept. Those that end in `<eos>` are finished and leave; the others take
the next step. So a beam of 1 is greedy search, and a beam as wide as the world is exhaustive.

All hypotheses of all utterances take a step together, as N rows in the utterances' order. They are
as many as are open: an utterance whose others have ended, or were pruned, costs less. One transfer
from the device a step, which asks who goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spelldown.data.vocabulary import EOS, SOS
from spelldown.search.searching.beam.ending import Ending, Loops
from spelldown.search.searching.beam.judges import Judge, Stepping
from spelldown.search.searching.beam.record import CUT, ENDED, OPEN, Record, Step
from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.hypothesis import Hypothesis

SPARE = 1 / 8
"""Share of the utterances held that must have ended before they are forgotten, which copies what is
remembered of all others."""

LOOKED_AT = 0.5
"""Attention that a frame must have had to count as covered (Chorowski and Jaitly 2017, section
3.3)."""


@dataclass
class _Rows:
    """The N open hypotheses.

    utterances (U,): those that have any. owners (N,): which of them each is of, rising. places
    (N,): where in the grid (U K) of the step before it stood. scores (N,): the sum of all judges.
    looked (N, T): attention that each frame has had, if coverage counts.
    """

    utterances: Tensor
    owners: Tensor
    places: Tensor
    fed: Tensor
    scores: Tensor
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
        self.record = Record(names, weights, ending)
        device, batch = lengths.device, len(lengths)
        self.loops = Loops(batch, settings.loops, device) if settings.loops else None
        every = torch.arange(batch, device=device)
        scores = torch.zeros(batch, dtype=torch.float64, device=device)
        fed = torch.full_like(every, SOS)
        self.rows = _Rows(every, every, every * self.beam, fed, scores, None)

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
        totals = self._totals(given, number) + coverage[:, None]
        chosen, rows, symbols = self._chosen(totals)
        scores = chosen - coverage[rows]  # coverage is of the whole, and not carried on
        what = self._judge(chosen, scores, rows, symbols, number)
        self.record.steps.append(
            Step(
                self.rows.utterances,
                self.rows.places,
                rows,
                symbols,
                torch.stack([one[rows, symbols].double() for one in given], 2),
                coverage[rows],
                self.ending.ranked(chosen, number, what == ENDED),
                what,
                self.speller.state.weights if self.keep_weights else None,
            )
        )
        return self._go_on(what == OPEN, scores, rows, symbols)

    def _totals(self, given: Sequence[Tensor], number: int) -> Tensor:
        """The score (N, V) of every hypothesis with every symbol at its end; -inf if it may not."""
        totals = self.rows.scores[:, None].expand_as(given[0]).clone()
        for judge, log_probs in zip(self.judges, given, strict=True):
            if judge.weight:
                totals.add_(log_probs, alpha=judge.weight)
        totals[:, :EOS] = -torch.inf  # <pad> and <sos>
        barred = self.ending.barred(given[0], self.rows.owners, number)
        totals[:, EOS].masked_fill_(barred, -torch.inf)
        return totals

    def _chosen(self, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each utterance the best K: scores, the rows they come from, symbols, all (U, K)."""
        utterances, vocabulary = len(self.rows.utterances), totals.shape[1]
        count = torch.arange(len(totals), device=totals.device)
        slots = count - torch.searchsorted(self.rows.owners, self.rows.owners)
        places = self.rows.owners * self.beam + slots
        grid = totals.new_full((utterances * self.beam, vocabulary), -torch.inf)
        grid[places] = totals
        chosen, best = grid.view(utterances, -1).topk(self.beam)
        row_at = torch.zeros(len(grid), dtype=torch.int64, device=totals.device)
        row_at[places] = count
        first = self.beam * torch.arange(utterances, device=totals.device)[:, None]
        rows = row_at[first + best.div(vocabulary, rounding_mode="floor")]
        return chosen, rows, best % vocabulary

    def _judge(
        self, chosen: Tensor, scores: Tensor, rows: Tensor, symbols: Tensor, number: int
    ) -> Tensor:
        """What becomes of the chosen (U, K): OPEN, ENDED, CUT or nothing, 0."""
        real = chosen > -torch.inf
        ended = real & (symbols == EOS)
        self.ending.finish(self.ending.ranked(chosen, number, ended), ended)
        open_ = real & ~ended
        cut = open_ & (self.ending.limits[:, None] <= number)
        if self.loops is not None:
            cut |= open_ & self.loops.seen(rows, symbols)
        open_ &= ~cut & ~self.ending.hopeless(scores, number)
        if self.settings.prune is not None:
            best = chosen.masked_fill(~open_, -torch.inf).amax(1, keepdim=True)
            open_ &= chosen >= best - self.settings.prune
        return open_ * OPEN + ended * ENDED + cut * CUT

    def _coverage(self) -> Tensor:
        """The part (N,) of the score for frames that were never looked at, 0 or less.

        Chorowski and Jaitly (2017) count frames whose attention sums to more than a half in the
        hypothesis' favour; counting the others against it differs by the utterance's length alone.
        """
        looked, penalty = self.rows.looked, self.settings.coverage_penalty
        if not penalty:
            return torch.zeros_like(self.rows.scores)
        weights = self.speller.state.weights.double().mean(1)
        self.rows.looked = weights if looked is None else looked + weights
        covered = (self.rows.looked > LOOKED_AT).sum(1)
        frames = self.lengths[self.rows.utterances[self.rows.owners]]
        return -penalty * (frames - covered).double()

    def _go_on(self, open_: Tensor, scores: Tensor, rows: Tensor, symbols: Tensor) -> bool:
        """Takes the open hypotheses (U, K) to the next step; whether there are any."""
        mask = open_.cpu()  # the step's one transfer
        places = mask.flatten().nonzero().squeeze(1).to(open_.device, non_blocking=True)
        if len(places) == 0:
            return False
        owners = places.div(self.beam, rounding_mode="floor")
        parents, fed = rows.flatten()[places], symbols.flatten()[places]
        for judge in self.judges:
            judge.select(parents)
        if self.loops is not None:
            self.loops.select(parents, fed)
        looked = None if self.rows.looked is None else self.rows.looked[parents]
        utterances = self.rows.utterances
        self.rows = _Rows(utterances, owners, places, fed, scores.flatten()[places], looked)
        kept = mask.any(1).nonzero().squeeze(1)
        if len(kept) <= (1 - SPARE) * len(mask):
            self._forget(kept.to(open_.device, non_blocking=True))
        return True

    def _forget(self, kept: Tensor) -> None:
        """Goes on with utterances `kept` (U,) alone, which all open hypotheses are of."""
        for judge in self.judges:
            judge.forget(kept)
        self.ending.forget(kept)
        self.rows.owners = torch.searchsorted(kept, self.rows.owners)
        self.rows.utterances = self.rows.utterances[kept]
