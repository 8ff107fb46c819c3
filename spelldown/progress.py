"""How long work tells how far it is: the things that it makes pass through a `Progress`.

Library code takes one and is `quiet` by default; the commands give it `terminal.working`, a bar on
a terminal and lines in a log.
"""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[str, Iterable[Any], int | None], Iterable[Any]]
"""Called with what is done, the things that pass through, and how many they are if known."""


def quiet(doing: str, passing: Iterable[Any], total: int | None) -> Iterable[Any]:
    """Progress that nobody sees."""
    return passing
