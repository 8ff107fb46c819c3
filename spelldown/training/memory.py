"""Memory of a training process.

glibc hands every large block back to the system as soon as it is free and takes it again, page by
page, a moment later; a training step does nothing else all day. Keeping freed blocks saves a fifth
of the processor time of a step (docs/log.md) for a few percent of resident memory.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MEGABYTE = 1 << 20


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
