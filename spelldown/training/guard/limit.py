"""A limit on the memory that training may hold, which the system or the driver enforces.

On a GPU the driver's share of its memory is limited. On the processor the limit is Linux's
RLIMIT_DATA: an allocation beyond it fails like any other, and the process lives. It counts
addresses, used or not, so it is set to what may still be used, plus what is reserved and never
used (most of it by oneDNN, which keeps half a megabyte for a kernel of a few kilobytes), and moved
along as more of that comes up.
"""

import ctypes
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from spelldown.errors import TrainingError
from spelldown.training.memory import hand_back_freed_memory, keep_freed_memory

SIZE = r"^\d+(\.\d+)?\s?[KMGT]i?B$"
"""How a size is written: 6GB, 512 MiB."""
FILES_TO_COME = 64 << 20
"""Bytes of programs and libraries that are read into memory only once they are called."""
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
        self.unused = 0  # bytes that are reserved for good and never used
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
        held, before = _held(), self.unused
        # Too little while freed memory is still held; right after it was given back.
        self.unused = max(self.unused, held["VmData"] - held["RssAnon"] - _free_heap())
        limit = self.most - self._files(held) + self.unused
        _, hard = self.before
        if hard != self.resource.RLIM_INFINITY:
            limit = min(limit, hard)
        self.resource.setrlimit(self.resource.RLIMIT_DATA, (limit, hard))
        return self.unused - before

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
        torch.cuda.set_per_process_memory_fraction(most / total, device)
        try:
            yield Fence()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    fence = _OnTheProcessor(most)
    fence.settle()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="mkldnn_.* failed")
            yield fence
    finally:
        fence.lift()


def free_memory() -> int:
    """Bytes that this process holds or may take, while others keep theirs.

    Raises TrainingError where the system does not tell.
    """
    try:
        held = _held()
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        left = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        raise TrainingError(
            "batching.frames: auto needs to know how much memory there is, and this system does "
            "not tell; give a number of frames"
        ) from None
    return 1024 * int(left.split()[1]) + held["RssAnon"] + held["RssFile"]


def told(size: int) -> str:
    """A number of bytes for people: `1.2 GB`, `640 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _held() -> dict[str, int]:
    """What this process holds, in bytes, by the kernel's names."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":", 1) for line in lines if line.startswith(("Rss", "VmData")))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


def _free_heap() -> int:
    """Bytes of glibc's heap that are free, and may be used again unseen; 0 if it cannot tell."""
    with suppress(AttributeError):
        told = ctypes.CDLL(None).mallinfo2
        told.restype = _HeapInfo
        return int(told().free)
    return 0


class _HeapInfo(ctypes.Structure):
    """glibc's struct mallinfo2 (malloc.h); `free` is fordblks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks")
    ] + [(name, ctypes.c_size_t) for name in ("used", "free", "keepcost")]
