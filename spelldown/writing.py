"""Files written whole or not at all, and safe on disk when we say so."""

import os
import sys
from pathlib import Path
from typing import IO, Any


def write_whole(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Puts a file in its place whole or not at all; what stood there before is replaced.

    Makes its folder if need be. Safe from a power cut on return if `lasting`; thousands of small
    files that can be made again need not wait for the disk. Raises OSError if it cannot be
    written, and then leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if lasting:
                to_disk(file)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if lasting:
        folder_to_disk(path.parent)


def to_disk(file: IO[Any]) -> None:
    """Returns when what was written to an open file would outlast a power cut."""
    file.flush()
    os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Returns when the names in a folder would outlast a power cut."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
