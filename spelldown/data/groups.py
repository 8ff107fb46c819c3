"""Utterances in groups by what is known of them: adults and children, speakers, languages.

A way of grouping is written as one word: `gender`, `speaker`, `language`, or whatever else a
corpus tells of its utterances (`age`, `voice`); with a number behind a colon, `age:16`, into those
below it and the others.
"""

from collections.abc import Sequence
from typing import Any

from lhotse.cut import Cut

from spelldown.errors import DataError

KNOWN = ("speaker", "gender", "language")  # that lhotse has a place for; the rest is custom


def grouped_by(cuts: Sequence[Cut], by: str) -> dict[str, list[int]]:
    """The places of the utterances in each group, groups in the order of their names.

    by: `gender`, `age:16`, ... (see above). An utterance of which it is not known is in a group of
    its own. Raises DataError where it is known of none, naming what is, or is not a number where a
    number parts the groups.
    """
    key, _, border = by.partition(":")
    about = [_about(cut) for cut in cuts]
    known = sorted(set().union(*about)) if about else []
    if key not in known:
        raise DataError(
            f"nothing is known of the utterances' {key!r}; "
            + (f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if known else
               "nothing else either")
        )  # fmt: skip
    values = [one.get(key) for one in about]
    if border:
        names = _sides(key, border, values)
    else:
        names = [f"no {key}" if value is None else f"{key} {value}" for value in values]
    places: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    for place, name in enumerate(names):
        places[name].append(place)
    return places


def _sides(key: str, border: str, values: Sequence[Any]) -> list[str]:
    try:
        limit = float(border)
        numbers = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise DataError(f"{key}:{border} parts numbers, and found none: {error}") from error
    sides = (f"{key} under {border}", f"{key} {border} or more")
    return [f"no {key}" if one is None else sides[one >= limit] for one in numbers]


def _about(cut: Cut) -> dict[str, Any]:
    """What is known of an utterance, by name; plain values only."""
    found: dict[str, Any] = {}
    for supervision in cut.supervisions:
        told = {key: getattr(supervision, key) for key in KNOWN} | (supervision.custom or {})
        for key, value in told.items():
            if isinstance(value, str | int | float):
                found.setdefault(key, value)
    return found
