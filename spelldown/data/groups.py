"""Utterances in groups by what is known of them: adults and children, speakers, languages.

A way of grouping is written as one word: `gender`, `speaker`, `language`, or whatever else a
corpus tells of its utterances (`age`, `voice`); with a number behind a colon, `age:16`, into those
below it and the others; with several, `age:14,16`, into what lies between them.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from lhotse.cut import Cut

from spelldown.errors import DataError

KNOWN = ("speaker", "gender", "language")  # that lhotse has a place for; the rest is custom


def grouped_by(cuts: Sequence[Cut], by: str) -> dict[str, list[int]]:
    """The places of the utterances in each group: by name, or from low to high numbers.

    by: `gender`, `age:16`, ... (see above). An utterance of which it is not known is in a group of
    its own. Raises DataError where it is known of none, naming what is, or is not a number where
    numbers part the groups, or for numbers that do not rise.
    """
    key, colon, borders = by.partition(":")
    limits = _limits(by, borders) if colon else []
    about = [_about(cut) for cut in cuts]
    known = sorted(set().union(*about)) if about else []
    if key not in known:
        raise DataError(
            f"nothing is known of the utterances' {key!r}; "
            + (f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if known else
               "nothing else either")
        )  # fmt: skip
    values = [one.get(key) for one in about]
    if limits:
        names, order = _between(by, limits, values)
    else:
        names = [f"no {key}" if value is None else f"{key} {value}" for value in values]
        order = sorted(set(names))
    places: dict[str, list[int]] = {name: [] for name in order if name in names}
    for place, name in enumerate(names):
        places[name].append(place)
    return places


def _limits(by: str, borders: str) -> list[float]:
    """The numbers behind the colon, which must rise."""
    try:
        limits = [float(border) for border in borders.split(",")]
    except ValueError:
        limits = []
    if not limits or not all(map(isfinite, limits)) or limits != sorted(set(limits)):
        raise DataError(
            f"{by}: after the colon stand the numbers at which groups part, from low to high and "
            "with commas between, as in age:16 or age:14,16"
        )
    return limits


def _between(
    by: str, limits: Sequence[float], values: Sequence[Any]
) -> tuple[list[str], list[str]]:
    """Each value's group, and all groups from low to high with the unknown last."""
    key, _, borders = by.partition(":")
    written = [border.strip() for border in borders.split(",")]
    try:
        numbers = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise DataError(f"{by} parts numbers, and found none: {error}") from error
    groups = [f"{key} under {written[0]}"]
    groups += [f"{key} {low} to under {high}" for low, high in pairwise(written)]
    groups.append(f"{key} {written[-1]} or more")
    names = [f"no {key}" if one is None else groups[bisect_right(limits, one)] for one in numbers]
    return names, [*groups, f"no {key}"]


def _about(cut: Cut) -> dict[str, Any]:
    """What is known of an utterance, by name; plain values only."""
    found: dict[str, Any] = {}
    for supervision in cut.supervisions:
        told = {key: getattr(supervision, key) for key in KNOWN} | (supervision.custom or {})
        for key, value in told.items():
            if isinstance(value, str | int | float):
                found.setdefault(key, value)
    return found
