"""A limit on the memory that training may hold, which the system or the driver enforces.

On a GPU the driver's share of its memory is limited. On the processor the limit is Linux's
RLIMIT_DATA: an allocation beyond it fails like any other, and the process lives. It counts
addresses, used or not. So what is reserved and never used comes on top: what oneDNN takes for its
kernels, hundreds of megabytes, for it takes half a megabyte for a kernel of a few kilobytes; and
what NumPy's BLAS took for its threads when it was loaded, 40 MB for each core.
"""

import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spelldown.errors import TrainingError
from spelldown.search.searching.memory import left_on_computer
from spelldown.training.memory import hand_back_freed_memory, keep_freed_memory

SIZE = r"^\d+(\.\d+)?\s?[KMGT]i?B$"
"""How a size is written: 6GB, 512 MiB."""
FILES_TO_COME = 32 << 20
"""Bytes of programs and libraries that are read into memory only once they are called."""
UNUSED = 0.95
"""Share of what is reserved for kernels that is never used: 98 % was measured."""
WATCHED = 0.05
"""Seconds between two looks at it."""
RESERVED, IDLE = 4 << 20, 0.02
"""What a library reserved for its threads: so many bytes at least, of which this share is used."""
ROOM = 64 << 20
"""Bytes to train in that a limit must leave at the very least."""


def bytes_of(size: str) -> int:
    """The bytes of a size such as `6GB` (6e9), `512MiB` (512 * 2^20).

    Raises ValueError for anything else.
    """
    found = re.match(r"^([\d.]+)\s?([KMGT])(i?)B$", size) if re.match(SIZE, size) else None
    if found is None:
        raise ValueError(f"{size!r} is no size in bytes; write 6GB or 512MiB")
    number, prefix, binary = found.groups()
    step = 1024 if binary else 1000
    return int(float(number) * step ** (1 + "KMGT".index(prefix)))


class Fence:
    """The limit while it is in force; this one is none at all."""

    def settle(self) -> int:
        """Takes note of what has been reserved since, and will never be used; to be called between
        updates. How many bytes may be used more than before."""
        return 0

    @contextmanager
    def eased(self) -> Iterator[None]:
        """Not in force meanwhile, for a moment in which nothing may fail."""
        yield


class _OnTheProcessor(Fence):
    """Raises TrainingError if the process holds too much already, or nobody can hold it."""

    def __init__(self, most: int) -> None:
        if not sys.platform.startswith("linux"):
            raise TrainingError(
                f"training.memory: on the processor only Linux holds a process to a limit, not "
                f"{sys.platform}; set it to null"
            )
        import resource

        hand_back_freed_memory()
        self.lock = threading.RLock()  # of what is settled
        self.idle = _idle()  # bytes that were reserved before training, and are never used
        self.unused = 0  # bytes that training has reserved, and never uses
        self.most, self.resource = most, resource
        self.before = resource.getrlimit(resource.RLIMIT_DATA)
        held = _held()
        least = held["RssAnon"] + self._files(held) + ROOM
        if most < least:
            raise TrainingError(
                f"training.memory: {told(most)} is too little: this process holds "
                f"{told(held['RssAnon'] + self._files(held))} before it trains at all (PyTorch, "
                f"the corpus, the weights); give it more than {told(least)}"
            )

    def settle(self) -> int:
        with self.lock:
            held, before = _held(), self.unused
            self.unused = int(UNUSED * _kernels())
            limit = self.most - self._files(held) + self.unused + self.idle
            _, hard = self.before
            if hard != self.resource.RLIM_INFINITY:
                limit = min(limit, hard)
            self.resource.setrlimit(self.resource.RLIMIT_DATA, (limit, hard))
            return self.unused - before

    @contextmanager
    def eased(self) -> Iterator[None]:
        with self.lock:  # whoever watches would settle meanwhile
            self.resource.setrlimit(self.resource.RLIMIT_DATA, self.before)
            try:
                yield
            finally:
                self.settle()

    def watch(self, done: threading.Event) -> None:
        """Settles again and again, for kernels also come up in the midst of an update."""
        while not done.wait(WATCHED):
            self.settle()

    def _files(self, held: dict[str, int]) -> int:
        return held["RssFile"] + held["RssShmem"] + FILES_TO_COME

    def lift(self) -> None:
        self.resource.setrlimit(self.resource.RLIMIT_DATA, self.before)
        keep_freed_memory()


@contextmanager
def held_to(memory: str | None, device: torch.device) -> Iterator[Fence]:
    """Keeps training within `memory` while the context lasts: what asks for more fails.

    memory: such as 6GB, of the GPU if `device` is one, else what this process holds (not those
    that load its batches); None for no limit. Raises TrainingError if it cannot be kept.
    """
    if memory is None:
        yield Fence()
        return
    most = bytes_of(memory)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        if most > total:
            raise TrainingError(f"training.memory: {told(most)}, but {device} has {told(total)}")
        here = torch.cuda.current_device()
        index = here if device.index is None else device.index  # torch wants a number for this
        torch.cuda.set_per_process_memory_fraction(most / total, index)
        try:
            yield Fence()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
        return
    fence = _OnTheProcessor(most)
    fence.settle()
    done = threading.Event()
    watcher = threading.Thread(target=fence.watch, args=(done,), daemon=True)
    watcher.start()
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="mkldnn_.* failed")
            yield fence
    finally:
        torch.set_warn_always(always)
        done.set()
        watcher.join()
        fence.lift()


def free_memory() -> int:
    """Bytes that this process holds or may take, while others keep theirs.

    Raises TrainingError where the system does not tell.
    """
    try:
        held, left = _held(), left_on_computer()
    except OSError:
        left = None
    if left is None:
        raise TrainingError(
            "batching.frames: auto needs to know how much memory there is, and this system does "
            "not tell; give a number of frames"
        )
    return left + held["RssAnon"] + held["RssFile"]


def told(size: int) -> str:
    """A number of bytes for people: `1.2 GB`, `640 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _held() -> dict[str, int]:
    """What this process holds, in bytes, by the kernel's names."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":", 1) for line in lines if line.startswith(("Rss", "VmData")))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


def _idle() -> int:
    """Bytes of this process's larger blocks that hardly anything was ever written into: the stacks
    of threads that wait, and the room that BLAS has for each."""
    total = size = 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        name, *words = line.split()
        if not name.endswith(":"):
            private = words[0].startswith("rw-p") and len(words) == 4  # and of no file
        elif name == "Size:":
            size = 1024 * int(words[0])
        elif name == "Rss:" and private and size >= RESERVED:
            used = 1024 * int(words[0])
            total += size - used if used < IDLE * size else 0
    return total


def _kernels() -> int:
    """Bytes that are reserved for programs made on the way: the memory that is written and run."""
    total = 0
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, _ = line.split(" ", 2)
        if permissions.startswith("rwx"):
            start, end = span.split("-")
            total += int(end, 16) - int(start, 16)
    return total
