"""Memory that ran out: how it is told from other errors, and how it is given back."""

import ctypes
import errno
import gc
import sys
from contextlib import suppress

import torch

SIGNS = (
    "can't allocate memory",  # torch's own allocator on the processor
    "out of memory",  # CUDA, and libraries on top of it
    "std::bad_alloc",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "unable to find an engine",  # cuDNN, which found no room to work in with any
    "could not create a memory",  # oneDNN
    "could not create a primitive",  # oneDNN, which wants room for a kernel
    "could not execute a primitive",  # oneDNN, which wants room to work in
    "cannot allocate memory",  # the system's word for it
    "can't start new thread",  # Python, which wants room for its stack
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on a GPU or the processor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    # torch only warns where oneDNN finds no room, and goes on many times slower (see `held_to`).
    return isinstance(error, RuntimeError | UserWarning) and any(sign in said for sign in SIGNS)


def give_back(device: torch.device) -> int:
    """Gives memory that nothing uses back to where it came from; how many bytes, on a GPU.

    To be called outside of the `except` block: as long as an error is known, so is its traceback,
    and with it every tensor of the functions that it came through.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_reserved(device)
        torch.cuda.empty_cache()
        return before - torch.cuda.memory_reserved(device)
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
    return 0
