"""Memory of a training process: how much it held at its highest, and how it is kept.

glibc hands every large block back to the system as soon as it is free and takes it again, page by
page, a moment later; a training step does nothing else all day. Keeping freed blocks saves up to a
fifth of the processor time of a step, where batches are alike (docs/log.md).
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h
_MEGABYTE = 1 << 20
_KERNELS = "64"


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for the next step; True if it could be told.

    Only glibc knows these settings; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False  # another C library, such as musl
    # Older glibc refuses a threshold above 32 MB; setting the others without one would do harm.
    if not any(set_option(_MMAP_THRESHOLD, size * _MEGABYTE) for size in (1024, 32)):
        return False
    # Beyond the largest threshold that an int takes, memory is never trimmed.
    options = {_TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 * _MEGABYTE}
    return all([bool(set_option(option, value)) for option, value in options.items()])


def keep_few_kernels() -> None:
    """Tells oneDNN, and what torch lays over it, to keep the kernels of the last 64 products each,
    unless the environment says otherwise.

    A kernel is written for every kind and shape of product, and 1024 are kept by both, while hardly
    a batch has the shape of another: half of what AN4's training held (docs/log.md). Heeded
    only before torch first computes in this process.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, _KERNELS)


def hand_back_freed_memory() -> None:
    """Tells the C library to give every block of 128 kB back as soon as it is free, and what is
    free now at once: where memory is limited, none must lie idle. It costs time, see above. New
    threads share one heap."""
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD):
            library.mallopt(option, _MEGABYTE // 8)
        library.mallopt(_ARENA_MAX, 1)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def peak_memory() -> int | None:
    """Most bytes that this process has held, since `forget_peak` where that can be told.

    None where the system does not tell.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


def peak_gpu_memory(device: torch.device | None = None) -> int | None:
    """Most bytes that tensors have held on the GPU; None without one."""
    return torch.cuda.max_memory_allocated(device) if torch.cuda.is_available() else None


def forget_peak(device: torch.device) -> None:
    """Begins the measurement of memory anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux alone has it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
