"""Counting more n-grams than memory holds: sorted runs on disk, merged block by block.

An n-gram is a key: its symbols side by side in one unsigned number where 64 bits hold them, else
in a string of bytes. Both sort as the symbols do, the first one weighing most.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[Any]  # unsigned numbers of 64 bits, or byte strings of one length
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How the n-grams of a vocabulary become keys.

    length: symbols of an n-gram. bits: of a symbol, where 64 hold all of them; else 0.
    """

    length: int
    bits: int

    @classmethod
    def of(cls, length: int, vocabulary: int) -> "Packing":
        """For n-grams of this `length` over so many symbols."""
        bits = max(1, (vocabulary - 1).bit_length())
        return cls(length, bits if bits * length <= 64 else 0)

    @property
    def dtype(self) -> np.dtype[np.uint64] | np.dtype[np.bytes_]:
        return np.dtype(np.uint64) if self.bits else np.dtype(f"S{4 * self.length}")

    def pack(self, symbols: NDArray[np.uint32]) -> Keys:
        """Keys (N,) of symbols (N, length)."""
        if not self.bits:
            wide = np.ascontiguousarray(symbols, dtype=">u4")
            return wide.view(self.dtype).reshape(-1)
        keys = np.zeros(len(symbols), np.uint64)
        for place in range(self.length):
            keys <<= np.uint64(self.bits)
            keys |= symbols[:, place].astype(np.uint64)
        return keys

    def unpack(self, keys: Keys) -> NDArray[np.uint32]:
        """Symbols (N, length) of keys (N,)."""
        if not self.bits:
            wide = np.ascontiguousarray(keys).view(">u4").reshape(-1, self.length)
            return wide.astype(np.uint32)
        mask = np.uint64((1 << self.bits) - 1)
        shifts = [np.uint64(self.bits * place) for place in reversed(range(self.length))]
        return np.stack([((keys >> s) & mask).astype(np.uint32) for s in shifts], 1)

    def last(self, keys: Keys) -> NDArray[np.uint32]:
        """The last symbol (N,) of each key."""
        if not self.bits:
            return self.unpack(keys)[:, -1]
        return (keys & np.uint64((1 << self.bits) - 1)).astype(np.uint32)

    def first(self, keys: Keys) -> NDArray[np.uint32]:
        """The first symbol (N,) of each key."""
        if not self.bits:
            return self.unpack(keys)[:, 0]
        return (keys >> np.uint64(self.bits * (self.length - 1))).astype(np.uint32)

    def without_last(self, keys: Keys, shorter: "Packing") -> Keys:
        """Keys of the n-grams' contexts, one symbol `shorter`."""
        if self.bits and shorter.bits:
            return keys >> np.uint64(self.bits)
        return shorter.pack(self.unpack(keys)[:, :-1])

    def without_first(self, keys: Keys, shorter: "Packing") -> Keys:
        """Keys of what follows the n-grams' first symbols, one symbol `shorter`."""
        if self.bits and shorter.bits:
            return keys & np.uint64((1 << (self.bits * (self.length - 1))) - 1)
        return shorter.pack(self.unpack(keys)[:, 1:])


class Column:
    """Numbers or keys in a file, appended in pieces and read in pieces."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._length = 0
        path.write_bytes(b"")

    def __len__(self) -> int:
        return self._length

    def append(self, values: NDArray[Any]) -> None:
        with self.path.open("ab") as file:
            np.ascontiguousarray(values, self.dtype).tofile(file)
        self._length += len(values)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Values start..stop, as many as there are."""
        count = max(0, min(stop, self._length) - start)
        offset = start * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count, offset=offset)

    def mapped(self, writing: bool = False) -> NDArray[Any]:
        """All values, of which the system holds in memory what is used and what it has room for."""
        return np.memmap(self.path, self.dtype, "r+" if writing else "r", shape=(self._length,))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Table:
    """Different keys in order, with a count for each, on disk."""

    packing: Packing
    keys: Column
    counts: Column

    @classmethod
    def at(cls, path: Path, packing: Packing) -> "Table":
        """An empty one, in files that begin with this path."""
        counts = Column(path.with_suffix(".counts"), np.int64)
        return cls(packing, Column(path.with_suffix(".keys"), packing.dtype), counts)

    def __len__(self) -> int:
        return len(self.keys)

    def append(self, keys: Keys, counts: Counts) -> None:
        self.keys.append(keys)
        self.counts.append(counts)

    def read(self, start: int, stop: int) -> tuple[Keys, Counts]:
        """Entries start..stop, as many as there are."""
        return self.keys.read(start, stop), self.counts.read(start, stop)

    def blocks(self, size: int) -> Iterator[tuple[Keys, Counts]]:
        """The whole of it, at most `size` entries at a time."""
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    def remove(self) -> None:
        self.keys.remove()
        self.counts.remove()


