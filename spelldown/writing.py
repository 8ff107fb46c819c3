"""Files written whole or not at all, and safe on disk when we say so."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

FULL = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up"}
"""What a disk that takes no more says, by errno, in words."""


def write_whole(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Puts a file in its place whole or not at all; what stood there before is replaced.

    Makes its folder if need be. Safe from a power cut on return if `lasting`; thousands of small
    files that can be made again need not wait for the disk. Raises OSError, always with the file's
    name, if it cannot be written (on a full disk, say), and then leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if lasting:
                to_disk(file)
        beside.replace(path)
        if lasting:
            folder_to_disk(path.parent)
    except OSError as error:
        # What write() and close() raise names no file, and nobody knows the one beside.
        if error.errno is not None:  # without a number it would no longer say what is wrong
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


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


@contextlib.contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Whether nobody else holds this lock: if so it is ours until the block ends.

    A lock is a file in a folder that is there. It goes with its process, however that ends; where
    files cannot be locked, everybody gets it.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield True
        return
    while True:
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass  # a disk that knows no locks
            if not _is_at(file, lock):
                continue  # who had it has taken it away meanwhile: there may be a new one
            try:
                yield True
            finally:
                lock.unlink(missing_ok=True)
            return


def is_held(lock: Path) -> bool | None:
    """Whether somebody has this lock of `held` now; None where files cannot be locked."""
    try:
        import fcntl

        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back with the file
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
