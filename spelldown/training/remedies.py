"""What is known to make attention align, and which of it to try.

Each remedy names the setting that brings it. What was measured of them stands in docs/log.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["monotonic", "coverage", "peaked", "ended"]
PARTS: tuple[Part, ...] = ("monotonic", "coverage", "peaked", "ended")
"""What `spelldown.training.alignment` measures of attention."""


MOST_DROPOUT = 0.2
"""From more than this on, dropout keeps attention from aligning for long, or for good."""


@dataclass(frozen=True)
class Remedy:
    """Something that is known to make attention align.

    typed:     the settings that bring it; N stands for a block of the recipe
    on_top_of: advised only to runs that have that other remedy in use
    """

    name: str
    helps: tuple[Part, ...]
    text: str
    typed: str
    on_top_of: str | None = None


REMEDIES = (
    Remedy(
        "norm",
        ("monotonic", "coverage", "peaked"),
        "put a layer norm after each LSTM layer of the listener",
        "listener.blocks.N.norm=layer",
    ),
    Remedy(
        "ctc",
        ("monotonic", "coverage", "peaked"),
        "teach the listener letters directly: an auxiliary CTC head",
        "ctc={} loss.ctc_weight=0.3",
    ),
    Remedy(
        "convolutions",
        ("monotonic", "coverage", "peaked"),
        "hear through plain convolutions, or a pyramid of LSTMs, in place of mobile ones",
        "'listener.blocks.N={kind: conv, widths: [128, 128], stride: 2}'",
    ),
    Remedy(
        "dropout",
        ("monotonic", "coverage", "peaked"),
        "drop no more than a fifth of what listener and speller pass on",
        f"listener.blocks.N.dropout={MOST_DROPOUT} speller.dropout={MOST_DROPOUT}",
    ),
    Remedy(
        "late-augment",
        ("peaked", "coverage"),
        "switch masks on only after the first epochs",
        "augment.from_epoch=5",
    ),
    Remedy(
        "leading-ctc",
        ("monotonic", "coverage", "peaked"),
        "let CTC lead until the listener has learnt letters, then fade it",
        "loss.ctc_weight=0.7 loss.ctc_weight_end=0.3 'loss.ctc_fade=[5, 20]'",
        on_top_of="ctc",
    ),
    Remedy(
        "reduction",
        ("peaked", "coverage"),
        "give attention fewer frames to choose from: a listener that reduces 4 to 8 times",
        "'listener.blocks.N.stride=[2, 2]'",
    ),
    Remedy(
        "shortest-first",
        ("coverage", "monotonic", "peaked"),
        "begin with short utterances",
        "batching.shortest_first_epochs=2",
    ),
    Remedy(
        "warm-up",
        ("peaked", "coverage"),
        "warm up: a rate that rises over the first epochs, and gradients clipped at 1",
        "schedule.warmup=2 optimizer.clip=1",
    ),
    Remedy(
        "label-smoothing",
        ("ended",),
        "keep the speller from trusting its own spelling too far",
        "loss.label_smoothing=0.1",
    ),
    Remedy(
        "teacher-forcing",
        ("monotonic", "coverage", "peaked", "ended"),
        "keep teacher forcing at 1 until attention has aligned",
        "teacher_forcing.kind=after-alignment",
    ),
    Remedy(
        "location",
        ("monotonic", "ended"),
        "let attention know where it looked last",
        "attention.kind=location",
    ),
)
"""In the order in which a run is repaired: what was measured to matter, down to late augmentation
(docs/results.md), then what the literature advises."""
REMEDY_NAMES = frozenset(remedy.name for remedy in REMEDIES)


ALL = {remedy.name: remedy.typed for remedy in REMEDIES if remedy.on_top_of is None}
"""What to type for each, of a recipe that nobody knows."""


def advice(
    failing: Sequence[Part], left: Mapping[str, str] = ALL, most: int = 4
) -> tuple[str, ...]:
    """The remedies that are left for the parts that fail, those for the first (weakest) part first.

    left: what to type for each remedy that a run does not use yet, by its name
    """
    rank = {part: place for place, part in enumerate(failing)}
    found = [one for one in REMEDIES if one.name in left and rank.keys() & set(one.helps)]
    found.sort(key=lambda remedy: min(rank[part] for part in remedy.helps if part in rank))
    if not found:
        return (
            "give it time: a small corpus has few updates an epoch, and some take a few thousand",
            "look at the data: do the transcripts belong to the features, and is <eos> in them?",
        )
    return tuple(f"{remedy.text} ({left[remedy.name]})" for remedy in found[:most])


def untried(in_use: frozenset[str] | set[str]) -> list[Remedy]:
    """The remedies not in use that could be taken, in the order of `REMEDIES`."""
    return [
        remedy
        for remedy in REMEDIES
        if remedy.name not in in_use and (remedy.on_top_of is None or remedy.on_top_of in in_use)
    ]


def finite_again(rate: float, clip: float | None) -> str:
    """What keeps losses and gradients finite, from the likeliest on, as overrides."""
    return (
        f"a lower rate (optimizer.rate={rate / 3:.1g}, now {rate:g}) or a longer warm-up; clipping "
        f"(optimizer.clip=1, now {clip}); float32 products (training.precision=float32)"
    )
