"""A published corpus from a copy that is there, by whoever reads it best."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources import table
from spelldown.data.preparing.sources.catalogue import librispeech, recipes
from spelldown.data.preparing.sources.catalogue.listing import CorpusEntry, entry_of
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError
from spelldown.settings import Settings


class CatalogueSettings(Settings):
    """A corpus by its name in `spelldown prepare --list`."""

    kind: Literal["catalogue"] = "catalogue"
    corpus: str = Field(description="its name, as `spelldown prepare --list` has it")
    parts: tuple[str, ...] = Field((), description="its parts to read; none named: all")
    language: str | None = Field(
        None, description="for corpora of many languages, the one to read, by the corpus's name"
    )
    options: dict[str, Any] = Field(
        {}, description="further arguments of lhotse's download_<corpus> and prepare_<corpus>"
    )
    manifests: Path | None = Field(
        None, description="where lhotse keeps its manifests; some corpora are read from them again"
    )


def read(source: Path, settings: CatalogueSettings) -> Iterator[Utterance | Problem]:
    """The utterances of a published corpus from the copy in the folder `source`.

    LibriSpeech, Common Voice and LJSpeech are read in constant memory, their audio is not opened;
    all others through lhotse's recipes, which open it and hold the manifests. Raises DataError for
    names and parts that are not there, and settings that the corpus has no use for.
    """
    entry = entry_of(settings.corpus)
    _refuse_unused(entry, settings)
    if entry.reader == "librispeech":
        yield from librispeech.read(source, settings.parts)
    elif entry.reader == "table":
        form: Any = {"commonvoice": "common-voice"}.get(entry.name, entry.name)
        chosen = table.TableSettings(form=form, parts=settings.parts)
        yield from table.read(_folder_of(source, settings.language), chosen)
    else:
        asked = (settings.parts, settings.language, settings.options, settings.manifests)
        yield from recipes.read(entry.name, source, *asked)


def _folder_of(source: Path, language: str | None) -> Path:
    """The folder of a language, which `source` may be or hold."""
    if language is None or source.resolve().name == language:
        return source
    if not (source / language).is_dir():
        raise DataError(f"{source}: there is no folder {language} in it")
    return source / language


def _refuse_unused(entry: CorpusEntry, settings: CatalogueSettings) -> None:
    """A setting that would be passed over is a mistake, or a wish that is not met."""
    recipes.refuse_unknown(entry, settings.options)
    if entry.reader == "lhotse":
        return
    unused = ["manifests"] if settings.manifests else []
    if settings.language and entry.name != "commonvoice":
        unused.append("language")
    if unused:
        raise DataError(f"{entry.name} has no use for {', '.join(unused)}")
