"""Which corpora can be had by name: all that lhotse has a recipe for, and what we know of them."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from spelldown.data.preparing.sources.catalogue.facts import FACTS, Facts
from spelldown.errors import DataError

Reader = Literal["librispeech", "table", "lhotse"]

LIBRISPEECH = (
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
)
MINI_LIBRISPEECH = ("train-clean-5", "dev-clean-2")


# Recipes for what has no texts: noise, rooms, mixtures made of other corpora, speakers' names.
NO_TEXTS = {
    "but-reverb-db",
    "bvcc",
    "dihard3",
    "himia",
    "librilight",
    "librimix",
    "librimix-mini",
    "librispeechmix",
    "mobvoihotwords",
    "musan",
    "radio",
    "rir-noise",
    "voxceleb",
    "voxconverse",
    "wham",
}

# Read by ourselves, file by file: lhotse opens every recording and keeps all manifests in memory
# before it gives the first, and starts processes for it.
OURS: dict[str, Reader] = {
    "librispeech": "librispeech",
    "mini-librispeech": "librispeech",
    "commonvoice": "table",
    "ljspeech": "table",
}


@dataclass(frozen=True)
class CorpusEntry:
    """A corpus that can be prepared by name.

    name: as the command line has it, `mini-librispeech`
    facts: languages, hours, licence and size of the download, as far as they are known
    downloads: whether it can be fetched, or only a copy that is there be read
    parts: those it can be asked for by name, where they are known
    reader: who reads it
    """

    name: str
    facts: Facts
    downloads: bool
    parts: tuple[str, ...]
    reader: Reader


def catalogue() -> list[CorpusEntry]:
    """All corpora of transcribed speech that lhotse has a recipe for, by name.

    Found by looking into the installed lhotse, so that a newer one brings its own.
    """
    names = {
        name.removeprefix("prepare_").removeprefix("single_").replace("_", "-")
        for name in _functions()
        if name.startswith("prepare_")
    }
    return [_entry(name) for name in sorted((names | {"mini-librispeech"}) - NO_TEXTS)]


def entry_of(name: str) -> CorpusEntry:
    """The corpus of a name. Raises DataError, with the nearest name, for one that is not there."""
    every = {entry.name: entry for entry in catalogue()}
    asked = name.lower().replace("_", "-")
    if asked in every:
        return every[asked]
    if asked in NO_TEXTS:
        raise DataError(f"{name} has no texts to learn from; corpora of transcribed speech have")
    close = get_close_matches(asked, every, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"no corpus is called {name!r}; {hint}`spelldown prepare --list` names them all"
    )


def _entry(name: str) -> CorpusEntry:
    # Common Voice is given away on its own site alone, to those who agree to its terms there.
    downloads = name != "commonvoice" and function_for("download", name) is not None
    parts = {"librispeech": LIBRISPEECH, "mini-librispeech": MINI_LIBRISPEECH}.get(name, ())
    return CorpusEntry(name, FACTS.get(name, Facts()), downloads, parts, OURS.get(name, "lhotse"))


def function_for(does: Literal["prepare", "download"], name: str) -> Callable[..., Any] | None:
    """lhotse's function that prepares or downloads a corpus; None where it has none."""
    functions = _functions()
    plain = "librispeech" if name == "mini-librispeech" else name.replace("-", "_")
    return functions.get(f"{does}_{plain}") or functions.get(f"{does}_single_{plain}")


@cache
def _functions() -> dict[str, Callable[..., Any]]:
    """lhotse's `prepare_...` and `download_...`, those too that it does not name in its index."""
    import lhotse.recipes

    found: dict[str, Callable[..., Any]] = {
        name: function
        for name, function in inspect.getmembers(lhotse.recipes, inspect.isfunction)
        if name.startswith(("prepare_", "download_"))
    }
    for module in pkgutil.iter_modules(lhotse.recipes.__path__):
        own = f"prepare_{module.name}"
        if own in found:
            continue
        try:
            recipe = importlib.import_module(f"lhotse.recipes.{module.name}")
        except ImportError:  # some need packages that are not installed
            continue
        for name in (own, f"download_{module.name}"):
            if inspect.isfunction(getattr(recipe, name, None)):
                found[name] = getattr(recipe, name)
    return found
