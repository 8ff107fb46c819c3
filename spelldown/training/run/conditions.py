"""What must be the same whenever a run goes on: its corpus, and for equal bits its threads."""

from collections.abc import Mapping
from typing import Any

import torch

from spelldown.data.batching import Batches
from spelldown.errors import RunError
from spelldown.training.parallel.ranks import Ranks

NUMBERS = 2
"""Counts up when equal seeds come to draw or sum otherwise than in the release before: 2 since
random draws, the layout of padding and half-precision frames are as they are now."""


def conditions(train: Batches, dev: Batches, ranks: Ranks) -> dict[str, Any]:
    """What both parts hold, and what equal bits take, as plain values: the release's `NUMBERS`, how
    many threads sums are split over, and how many processes.

    Raises RunError unless all processes read the same corpus.
    """
    corpus = {"train": train.contents(), "dev": dev.contents()}
    for rank, other in enumerate(ranks.everyones(corpus)):
        found = _changed(corpus, other)
        if found:
            raise RunError(
                f"processes {ranks.rank} and {rank} of this training read corpora that are not the "
                f"same: {'; '.join(found)}"
            )
    threads = torch.get_num_threads()
    return {"corpus": corpus, "threads": threads, "numbers": NUMBERS, "ranks": ranks.count}


def hold_to(before: Mapping[str, Any], now: Mapping[str, Any], run: object) -> str | None:
    """What to warn of if a run goes on under conditions other than `before`; None for nothing.

    before: empty for a run that kept none. Raises RunError if the corpus is not the one it was.
    """
    if not before:
        return None
    changed = _changed(before["corpus"], now["corpus"])
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
    if before.get("ranks", 1) != now["ranks"]:
        others.append(
            f"trained by {before.get('ranks', 1)} processes so far and now by {now['ranks']}: sums "
            "are rounded otherwise and chance draws otherwise"
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


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    parts = [(name, part, now[name]) for name, part in before.items()]
    return [
        f"{name} had {_counts(was)} and has {_counts(has)} (other {_lists(was, has)})"
        for name, was, has in parts
        if was != has
    ]


def _counts(part: Mapping[str, Any]) -> str:
    """`848 utterances of 223000 frames`."""
    return " of ".join(f"{many} {name}" for name, many in part.items() if isinstance(many, int))


def _lists(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What their digests differ in: `texts, speakers`."""
    names = [name for name, digest in {**one, **other}.items() if isinstance(digest, str)]
    return ", ".join(name for name in names if one.get(name) != other.get(name))
