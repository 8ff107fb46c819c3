"""Everything that is wrong with a page, at once and in words.

pydantic stops at the first stage that fails: it reports wrong keys, and impossible combinations
only once every key is right. So each section is validated, what is wrong is written down and
mended as the author most likely meant it, and the section is validated again, until nothing new
turns up. The mended values are never used: they only let the remaining mistakes be seen.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from spelldown.recipe.reading.page import Problem
from spelldown.recipe.reading.places import (
    KIND,
    Place,
    all_paths,
    default_of,
    dotted,
    nearest,
    place_of_field,
)
from spelldown.recipe.reading.places import Path as Keys

ROUNDS = 30  # of validating and mending; each round mends at least one value


@dataclass(frozen=True)
class Clash:
    """Settings that are each right but impossible together.

    `path` is the dotted place to name; `also` are the other places that were looked at, where
    `blocks.*` is all that stands under `blocks`.
    """

    path: str
    message: str
    also: tuple[str, ...] = ()


@dataclass
class Checked:
    """The sections that could be read, what is wrong, and the places that were only guessed."""

    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    guessed: set[Keys] = field(default_factory=set)

    def trusts(self, clash: Clash) -> bool:
        """Whether a clash rests on what the author wrote and not on a guess of ours."""
        guessed = {dotted(path) for path in self.guessed}
        for place in (clash.path, *clash.also):
            above = tuple(_upwards(place.removesuffix(".*")))
            if guessed.intersection(above):
                return False
            if place.endswith(".*") and any(path.startswith(place[:-1]) for path in guessed):
                return False
        return True


def _upwards(path: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def check_sections(data: Mapping[str, Any], model: type[BaseModel]) -> Checked:
    """Validates each section of a page against the fields of `model`, strictly.

    Strictly: `"3"` is not a number and `yes` is not 1.
    """
    checked = Checked()
    root = Place(kinds=((None, model),))
    data = {key: copy.deepcopy(value) for key, value in data.items()}
    for key in [key for key in data if key not in model.model_fields]:
        checked.problems.append(Problem((key,), _unknown(key, data, root, root)))
        meant = nearest(key, [name for name in model.model_fields if name not in data])
        if meant is not None:
            data[meant] = data[key]
    for name, info in model.model_fields.items():
        if name in data:
            place = place_of_field(info)
            _Section(name, data[name], place, info, root, checked).check()
        elif info.is_required():
            checked.problems.append(Problem((name,), "is missing, and a recipe cannot do without"))
        else:
            checked.sections[name] = default_of(info)
    return checked


@dataclass
class _Section:
    name: str
    value: Any
    place: Place
    info: FieldInfo
    root: Place
    checked: Checked

    def check(self) -> None:
        annotated: Any = Annotated[self.info.annotation, self.info]
        adapter: TypeAdapter[Any] = TypeAdapter(annotated)
        _fill_kinds(self.value, self.place, default_of(self.info))
        told: set[tuple[Keys, str]] = set()
        for _ in range(ROUNDS):
            try:
                text = json.dumps(self.value)
                self.checked.sections[self.name] = adapter.validate_json(text, strict=True)
                return
            except ValidationError as error:
                if not any([self.note(each, told) for each in _telling(error.errors())]):
                    return

    def note(self, error: ErrorDetails, told: set[tuple[Keys, str]]) -> bool:
        """Writes one error down and mends its cause; whether the value changed."""
        keys = _keys_of(error["loc"], self.value, self.place)
        problem = self.problem(error, keys)
        if (problem.path, problem.message) not in told:
            told.add((problem.path, problem.message))
            if not self.rests_on_a_guess(error, problem):
                self.checked.problems.append(self.of_its_key(error, problem))
        return self.mend(error, keys)

    def problem(self, error: ErrorDetails, keys: Keys) -> Problem:
        path = (self.name, *keys)
        holder, place = self.at(keys[:-1]) if keys else (None, None)
        last = str(keys[-1]) if keys else self.name
        if error["type"] == "extra_forbidden" and place is not None:
            return Problem(path, _unknown(last, holder, place, self.root))
        if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            value, place = self.at(keys)
            return Problem((*path, KIND), _wrong_kind(value, place))
        field = place.fields(holder).get(last) if place is not None else self.info
        if error["type"] == "string_pattern_mismatch" and field is not None and field.examples:
            written = " or ".join(map(str, field.examples))
            return Problem(path, f"should be written as {written}, found {_shown(error['input'])}")
        return Problem(path, said(error))

    def rests_on_a_guess(self, error: ErrorDetails, problem: Problem) -> bool:
        below = [path for path in self.checked.guessed if path[: len(problem.path)] == problem.path]
        return error["type"] in _COMBINED and any(str(path[-1]) in error["msg"] for path in below)

    def of_its_key(self, error: ErrorDetails, problem: Problem) -> Problem:
        """Of settings that do not fit together: the key that is named, `nbest: 5 of a beam of 4`,
        whose own line is then told."""
        key, _, rest = problem.message.partition(": ")
        stated = error["input"] if isinstance(error["input"], dict) else {}
        if error["type"] in _COMBINED and key in stated:
            return Problem((*problem.path, key), rest)
        return problem

    def at(self, keys: Keys) -> tuple[Any, Place | None]:
        value, place = self.value, self.place
        for key in keys:
            below = place.below(key, value) if place is not None else None
            value, place = _child(value, key), below  # type: ignore[assignment]
        return value, place

    def mend(self, error: ErrorDetails, keys: Keys) -> bool:
        if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            value, place = self.at(keys)
            kind = value.get(KIND) if isinstance(value, dict) else None
            names = place.names if place is not None else ()
            meant = nearest(kind, names) if isinstance(kind, str) else None
            if meant is None or not isinstance(value, dict):
                return False
            value[KIND] = meant
            return True
        if error["type"] == "extra_forbidden":
            return self.rename(keys)
        return any(self.replace(keys[:end]) for end in range(len(keys), 0, -1))

    def rename(self, keys: Keys) -> bool:
        """An unknown key is taken for the nearest one that is still free, or taken away."""
        holder, place = self.at(keys[:-1])
        if not isinstance(holder, dict) or place is None or keys[-1] not in holder:
            return False
        free = [name for name in place.fields(holder) if name not in holder]
        meant = nearest(str(keys[-1]), free)
        value = holder.pop(keys[-1])
        if meant is not None:
            holder[meant] = value
        return True

    def replace(self, keys: Keys) -> bool:
        """A wrong value gives way to its key's default; without one nothing can be done."""
        holder, place = self.at(keys[:-1])
        if not isinstance(holder, dict) or place is None or keys[-1] not in holder:
            return False
        info = place.fields(holder).get(str(keys[-1]))
        if info is None or info.is_required():
            return False
        del holder[keys[-1]]
        self.checked.guessed.add((self.name, *keys))
        return True


