"""What a recording tells when it is decoded, once and whole: length, loudness, what is wrong.

What is looked at costs memory for half a minute of sound, however long the recording is.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray

from spelldown.data.preparing.utterance import Utterance
from spelldown.data.recordings import (
    UNREADABLE,
    WINDOW_SECONDS,
    file_of,
    no_recording,
    opened,
    samples_of,
)
from spelldown.errors import AudioError

SECONDS_AT_ONCE = 30
FULL_SCALE = 0.999  # from which a sample counts as clipped: no format reaches 1 exactly
SILENCE_LEVEL = -120.0  # dB, for what has no energy at all
UNKNOWN_SIZE = 0x7FFFF000  # RIFF sizes from here on are written by those who could not know
W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # how Sony's Wave64 begins
TAIL = 1 << 16  # bytes in which the last page of an Ogg stream begins

Channel = int | Literal["mix"]
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a recording told when it was decoded; all that is kept of it.

    rate, samples, channels: of the file, 0 where it cannot be read
    start, length: of the utterance in it, in samples
    taken: the channels that the utterance is in, several where they are to be mixed
    level, loudest: dB below full scale, of the whole and of its loudest 25 ms
    peak: the largest sample; clipped: the share of samples at full scale
    found: what is wrong, each a reason (`looking.doubts.REASONS`) and words
    """

    rate: int = 0
    samples: int = 0
    channels: int = 0
    start: int = 0
    length: int = 0
    taken: tuple[int, ...] = (0,)
    level: float = SILENCE_LEVEL
    loudest: float = SILENCE_LEVEL
    peak: float = 0.0
    clipped: float = 0.0
    found: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """How long the utterance is."""
        return self.length / self.rate if self.rate else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Heard":
        """What `as_dict` gave."""
        found = tuple((reason, words) for reason, words in told["found"])
        return cls(**{**told, "taken": tuple(told["taken"]), "found": found})


def source_file(utterance: Utterance) -> Path | None:
    """The file that an utterance's sound lies in; None for frames without sound."""
    if utterance.cut is None:
        return utterance.audio
    return Path(file_of(utterance.cut)) if utterance.cut.has_recording else None


def hear(utterance: Utterance, channel: Channel | None) -> Heard:
    """Decodes an utterance's sound and tells what is in it; never raises for a bad recording.

    channel: to take where the source names none; None and `mix` take all, to be mixed
    """
    cut = utterance.cut
    if cut is not None and not cut.has_recording:
        return Heard(rate=16000, length=round(cut.duration * 16000), level=0.0, loudest=0.0)
    if cut is not None and (cut.recording.transforms or len(cut.recording.sources) != 1):
        return _hear_through_lhotse(cut)
    path = source_file(utterance)
    if path is None:
        return Heard(found=(("unreadable", "neither a recording nor frames"),))
    start, end = utterance.start, utterance.end
    if cut is not None:
        start, end = cut.start, cut.end
        taken = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    else:
        taken = [] if utterance.channel is None else [utterance.channel]
    try:
        with opened(path) as file:
            return _hear_file(file, path, (start, end), _taken(taken, file.channels, channel))
    except AudioError as error:
        words = _shortened(path) or str(error).removeprefix(f"{path}: ")
        return Heard(found=(("unreadable", words),))
    except UNREADABLE as error:
        return Heard(found=(("unreadable", no_recording(error)),))


def _taken(told: list[int], have: int, channel: Channel | None) -> tuple[int, ...]:
    """The channels to take; more than there are where the wish cannot be met."""
    if told:
        return tuple(told)
    if isinstance(channel, int) and have > 1:  # a mono file among others has only one to take
        return (channel,)
    return tuple(range(have))


