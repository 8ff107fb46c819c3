"""A prepared corpus in the course's layout: `<part>/mfcc/*.npy` and `<part>/transcripts/*.npy`.

Frames are as the front end makes them before deltas and normalisation, float32 (T, width), as the
course's are; transcripts are `<sos>`, single characters, `<eos>`. An utterance whose file is there,
newer than its recording and of its length, is not made again.
"""

import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray
from pydantic import Field

from spelldown.data.checks import text_of
from spelldown.data.frontend import Frontend, LogMelSettings, MfccSettings
from spelldown.data.recordings import file_of
from spelldown.errors import DataError
from spelldown.settings import Settings
from spelldown.writing import write_whole

AHEAD = 8  # utterances under way for each job
HEAD = 128  # bytes before the numbers in an .npy file of two axes
MADE = ".arrays.json"  # says how the arrays in a folder were made


class ArraysOutputSettings(Settings):
    """Which frames are written."""

    features: Literal["mfcc", "log-mel"] = Field("mfcc", description="what frames hold")
    width: int = Field(28, ge=1, description="numbers a frame; the course's homework has 28")
    sample_rate: int = Field(
        16000, ge=8000, description="samples a second, to which other recordings are brought"
    )

    def frontend(self) -> Frontend:
        """What makes them."""
        if self.features == "log-mel":
            return Frontend(LogMelSettings(width=self.width, sample_rate=self.sample_rate))
        filters = max(40, self.width)
        return Frontend(
            MfccSettings(width=self.width, filters=filters, sample_rate=self.sample_rate)
        )


def to_arrays(
    out: Path,
    parts: Iterable[str],
    settings: ArraysOutputSettings,
    *,
    jobs: int = 1,
    progress: Callable[[str, Iterable[Any], int | None], Iterable[Any]] = lambda d, p, n: p,
) -> None:
    """Writes the arrays of a prepared corpus into its own folder; goes on where it was interrupted.

    Arrays of utterances that are no longer in a part go. Raises DataError for utterances whose
    names give the same file, and for folders that hold somebody else's arrays.
    """
    frontend = settings.frontend()
    for part in parts:
        folder = out / part
        _claim(folder, settings)
        names = _names(out, part)
        work = _made(CutSet.from_jsonl_lazy(out / f"{part}.jsonl.gz"), out, folder, frontend, jobs)
        for _ in progress(f"arrays of {part}", work, len(names)):
            pass
        for kind in ("mfcc", "transcripts"):
            for file in (folder / kind).glob("*.npy"):
                if file.stem not in names:
                    file.unlink()


def _claim(folder: Path, settings: ArraysOutputSettings) -> None:
    """Makes sure that the arrays in a folder are ours, and made with these settings or none."""
    asked = settings.model_dump(mode="json")
    there = folder / MADE
    made = json.loads(there.read_text()) if there.is_file() else None
    if made is None and any((folder / "mfcc").glob("*")):
        raise DataError(f"{folder / 'mfcc'} holds arrays that were not made here; remove them")
    if made != asked:
        for file in (folder / "mfcc").glob("*.npy"):
            file.unlink()
        write_whole(there, json.dumps(asked))


def _names(out: Path, part: str) -> set[str]:
    names: set[str] = set()
    for cut in CutSet.from_jsonl_lazy(out / f"{part}.jsonl.gz"):
        name = _name(cut.id)
        if name in names:
            raise DataError(f"{part}: two utterances would be {name}.npy, one of them {cut.id}")
        names.add(name)
    return names


def _name(id: str) -> str:
    return id.replace("/", "-").replace(os.sep, "-").lstrip(".") or "-"


def _made(
    cuts: Iterable[Cut], out: Path, folder: Path, frontend: Frontend, jobs: int
) -> Iterator[None]:
    """Writes every utterance's two files; `jobs` at the same time."""
    pool = ThreadPoolExecutor(jobs)
    waiting: deque[Future[None]] = deque()
    try:
        for cut in cuts:
            waiting.append(pool.submit(_write, cut, out, folder, frontend))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        for one in waiting:
            yield one.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(cut: Cut, out: Path, folder: Path, frontend: Frontend) -> None:
    name = _name(cut.id)
    if cut.has_recording and not Path(file_of(cut)).is_absolute():
        cut = cut.with_recording_path_prefix(out)
    frames = folder / "mfcc" / f"{name}.npy"
    if not _is_made(frames, cut, frontend):
        write_whole(frames, _array(frontend.static(cut).numpy()), lasting=False)
    text = text_of(cut)
    if text is not None:
        letters = np.array(["<sos>", *text, "<eos>"])
        write_whole(folder / "transcripts" / f"{name}.npy", _array(letters), lasting=False)


def _is_made(file: Path, cut: Cut, frontend: Frontend) -> bool:
    """Whether a file holds these frames already, as far as its head and its time tell."""
    try:
        found, recording = file.stat(), os.stat(file_of(cut))
    except OSError:
        return False
    size = HEAD + 4 * frontend.width * frontend.count(cut)
    return found.st_mtime_ns > recording.st_mtime_ns and found.st_size == size


def _array(numbers: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, numbers)
    return buffer.getvalue()