class Counter:
    """Counts keys, of which only `held` at a time are in memory; the rest waits sorted on disk."""

    def __init__(self, folder: Path, name: str, packing: Packing, held: int) -> None:
        self.folder, self.name, self.packing = folder, name, packing
        self.held = max(held, 1)
        self._buffer = np.empty(0, packing.dtype)
        self._filled = 0
        self._runs: list[Table] = []

    def add(self, keys: Keys) -> None:
        """Each of these once more."""
        while len(keys):
            self._reserve(len(keys))
            taken = min(len(keys), self.held - self._filled)
            self._buffer[self._filled : self._filled + taken] = keys[:taken]
            self._filled += taken
            keys = keys[taken:]
            if self._filled == self.held:
                self._write_run()

    def counted(self) -> Table:
        """All keys with their counts, in order. Nothing can be added afterwards."""
        if self._filled:
            self._write_run()
        self._buffer = np.empty(0, self.packing.dtype)
        if len(self._runs) == 1:
            return self._runs[0]
        merged = Table.at(self.folder / f"{self.name}-all", self.packing)
        for keys, counts in merge(self._runs, self.held):
            merged.append(keys, counts)
        for run in self._runs:
            run.remove()
        return merged

    def _reserve(self, more: int) -> None:
        """Room for `more` keys, as far as may be held: little texts need little memory."""
        wanted = min(self._filled + more, self.held)
        if wanted > len(self._buffer):
            grown = np.empty(min(self.held, max(wanted, 2 * len(self._buffer))), self.packing.dtype)
            grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown

    def _write_run(self) -> None:
        run = Table.at(self.folder / f"{self.name}-{len(self._runs)}", self.packing)
        filled = self._buffer[: self._filled]
        filled.sort()
        first, sizes = groups(filled)
        run.append(filled[first], sizes)
        self._runs.append(run)
        self._filled = 0


def groups(keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each different one of sorted keys begins, and how often it is there."""
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))[: len(keys)]
    return first, np.diff(first, append=len(keys))


def merge(tables: Iterable[Table], held: int) -> Iterator[tuple[Keys, Counts]]:
    """The sums of several tables, in order and in pieces; about `held` entries are in memory.

    A piece is everything up to the least of the last keys that the blocks in memory reach:
    whatever has not been read yet comes after it.
    """
    open_ = [_Reading(table) for table in tables if len(table)]
    size = max(1, held // max(len(open_), 1))
    while open_:
        for reading in open_:
            reading.fill(size)
        bounds = [reading.keys[-1] for reading in open_ if reading.more]
        taken = [reading.take(min(bounds) if bounds else None) for reading in open_]
        open_ = [reading for reading in open_ if reading.more or len(reading.keys)]
        keys = np.concatenate([keys for keys, _ in taken])
        counts = np.concatenate([counts for _, counts in taken])
        order = np.argsort(keys, kind="stable")
        first, _ = groups(keys[order])
        yield keys[order[first]], np.add.reduceat(counts[order], first)


class _Reading:
    """A table that is read block by block."""

    def __init__(self, table: Table) -> None:
        self.table, self.place = table, 0
        self.keys, self.counts = table.read(0, 0)

    @property
    def more(self) -> bool:
        """Whether there is something that has not been read yet."""
        return self.place < len(self.table)

    def fill(self, size: int) -> None:
        """Reads on, if nothing is left of the last block."""
        if len(self.keys) == 0:
            self.keys, self.counts = self.table.read(self.place, self.place + size)
            self.place += len(self.keys)

    def take(self, bound: Any) -> tuple[Keys, Counts]:
        """What is in memory up to a key, or all of it."""
        end = len(self.keys) if bound is None else int(np.searchsorted(self.keys, bound, "right"))
        taken = self.keys[:end], self.counts[:end]
        self.keys, self.counts = self.keys[end:], self.counts[end:]
        return taken
