"""Static frames kept on disk, half-precision and memory-mapped: made once, shared by all runs.

    FOLDER/<part>-<frontend>-<key>.half     the frames of all utterances, one after the other
    FOLDER/<part>-<frontend>-<key>.json     what they are; written last, when all is there

The key is a digest of all that the numbers depend on: the front end, the speed, and of each
utterance its piece of which file, with the file's size and the time of its last change. Whatever
changes there has another key, so frames that have become wrong are never read; they, and the whole
folder, can be deleted at any time.

Frames made from sound are rounded to half-precision whether they are cached or not (see
`spelldown.data.frontend`), so a run learns the same with a cache and without.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spelldown.data.frontend import FRAMES_PER_SECOND, Frontend
from spelldown.errors import DataError
from spelldown.writing import to_disk, write_whole

VERSION = 1  # of the numbers that a front end makes: those of another are made anew
SAFE_EVERY = 2**24  # bytes after which what is written is made safe, to go on from
HALF = np.dtype("<f2")


class Shard:
    """The static frames of a part's utterances in one file, which is mapped when first read."""

    def __init__(self, path: Path, counts: Sequence[int], width: int) -> None:
        self.path, self.width = path, width
        self._ends = [0, *accumulate(counts)]
        self._mapped: NDArray[np.float16] | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._ends[-1] * self.width * HALF.itemsize

    def offset(self, place: int) -> int:
        """Where the utterance at `place` begins, in bytes."""
        return self._ends[place] * self.width * HALF.itemsize

    def frames(self, place: int) -> Tensor:
        """Frames (T, width) float32 of the utterance at `place`; a copy."""
        if self._mapped is None:
            shape = (self._ends[-1], self.width)
            self._mapped = np.memmap(self.path, HALF, "r", shape=shape)
        found = self._mapped[self._ends[place] : self._ends[place + 1]]
        return torch.from_numpy(found.astype(np.float32))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # a worker maps the file for itself


