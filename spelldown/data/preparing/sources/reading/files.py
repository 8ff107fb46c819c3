"""Files and folders of a source: is the audio there, and may it be read? None is opened."""

import os
import re
import stat
from pathlib import Path, PurePath

from spelldown.errors import DataError


def need_folder(source: Path, files: tuple[str, ...] = ()) -> None:
    """Raises DataError where a source is not a folder that can be listed.

    `files`: endings of what would be a source by itself, and is missed as a file.
    """
    if not source.exists():
        kind = "file" if source.name.endswith(files) else "folder"
        raise DataError(f"{source.absolute()}: no such {kind}")
    if not source.is_dir():
        raise DataError(f"{source}: a file; a folder expected")
    try:
        next(source.iterdir(), None)
    except OSError as error:
        raise DataError(f"{source}: cannot be listed: {error.strerror or error}") from error


def missing(path: Path) -> str:
    """Why a file cannot be had, without opening it; empty when it seems to be there."""
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            return f"{path} is a folder; an audio file expected"
        if not stat.S_ISREG(kind):  # a pipe would be waited for without end
            return f"{path} is no plain file; an audio file expected"
        if not os.access(path, os.R_OK):
            return f"no permission to read {path}"
    except (FileNotFoundError, NotADirectoryError):
        return f"no such audio file: {path}"
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        return f"{path} cannot be reached: {getattr(error, 'strerror', None) or error}"
    return ""


def named_after(path: PurePath) -> str:
    """An id made of a path: without its suffix, folders joined by `-`, spaces as `_`.

    Ids are written into columns and become names of files, so they hold neither.
    """
    parts = [part for part in path.with_suffix("").parts if part not in (path.anchor, "..", ".")]
    return re.sub(r"\s+", "_", "-".join(parts))
