"""Is attention aligning? A number for every validation, and an early verdict on a hopeless run.

A recognizer that has aligned looks at the speech from its start to its end while it spells. That
is four things, each between 0 and 1, and each failing in its own way:

    monotonic  the centre of attention travels forwards, over the surer half of the steps: net
               forward travel by all travel. 0 where it stays, wanders or runs backwards; 1/3 where
               the utterance is spelled twice
    coverage   every fifth of the real frames is attended to; 0.2 where attention is stuck
    peaked     each step looks at few frames: 1 - entropy / the entropy of uniform attention
    ended      the share of utterances in which `<eos>` came

Weights come from greedy search or from teacher forcing. With several heads the best head is the
one that scores highest over the whole set, since one head that aligns is enough to spell.
`Alignment.value` puts the four into one number: 1 when each is as high as an aligned recognizer's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spelldown.training.remedies import ALL, PARTS, REMEDY_NAMES, Part, advice

FIFTHS = 5
"""Parts that frames are cut into for coverage. More would ask a word of three letters for attention
where nobody speaks; fewer would not see that the second half is left out."""
FAIR = 0.2
"""Share of an even share of attention at which a fifth counts as attended to: one letter of many
is enough, stray weights are not."""
REACH = 0.2
"""Least travel, in utterances, by which forward travel is divided, so that the trembling of an
attention that stays where it is counts as nothing rather than as half forwards."""

ENOUGH = {"monotonic": 0.6, "coverage": 0.6, "peaked": 0.4, "ended": 0.9}
"""From where on each part is as good as an aligned recognizer's.

monotonic: trembling by a listener's frame a step, at a letter a frame, leaves 0.6 of a perfect
           diagonal; spelling half the utterance again leaves 0.5
