"""Sound as it comes, block by block: a recording of ten hours needs no more memory than one of ten
seconds.

A recording that breaks off (a download that was cut, a full disk, a damaged block) gives what can
be read of it, and says afterwards what is missing. Samples that are no numbers are silence.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy
import soxr
from numpy.typing import NDArray

from spelldown.data.recordings import UNREADABLE, no_recording, opened
from spelldown.errors import AudioError

Samples = NDArray[numpy.float32]

BLOCK_SECONDS = 1.0
UNKNOWN = 2**31 - 2**20
"""Bytes from which the length in a WAV header means "not known yet": what programs leave there
that write to a pipe."""
BEYOND = "samples that are not finite numbers, or far beyond full scale"
LOUDEST = 1e9
"""Beyond this a sample is no sound: programs that write 24-bit integers as floats reach 1e7, and
squares of 1e9 fit into every number used here."""


class Recording:
    """An open recording, read in blocks of a second of float32 in [-1, 1]: its channels' mean, or
    one `channel`, counted from 0.

    rate:       samples a second
    seconds:    how long it says it is; None where its header does not know
    incomplete: what is missing, known once all blocks have been read; empty when nothing is

    Raises AudioError naming the file if it is missing, empty, not permitted or no recording, or
    has no such channel.
    """

    def __init__(self, path: Path, name: str = "", channel: int | None = None) -> None:
        self.name, self.channel = name or str(path), channel
        self.incomplete = ""
        self._file = opened(path, self.name)
        if channel is not None and not 0 <= channel < self._file.channels:
            self._file.close()
            last = self._file.channels - 1
            raise AudioError(f"{self.name}: there is no channel {channel}; the last is {last}")
        with path.open("rb") as file:
            head, size = file.read(4096), file.seek(0, 2)
        self.rate = int(self._file.samplerate)
        frames = int(self._file.frames)
        self.seconds = frames / self.rate if 0 <= frames < 2**40 else None
        self._promised = _promised(self._file, head, size, frames if self.seconds else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[Samples]:
        """All blocks, once. Raises AudioError if there are no samples, or none is a number."""
        count, wrong, block = 0, 0, round(BLOCK_SECONDS * self.rate)
        while True:
            try:
                found = self._file.read(block, dtype="float32", always_2d=True)
            except UNREADABLE as error:
                at = count / self.rate
                self.incomplete = f"damaged or cut short: cannot be decoded after {at:.1f} s"
                if not count:
                    raise AudioError(f"{self.name}: {no_recording(error)}") from error
                return
            if not len(found):
                break
            found = found if self.channel is None else found[:, [self.channel]]
            good = (numpy.abs(found) <= LOUDEST).all(axis=1)
            wrong += len(found) - int(good.sum())
            count += len(found)
            yield numpy.where(good[:, None], found, numpy.float32(0)).mean(axis=1)
        if count == wrong:
            why = "no samples" if not count else f"nothing but {BEYOND}"
            raise AudioError(f"{self.name}: holds {why}")
        self.incomplete = self._missing(count)
        if wrong:
            silent = f"{wrong} {BEYOND}, taken for silence"
            self.incomplete = "; ".join(filter(None, (silent, self.incomplete)))

    def _missing(self, count: int) -> str:
        if self._promised is None:
            return ""
        seconds, promised = count / self.rate, self._promised / self.rate
        if promised == numpy.inf:
            return f"cut short: its end is missing after {seconds:.1f} s"
        # Compressed formats round their lengths to their own blocks.
        if promised - seconds > 0.1:
            return f"cut short: {seconds:.1f} s of {promised:.1f} s are there"
        return ""


def _promised(file: Any, head: bytes, size: int, frames: int | None) -> float | None:
    """Samples that a recording says it has, infinite for "more"; None where it does not say.

    libsndfile itself takes what there is of a WAV, AIFF, AU or SPHERE file for the whole, and tells
    of the difference only in its log. An MP3 file without a length in its first frame cannot say.
    """
    if head.startswith(b"NIST_1A"):
        found = re.search(rb"sample_count -i (\d+)", head)
        return float(found[1]) if found else None
    if head.startswith(b"OggS"):
        return None if _ends_as_ogg_should(Path(file.name), size) else numpy.inf
    noted = re.findall(r": (\d+) \(should be (\d+)\)", str(file.extra_info))
    for said, is_there in noted[-1:]:  # of the samples' own chunk, which comes last
        if int(is_there) < int(said) < UNKNOWN:
            return float(file.frames * int(said) / max(int(is_there), 1))
    return frames


def _ends_as_ogg_should(path: Path, size: int) -> bool:
    """Whether the last page of an Ogg file is marked as the last (RFC 3533, header type 4)."""
    with path.open("rb") as file:
        file.seek(max(size - 2**17, 0))
        end = file.read()
    page = end.rfind(b"OggS")
    return page < 0 or page + 5 >= len(end) or bool(end[page + 5] & 4)


def resampled(blocks: Iterator[Samples], rate: int, ours: int) -> Iterator[Samples]:
    """The same sound at `ours` samples a second, block by block."""
    if rate == ours:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, ours, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(numpy.zeros(0, numpy.float32), last=True)


def copied(source: BinaryIO, target: Path) -> int:
    """Writes all of a stream into a file, in pieces; how many bytes it was."""
    count = 0
    with target.open("wb") as file:
        while piece := source.read(2**20):
            count += file.write(piece)
    return count
