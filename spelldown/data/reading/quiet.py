"""Sound files read without what libmpg123, inside libsndfile, writes to the terminal by itself.

Of every damaged MP3 it tells there (`part2_3_length too large`, `Xing stream size off`), but not
which. libsndfile leads no way to its switch, MPG123_QUIET (github.com/libsndfile/libsndfile, issue
958). These lines go to the C library's variable `stderr`, which glibc lets programs set ("Standard
Streams" in its manual). So it names another stream while such a file is decoded. The terminal
itself, what Python and other programs write there, and file descriptor 2 are not touched.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any

import soundfile


class _Hush:
    """The C library's `stderr`, set aside for as long as any thread wants it so."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._usual: int | None = None
        self._nowhere: int | None = None
        try:
            library = ctypes.CDLL(None)
            _ = library.gnu_get_libc_version  # elsewhere the variable may lie where none can write
            self._stream: ctypes.c_void_p | None = ctypes.c_void_p.in_dll(library, "stderr")
        except (OSError, AttributeError, TypeError, ValueError):
            self._stream = None  # no glibc: the lines remain
            return
        self._open = library.fopen
        self._open.restype, self._open.argtypes = ctypes.c_void_p, (ctypes.c_char_p,) * 2
        os.register_at_fork(
            before=self._lock.acquire,
            after_in_parent=self._lock.release,
            after_in_child=self._alone,
        )

    def enter(self) -> None:
        """Sets the stream aside, if no other thread has."""
        if self._stream is None:
            return
        with self._lock:
            self._nowhere = self._nowhere or self._open(os.devnull.encode(), b"we")
            self._inside += 1
            if self._inside == 1 and self._nowhere:
                self._usual, self._stream.value = self._stream.value, self._nowhere

    def leave(self) -> None:
        """Puts it back, if no other thread is inside."""
        if self._stream is None:
            return
        with self._lock:
            self._inside = max(0, self._inside - 1)  # of a new process, none was counted
            if not self._inside:
                self._restore()

    def _alone(self) -> None:
        """In a new process there is only the thread that made it, and it reads nothing now."""
        self._inside = 0
        self._restore()
        self._lock.release()

    def _restore(self) -> None:
        if self._stream is not None and self._usual is not None:
            self._stream.value, self._usual = self._usual, None


_HUSH = _Hush()


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, C libraries write nothing to standard error through the C library's stream.

    For any number of threads; once all have left, it is as before. Does nothing without glibc.
    """
    _HUSH.enter()
    try:
        yield
    finally:
        _HUSH.leave()


class QuietFile(soundfile.SoundFile):
    """A soundfile.SoundFile of whose damage no library writes to the terminal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        with hushed():  # of what kind it is, libsndfile finds out only now
            super().__init__(*args, **options)

    def _hushed(self) -> Any:
        return hushed() if self.format == "MP3" else nullcontext()

    def read(self, *args: Any, **options: Any) -> Any:
        """As SoundFile's."""
        with self._hushed():
            return super().read(*args, **options)

    def seek(self, *args: Any, **options: Any) -> Any:
        """As SoundFile's."""
        with self._hushed():
            return super().seek(*args, **options)
