"""What may stand at each place of a recipe's page, read off the settings classes.

A place is one dotted path such as `listener.blocks.0.width`. Error messages, overrides and the
merging of pages ask here which keys and kinds a place knows, so that every component's settings
class stays the only list of its keys.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rapidfuzz import fuzz, process

Path = tuple[str | int, ...]
KIND = "kind"  # the key by which every union of settings is told apart


@dataclass(frozen=True)
class Place:
    """What one place may hold: settings of one or several kinds, a list of places, or a value.

    `kinds` maps the name of a kind to its settings class; settings without a choice of kind stand
    under None. `item` is the place of a list's elements. A plain value has neither.
    """

    kinds: tuple[tuple[str | None, type[BaseModel]], ...] = ()
    item: "Place | None" = None

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds to choose from; empty where there is no choice."""
        return tuple(name for name, _ in self.kinds if name is not None)

    def model(self, value: Any) -> type[BaseModel] | None:
        """The settings class that `value` (a mapping of the page) means, or None."""
        known = dict(self.kinds)
        if None in known:
            return known[None]
        kind = value.get(KIND) if isinstance(value, Mapping) else None
        return known.get(kind) if isinstance(kind, str) else None

    def fields(self, value: Any) -> dict[str, FieldInfo]:
        """The keys that may stand in `value`; those of all kinds if its kind is unknown."""
        chosen = self.model(value)
        models = [chosen] if chosen is not None else [model for _, model in self.kinds]
        return {name: info for model in models for name, info in model.model_fields.items()}

    def below(self, key: str | int, value: Any) -> "Place | None":
        """The place under `key` of `value`, or None where nothing may stand."""
        if isinstance(key, int):
            return self.item
        info = self.fields(value).get(key)
        return None if info is None else place_of_field(info)


def place_of_field(info: FieldInfo) -> Place:
    """The place that a field of a settings class describes."""
    return _place(info.annotation)


def place_of_model(model: type[BaseModel]) -> Place:
    """The place that holds settings of exactly this class."""
    return Place(kinds=((None, model),))


def default_of(info: FieldInfo) -> Any:
    """The default of a field, or None where it has none."""
    if info.is_required():
        return None
    return info.get_default(call_default_factory=True, validated_data={})


def _place(annotation: Any) -> Place:
    models = tuple(_models(annotation))
    if len(models) == 1:
        return place_of_model(models[0])
    if models:
        return Place(kinds=tuple((kind, model) for model in models for kind in kinds_of(model)))
    for part in _alternatives(annotation):
        origin = get_origin(part)
        arguments = [argument for argument in get_args(part) if argument is not Ellipsis]
        if isinstance(origin, type) and issubclass(origin, Sequence) and arguments:
            return Place(item=_place(arguments[0]))
    return Place()


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, however nested in Annotated and Union, without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif annotation is not type(None):
        yield annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def kinds_of(model: type[BaseModel]) -> tuple[str | None, ...]:
    """The names by which a settings class may be chosen: the literals of its `kind`."""
    info = model.model_fields.get(KIND)
    if info is None or get_origin(info.annotation) is not Literal:
        return (None,)
    return tuple(str(name) for name in get_args(info.annotation))


def nearest(word: str, choices: Sequence[str], at_least: float = 60.0) -> str | None:
    """The choice that `word` most likely meant, or None if none is near.

    Likeness is Indel similarity in percent, lower-cased and with `-` read as `_`.
    """

    def plain(text: str) -> str:
        return str(text).lower().replace("-", "_")

    found = process.extractOne(
        word, choices, scorer=fuzz.ratio, processor=plain, score_cutoff=at_least
    )
    return None if found is None else str(found[0])


def all_paths(place: Place, before: Path = (), depth: int = 5) -> Iterator[Path]:
    """Every path of keys under a place, with 0 for the index of a list."""
    if depth == 0:
        return
    for _, model in place.kinds:
        for name, info in model.model_fields.items():
            yield (*before, name)
            yield from all_paths(place_of_field(info), (*before, name), depth - 1)
    if place.item is not None:
        yield from all_paths(place.item, (*before, 0), depth - 1)


def dotted(path: Path) -> str:
    """`listener.blocks.0.width` for ("listener", "blocks", 0, "width")."""
    return ".".join(str(key) for key in path)
