"""Settings as options of a command: every field becomes one, with its own description.

So a new setting is on the command line by itself, and says there what it says in its own room.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from spelldown.settings import Settings

PLAIN = (int, float, str, Path)


@dataclass(frozen=True)
class Section:
    """Settings that become options under one heading.

    names: other names for fields; fixed: fields that are no options, with their values
    """

    settings: type[Settings]
    heading: str
    names: Mapping[str, str]
    fixed: Mapping[str, Any]

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """The fields that are options."""
        every = self.settings.model_fields
        return {n: f for n, f in every.items() if n not in self.fixed and n != "kind"}

    def parameters(self) -> Iterable[Parameter]:
        """The options, for typer; None stands for one that is not given."""
        for name, field in self.fields.items():
            yield _parameter(self.names.get(name, name), field, self.heading)

    def read(self, given: Mapping[str, Any]) -> Settings:
        """The settings of what is given on the command line.

        Raises typer.BadParameter for values that they cannot have.
        """
        values: dict[str, Any] = dict(self.fixed)
        for name, field in self.fields.items():
            value = given.get(self.names.get(name, name))
            if value is not None:
                values[name] = _value(value, field.annotation)
        try:
            return self.settings(**values)
        except ValidationError as error:
            raise typer.BadParameter("; ".join(map(self._wrong, error.errors()))) from None

    def _wrong(self, found: Mapping[str, Any]) -> str:
        if not found["loc"]:  # of several options together; the message names them
            return str(found["msg"].removeprefix("Value error, "))
        name, *within = map(str, found["loc"])
        what = found["msg"].removeprefix("Value error, ")
        if not name:  # of several together
            return str(what)
        option = "--" + self.names.get(name, name).replace("_", "-")
        return f"{' '.join([option, *within])}: {what}"


def _parameter(name: str, field: FieldInfo, heading: str) -> Parameter:
    kind, wanted = _alone(field.annotation), None
    about, option = field.description or "", "--" + name.replace("_", "-")
    default = _shown(field)
    about = f"{about} (default: {default})" if default else about
    names: tuple[str, ...] = (option,)
    annotation: Any = str
    if kind is bool:
        annotation, names = bool, (f"{option}/--no-{option[2:]}",)
    elif kind in PLAIN:
        annotation = kind
    elif get_origin(kind) is Literal:
        annotation = _choice(name, get_args(kind))
    elif get_origin(kind) is tuple:
        wanted = {float: "LEAST,MOST", Path: "FILE"}.get(get_args(kind)[0], "NAME,...")
        annotation = list[str]
    elif _is_mapping(kind):
        annotation, wanted = list[str], "KEY=VALUE"
    else:
        wanted = "TEXT"
    said = typer.Option(
        *names, help=about, metavar=wanted, show_default=False, rich_help_panel=heading
    )
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation | None, said]
    )


def _choice(name: str, choices: Iterable[str]) -> Any:
    return Enum(name, {choice: choice for choice in choices}, type=str)


def _shown(field: FieldInfo) -> str:
    """A field's default as the help shows it; nothing where it says nothing."""
    default = field.default
    if default is PydanticUndefined or default is None or isinstance(default, Settings):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, dict):
        return ",".join(f"{name}={value:g}" for name, value in default.items())
    return f"{default:g}" if isinstance(default, float) else str(default)


def _alone(annotation: Any) -> Any:
    """A type without its None, where that leaves one type."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        left = [one for one in get_args(annotation) if one is not type(None)]
        return _alone(left[0]) if len(left) == 1 else annotation
    return annotation


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Settings))


def _value(given: Any, annotation: Any) -> Any:
    """What a field takes, from what typer gives."""
    kind = _alone(annotation)
    if isinstance(given, Enum):
        return given.value
    if get_origin(kind) is tuple and get_args(kind)[0] is Path:
        return tuple(given)  # a file's name may have commas: the option is given once for each
    if get_origin(kind) is tuple:
        return tuple(one.strip() for text in given for one in text.split(",") if one.strip())
    if _is_mapping(kind):
        return dict(_pair(text, kind) for text in _separated(given, kind))
    return given


def _separated(given: Iterable[str], kind: Any) -> Iterable[str]:
    """Pairs one by one; numbers may also be given in one go, `train=0.8,dev=0.2`."""
    if get_origin(kind) is dict and get_args(kind)[1] is float:
        return [one for text in given for one in text.replace(",", " ").split()]
    return given


def _pair(text: str, kind: Any) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{text!r}: KEY=VALUE expected")
    if get_origin(kind) is dict and get_args(kind)[1] is Any:
        try:
            return name.strip(), yaml.safe_load(value)
        except yaml.YAMLError as error:
            said = " ".join(str(getattr(error, "problem", None) or error).split())
            raise typer.BadParameter(f"{text!r}: {value!r} is no value ({said})") from None
    return name.strip(), None if value == "null" else value
