"""A small recipe's page, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spelldown.errors import RecipeError
from spelldown.recipe.recipe import read_recipe

PAGE = """
name: small
data: {kind: arrays, root: somewhere}
frontend: {kind: arrays, width: 13}
listener:
  blocks:
    - {kind: conv, widths: [16], stride: 2}
    - {kind: bilstm, width: 12}
"""


def extended(page: Path, **sections: Any) -> Path:
    """The page with sections replaced or added."""
    page.write_text(yaml.safe_dump({**yaml.safe_load(PAGE), **sections}))
    return page


def problems_of(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    return caught.value.problems


def one_problem_of(path: Path, *overrides: str) -> str:
    (problem,) = problems_of(path, *overrides)
    return problem