def _hear_file(
    file: Any, path: Path, stretch: tuple[float, float | None], taken: tuple[int, ...]
) -> Heard:
    rate, samples, channels = int(file.samplerate), int(file.frames), int(file.channels)
    if max(taken) >= channels:
        words = f"channel {max(taken)} is asked for, and there are {channels} (counted from 0)"
        return Heard(rate, samples, channels, found=(("unreadable", words),))
    start = round(stretch[0] * rate)
    wanted = samples - start if stretch[1] is None else round(stretch[1] * rate) - start
    found: list[tuple[str, str]] = []
    if start >= samples:
        words = f"begins at {stretch[0]:.2f} s in a recording of {samples / rate:.2f} s"
        return Heard(rate, samples, channels, found=(("cut-short", words),) if start else EMPTY)
    if start:
        file.seek(start)
    sums = _Sums(rate)
    for block in _blocks(file, wanted, rate):
        sums.add(block[:, list(taken)])
    tolerance = WINDOW_SECONDS * rate  # compressed formats are a few samples off
    whole = not start and stretch[1] is None
    if wanted - sums.count > tolerance:
        words = f"holds {sums.count / rate:.2f} s of the {wanted / rate:.2f} s that it should"
        if not whole:
            words = f"ends at {stretch[1]:.2f} s in a recording of {samples / rate:.2f} s"
        found.append(("cut-short", words))
    found += [*_ending(path), *sums.found()]
    if whole:
        samples = sums.count
    length = min(wanted, sums.count) if whole else sums.count
    return Heard(rate, samples, channels, start, length, taken, *sums.levels(), found=tuple(found))


EMPTY = (("too-short", "holds no samples"),)


def _blocks(file: Any, wanted: int, rate: int) -> Iterator[Samples]:
    """The samples (N, channels) in pieces that memory can hold."""
    while wanted > 0:
        block = file.read(min(wanted, SECONDS_AT_ONCE * rate), dtype="float32", always_2d=True)
        if not len(block):
            return
        wanted -= len(block)
        yield block


