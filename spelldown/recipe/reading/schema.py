"""The JSON schema of a recipe's page, from which editors complete, explain and check.

The schema is kinder than reading a recipe is: a page that builds on a base states only what
differs, so nothing is required, and settings that leave their kind open fit any kind. Each key's
explanation is taken from where its component explains it: a description in its Field, the string
under the attribute, or the class's docstring (`key: what it does.`).
"""

import ast
import inspect
import json
import re
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from spelldown.recipe.reading.page import BASE

BASE_DESCRIPTION = "a page that this one builds on, its path relative to this page"


def json_schema(model: type[BaseModel], title: str = "spelldown recipe") -> dict[str, Any]:
    """The schema of pages that describe a `model`, for editors."""
    schema = model.model_json_schema(schema_generator=_Explained)
    _soften(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    base = {"type": "string", "description": BASE_DESCRIPTION}
    schema["properties"] = {BASE: base, **schema["properties"]}
    return schema


def schema_text(model: type[BaseModel], title: str = "spelldown recipe") -> str:
    """The schema as it is written to recipes/schema.json."""
    return json.dumps(json_schema(model, title), indent=2, ensure_ascii=False) + "\n"


class _Explained(GenerateJsonSchema):
    """pydantic's schema, with the explanations that stand in docstrings."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        result = super().model_schema(schema)
        for name, text in explanations(schema["cls"]).items():
            if name in result.get("properties", {}):
                result["properties"][name].setdefault("description", text)
        return result


def explanations(model: type[BaseModel]) -> dict[str, str]:
    """What each key of a settings class does, in its author's words; inherited ones too."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found.update(_in_docstring(cls))
            found.update(_under_attributes(cls))
    for name, info in model.model_fields.items():
        if info.description:
            found[name] = info.description
    return found


def _in_docstring(cls: type[BaseModel]) -> dict[str, str]:
    """`key: what it does.` and `one, other: what they do.`, continued on indented lines."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    names = "|".join(map(re.escape, cls.model_fields))
    entries = re.findall(rf"(?ms)^((?:{names})(?:, (?:{names}))*):[ ]+(.*?)(?=^\S|\Z)", text)
    return {name: " ".join(words.split()) for keys, words in entries for name in keys.split(", ")}


def _under_attributes(cls: type[BaseModel]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # no source at hand
        return {}
    body = ast.parse(source).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = " ".join(after.value.value.split())
    return found


def _soften(schema: Any) -> None:
    """Takes out, in place, what a page that builds on another cannot promise."""
    if isinstance(schema, list):
        for item in schema:
            _soften(item)
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.pop("required", None)
        if "oneOf" in schema:
            schema["anyOf"] = schema.pop("oneOf")
            schema.pop("discriminator", None)
        for value in schema.values():
            _soften(value)
