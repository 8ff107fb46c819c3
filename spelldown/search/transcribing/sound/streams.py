"""Sound as it comes, block by block: a recording of ten hours needs no more memory than one of ten
seconds.

A recording that breaks off (a download that was cut, a full disk, a damaged block) gives what can
be read of it, and says afterwards what is missing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy
import soundfile
import soxr
from numpy.typing import NDArray

from spelldown.errors import AudioError

Samples = NDArray[numpy.float32]

BLOCK_SECONDS = 1.0
UNREADABLE = (soundfile.SoundFileError, OSError, RuntimeError)
UNKNOWN = 2**31 - 2**20
"""Bytes from which the length in a WAV header means "not known yet": what programs leave there
that write to a pipe."""
KNOWN = "WAV, FLAC, Ogg, Opus, MP3 and SPHERE can be read"
SIGNATURES = (
    (4, b"ftyp", "an MP4 or M4A file; convert it to WAV or FLAC first"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file; convert it to WAV or FLAC first"),
    (0, b"\x30\x26\xb2\x75", "a WMA file; convert it to WAV or FLAC first"),
    (0, b"#!AMR", "an AMR file; convert it to WAV or FLAC first"),
    (0, b"\x93NUMPY", "a NumPy array; features are taken from files whose names end in .npy"),
    (0, b"PK\x03\x04", "a zip archive; unpack it first"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
)
"""What recordings are mistaken for: where the bytes are, and which, and what it is."""


class Recording:
    """An open recording, read in blocks of a second of its channels' mean, float32 in [-1, 1].

    rate:       samples a second
    seconds:    how long it says it is; None where its header does not know
    incomplete: what is missing, known once all blocks have been read; empty when nothing is

    Raises AudioError naming the file if it is missing, empty, not permitted or no recording.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = path, name or str(path)
        self.incomplete = ""
        head, size = self._looked_at()
        try:
            self._file = soundfile.SoundFile(path)
        except UNREADABLE as error:
            raise AudioError(f"{self.name}: {_no_recording(head, error)}") from error
        if self._file.format == "RAW":  # libsndfile's guess for a damaged header: noise
            self._file.close()
            raise AudioError(f"{self.name}: {_no_recording(head, None)}")
        self.rate = int(self._file.samplerate)
        frames = int(self._file.frames)
        self.seconds = frames / self.rate if 0 <= frames < 2**40 else None
        self._promised = _promised(self._file, head, size, frames if self.seconds else None)

    def _looked_at(self) -> tuple[bytes, int]:
        """The file's first bytes and how many it has."""
        if not self.path.is_file():
            raise AudioError(f"{self.name}: no such recording")
        try:
            with self.path.open("rb") as file:
                head = file.read(4096)
                size = file.seek(0, 2)
        except OSError as error:
            raise AudioError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        if not size:
            raise AudioError(f"{self.name}: an empty file (0 bytes)")
        return head, size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[Samples]:
        """All blocks, once. Raises AudioError if there are no samples, or some are not finite."""
        count, block = 0, round(BLOCK_SECONDS * self.rate)
        while True:
            try:
                found = self._file.read(block, dtype="float32", always_2d=True)
            except UNREADABLE as error:
                at = count / self.rate
                self.incomplete = f"damaged or cut short: cannot be decoded after {at:.1f} s"
                if not count:
                    raise AudioError(f"{self.name}: {_no_recording(b'', error)}") from error
                return
            if not len(found):
                break
            if not bool(numpy.isfinite(found).all()):
                raise AudioError(f"{self.name}: holds samples that are not finite numbers")
            count += len(found)
            yield found.mean(axis=1)
        if not count:
            raise AudioError(f"{self.name}: holds no samples")
        self.incomplete = self._missing(count)

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


def _no_recording(head: bytes, error: Exception | None) -> str:
    for at, signature, what in SIGNATURES:
        if head[at : at + len(signature)] == signature:
            return what
    why = str(error or "").partition(": ")[2].strip().rstrip(".")
    if "regular file" in why:  # what libsndfile says of an MP3 file without any sound in it
        why = ""
    return f"not a recording that can be read{f' ({why})' if why else ''}; {KNOWN}"


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