class Cached:
    """Frames of several parts one after the other, at each speed that may be asked for.

    shards: by speed, those of the parts in their order; counts: utterances of each part.
    """

    def __init__(self, shards: Mapping[float, Sequence[Shard]], counts: Sequence[int]) -> None:
        self._shards = shards
        self._ends = np.cumsum(counts)

    def frames(self, index: int, speed: float = 1.0) -> Tensor:
        """Frames (T, width) float32 of an utterance, counted through all parts."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        begins = int(self._ends[part - 1]) if part else 0
        return self._shards[speed][part].frames(index - begins)


def cached_part(
    cuts: CutSet, frontend: Frontend, folder: Path, name: str, speed: float = 1.0, workers: int = 0
) -> Shard:
    """The frames of a part from the cache in `folder`, which are made first if they are not there.

    Making them shows its progress. Stopped halfway, it goes on from there the next time; another
    process that needs the same frames waits for them. Raises DataError for a disk that is full or
    cannot be written to, which leaves nothing behind, and naming all recordings that cannot be
    read.
    """
    each = list(cuts)
    settings = {**frontend.settings.model_dump(), "deltas": None, "normalise": None}
    about = {"version": VERSION, "frontend": settings, "speed": speed}
    key = _key(about, each)
    kind = f"{frontend.settings.kind}{frontend.width}" + (f"-x{speed:g}" if speed != 1 else "")
    stem = f"{re.sub(r'[^A-Za-z0-9_+-]', '_', name)}-{kind}-{key[:16]}"
    counts = [frontend.count(cut, speed) for cut in each]
    shard = Shard(folder / f"{stem}.half", counts, frontend.width)
    index = folder / f"{stem}.json"
    if not _is_whole(shard, index, key):
        with _writable(shard, name), _alone(folder / f".{stem}.lock", name):
            if not _is_whole(shard, index, key):  # another process may have made it meanwhile
                about = {**about, "key": key, "utterances": len(each), "frames": sum(counts)}
                _make(shard, _Frames(each, frontend, speed), name, workers)
                _conclude(shard, index, json.dumps(about, indent=2) + "\n")
    return shard


def _key(about: Mapping[str, Any], cuts: Sequence[Cut]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for cut in cuts:
        digest.update(json.dumps(_heard(cut), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _heard(cut: Cut) -> Any:
    """All of an utterance that its frames depend on: not its name, nor what was said."""
    whole = getattr(cut, "recording", None)
    if whole is None:  # several recordings joined or laid over each other
        tracks = [(t.offset, t.snr, _heard(t.cut)) for t in getattr(cut, "tracks", ())]
        return [tracks, cut.duration, [] if tracks else repr(cut)]
    files = [
        (source.type, source.channels, *_file(str(source.source)))
        if source.type == "file"
        else (source.type, source.channels, hashlib.sha256(str(source.source).encode()).hexdigest())
        for source in whole.sources
    ]
    changes = [t if isinstance(t, dict) else t.to_dict() for t in whole.transforms or ()]
    span = (cut.start, cut.duration, cut.channel)
    return [files, whole.sampling_rate, whole.num_samples, changes, span]


def _file(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError:  # reading it will say so
        return os.path.abspath(path), 0, 0
    return os.path.abspath(path), found.st_size, found.st_mtime_ns


def _is_whole(shard: Shard, index: Path, key: str) -> bool:
    try:
        about = json.loads(index.read_text(encoding="utf-8"))
        return bool(about["key"] == key and shard.path.stat().st_size == shard.size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


# --- making a shard


class _Frames(Dataset[Any]):
    """The frames (T, width) float16 of each cut, or the error of one that cannot be read."""

    def __init__(self, cuts: Sequence[Cut], frontend: Frontend, speed: float) -> None:
        self.cuts, self.frontend, self.speed = cuts, frontend, speed

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, place: int) -> Tensor | DataError:
        try:
            return self.frontend.static(self.cuts[place], self.speed).half()
        except DataError as error:
            return error


def _make(shard: Shard, frames: _Frames, name: str, workers: int) -> None:
    """Writes the shard beside its place and moves it there when all of it is safe on disk."""
    beside = shard.path.with_name(f".{shard.path.name}.partial")
    noted = shard.path.with_name(f".{shard.path.name}.done")
    done = _done_before(beside, noted, shard)
    problems: list[str] = []
    _hold_room(shard, beside, noted, name)
    try:
        with beside.open("r+b" if done else "wb") as file:
            file.truncate(shard.offset(done))
            file.seek(0, os.SEEK_END)
            safe = file.tell()
            for place, found in _tracked(_each(frames, done, workers), shard, done, name):
                if isinstance(found, DataError):
                    problems.append(str(found))
                elif not problems:
                    file.write(found.numpy().astype(HALF).tobytes())
                    if file.tell() != shard.offset(place + 1):
                        raise AssertionError(f"{frames.cuts[place].id}: not as long as foretold")
                    if file.tell() - safe >= SAFE_EVERY:
                        to_disk(file)
                        safe = file.tell()
                        write_whole(noted, f"{place + 1}\n")
            to_disk(file)
        if problems:
            raise DataError(
                f"{len(problems)} recordings of {name} cannot be read, so that its frames cannot "
                "be cached; mend or remove them",
                problems,
            )
        beside.replace(shard.path)
    except BaseException as error:
        if isinstance(error, Exception) or not noted.exists():  # else it can go on from there
            beside.unlink(missing_ok=True)
            noted.unlink(missing_ok=True)
        raise
    noted.unlink(missing_ok=True)


def _conclude(shard: Shard, index: Path, about: str) -> None:
    try:
        write_whole(index, about)
    except OSError:
        shard.path.unlink(missing_ok=True)
        raise


def _done_before(beside: Path, noted: Path, shard: Shard) -> int:
    """How many utterances an interrupted making of this shard wrote for good."""
    try:
        done = int(noted.read_text(encoding="utf-8"))
        return done if beside.stat().st_size >= shard.offset(done) else 0
    except (OSError, ValueError, IndexError):
        return 0


def _each(frames: _Frames, start: int, workers: int) -> Iterator[tuple[int, Tensor | DataError]]:
    places = range(start, len(frames))
    loader = DataLoader(
        frames,
        sampler=places,
        batch_size=None,
        num_workers=min(workers, len(places)),
        generator=torch.Generator(),
    )
    yield from zip(places, loader, strict=True)


def _tracked(
    done: Iterator[tuple[int, Tensor | DataError]], shard: Shard, start: int, name: str
) -> Iterator[tuple[int, Tensor | DataError]]:
    """What is done, with a bar over minutes of sound on a terminal."""
    err = Console(stderr=True)
    minute = 60.0 * FRAMES_PER_SECOND * shard.width * HALF.itemsize
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} minutes of sound"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        task = progress.add_task(
            f"caching frames of {escape(name)}",
            total=shard.size / minute,
        )
        progress.update(task, completed=shard.offset(start) / minute)
        for place, found in done:
            yield place, found
            progress.update(task, completed=shard.offset(place + 1) / minute)


def _hold_room(shard: Shard, beside: Path, noted: Path, name: str) -> None:
    """Refuses to begin what the disk cannot hold."""
    there = beside.stat().st_size if beside.exists() else 0
    free = shutil.disk_usage(shard.path.parent).free
    if shard.size - there > free:
        beside.unlink(missing_ok=True)
        noted.unlink(missing_ok=True)
        _no_room(shard, name, f"only {_size(free)} are free there")


def _no_room(shard: Shard, name: str, found: str) -> NoReturn:
    raise DataError(
        f"{shard.path}: the cached frames of {name} need {_size(shard.size)}, and {found}. Nothing "
        "of them was left. Free some room, name a folder on another disk (data.cache_folder), or "
        "do without a cache (data.cache: null)"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@contextmanager
def _writable(shard: Shard, name: str) -> Iterator[None]:
    """Makes the folder, and says what can be done where nothing can be written to it."""
    try:
        shard.path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        _no_room(shard, name, f"they cannot be written: {error.strerror or error}")


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Waits for other processes that make the same frames. The lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    while True:
        with lock.open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
                    f"another process caches the frames of {name} in {lock.parent}: waiting for it"
                )
                fcntl.lockf(file, fcntl.LOCK_EX)
            if _is_at(file.fileno(), lock):  # not one that another process has taken away
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
