"""The folder that a corpus is prepared into.

train.jsonl.gz, dev.jsonl.gz, ...   manifests of lhotse cuts, one a part
prepared.json    where it came from, all settings, every figure
look.html        the figures and what is doubtful, as a page
doubtful.txt     every doubtful utterance that was kept, with the reason
left_out.txt     every utterance that was left out, with the reason
unusable.txt     what stopped the preparation, while it does
.preparing/      what was heard, for the next time
"""

import gzip
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spelldown.errors import DataError
from spelldown.writing import held, to_disk


class OutFolder:
    """The folder of one prepared corpus; `claim` it before anything is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inside = path / ".preparing"
        self.heard = self.inside / "heard.jsonl"
        self.found = self.inside / "found.jsonl"
        self.fit = self.inside / "fit.jsonl"
        self.prepared = path / "prepared.json"
        self.look = path / "look.html"
        self.doubtful = path / "doubtful.txt"
        self.left_out = path / "left_out.txt"
        self.unusable = path / "unusable.txt"
        self.made: list[Path] = []  # folders that were not there before, the innermost first
        self.parts_before: tuple[str, ...] = ()

    def manifest(self, part: str) -> Path:
        """Where a part's cuts are."""
        return self.path / f"{part}.jsonl.gz"

    @contextmanager
    def claim(self, asked: Mapping[str, Any], overwrite: bool) -> Iterator[list[str]]:
        """Keeps other preparations out; gives what `asked` changes since the last time, in words.

        Raises DataError for a folder that another corpus was prepared into (unless `overwrite`),
        that holds something else, or in which another process is preparing.
        """
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path} is a file; a folder to prepare into expected")
        strange = [p.name for p in self._content()]
        if strange and not self.inside.is_dir() and not self.prepared.is_file():
            raise DataError(
                f"{self.path} holds something else ({', '.join(sorted(strange)[:3])}, ...); "
                "a new or empty folder expected, or one that was prepared into before"
            )
        before = self._before()
        if before is not None and not overwrite:
            for name in ("kind", "source"):
                if before.get(name) != asked[name]:
                    raise DataError(
                        f"{self.path} was prepared from {before.get('kind')} "
                        f"{before.get('source')}; choose another folder, or --overwrite"
                    )
        self.parts_before = tuple((before or {}).get("parts") or ())
        self.made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.inside.mkdir(parents=True, exist_ok=True)
        with self._lock():
            try:
                yield [] if before is None else list(_changes(before, asked))
            finally:
                self._leave_no_trace()

    def _leave_no_trace(self) -> None:
        """Takes away what a preparation that came to nothing has made, and no other folder."""
        if self.heard.is_file() and self.heard.stat().st_size:
            return
        if [path for path in self._content() if path != self.inside]:
            return
        shutil.rmtree(self.inside, ignore_errors=True)
        for made in self.made:
            with suppress(OSError):  # somebody has put something there meanwhile
                made.rmdir()

    def _content(self) -> list[Path]:
        return list(self.path.iterdir()) if self.path.is_dir() else []

    def _before(self) -> Mapping[str, Any] | None:
        """The record of the corpus that is there."""
        try:
            told = json.loads(self.prepared.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.prepared} cannot be read ({error}); remove it") from error
        return told if isinstance(told, dict) else None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """The folder is ours until the block ends; the lock goes with the process."""
        with held(self.inside / "lock") as ours:
            if not ours:
                raise DataError(
                    f"{self.path}: another process is preparing into this folder; wait for it, "
                    "stop it, or choose another folder"
                )
            yield

    def clear(self) -> None:
        """Removes what only one preparation needs; what was heard stays."""
        for path in (self.found, self.fit, *self.path.glob(".*.partial")):
            path.unlink(missing_ok=True)


def _changes(before: Mapping[str, Any], asked: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """`text.case upper -> lower`, for all that differs."""
    for name in asked:
        old, new = before.get(name), asked[name]
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{place}{name}.")
        elif old != new:
            yield f"{place}{name} {json.dumps(old)} -> {json.dumps(new)}"


class Partial:
    """Files that are written beside their places, and put there together at the end."""

    def __init__(self) -> None:
        self._files: dict[Path, IO[bytes]] = {}

    def write(self, path: Path, line: str) -> None:
        """Adds a line to the file that will be at `path`; .gz is compressed on the way.

        The same lines give the same bytes: no time and no name is in the compressed file. Raises
        OSError, which names the file, where it cannot be written.
        """
        with naming(path):
            self._write(path, line)

    def _write(self, path: Path, line: str) -> None:
        if path not in self._files:
            beside = self._beside(path)
            beside.parent.mkdir(parents=True, exist_ok=True)
            file: Any = beside.open("wb")
            if path.suffix == ".gz":
                file = _Zipped(file)
            self._files[path] = file
        self._files[path].write(line.encode("utf-8", "surrogateescape") + b"\n")

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f".{path.name}.partial")

    def finish(self) -> list[Path]:
        """Puts all files in their places, once all of them are whole and safe on disk."""
        for path, file in self._files.items():
            with naming(path):
                file.close()
                with self._beside(path).open("rb") as whole:
                    to_disk(whole)
        for path in self._files:
            self._beside(path).replace(path)
        return list(self._files)

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *problem: object) -> None:
        for path, file in self._files.items():
            with suppress(OSError):  # a full disk is told once; what was written goes anyway
                file.close()
            self._beside(path).unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError from within names the file, as one from writing to an open file does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class _Zipped(gzip.GzipFile):
    """A compressed file that closes the one it writes to."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        self._below = file

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._below.close()
