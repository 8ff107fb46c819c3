"""The engines by name: how to start one, and which are here."""

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from spelldown.data.synthesis.engines.command import find_command
from spelldown.data.synthesis.engines.espeak import LoaderEngine, ProgramEngine, find_espeak
from spelldown.data.synthesis.engines.hibari import HibariEngine
from spelldown.data.synthesis.engines.piper import PiperEngine, found_models
from spelldown.data.synthesis.engines.speaking import TIMEOUT, Engine
from spelldown.errors import DataError

EngineName = Literal["espeak", "hibari", "piper", "command"]
PACKAGES: dict[str, tuple[str, type[HibariEngine] | type[PiperEngine]]] = {
    "hibari": ("hibari-tts", HibariEngine),
    "piper": ("piper-tts", PiperEngine),
}


@dataclass(frozen=True)
class Listed:
    """An engine as `--list` shows it: `install` says what is missing, empty when nothing is."""

    name: str
    version: str
    languages: tuple[str, ...]
    voices: tuple[str, ...]
    install: str = ""


def find_engine(
    name: EngineName, command: str | None = None, timeout: float = TIMEOUT
) -> Callable[[], Engine]:
    """How to start an engine; raises DataError with what to install when it is not here."""
    if name == "espeak":
        return find_espeak(timeout)
    if name == "command":
        return find_command(command, timeout)
    package, engine = PACKAGES[name]
    if not _is_installed(package):
        raise DataError(f"{engine.title} is not installed. To install it: {engine.install}")
    return lambda: engine(timeout)


def _is_installed(package: str) -> bool:
    # Its page, not its module: to look for a module inside a package would load the package.
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def list_engines() -> Iterator[Listed]:
    """The engines, with the languages and voices of those that are here, or what to install."""
    name: EngineName
    for name in ("espeak", "hibari", "piper"):
        try:
            start = find_engine(name)
        except DataError as error:
            yield Listed(name, "", (), (), error.summary.rpartition("To install it: ")[2])
            continue
        with start() as engine:
            if isinstance(engine, LoaderEngine | ProgramEngine):
                languages = tuple(f"{code} {title}" for code, _, title in engine.languages)
                voices = tuple(one.removeprefix("!v/") for one in engine.variants)
            elif isinstance(engine, HibariEngine):
                languages = ("en-us", "en-gb")
                voices = tuple(
                    n if here else f"{n} (downloaded when named)"
                    for n, _, here in engine.about["voices"]
                )
            else:
                languages, voices = (), tuple(found_models())
            yield Listed(name, engine.version, languages, voices)
    places = "a program of yours: --command 'PROGRAM -v {voice} -o {out} -- {text}'"
    yield Listed("command", "", (), (), places)
