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

from spelldown.errors import AudioError

WINDOW_SECONDS = 0.025  # that a frame looks at: no recording can be shorter
UNREADABLE = (soundfile.SoundFileError, OSError, RuntimeError)


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
    if not path.stat().st_size:
        return f"the audio file {path} is empty"
    try:
        header = soundfile.info(path)
    except UNREADABLE as error:
        return f"{path}: {_unreadable(error)}"
    if cut is None:
        return ""
    if header.samplerate != cut.sampling_rate:
        return _other_rate(path, header.samplerate, cut)
    if cut.end > header.duration + WINDOW_SECONDS:
        return (
            f"{path} is {header.duration:.3f} s long; its manifest says "
            f"{cut.recording.duration:.3f} s"
        )
    return ""


def _other_rate(path: Path, rate: int, cut: Cut) -> str:
    return f"{path} has {rate} samples a second, its manifest says {cut.sampling_rate}"


def _unreadable(error: Exception) -> str:
    return (
        f"not a recording that can be read ({error}); WAV, FLAC, Ogg, Opus, MP3 and SPHERE can be"
    )


def _plain_file(cut: Cut) -> Path | None:
    """The one file that holds a cut's samples as they are; None where there is more to it."""
    sources = _sources(cut)
    if len(sources) == 1 and sources[0].type == "file" and not cut.recording.transforms:
        return Path(sources[0].source)
    return None


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
    found = _wrong_with_file(path, None)
    if found:
        raise AudioError(found)
    length = soundfile.info(path).duration
    if not length > 0:
        raise AudioError(f"{path}: holds no samples")
    return float(length)


def _read(path: Path, start: float = 0.0, seconds: float | None = None) -> tuple[Any, int]:
    """Samples (N, channels) from `start` on, for `seconds` or to the end, and the rate in Hz."""
    if not path.is_file():
        raise AudioError(f"{path}: no such recording")
    try:
        with soundfile.SoundFile(path) as recording:
            rate = int(recording.samplerate)
            if start:
                recording.seek(round(start * rate))
            wanted = -1 if seconds is None else round(seconds * rate)
            samples = recording.read(wanted, dtype="float32", always_2d=True)
    except UNREADABLE as error:
        raise AudioError(f"{path}: {_unreadable(error)}") from error
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
        found = found[:, channels] if max(channels) < found.shape[1] else found
        samples = torch.from_numpy(np.ascontiguousarray(found.T))
        if rate != cut.sampling_rate:
            raise AudioError(_other_rate(path, rate, cut))
    else:
        try:
            samples = torch.from_numpy(cut.load_audio())
        except Exception as error:  # its backends raise errors of many kinds
            raise AudioError(f"{file_of(cut)}: cannot be read: {first_line(error)}") from error
    missing = cut.num_samples - samples.shape[-1]
    if missing > WINDOW_SECONDS * cut.sampling_rate:
        raise AudioError(
            f"{file_of(cut)} holds {samples.shape[-1]} samples, its manifest says {cut.num_samples}"
        )
    return torch.nn.functional.pad(samples, (0, missing))  # compressed formats are a few off
