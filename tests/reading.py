"""A part of a corpus as a recipe takes it: read, then checked."""

from typing import Any

from spelldown.data.checks import Part, check_part
from spelldown.data.corpora import ArraysSettings, CutsSettings, read_part


def load_part(
    settings: ArraysSettings | CutsSettings, part: str, *asked: Any, **by_name: Any
) -> Part:
    """`read_part`, then `check_part` with what is `asked`, as `data.problems` has it."""
    return check_part(read_part(settings, part), settings.problems, *asked, **by_name)
