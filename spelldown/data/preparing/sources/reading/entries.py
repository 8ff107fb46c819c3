"""What was read, found again by its id, however much it is: in SQLite's temporary storage.

Files are joined by their ids and ids must be unique, but a corpus may have more of them than should
lie in memory. SQLite keeps the first megabytes in memory and the rest in a nameless file that goes
with the connection, so that neither a small corpus waits for the disk nor a large one fills memory.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

from spelldown.data.checks import Problem
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError

KILOBYTES = 32_000  # kept in memory


class Entry(NamedTuple):
    """A line: its number, its id, and what stands after it; None if that was already complained
    of."""

    line: int
    id: str
    rest: str | None


class Entries:
    """Tables of entries, each a file's lines by number and by id. A context manager."""

    def __init__(self) -> None:
        # An empty name is a temporary database on disk, private to this connection.
        self._database = sqlite3.connect("", isolation_level=None)
        self._tables: set[str] = set()
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{KILOBYTES}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()
        if isinstance(error, sqlite3.OperationalError):
            raise DataError(
                f"the temporary folder has no room for the ids of this source ({error}); "
                "set SQLITE_TMPDIR to a folder on a larger disk"
            ) from error

    def add(self, table: str, line: int, name: str, rest: str | None) -> int | None:
        """Keeps an entry; gives the line of an earlier one with the same id, which stays."""
        if table not in self._tables:
            self._database.execute(
                f'CREATE TABLE "{table}" (line INTEGER PRIMARY KEY, id TEXT UNIQUE, rest TEXT)'
            )
            self._tables.add(table)
        added = self._database.execute(
            f'INSERT OR IGNORE INTO "{table}" VALUES (?, ?, ?)', (line, name, rest)
        )
        if added.rowcount:
            return None
        before = self.get(table, name)
        return before.line if before else None

    def change(self, table: str, name: str, rest: str | None) -> None:
        """Puts something else after an id that is there."""
        self._database.execute(f'UPDATE "{table}" SET rest = ? WHERE id = ?', (rest, name))

    def get(self, table: str, name: str) -> Entry | None:
        """The entry of an id, where there is one."""
        if table not in self._tables:
            return None
        row = self._database.execute(
            f'SELECT line, id, rest FROM "{table}" WHERE id = ?', (name,)
        ).fetchone()
        return Entry(*row) if row else None

    def all(self, table: str) -> Iterator[Entry]:
        """All entries of a table in the order of their lines."""
        if table in self._tables:
            rows = self._database.execute(f'SELECT line, id, rest FROM "{table}" ORDER BY line')
            yield from map(Entry._make, rows)

    def without(self, table: str, other: str) -> Iterator[Entry]:
        """Those entries of a table whose id is not in another, in the order of their lines."""
        for entry in self.all(table):
            if self.get(other, entry.id) is None:
                yield entry


def each_once(found: Iterable[Utterance | Problem]) -> Iterator[Utterance | Problem]:
    """What was found, with a Problem in place of an utterance whose id was there before, or whose
    file's name is not UTF-8 and can stand in no manifest."""
    with Entries() as entries:
        for count, one in enumerate(found, start=1):
            if _is_not_utf8(f"{one.id} {one.audio}" if isinstance(one, Utterance) else str(one)):
                yield _misnamed(one)
            elif (
                isinstance(one, Utterance)
                and entries.add("ids", count, one.id, one.where) is not None
            ):
                first = entries.get("ids", one.id)
                twice = f"this id is there twice; the first is {first.rest if first else ''}"
                yield Problem(one.id, one.where, twice)
            else:
                yield one


def _is_not_utf8(name: str) -> bool:
    """Whether a name holds bytes that are not UTF-8, which Python gives as lone surrogates."""
    return not name.isascii() and any("\udc80" <= one <= "\udcff" for one in name)


def _misnamed(one: Utterance | Problem) -> Problem:
    if isinstance(one, Problem):
        return replace(
            one,
            utterance=_visible(one.utterance),
            file=_visible(one.file),
            found=_visible(one.found),
        )
    where = _visible(str(one.audio or one.where))
    return Problem(_visible(one.id), where, "a name that is not UTF-8; rename the file or folder")


def _visible(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 as `\\xe4`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
