"""Static frames kept on disk, half-precision and memory-mapped: made once, shared by all runs.

    FOLDER/<part>-<frontend>-<key>.half     the frames of all utterances, one after the other
    FOLDER/<part>-<frontend>-<key>.json     what they are; written last, when all is there

The key is a digest of all that the numbers depend on: the front end, the speed, and of each
utterance its piece of which file, with the file's size and the times of its last changes
(`spelldown.data.reading.identity`). Whatever changes there has another key, so frames that have
become wrong are not read; they, and the whole folder, can be deleted at any time.

A recording that cannot be read has no frames there. Which ones those are stands in the .json, with
the reason, and they are tried again whenever it is read.

Frames made from sound are rounded to half-precision whether they are cached or not (see
`spelldown.data.frontend`), so a run learns the same with a cache and without.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spelldown.data.frontend import FRAMES_PER_SECOND, Frontend
from spelldown.data.loading.shards import HALF, Shard
from spelldown.data.reading.identity import digest_of
from spelldown.errors import DataError
from spelldown.writing import to_disk, write_whole

VERSION = 1  # of the numbers that a front end makes: those of another are made anew
SAFE_EVERY = 2**24  # bytes after which what is written is made safe, to go on from


def cached_part(
    cuts: CutSet,
    frontend: Frontend,
    folder: Path,
    name: str,
    speed: float = 1.0,
    workers: int = 0,
    problems: Literal["stop", "leave-out"] = "stop",
) -> Shard:
    """The frames of a part from the cache in `folder`, which are made first if they are not there.

    Making them shows its progress. Stopped halfway, it goes on from there the next time; another
    process that needs the same frames waits for them. Recordings that cannot be read raise
    DataError naming them all, or with `leave-out` are those in the shard's `unreadable`. Raises
    DataError for a disk that is full or cannot be written to, which leaves nothing behind.
    """
    each = list(cuts)
    settings = frontend.settings.model_dump(exclude={"normalise_over"})
    settings |= {"deltas": None, "normalise": None}  # what is done to the frames afterwards
    about = {"version": VERSION, "frontend": settings, "speed": speed}
    about["key"] = key = digest_of(about, each)
    kind = f"{frontend.settings.kind}{frontend.width}" + (f"-x{speed:g}" if speed != 1 else "")
    stem = f"{re.sub(r'[^A-Za-z0-9_+-]', '_', name)}-{kind}-{key[:16]}"
    counts = [frontend.count(cut, speed) for cut in each]
    frames = _Frames(each, frontend, speed)
    index = folder / f"{stem}.json"

    def shard() -> Shard:
        return Shard(folder / f"{stem}.half", counts, frontend.width)

    found = _whole(shard(), index, key, frames)
    if found is None:
        with _writable(shard(), name), _alone(folder / f".{stem}.lock", name):
            found = _whole(shard(), index, key, frames)  # by another process meanwhile
            if found is None:
                found = shard()
                _make(found, frames, name, workers, problems)
                about |= {"utterances": len(each), "frames": found.total}
                about["unreadable"] = found.unreadable
                _conclude(found, index, json.dumps(about, indent=2) + "\n")
    if problems == "stop":
        _hold_readable(found, name)
    return found


def _whole(shard: Shard, index: Path, key: str, frames: "_Frames") -> Shard | None:
    """The shard, where all of it is on disk and what could not be read still cannot be."""
    try:
        about = json.loads(index.read_text(encoding="utf-8"))
        shard.leave_out({int(place): why for place, why in about.get("unreadable", {}).items()})
        if about["key"] != key or shard.path.stat().st_size != shard.size:
            return None
        mended = any(isinstance(frames[place], Tensor) for place in shard.unreadable)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return None if mended else shard


def _hold_readable(shard: Shard, name: str) -> None:
    if shard.unreadable:
        raise DataError(
            f"{len(shard.unreadable)} recordings of {name} cannot be read, so that its frames "
            "cannot be cached; mend or remove them, or set data.problems: leave-out",
            list(shard.unreadable.values()),
        )


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


def _make(
    shard: Shard, frames: _Frames, name: str, workers: int, problems: Literal["stop", "leave-out"]
) -> None:
    """Writes the shard beside its place and moves it there when all of it is safe on disk."""
    beside = shard.path.with_name(f".{shard.path.name}.partial")
    noted = shard.path.with_name(f".{shard.path.name}.done")
    done = _done_before(beside, noted, shard)
    _hold_room(shard, beside, noted, name)
    try:
        with beside.open("r+b" if done else "wb") as file:
            file.truncate(shard.offset(done))
            file.seek(0, os.SEEK_END)
            safe = file.tell()
            for place, found in _tracked(_each(frames, done, workers), shard, done, name):
                if isinstance(found, DataError):
                    shard.leave_out({place: str(found)})
                    continue
                file.write(found.numpy().astype(HALF).tobytes())
                if file.tell() != shard.offset(place + 1):
                    raise AssertionError(f"{frames.cuts[place].id}: not as long as foretold")
                if file.tell() - safe >= SAFE_EVERY:
                    to_disk(file)
                    safe = file.tell()
                    about = {"done": place + 1, "unreadable": shard.unreadable}
                    write_whole(noted, json.dumps(about) + "\n")
            to_disk(file)
        if problems == "stop":
            _hold_readable(shard, name)
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
    """How many utterances an interrupted making of this shard went through for good."""
    try:
        about = json.loads(noted.read_text(encoding="utf-8"))
        done, unreadable = about["done"], {int(i): why for i, why in about["unreadable"].items()}
        there = copy(shard)
        there.leave_out(unreadable)
        if beside.stat().st_size < there.offset(done):
            return 0
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0
    shard.leave_out(unreadable)
    return int(done)


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
