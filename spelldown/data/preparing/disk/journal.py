"""What was heard, kept on disk as it comes, so that nothing is decoded twice.

One line of JSON an utterance, under a key that says what was listened to: another channel, or a
file that was written anew, has another key. A line that was not written to its end is none.
"""

import hashlib
import json
import time
from array import array
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from spelldown.data.preparing.disk.folder import naming
from spelldown.data.preparing.hearing import Channel, Heard, source_file
from spelldown.data.preparing.utterance import Utterance

SAFE_EVERY = 1.0  # seconds between two writes to the disk
# Of what is heard: lines of another version, or that tell other things, count as not heard.
VERSION = (2, *(field.name for field in fields(Heard)))


def key_of(utterance: Utterance, channel: Channel | None) -> int:
    """What names the sound of an utterance: file, its size and time, stretch and channel.

    64 bits of a hash: two of a million utterances share one by chance once in 37 million times.
    """
    path = source_file(utterance)
    try:
        found = None if path is None else path.stat()
        state = None if found is None else (found.st_size, found.st_mtime_ns)
    except OSError:
        state = (-1, -1)
    cut = utterance.cut
    stretch: tuple[object, ...] = (utterance.start, utterance.end, utterance.channel)
    if cut is not None:
        transforms = getattr(cut.recording, "transforms", None) if cut.has_recording else None
        stretch = (cut.start, cut.end, f"{cut.channel} {cut.id} {transforms}")
    said = repr((VERSION, str(path), state, *stretch, channel))
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")


class Journal:
    """What was heard so far. Used as a context, in which new lines can be added.

    In memory there are 16 bytes for each line, whatever its length.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._places: NDArray[np.int64] = np.zeros(0, np.int64)
        self._file: IO[bytes] | None = None
        self._safe = 0.0

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        self._index()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with naming(self.path):
            self._file.close()
        self._file = None

    def _index(self) -> None:
        """Finds the place of every whole line, and cuts off one that is not."""
        file, keys, places, end = self._open, array("Q"), array("q"), 0
        file.seek(0)
        for line in file:
            try:
                key = int(json.loads(line)["key"])
            except (ValueError, KeyError, TypeError):
                break  # a kill came while it was written: what follows is not trusted either
            if not line.endswith(b"\n"):
                break
            keys.append(key)
            places.append(end)
            end += len(line)
        file.truncate(end)
        found, where = np.frombuffer(keys, np.uint64), np.frombuffer(places, np.int64)
        order = np.argsort(found, kind="stable")
        self._keys, self._places = found[order], where[order]

    @property
    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("a journal is used as a context")
        return self._file

    def __len__(self) -> int:
        return len(self._keys)

    def _place(self, key: int) -> int | None:
        found = int(np.searchsorted(self._keys, np.uint64(key)))
        if found == len(self._keys) or int(self._keys[found]) != key:
            return None
        return int(self._places[found])

    def __contains__(self, key: int) -> bool:
        """Whether it was heard before this context began."""
        return self._place(key) is not None

    def get(self, key: int) -> Heard | None:
        """What was heard under a key, before this context began."""
        place = self._place(key)
        if place is None:
            return None
        self._open.seek(place)
        return Heard.from_dict(json.loads(self._open.readline())["heard"])

    def add(self, key: int, heard: Heard) -> None:
        """Puts a line at the end; within a second it outlasts the end of the process."""
        line = json.dumps({"key": key, "heard": heard.as_dict()}, ensure_ascii=False)
        with naming(self.path):
            self._add(line.encode() + b"\n")

    def _add(self, line: bytes) -> None:
        self._open.write(line)  # in append mode, wherever it was read last
        if time.monotonic() - self._safe > SAFE_EVERY:
            self._open.flush()
            self._safe = time.monotonic()
