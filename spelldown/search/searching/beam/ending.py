"""When a hypothesis may end, when it must, and when it cannot win any more.

A finished hypothesis of L steps, `<eos>` among them, with the sum s of all judges is ranked by

    ( s + length_bonus x symbols ) / L ^ length_power

With no power and no bonus that is s, which prefers short ones; the power is Graves' (2012) and Wu's
et al. (2016, section 7) without their constant, the bonus He's et al. (2016).
"""

import torch
from torch import Tensor

from spelldown.data.vocabulary import EOS
from spelldown.search.searching.beam.settings import BeamSettings
from spelldown.search.searching.limits import frame_seconds, step_limits

LONGEST_LOOP = 48  # symbols of the longest stretch that is seen to repeat


class Ending:
    """Knows the limits of each utterance, and its best finished hypotheses so far.

    lengths (B,): in listener frames. finals (B, keep): scores of the best finished ones, -inf
    where there are none yet.
    """

    def __init__(
        self,
        settings: BeamSettings,
        lengths: Tensor,
        seconds_per_frame: float | None,
        keep: int,
    ) -> None:
        self.settings = settings
        self.limits = step_limits(lengths, settings, seconds_per_frame)
        self.least: Tensor | None = None
        if settings.shortest_per_second:
            frame = frame_seconds("shortest_per_second", seconds_per_frame)
            least = (lengths.double() * frame * settings.shortest_per_second).floor().long()
            self.least = torch.minimum(least, self.limits - 1)
        self.finals = torch.full((len(lengths), keep), -torch.inf, device=lengths.device)
        self.finals = self.finals.double()

    def forget(self, kept: Tensor) -> None:
        """Goes on with utterances `kept` (U,) alone."""
        self.limits, self.finals = self.limits[kept], self.finals[kept]
        if self.least is not None:
            self.least = self.least[kept]

    def barred(self, log_probs: Tensor, owners: Tensor, step: int) -> Tensor | None:
        """Which hypotheses (N,) may not end in this step, from the speller's own (N, V), or None.

        Too short; or `<eos>` is not likely enough against the best other symbol, by the threshold
        of Hannun et al. (2019, section 3.3): log p(<eos>) > eos_threshold x max log p(c).
        """
        barred = None if self.least is None else self.least[owners] >= step
        if self.settings.eos_threshold is not None:
            best = log_probs[:, EOS + 1 :].amax(1)
            unlikely = log_probs[:, EOS] <= self.settings.eos_threshold * best
            barred = unlikely if barred is None else barred | unlikely
        return barred

    def ranked(self, scores: Tensor, steps: int, ended: Tensor) -> Tensor:
        """The scores that hypotheses of so many steps are ranked by, once they are finished."""
        s = self.settings
        if s.length_bonus:
            scores = scores + s.length_bonus * (steps - ended.to(scores.dtype))
        return scores / float(steps**s.length_power) if s.length_power else scores

    def finish(self, ranked: Tensor, ended: Tensor) -> None:
        """Takes note of hypotheses (U, K) that have ended in this step."""
        found = torch.cat([self.finals, ranked.masked_fill(~ended, -torch.inf)], 1)
        self.finals = found.topk(self.finals.shape[1]).values

    def hopeless(self, scores: Tensor, steps: int) -> Tensor:
        """Which open hypotheses (U, K) of so many steps cannot come among the best, or hardly.

        scores (U, K): without the part for coverage, which may yet rise to nothing.

        Cannot: scores only fall, so that they are bounded by what they are, over the longest that
        the utterance may grow (Huang et al. 2017). Only the bonus, bounded by itself, and a
        language model that is taken off may raise them. The latter by any symbol it finds unlikely:
        a bound on that, times all steps that are left, would rule nothing out.
        Hardly: `prune` below the best finished one, were that as long.
        """
        s, worst, best = self.settings, self.finals[:, -1:], self.finals[:, :1]
        if s.ilm == "none" or s.ilm_weight == 0:
            out = self._bounds(scores, steps) <= worst
        else:
            out = torch.zeros_like(scores, dtype=torch.bool)
        if s.prune is not None:
            level = best * steps**s.length_power - s.prune
            out |= scores + s.length_bonus * steps < level
        return out

    def _bounds(self, scores: Tensor, steps: int) -> Tensor:
        """What open hypotheses (U, K) of so many steps are ranked by at best, if scores fall."""
        s, bounds = self.settings, scores.clamp(max=0)
        if not s.length_bonus and not s.length_power:
            return bounds
        longest = self.limits[:, None].double().clamp(min=steps + 1)
        ends = torch.stack([longest, torch.full_like(longest, steps + 1)])
        symbols = ends if s.length_bonus > 0 else ends - 1
        bonus = (s.length_bonus * symbols / ends**s.length_power).amax(0)
        return bounds / longest**s.length_power + bonus


class Loops:
    """Sees symbols that repeat: "and the and the and the ...", as spellers do that lost their way.

    run (N, P): how many symbols at the end equal those p places before, for p = 1 ... P. The last
    p symbols stand there more than `most` times in a row if that run has reached `most` x p.
    """

    def __init__(self, rows: int, most: int, device: torch.device) -> None:
        self.last = torch.full((rows, LONGEST_LOOP), -1, device=device)  # the newest first
        self.run = torch.zeros_like(self.last)
        self.long = most * torch.arange(1, LONGEST_LOOP + 1, device=device)

    def seen(self, rows: Tensor, symbols: Tensor) -> Tensor:
        """Whether hypotheses `rows` (...) would loop with `symbols` (...) at their ends."""
        return (self._runs(rows, symbols) >= self.long).any(-1)

    def select(self, rows: Tensor, symbols: Tensor) -> None:
        """Goes on with hypotheses `rows` (M,), after `symbols` (M,)."""
        self.run = self._runs(rows, symbols)
        self.last = torch.cat([symbols[:, None], self.last[rows][:, :-1]], 1)

    def _runs(self, rows: Tensor, symbols: Tensor) -> Tensor:
        return (self.run[rows] + 1) * (self.last[rows] == symbols[..., None])
