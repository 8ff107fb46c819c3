"""Corpora from the network by lhotse's recipes, with its progress bars and its continuation.

lhotse asks the server for what is missing of an archive that was begun, and marks what it has
unpacked with a file `.completed`, so that calling again goes on and a third call does nothing.
"""

import inspect
import socket
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from spelldown.data.preparing.sources.catalogue.listing import CorpusEntry, entry_of, function_for
from spelldown.data.preparing.sources.catalogue.recipes import arguments, refuse_unknown
from spelldown.errors import DataError

TARGETS = ("target_dir", "corpus_dir")
CLOCKS = 2.0  # seconds by which a disk's time may differ from ours
SILENCE = 60.0  # seconds; lhotse sets no limit, and would wait for a dead line for ever
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error)


def download(
    name: str,
    target: Path,
    parts: tuple[str, ...] = (),
    language: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Fetches a corpus into the folder `target` and gives the folder to read it from.

    What is there is not fetched again and what was begun is gone on with. Mini LibriSpeech's two
    parts are its default, LibriSpeech's are all seven. `options` are further arguments of lhotse's
    `download_<name>`; those of `prepare_<name>` are passed over. Raises DataError for a corpus that
    cannot be fetched, parts and options that it does not have, and, with what to do, where the
    network or the archive fails.
    """
    entry = entry_of(name)
    function = function_for("download", entry.name)
    if function is None or not entry.downloads:
        raise DataError(
            f"{entry.name} cannot be downloaded: it is given away by its makers alone; get a copy "
            "from them and name its folder with --from"
        )
    unknown = [part for part in parts if entry.parts and part not in entry.parts]
    if unknown:  # lhotse would only log a warning
        raise DataError(
            f"{entry.name} has no part {', '.join(unknown)}; it has {', '.join(entry.parts)}"
        )
    parameters = inspect.signature(function).parameters
    refuse_unknown(entry, options or {})
    own = {key: value for key, value in (options or {}).items() if key in parameters}
    asked = {**arguments(function, parts or entry.parts, language), **own}
    where = next((one for one in TARGETS if one in parameters), None)
    if where:
        asked[where] = target
    new = [folder for folder in (target, *target.parents) if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    began = time.time()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with _nothing_left(target, new, began):
            found = function(**asked)
    except DAMAGED as error:
        raise DataError(_cut_short(entry, target, error)) from error
    except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
        raise DataError(_failed(entry, target, error)) from error
    finally:
        socket.setdefaulttimeout(before)
    return Path(found) if isinstance(found, (str, Path)) else target


@contextmanager
def _nothing_left(target: Path, new: list[Path], began: float) -> Iterator[None]:
    """Takes away the empty files that a download which failed has begun, and then its folders.

    What has arrived stays, for the next time, and so do lhotse's marks, whose names are hidden.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in target.rglob("*"):
                if path.name.startswith(".") or not path.is_file():
                    continue
                told = path.stat()
                if not told.st_size and told.st_mtime >= began - CLOCKS:
                    path.unlink()
        inside = [path for path in target.rglob("*") if path.is_dir()] if target in new else []
        for folder in [*reversed(inside), *new]:
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def _cut_short(entry: CorpusEntry, target: Path, error: BaseException) -> str:
    return (
        f"an archive of {entry.name} in {target} is cut short or damaged ({error}); call again to "
        "go on with the download, and if it fails again delete the archive first"
    )


def _failed(entry: CorpusEntry, target: Path, error: OSError | HTTPException) -> str:
    if isinstance(error, HTTPError):
        found = f"{error.url} answers {error.code} {error.reason}"
    else:
        reason = getattr(error, "reason", None) or error
        found = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return (
        f"{entry.name} cannot be downloaded to {target}: {found}; call again to go on where it "
        "stopped, or name the folder of a copy with --from"
    )
