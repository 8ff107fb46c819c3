"""The kinds of source that there are: each one's settings, its reader, and what it is for.

To add a kind: a file with its settings and a function `read`, one name in the union, one line in
`KINDS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources import arrays, catalogue, cuts, folder, kaldi, table
from spelldown.data.preparing.sources.arrays import ArraysSourceSettings
from spelldown.data.preparing.sources.catalogue import CatalogueSettings
from spelldown.data.preparing.sources.cuts import CutsSourceSettings
from spelldown.data.preparing.sources.folder import FolderSettings
from spelldown.data.preparing.sources.kaldi import KaldiSettings
from spelldown.data.preparing.sources.table import TableSettings
from spelldown.data.preparing.utterance import Utterance
from spelldown.settings import Settings

SourceSettings = Annotated[
    KaldiSettings
    | TableSettings
    | FolderSettings
    | ArraysSourceSettings
    | CutsSourceSettings
    | CatalogueSettings,
    Field(discriminator="kind"),
]
Reader = Callable[[Path, Any], Iterator[Utterance | Problem]]

KINDS: dict[str, tuple[type[Settings], Reader, str]] = {
    "kaldi": (KaldiSettings, kaldi.read, "a Kaldi folder: wav.scp, text, segments, utt2spk"),
    "table": (TableSettings, table.read, "CSV, TSV or JSON lines with columns audio and text"),
    "folder": (FolderSettings, folder.read, "audio files with a text file beside each"),
    "arrays": (ArraysSourceSettings, arrays.read, "the course's arrays: <part>/mfcc/*.npy"),
    "cuts": (CutsSourceSettings, cuts.read, "lhotse's manifests: cuts, or recordings and texts"),
    "catalogue": (CatalogueSettings, catalogue.read, "a published corpus by name; see --list"),
}


def source_kinds() -> dict[str, str]:
    """The names of all kinds, each with a line that says what it reads."""
    return {name: about for name, (_, _, about) in KINDS.items()}


def read_source(source: Path, settings: SourceSettings) -> Iterator[Utterance | Problem]:
    """The utterances of a source one at a time, and what is wrong with those that cannot be used.

    Lazy: nothing is read before the first `next`. No audio is opened (lhotse's recipes excepted,
    which open it for its length). A single bad row is a Problem that names it; DataError is raised,
    now or when the reader gets there, only where a whole source cannot be used.
    """
    reader = KINDS[settings.kind][1]
    return reader(source, settings)