class _Sums:
    """What is added up while a recording goes by."""

    def __init__(self, rate: int) -> None:
        self.rate, self.window = rate, max(1, round(WINDOW_SECONDS * rate))
        self.count = self.clipped = self.broken = self.numbers = 0
        self.energy = self.loudest = self.peak = 0.0

    def add(self, block: Samples) -> None:
        """Takes samples (N, channels) into account; levels are of the channels mixed."""
        finite = np.isfinite(block)
        if not finite.all():
            self.broken += int(block.size - finite.sum())
            block = np.where(finite, block, 0.0).astype(np.float32)
        self.count += len(block)
        self.numbers += block.size
        size = np.abs(block)
        self.peak = max(self.peak, float(size.max(initial=0.0)))
        self.clipped += int((size >= FULL_SCALE).sum())
        power = np.square(block.mean(axis=1), dtype=np.float64)
        self.energy += float(power.sum())
        windows = len(power) // self.window
        means = power[: windows * self.window].reshape(windows, self.window).mean(axis=1)
        self.loudest = max(self.loudest, float(means.max(initial=0.0)))

    def levels(self) -> tuple[float, float, float, float]:
        """level, loudest, peak and clipped, as `Heard` has them, rounded to what is meant."""
        mean = self.energy / self.count if self.count else 0.0
        share = self.clipped / self.numbers if self.numbers else 0.0
        return _decibel(mean), _decibel(self.loudest), round(self.peak, 4), round(share, 6)

    def found(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the samples themselves."""
        if self.broken:
            yield "non-finite", f"{self.broken} samples are not finite numbers"
        if self.count < self.window:
            yield (
                "too-short",
                f"{1000 * self.count / self.rate:.1f} ms long; frames need at least one window of "
                f"{1000 * WINDOW_SECONDS:.0f} ms",
            )


def _decibel(power: float) -> float:
    return max(SILENCE_LEVEL, round(10 * log10(power), 1)) if power > 0 else SILENCE_LEVEL


def _ending(path: Path) -> Iterator[tuple[str, str]]:
    """Whether a file was cut short, for formats that decode as far as they go and say nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(40)
        if head[:4] == b"RIFF":
            told = 8 + int.from_bytes(head[4:8], "little")
            if size < told < UNKNOWN_SIZE and told > 8:
                yield "cut-short", f"the file has {size} bytes, its header says {told}"
        elif head[:4] == b"OggS":
            file.seek(max(0, size - TAIL))
            tail = file.read()
            page = tail[max(0, tail.rfind(b"OggS")) :]
            lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
            if not lengths or len(page) < 27 + page[26] + sum(lengths):
                yield "cut-short", "an Ogg stream that ends within a page"
            elif not page[5] & 4:
                yield "open-end", "an Ogg stream without its last page: it may have been cut short"
        elif head[:7] == b"NIST_1A":
            yield from _sphere_ending(file, size)
        else:
            whole = _told_size(head) if head[:4] != b"caff" else _caf_size(file, size)
            if whole is not None and size + 1 < whole:  # not every writer fills up to an even size
                yield "cut-short", f"the file has {size} bytes, its header says {whole}"


def _told_size(head: bytes) -> int | None:
    """The bytes that a file should have by its first 40; None where they do not tell."""
    if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
        told = 8 + int.from_bytes(head[20:28], "little")
        return told if told > 8 else None
    if head[:16] == W64:
        return int.from_bytes(head[16:24], "little")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return 8 + int.from_bytes(head[4:8], "big")
    if head[:4] in (b".snd", b"dns."):
        order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
        begin, sound = (int.from_bytes(head[n : n + 4], order) for n in (4, 8))
        return None if sound == 0xFFFFFFFF else begin + sound
    return None


def _caf_size(file: Any, size: int) -> int | None:
    """The bytes that a file of Apple's Core Audio should have: its chunks tell, one by one."""
    place = 8
    while place + 12 <= size:
        file.seek(place)
        head = file.read(12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if length < 0:  # sound to the end of the file, however long
            return None
        place += 12 + length
    return place


def _sphere_fields(file: Any) -> tuple[list[str], dict[str, str]]:
    """The lines of a SPHERE header, and what they say by name."""
    file.seek(0)
    lines = file.read(1024).decode("ascii", "replace").splitlines()
    return lines, {p[0]: p[2] for line in lines if len(p := line.split()) == 3}


def _shortened(path: Path) -> str:
    """How to unpack a SPHERE file that is compressed; empty for all others."""
    try:
        with path.open("rb") as file:
            if file.read(7) != b"NIST_1A" or "shorten" not in _coding(_sphere_fields(file)[1]):
                return ""
    except OSError:
        return ""
    return (
        "SPHERE compressed by shorten, which is not read; unpack it first, as "
        f"sph2pipe -f wav {path.name} {path.stem}.wav does, or sox"
    )


def _coding(fields: dict[str, str]) -> str:
    return fields.get("sample_coding", "")


def _sphere_ending(file: Any, size: int) -> Iterator[tuple[str, str]]:
    lines, fields = _sphere_fields(file)
    try:
        begin, samples = int(lines[1]), int(fields["sample_count"])
        each = int(fields.get("sample_n_bytes", "2")) * int(fields.get("channel_count", "1"))
    except (KeyError, ValueError, IndexError):
        return
    if "shorten" not in _coding(fields) and size < begin + samples * each:
        yield "cut-short", f"holds {(size - begin) // each} of the {samples} samples that it should"


def _hear_through_lhotse(cut: Cut) -> Heard:
    """The same for a cut whose sound is in several files, or changed on reading."""
    rate = int(cut.sampling_rate)
    try:
        samples = samples_of(cut).numpy().T
    except AudioError as error:
        return Heard(found=(("unreadable", str(error)),))
    sums = _Sums(rate)
    sums.add(samples)
    taken = tuple(cut.channel) if isinstance(cut.channel, list) else (cut.channel,)
    return Heard(
        rate,
        int(cut.recording.num_samples),
        len(cut.recording.channel_ids),
        round(cut.start * rate),
        sums.count,
        taken,
        *sums.levels(),
        found=tuple(sums.found()),
    )
