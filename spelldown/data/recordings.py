"""Recordings: the file that an utterance lies in, whether it is fit to be heard, and its samples.

Waveforms lie in [-1, 1], as soundfile gives them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lhotse.cut import Cut
from torch import Tensor

from spelldown.data.reading.quiet import QuietFile, hushed
from spelldown.errors import AudioError

WINDOW_SECONDS = 0.025  # that a frame looks at: no recording can be shorter
ENDINGS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".sph", ".aif", ".aiff", ".au", ".caf", ".w64"
)  # fmt: skip
"""What recordings are called, wherever folders are searched for them; lower case."""
UNREADABLE = (soundfile.SoundFileError, OSError, RuntimeError)
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


def file_of(cut: Cut) -> str:
    """The file that holds an utterance's frames or audio."""
    features = getattr(cut, "features", None)  # mixed cuts have several, and no such attribute
    if features is not None:
        return str(Path(features.storage_path) / str(features.storage_key))
    for source in _sources(cut):
        if source.type == "file":
            return str(source.source)
    return str(cut.id)


def _sources(cut: Cut) -> list[Any]:
    recording = getattr(cut, "recording", None)
    return [] if recording is None else list(recording.sources)


def first_line(error: Exception) -> str:
    """What an error says, without the extra information that lhotse adds below it."""
    return str(error).partition("\n")[0]


def wrong_with_recording(cut: Cut) -> str:
    """What is wrong with a cut's recording by its file's header; empty when nothing is.

    The samples are not decoded: a recording that is damaged further inside passes.
    """
    plain = _plain_file(cut)
    for source in _sources(cut):
        if source.type == "file":
            found = _wrong_with_file(Path(source.source), cut if plain else None)
            if found:
                return found
    if cut.duration < WINDOW_SECONDS:
        return (
            f"{1000 * cut.duration:.1f} ms long; frames need at least one window of "
            f"{1000 * WINDOW_SECONDS:.0f} ms"
        )
    whole = getattr(cut, "recording", None)
    if whole is not None and cut.end > whole.duration + WINDOW_SECONDS:
        return f"ends at {cut.end} s in a recording of {whole.duration} s"
    return ""


def _wrong_with_file(path: Path, cut: Cut | None) -> str:
    """What is wrong with a file, and how it is unlike what the manifest says of `cut`."""
    if not path.is_file():
        return f"there is no audio file {path}"
    try:
        with opened(path) as header:
            rate, seconds = header.samplerate, header.frames / header.samplerate
    except AudioError as error:
        return str(error)
    if cut is None:
        return ""
    if rate != cut.sampling_rate:
        return _other_rate(path, rate, cut)
    if cut.end > seconds + WINDOW_SECONDS:
        return f"{path} is {seconds:.3f} s long; its manifest says {cut.recording.duration:.3f} s"
    return ""


def _other_rate(path: Path, rate: int, cut: Cut) -> str:
    return f"{path} has {rate} samples a second, its manifest says {cut.sampling_rate}"


def _plain_file(cut: Cut) -> Path | None:
    """The one file that holds a cut's samples as they are; None where there is more to it."""
    sources = _sources(cut)
    if len(sources) == 1 and sources[0].type == "file" and not cut.recording.transforms:
        return Path(sources[0].source)
    return None


def opened(path: Path, name: str = "") -> soundfile.SoundFile:
    """An open recording, to be closed by the caller. Raises AudioError, with `name` or the path,
    for a file that is missing, not permitted, empty or no recording, with what it is instead."""
    name = name or str(path)
    try:
        if not path.is_file():
            what = "a pipe or a device, not a file" if path.exists() else "no such recording"
            raise AudioError(f"{name}: {'a folder, and no recording' if path.is_dir() else what}")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise AudioError(f"{name}: an empty file (0 bytes)")
    try:
        found = QuietFile(path)
    except UNREADABLE as error:
        raise AudioError(f"{name}: {no_recording(error, head)}") from error
    if found.format == "RAW":  # libsndfile's guess for a damaged header: noise
        found.close()
        raise AudioError(f"{name}: {no_recording(None, head)}")
    return found