def _telling(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors less those that only follow from others.

    Where either a list or a mapping may stand, pydantic reports for both; if one of them got as far
    as its elements, the other's type is no news. A list of which every element is wrong counts as
    empty for it, and so as too short.
    """
    deeper = [
        error["loc"]
        for error in errors
        if error["type"] not in _WRONG_SHAPE and any("[" in str(key) for key in error["loc"])
    ]

    def tells(error: ErrorDetails) -> bool:
        if error["type"] == "too_short":
            return bool(error["ctx"]["actual_length"] == len(error["input"]))
        tried = error["loc"][:-1]
        return error["type"] not in _WRONG_SHAPE or not any(
            location[: len(tried)] == tried for location in deeper
        )

    return [error for error in errors if tells(error)]


_WRONG_SHAPE = ("dict_type", "list_type", "tuple_type")
_COMBINED = ("value_error", "assertion_error")


def _child(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return None


def _fill_kinds(value: Any, place: Place, default: Any = None) -> None:
    """Gives settings that leave their kind open the kind of the default, where there is one."""
    if isinstance(value, list) and place.item is not None:
        for item in value:
            _fill_kinds(item, place.item)
    if not isinstance(value, dict):
        return
    if KIND not in value and place.names and isinstance(default, BaseModel):
        value[KIND] = getattr(default, KIND)
    for key, info in place.fields(value).items():
        if key in value:
            _fill_kinds(value[key], place_of_field(info), default_of(info))


def _keys_of(location: Sequence[str | int], value: Any, place: Place | None) -> Keys:
    """The keys of a page that an error's location means.

    pydantic puts the kind of a union into the location, and the member of a union of plain types;
    a page has neither.
    """
    keys: list[str | int] = []
    steps = list(location)
    while steps:
        if place is not None and isinstance(steps[0], str) and steps[0] in place.names:
            steps.pop(0)  # the kind of a union stands between a settings' key and its own keys
            if not steps:
                break
        key = steps.pop(0)
        if isinstance(value, list) and not isinstance(key, int):
            continue
        if not isinstance(value, dict | list):
            continue
        if isinstance(value, dict) and (place is None or not place.kinds) and key not in value:
            continue
        keys.append(key)
        value, place = _child(value, key), place.below(key, value) if place is not None else None
    return tuple(keys)


def _unknown(key: str, holder: Any, place: Place, root: Place) -> str:
    siblings = [name for name in place.fields(holder) if name != KIND]
    meant = nearest(key, siblings)
    if meant is not None:
        return f"unknown key; did you mean {meant!r}?"
    here = f"keys here: {', '.join(siblings)}"
    others = [kind for kind in place.names if key in place.fields({KIND: kind})]
    if others:
        return f"kind {holder.get(KIND)} has no such key, but {', '.join(others)} has; {here}"
    elsewhere = sorted({dotted(path) for path in all_paths(root) if path[-1] == key}, key=len)
    if elsewhere:
        return f"unknown key here; there is {elsewhere[0]!r}"
    return f"unknown key; {here}"


def _wrong_kind(value: Any, place: Place | None) -> str:
    names = place.names if place is not None else ()
    kind = value.get(KIND) if isinstance(value, dict) else None
    choices = f"kinds: {', '.join(names)}"
    if kind is None:
        return f"is missing; {choices}"
    meant = nearest(kind, names) if isinstance(kind, str) else None
    guess = f"did you mean {meant!r}? " if meant is not None else ""
    return f"there is no kind {kind!r}; {guess}{choices}"


def said(error: ErrorDetails) -> str:
    """An error of pydantic's in one sentence: what would be right, and what was found."""
    kind, found = error["type"], error["input"]
    if kind in _COMBINED:
        return str(error["ctx"]["error"])
    if kind == "missing":
        if isinstance(error["loc"][-1], int):
            return f"the list is too short: it needs an entry {error['loc'][-1]} (counted from 0)"
        return "is missing, and there is no default"
    message = error["msg"].replace("Input should be", "should be")
    message = message.replace("an object", "a group of `key: value`")
    message = message.replace("a valid array", "a list").replace(
        "a valid integer", "a whole number"
    )
    message = message.replace("a valid ", "a ")
    message = re.sub(r"^(Tuple|List)", "the list", message).replace(" after validation", "")
    words = f"{message}, found {_shown(found)}"
    if kind == "literal_error" and isinstance(found, str):
        meant = nearest(found, re.findall(r"'([^']*)'", str(error["ctx"]["expected"])))
        words += f"; did you mean {meant!r}?" if meant is not None else ""
    return words


def _shown(value: Any) -> str:
    text = "null" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