coverage:  silence before and after may fill two fifths of an utterance
peaked:    a step that looks at 10 of 60 frames; uniform attention has 0
ended:     a few utterances that run on are the next thing to learn, not a failure to align
"""
ALIGNED = 0.9
"""Value from which attention has aligned."""
KEPT = 0.6
"""Value down to which attention that has aligned counts as aligned still: one bad validation is
no news, half the value gone is."""
BABBLE = 0.75
"""CER that attention must beat to have aligned: letters drawn by their frequency, in the right
number, get about one in four right without listening."""
SPELLS = 0.25
"""CER below which what is spelled was listened to: with attention that is KEPT, all is well, though
a part of it stay below its ENOUGH, as attention does that leans on many frames of short words."""
YOUNG_EPOCHS, YOUNG_UPDATES = 3, 400
"""A run is too young for a verdict until both have passed. Recognizers known to align do so after
some 500 to 5000 updates."""
WINDOW = 3
"""Validations that must bring something new."""
BETTER = 0.05
"""What counts as new: the value up by this much, or the CER down by this share of itself."""


@dataclass(frozen=True)
class Alignment:
    """The four parts over a set of utterances, each 0 to 1, of the best head (counted from 0)."""

    monotonic: float
    coverage: float
    peaked: float
    ended: float
    head: int = 0

    @property
    def value(self) -> float:
        """One number, 0 to 1: the product of the parts, each counted up to its ENOUGH."""
        return math.prod(self.share(part) for part in PARTS)

    def share(self, part: Part) -> float:
        """How much of ENOUGH a part has reached, at most 1."""
        return min(1.0, float(getattr(self, part)) / ENOUGH[part])

    def failing(self) -> list[Part]:
        """The parts below ENOUGH, the weakest first."""
        return sorted((p for p in PARTS if self.share(p) < 1), key=self.share)


@torch.no_grad()
def measure(weights: Sequence[Tensor], ended: Sequence[bool] | None = None) -> Alignment:
    """How well attention is aligned, averaged over utterances.

    weights: of each utterance (H, L, T'): a row for each step, `<eos>` included, real frames only
    ended:   whether `<eos>` came; None (teacher forcing, where nobody knows) counts as ended

    An utterance of one step says nothing about monotonic, nor one of a single frame about peaked;
    if none says anything, the part is 0.

    Raises ValueError if there are no utterances, or not as many of each.
    """
    if not weights or (ended is not None and len(ended) != len(weights)):
        raise ValueError(
            f"{len(weights)} utterances' weights and "
            f"{len(ended) if ended is not None else 'no'} ends: there must be as many, and some"
        )
    share_ended = 1.0 if ended is None else sum(ended) / len(ended)
    table = torch.stack([_parts(one) for one in weights])  # (utterances, H, 3)
    means = table.nanmean(0).nan_to_num(0.0)
    heads = [
        Alignment(monotonic, coverage, peaked, share_ended, head)
        for head, (monotonic, coverage, peaked) in enumerate(means.tolist())
    ]
    # Parts without a ceiling decide between heads that are all aligned or all lost.
    return max(heads, key=lambda a: (a.value, a.monotonic + a.coverage + a.peaked))


def _parts(weights: Tensor) -> Tensor:
    """Monotonic, coverage and peaked of each head, (H, 3); NaN where nothing can be said."""
    weights = weights.detach().double()
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    return torch.stack([_monotonic(weights), _coverage(weights), _peaked(weights)], dim=-1)


def _monotonic(weights: Tensor) -> Tensor:
    """Net forward travel of the centre of attention by all travel, 0 to 1, (H,)."""
    _, steps, frames = weights.shape
    if steps < 2 or frames < 2:
        return weights.new_full((len(weights),), math.nan)
    centres = weights @ torch.arange(frames, dtype=weights.dtype, device=weights.device)
    # A space or a silent letter has no place of its own and looks anywhere: only the surer half of
    # the steps is asked, in their order.
    surest = weights.amax(-1).topk(max(2, -(-steps // 2)), dim=-1).indices.sort(-1).values
    travel = centres.gather(-1, surest).diff(dim=-1)
    least = REACH * (frames - 1)
    return (travel.sum(-1) / travel.abs().sum(-1).clamp(min=least)).clamp(min=0)


def _coverage(weights: Tensor) -> Tensor:
    """Share of the fifths of the frames that get attention, 0 to 1, (H,)."""
    fifths = min(FIFTHS, weights.shape[-1])
    parts = weights.tensor_split(fifths, dim=-1)
    attended = torch.stack([part.sum((1, 2)) for part in parts], dim=-1)
    fair = weights.shape[1] / fifths
    return (attended / (FAIR * fair)).clamp(max=1).mean(-1)


def _peaked(weights: Tensor) -> Tensor:
    """1 - mean entropy of the steps by the entropy of uniform attention, 0 to 1, (H,)."""
    frames = weights.shape[-1]
    if frames < 2:
        return weights.new_full((len(weights),), math.nan)
    entropy = -torch.xlogy(weights, weights).sum(-1).mean(-1)
    return (1 - entropy / math.log(frames)).clamp(0, 1)


SYMPTOMS: dict[Part, str] = {
    "monotonic": "attention does not move forwards through the speech",
    "coverage": "attention stays on one part of the speech",
    "peaked": "attention is spread over all frames",
    "ended": "<eos> does not come",
}


@dataclass(frozen=True)
class Validation:
    """What one validation told: `updates` are optimizer steps so far, `cer` a fraction."""

    epoch: int
    updates: int
    alignment: Alignment
    cer: float


def remembered(records: Sequence[Mapping[str, Any]]) -> list[Validation]:
    """The validations that a checkpoint holds as plain values."""
    return [Validation(**{**one, "alignment": Alignment(**one["alignment"])}) for one in records]


@dataclass(frozen=True)
class Verdict:
    """Whether attention aligns, why we think so, and what to try if it does not."""

    state: Literal["aligned", "aligning", "not aligning"]
    reason: str
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.state}: {self.reason}", *(f"  try: {a}" for a in self.advice)])


def verdict(history: Sequence[Validation], left: Mapping[str, str] = ALL) -> Verdict:
    """The verdict after the latest of all validations of a run, oldest first.

    left: what to type for each remedy that the run does not use yet, by its name (REMEDY_NAMES)

    Attention that is not aligned counts as *aligning* while the run is young or as long as the
    last WINDOW validations brought something new: a better value or a lower CER. Above 100 % CER
    only a lower CER counts, since what is spelled then has nothing to do with what was said. It
    never counts as not aligning while what is spelled is what was said.

    Raises ValueError if nothing was validated yet or `left` names an unknown one.
    """
    if not history:
        raise ValueError("no validation yet")
    if unknown := sorted(set(left) - REMEDY_NAMES):
        raise ValueError(f"unknown remedies {unknown}; known: {sorted(REMEDY_NAMES)}")
    now = history[-1]
    since = _aligned_since(history)
    told = f"alignment {now.alignment.value:.2f}, CER {now.cer:.0%}"
    if since is not None and now.alignment.value >= KEPT:
        return Verdict("aligned", f"since epoch {since} ({told})")
    if since is not None:
        return _lost(history, since, told, left)
    if now.epoch <= YOUNG_EPOCHS or now.updates < YOUNG_UPDATES:
        return Verdict("aligning", f"too early to say ({told})")
    improving = _improvement(history)
    if improving:
        return Verdict("aligning", f"{improving} ({told})")
    if now.cer < SPELLS and now.alignment.value >= KEPT:
        return Verdict("aligning", f"what was said is spelled, but {_symptoms(now)} ({told})")
    return Verdict("not aligning", f"{_symptoms(now)} ({told})", _tried(now, left))


def came_apart(history: Sequence[Validation]) -> bool:
    """Whether attention had aligned at some validation, in a run that is not aligning now."""
    return _aligned_since(history) is not None


def _aligned_since(history: Sequence[Validation]) -> int | None:
    """The first epoch at which attention had aligned, or None."""
    for seen in history:
        if seen.alignment.value >= ALIGNED and seen.cer < BABBLE:
            return seen.epoch
    return None


def _lost(history: Sequence[Validation], since: int, told: str, left: Mapping[str, str]) -> Verdict:
    """The verdict on attention that had aligned and came apart."""
    what = f"attention aligned in epoch {since} and came apart"
    if any(seen.alignment.value >= KEPT for seen in history[-WINDOW:]):
        return Verdict("aligning", f"{what}; it may come back ({told})")
    advice = (
        "go back to the best checkpoint with a lower learning rate, "
        "or lower teacher forcing later and less",
        *_tried(history[-1], left),
    )
    return Verdict("not aligning", f"{what}: {_symptoms(history[-1])} ({told})", advice)


def _improvement(history: Sequence[Validation]) -> str:
    """What the last WINDOW validations brought over the WINDOW before them; empty if nothing.

    Not over all before: a recognizer that says nothing yet has a CER of 100 %, and gets worse when
    it begins to spell. Above that a CER goes up and down with how often `<eos>` comes, and falls
    only if all that is recent is lower than all before.
    """
    before, recent = history[-2 * WINDOW : -WINDOW], history[-WINDOW:]
    if not before:
        return "too few validations to say"
    fallen = (1 - BETTER) * min(s.cer for s in before)
    fell = min(s.cer for s in recent) < min(1 - BETTER, fallen)
    fell |= max(s.cer for s in recent) < fallen
    rose = max(s.alignment.value for s in recent) > BETTER + max(s.alignment.value for s in before)
    if fell:
        return "the CER is falling"
    return "attention is getting better" if rose and history[-1].cer <= 1 else ""


def _symptoms(seen: Validation) -> str:
    """What is wrong, in words, the worst first."""
    symptoms = [SYMPTOMS[part] for part in seen.alignment.failing()]
    if seen.cer > 1:
        symptoms.append("more is wrong than was said")
    return "; ".join(symptoms) or "attention looks aligned but what is spelled is not what was said"


def _tried(seen: Validation, left: Mapping[str, str]) -> tuple[str, ...]:
    """What to try, the weakest part's remedies first."""
    return advice(seen.alignment.failing() or PARTS, left)