def no_recording(error: Exception | None, head: bytes = b"") -> str:
    """What a file is by its first bytes, or that it is no recording, and why."""
    for at, signature, what in SIGNATURES:
        if head[at : at + len(signature)] == signature:
            return what
    why = str(error or "").partition(": ")[2].strip().rstrip(".")
    if "regular file" in why:  # what libsndfile says of an MP3 file without any sound in it
        why = ""
    return f"not a recording that can be read{f' ({why})' if why else ''}; {KNOWN}"


def read_audio(path: str | Path) -> tuple[Tensor, int]:
    """Samples (N,) float32 in [-1, 1] of a recording and its rate in Hz; channels are averaged.

    Whatever libsndfile reads: WAV, FLAC, Ogg Vorbis, Opus, MP3, NIST SPHERE and more. Raises
    AudioError naming the file when it is missing, empty or of no format that is known.
    """
    samples, rate = _read(Path(path))
    return torch.from_numpy(samples.mean(axis=1)), rate


def read_piece(path: Path, start: float, seconds: float) -> tuple[Tensor, int]:
    """Samples (N,) float32 of a piece of a recording, or to its end, and the rate in Hz; averaged
    over channels. Raises AudioError naming the file."""
    samples, rate = _read(path, start, seconds)
    return torch.from_numpy(samples.mean(axis=1)), rate


def length_of(path: Path) -> float:
    """The seconds of a recording by its header. Raises AudioError naming the file."""
    with opened(path) as header:
        length = header.frames / header.samplerate
    if not length > 0:
        raise AudioError(f"{path}: holds no samples")
    return float(length)


def _read(path: Path, start: float = 0.0, seconds: float | None = None) -> tuple[Any, int]:
    """Samples (N, channels) from `start` on, for `seconds` or to the end, and the rate in Hz."""
    with opened(path) as recording:
        rate = int(recording.samplerate)
        try:
            if start:
                recording.seek(round(start * rate))
            wanted = -1 if seconds is None else round(seconds * rate)
            samples = recording.read(wanted, dtype="float32", always_2d=True)
        except UNREADABLE as error:
            raise AudioError(f"{path}: {no_recording(error)}") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds no samples" + (f" from {start:.2f} s on" if start else ""))
    return samples, rate


def samples_of(cut: Any) -> Tensor:
    """A cut's waveform (channels, N), exactly as long as the cut says.

    Raises AudioError, with the file, for a recording that cannot be read or is not as its manifest
    says.
    """
    path = _plain_file(cut)
    if path is not None:  # read by ourselves: lhotse needs an external program for SPHERE
        found, rate = _read(path, cut.start, cut.duration)
        channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
        if max(channels) >= found.shape[1]:
            has = f"{found.shape[1]} channel{'s' if found.shape[1] > 1 else ''}"
            asked = f"channel {max(channels)}, counted from 0"
            raise AudioError(f"{path} has {has}; its manifest asks for {asked}")
        samples = torch.from_numpy(np.ascontiguousarray(found[:, channels].T))
        if rate != cut.sampling_rate:
            raise AudioError(_other_rate(path, rate, cut))
    else:
        try:
            with hushed():
                samples = torch.from_numpy(cut.load_audio())
        except Exception as error:  # its backends raise errors of many kinds
            raise AudioError(f"{file_of(cut)}: cannot be read: {first_line(error)}") from error
    missing = cut.num_samples - samples.shape[-1]
    if missing > WINDOW_SECONDS * cut.sampling_rate:
        raise AudioError(
            f"{file_of(cut)} holds {samples.shape[-1]} samples, its manifest says {cut.num_samples}"
        )
    return torch.nn.functional.pad(samples, (0, missing))  # compressed formats are a few off
