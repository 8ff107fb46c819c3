"""What a tracker outside must be able to do, and what it is told of a run."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from spelldown.writing import write_whole

IDENTITIES = "trackers.json"
"""In a run's folder: by which names trackers outside know it, so that a resumed run goes on in the
same place."""
EPOCH_PARTS = 1000
"""Steps of what is told within epochs: thousandths of an epoch, whatever the batches are."""


@dataclass(frozen=True)
class About:
    """The run that a notebook is about.

    folder: the run's; recipe: resolved, as plain values; page: the same as YAML
    """

    folder: Path
    recipe: Mapping[str, Any]
    page: str

    def identity(self, kind: str) -> str | None:
        """By which name a tracker of this kind knows the run; None if it does not."""
        found = self._identities().get(kind)
        return None if found is None else str(found)

    def keep_identity(self, kind: str, name: str) -> None:
        """Writes down by which name a tracker knows the run."""
        kept = json.dumps({**self._identities(), kind: name}, indent=2)
        write_whole(self.folder / IDENTITIES, kept + "\n")

    def _identities(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads((self.folder / IDENTITIES).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}


class Notebook(ABC):
    """Keeps a run's numbers somewhere outside. May be slow and may fail: nobody waits for it.

    All is called by one thread, `open` first and `close` last.
    """

    kind: ClassVar[str]
    extra: ClassVar[str]
    """What to install: pip install 'spelldown[EXTRA]'."""
    packages: ClassVar[tuple[str, ...]]
    """Modules that it needs."""

    def lacking(self) -> str:
        """What of it is not installed, and how it would be; nothing if all is there."""
        absent = [name for name in self.packages if find_spec(name) is None]
        if not absent:
            return ""
        return (
            f"{self.kind} needs {' and '.join(absent)}, not installed here: "
            f"pip install 'spelldown[{self.extra}]'"
        )

    @abstractmethod
    def open(self, about: About) -> None:
        """Begins, or goes on where a resumed run left off."""

    @abstractmethod
    def within(self, position: int, loss: float) -> None:
        """The mean loss a symbol lately, at so many `EPOCH_PARTS` since the run began."""

    @abstractmethod
    def epoch(self, epoch: int, numbers: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """What an epoch's line in metrics.jsonl has: numbers as `dev/cer`, and facts in words."""

    @abstractmethod
    def pictures(self, epoch: int, paths: Sequence[Path]) -> None:
        """Pictures of attention, drawn after an epoch."""

    @abstractmethod
    def close(self, healthy: bool) -> None:
        """The run is over, or stopped for now; not healthy if by an error."""


def numbers_of(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of an epoch's line, named by their path: `dev/cer`. True counts as 1."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{before}{key}/")
        elif isinstance(value, int | float):
            yield before + key, float(value)


def leaves_of(settings: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a resolved recipe as text, named as the command line names it."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from leaves_of(value, f"{before}.{key}" if before else str(key))
    elif isinstance(settings, list | tuple) and settings:
        for place, value in enumerate(settings):
            yield from leaves_of(value, f"{before}.{place}")
    else:
        yield before, "null" if settings is None else str(settings)
