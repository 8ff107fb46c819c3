"""What the CTC head says of a beginning of a sentence: prefix scores, for all symbols at once.

The probability of a prefix g is that of all CTC paths which begin with it (Graves 2008, section
3.5.1; as a judge of attention's hypotheses Hori, Watanabe and Hershey 2017, section 3.3, whose
algorithm 2 this is). With p_t(c) the head's output, and after t frames

    n_t(g)   probability that exactly g was read and the last frame was its last symbol
    b_t(g)   the same, and the last frame was blank

    P(g c ...) = sum over t of  p_t(c) ( b_{t-1}(g) + n_{t-1}(g) unless c repeats g's last symbol )
    P(g)       = b_T(g) + n_T(g)                                       which is what <eos> gets

Two things make it fast. The sum for all symbols c of all hypotheses is one matrix product. And n
and b, linear recurrences in t, are wanted only for hypotheses that were kept, where they are
cumulative sums: with S_t = log p_1(c) + ... + log p_t(c),

    log n_t(gc) = S_t + logcumsumexp_{s <= t} ( log phi_{s-1} - S_{s-1} ),    phi the bracket above

and in the same way b from n with the blank. In float64, whose exponents reach to e^-745.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spelldown.data.vocabulary import EOS, PAD
from spelldown.model.spelling.sharing import Owners

BLANK = PAD  # the head reads blank where the vocabulary has <pad>
NEVER = -1e30  # logarithm of a probability of zero that can be added and taken off without a NaN
IMPOSSIBLE = -700.0  # the least that one symbol is given: then the other judges decide


@dataclass(frozen=True)
class _Prefixes:
    """All that is known of N hypotheses.

    both, rested (N, T+1): log (n_t + b_t) and log b_t, t from 0; total (N,): the scores given so
    far; last (N,): the symbol they end in; scores (N, V): what was given for each that may follow.
    """

    owners: Owners
    both: Tensor
    rested: Tensor
    total: Tensor
    last: Tensor
    scores: Tensor


class CTCPrefix:
    """The CTC head as a judge: log P(g c ...) - log P(g ...) for every symbol c.

    logits (B, T, V) of the head, of which lengths (B,) frames are real; beam: hypotheses an
    utterance may have.
    """

    def __init__(self, logits: Tensor, lengths: Tensor, weight: float, beam: int) -> None:
        self.name, self.weight = "ctc", weight
        log_probs = logits.double().log_softmax(2)
        batch, frames, vocabulary = log_probs.shape
        real = torch.arange(frames, device=lengths.device) < lengths[:, None]
        self.lengths, self.real = lengths, real
        self.probs = log_probs.exp() * real[..., None]  # (B, T, V), zero where nothing was said
        self.log_probs = log_probs.transpose(1, 2).contiguous()  # (B, V, T)
        self.blanks = _sums(self.log_probs[:, BLANK])  # (B, T+1)
        owners = Owners.one_each(batch, beam, lengths.device)
        zeros = log_probs.new_zeros(batch)
        self.state = _Prefixes(
            owners,
            self.blanks,
            self.blanks,
            zeros,
            torch.full_like(owners.of, -1),
            log_probs.new_zeros(batch, vocabulary),
        )
        self.begun = False

    def step(self, fed: Tensor) -> Tensor:
        """Log-probabilities (N, V) of what follows; told of `<sos>` first."""
        state = self._after(fed) if self.begun else self.state
        self.begun = True
        scores = self._prefix_scores(state) - state.total[:, None]
        scores.clamp_(IMPOSSIBLE, 0.0)
        self.state = replace(state, scores=scores)
        return scores

    def select(self, rows: Tensor) -> None:
        s = self.state
        self.state = _Prefixes(
            s.owners.select(rows),
            *(each.index_select(0, rows) for each in (s.both, s.rested, s.total, s.last, s.scores)),
        )

    def forget(self, kept: Tensor) -> None:
        s = self.state
        self.lengths, self.real = self.lengths[kept], self.real[kept]
        self.probs = self.probs[kept]
        self.log_probs, self.blanks = self.log_probs[kept], self.blanks[kept]
        self.state = replace(s, owners=s.owners.forget(kept))

    def _after(self, fed: Tensor) -> _Prefixes:
        """The hypotheses with the symbols `fed` (N,) at their ends."""
        s = self.state
        before = torch.where((fed == s.last)[:, None], s.rested, s.both)[:, :-1]  # log phi
        emitted = _sums(self.log_probs[s.owners.of, fed])
        read = _recurrence(before, emitted)
        rested = _recurrence(read[:, :-1], self.blanks[s.owners.of])
        given = s.scores.gather(1, fed[:, None]).squeeze(1)
        both = torch.logaddexp(rested, read)
        return _Prefixes(s.owners, both, rested, s.total + given, fed, s.scores)

    def _prefix_scores(self, state: _Prefixes) -> Tensor:
        """log P(g c ...) of every hypothesis g and symbol c (N, V), and log P(g) for `<eos>`."""
        of, last = state.owners.of, state.last
        both = state.both
        beyond = ~self.real[of]
        before = both[:, :-1].masked_fill(beyond, NEVER)
        most = before.amax(1, keepdim=True)
        reached = state.owners.grid((before - most).exp())  # (B, K, T)
        scores = state.owners.rows(torch.bmm(reached, self.probs)).log_().add_(most)
        rests = (state.rested[:, :-1] - most).masked_fill(beyond, NEVER).exp()
        again = self.probs[of, :, last.clamp(min=0)]  # a repeated symbol needs a blank before it
        repeated = (rests * again).sum(1).log() + most[:, 0]
        repeated = torch.where(last < 0, scores[:, 0], repeated)
        scores.scatter_(1, last.clamp(min=0)[:, None], repeated[:, None])
        scores[:, EOS] = both.gather(1, self.lengths[of][:, None]).squeeze(1)
        return scores


def _sums(log_probs: Tensor) -> Tensor:
    """(N, T) -> (N, T+1): the sums of the first 0, 1, ... T."""
    return torch.nn.functional.pad(log_probs.cumsum(1), (1, 0))


def _recurrence(inputs: Tensor, sums: Tensor) -> Tensor:
    """x_t = p_t (x_{t-1} + input_{t-1}), x_0 = 0, in logarithms: inputs (N, T) -> x (N, T+1).

    sums (N, T+1): of the first log p, `_sums`.
    """
    x = (inputs - sums[:, :-1]).logcumsumexp(1).add_(sums[:, 1:])
    return torch.nn.functional.pad(x, (1, 0), value=NEVER)
