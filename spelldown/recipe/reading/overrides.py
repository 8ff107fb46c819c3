"""Changes laid over a page: `listener.blocks.0.width=96` from the command line, or from a study."""

import copy
from typing import Any

from pydantic import BaseModel, TypeAdapter

from spelldown.errors import RecipeError
from spelldown.recipe.reading.page import (
    COMMAND_LINE,
    Page,
    Problem,
    change_kind,
    dropped_by,
    parse_value,
)
from spelldown.recipe.reading.places import KIND, Place, all_paths, default_of, dotted, nearest
from spelldown.recipe.reading.places import Path as Keys


def override(page: Page, text: str, root: Place) -> None:
    """Sets one `path=value` in the page; what is wrong with it goes to the page's problems.

    The value is read as YAML, so `[0.9, 1.1]`, `{kind: dot, width: 64}` and `null` work. Choosing
    another kind drops the keys that only the kind before knew; it is a problem if the command line
    itself has set them.
    """
    left, equals, right = text.partition("=")
    keys = tuple(left.strip().split("."))
    if not equals or not all(keys):
        page.problems.append(Problem((), f"{text!r} on the command line is not path=value"))
        return
    if not right.strip():
        page.problems.append(Problem(keys, f"has no value; write {left}=null for nothing"))
        return
    try:
        value = parse_value(right)
        _set(page, keys, value, root)
    except RecipeError as error:
        page.problems.append(Problem((), f"{text} ({COMMAND_LINE}): {error.summary}"))


def change(page: Page, path: str, value: Any, root: Place, origin: str) -> None:
    """Lays one value, or a group of settings, over the place at the dotted `path`.

    A group is merged with what stands there, as a page is with its base; an empty one stands for
    the defaults. `origin` says where the change is written, `study.yaml:7`; what is wrong with it
    goes to the page's problems.
    """
    keys = tuple(path.split("."))
    try:
        if not all(keys):
            raise RecipeError(f"{path!r} is not a path such as listener.blocks.0.width")
        # A copy: a later change may lie within, and the value may be laid over other pages too.
        _lay(page, keys, copy.deepcopy(value), root, origin)
    except RecipeError as error:
        page.problems.append(Problem((), f"{error.summary} ({origin})"))


def _lay(page: Page, keys: tuple[str, ...], value: Any, root: Place, origin: str) -> None:
    if isinstance(value, dict) and value and _takes_settings(page.data, keys, root):
        for key in sorted(value, key=lambda key: key != KIND):  # the kind decides what may follow
            _lay(page, (*keys, key), value[key], root, origin)
        return
    _set(page, keys, value, root, origin)


def _takes_settings(at: Any, keys: tuple[str, ...], root: Place) -> bool:
    """Whether a component's settings stand at a place, and not a list or a plain value."""
    place: Place | None = root
    for key in keys:
        step: str | int = int(key) if isinstance(at, list) and key.isdecimal() else key
        place = place.below(step, at) if place is not None else None
        if isinstance(at, list):
            at = at[step] if isinstance(step, int) and step < len(at) else None
        else:
            at = at.get(step) if isinstance(at, dict) else None
    return place is not None and bool(place.kinds)


def _set(
    page: Page, keys: tuple[str, ...], value: Any, root: Place, origin: str = COMMAND_LINE
) -> None:
    at: Any = page.data
    place: Place | None = root
    path: Keys = ()
    for position, key in enumerate(keys):
        step = _step(at, key, path)
        absent = isinstance(at, dict) and key not in at
        if absent and place is not None and place.kinds and key not in place.fields(at):
            raise RecipeError(_no_such_place(keys, path, at, place, page.data, root))
        below = place.below(step, at) if place is not None else None
        path = (*path, step)
        if position == len(keys) - 1:
            if step == KIND and isinstance(at, dict):
                if origin == COMMAND_LINE:
                    _hold_to_what_was_said(page, path[:-1], at, value, place)
                change_kind(at, value, place)
            at[step] = value
            _note_origin(page, path, origin)
        else:
            if isinstance(at, dict) and at.get(key) is None:
                at[key] = _start(place, key, at)
            at, place = at[step], below


def _hold_to_what_was_said(
    page: Page, path: Keys, at: dict[str, Any], kind: Any, place: Place | None
) -> None:
    """RecipeError if another kind would undo what stands on the command line before it."""
    lost = [*([KIND] if at.get(KIND) != kind else []), *dropped_by(at, kind, place)]
    said = [
        f"{dotted((*path, key))}={at[key]}"
        for key in lost
        if page.origins.get((*path, key)) == COMMAND_LINE
    ]
    if said:
        raise RecipeError(f"would undo {' and '.join(said)} before it")


def _step(at: Any, key: str, path: Keys) -> str | int:
    if isinstance(at, dict):
        return key
    if not isinstance(at, list):
        raise RecipeError(f"{dotted(path)} is the value {at!r}; nothing stands below it")
    entries = f"{dotted(path)} has {len(at)} entries" + (f", 0 to {len(at) - 1}" if at else "")
    if not key.isdecimal():
        raise RecipeError(f"{entries}; {key!r} is not the number of one")
    if int(key) >= len(at):
        raise RecipeError(f"there is no entry {key}: {entries}")
    return int(key)


def _start(place: Place | None, key: str, at: dict[str, Any]) -> Any:
    """What an absent section holds before its first key is set: its default, or nothing."""
    info = place.fields(at).get(key) if place is not None else None
    default = None if info is None else default_of(info)
    return {} if default is None else as_page(default)


def as_page(value: Any) -> Any:
    """Settings, or a value of theirs, as a page would state it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return copy.deepcopy(TypeAdapter(Any).dump_python(value, mode="json"))


def _note_origin(page: Page, path: Keys, origin: str) -> None:
    for known in [known for known in page.origins if known[: len(path)] == path]:
        del page.origins[known]
    page.origins[path] = origin


def _no_such_place(
    keys: tuple[str, ...],
    path: Keys,
    at: Any,
    place: Place,
    data: dict[str, Any],
    root: Place,
) -> str:
    """`there is no optimizer.rte; did you mean optimizer.rate?`, with the user's own indices.

    `path` led somewhere, to the settings `at` of `place`; what comes after it did not.
    """
    others = [kind for kind in place.names if keys[len(path)] in place.fields({KIND: kind})]
    if path and len(path) == len(keys) - 1:
        # What another kind has was hardly misspelled, unless it is very near
        near = nearest(keys[-1], sorted(place.fields(at)), at_least=85 if others else 60)
        if near is not None:
            return f"there is no {'.'.join(keys)}; did you mean {dotted((*path, near))}?"
    if others:
        choose = " or ".join(f"{dotted((*path, KIND))}={kind}" for kind in others)
        return f"kind {at.get(KIND)} has no {keys[len(path)]}; choose {choose} before it"
    numbers = [key for key in keys if key.isdecimal()]
    typed = ".".join("0" if key.isdecimal() else key for key in keys)
    known = {dotted(path) for path in all_paths(root)}
    close = nearest(typed, sorted(known), at_least=70) or _same_last_key(keys[-1], known)
    message = f"there is no {'.'.join(keys)}"
    if close is None:
        return message + f"; sections: {', '.join(sorted(root.fields(data)))}"
    parts = [numbers.pop(0) if part == "0" and numbers else part for part in close.split(".")]
    return message + f"; did you mean {'.'.join(parts)}?"


def _same_last_key(key: str, known: set[str]) -> str | None:
    same = sorted((path for path in known if path.split(".")[-1] == key), key=len)
    return same[0] if same else None
