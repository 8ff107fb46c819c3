"""What must be the same whenever a run goes on: its corpus, and for equal bits its threads."""

from collections.abc import Mapping
from typing import Any

import torch

from spelldown.data.batching import Batches
from spelldown.errors import RunError

NUMBERS = 2
"""Counts up when equal seeds come to draw or sum otherwise than in the release before: 2 since
random draws, the layout of padding and half-precision frames are as they are now."""
LISTS = ("ids", "frame counts", "texts")


def conditions(train: Batches, dev: Batches) -> dict[str, Any]:
    """What both parts hold, and what equal bits take, as plain values: the release's `NUMBERS`, and
    how many threads sums are split over."""
    corpus = {"train": train.contents(), "dev": dev.contents()}
    return {"corpus": corpus, "threads": torch.get_num_threads(), "numbers": NUMBERS}


def hold_to(before: Mapping[str, Any], now: Mapping[str, Any], run: object) -> str | None:
    """What to warn of if a run goes on under conditions other than `before`; None for nothing.

    before: empty for a run that kept none. Raises RunError if the corpus is not the one it was.
    """
    if not before:
        return None
    parts = [(name, part, now["corpus"][name]) for name, part in before["corpus"].items()]
    changed = [
        f"{name} had {_counts(was)} and has {_counts(has)} (other {_lists(was, has)})"
        for name, was, has in parts
        if was != has
    ]
    if changed:
        raise RunError(
            f"{run}: the corpus is not the one that this run was trained on: {'; '.join(changed)}. "
            "Restore it to go on, or begin a new run"
        )
    others = []
    if before["threads"] != now["threads"]:
        others.append(
            f"trained on {before['threads']} threads so far and now on {now['threads']}: sums are "
            "rounded otherwise"
        )
    if before.get("numbers", 1) != now["numbers"]:
        others.append(
            "trained by another release of spelldown so far, which draws by chance and rounds "
            "otherwise"
        )
    if not others:
        return None
    but = "so that the run will not end with the very weights of an unbroken one"
    return f"{'; '.join(others)}, {but}"


def _counts(part: Mapping[str, Any]) -> str:
    return f"{part['utterances']} utterances of {part['frames']} frames"


def _lists(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(name for name in LISTS if one[name] != other[name])
