"""What tells runs apart, so that none is made twice and none is taken for another.

A run is what it learns. How it is made is no part of that: on how many threads, on which device,
and within how much memory, since an update that is made in parts is that of the whole batch up to
rounding (dropout draws otherwise, and batch norm hears each part by itself). So a study goes on
with the runs that it has when it is resumed on another machine, or with another `--memory`. With
two exceptions:

- a row that itself changes one of these is there to be measured, and has a run of its own
- with `batching.frames: auto`, what fits decides the batches, and so what is learnt: there a memory
  limit that is stated counts
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from spelldown.recipe.reading.places import KIND
from spelldown.recipe.recipe import Recipe

MEASURED = ("threads", "device", "memory")
"""Keys of `training` that change time and memory, and not what a run learns."""
IDLE = (*MEASURED, "pictures", "pictures_every", "checkpoint_minutes")
"""All keys of `training` that change how a run is made: it goes on when they are others."""


def identity_of(
    recipe: Recipe, minutes: float | None = None, changes: Mapping[str, Any] | None = None
) -> str:
    """A hash of all that decides what a run learns.

    minutes: of its budget; changes: its row's, path -> [there, here], as `study.folder.Row` has
    them. What has its default is left out, so that a key that spelldown gains later changes
    nothing.
    """
    page = {key: value for key, value in dict(recipe).items() if key not in ("name", "trackers")}
    found = {key: _stated(value) for key, value in page.items()}
    found["training"] = {k: v for k, v in _stated(recipe.training).items() if k not in IDLE}
    if minutes is not None:
        found["minutes"] = minutes
    own = [key for key in MEASURED if f"training.{key}" in (changes or {})]
    if recipe.batching.frames == "auto" and recipe.training.memory is not None:
        own.append("memory")
    if own:
        found["measured"] = {key: getattr(recipe.training, key) for key in own}
    text = json.dumps(found, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stated(value: Any) -> Any:
    """A value as a page would state it that leaves out defaults, but no kind."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: _stated(each)
            for name, each in dict(value).items()
            if name == KIND or fields[name].is_required() or each != fields[name].get_default()
        }
    if isinstance(value, list | tuple):
        return [_stated(each) for each in value]
    return value
