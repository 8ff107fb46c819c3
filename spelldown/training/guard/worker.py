"""The thread that works where memory is short: one that may be spoilt.

oneDNN (Xbyak within it) keeps the first error of every thread: once a kernel found no room, none is
ever made again in the same thread, however much room there is. So work goes on in another. And what
oneDNN had begun to make when memory ran out is kept for the thread, half-made; it is taken apart
when the thread ends, which breaks the process. So such a thread never ends, but waits for ever; and
where memory is limited work begins in a thread of its own, since the process's first one must end.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

Made = TypeVar("Made")
SIGN = "could not create a primitive"
GRAIN = 1 << 15  # numbers that torch gives to a thread at least


class Worker:
    """Runs work in the calling thread, or in one of its own: once it is asked to (`begin`), and in
    another one each time that one is spoilt."""

    def __init__(self) -> None:
        self.thread: _Thread | None = None
        self.spoilt = False

    def run(self, work: Callable[[], Made]) -> Made:
        """What `work` gives, made under the caller's modes and with as many threads of torch."""
        if self.thread is None:
            return work()
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        threads = torch.get_num_threads()

        def elsewhere() -> Made:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                return work()

        return self.thread.result(elsewhere)

    def failed(self, error: Exception) -> None:
        """Notes that memory ran out in the thread that works; to be followed by `begin`."""
        if self.thread is not None:
            self.thread.ends = False
        self.spoilt = SIGN in str(error)

    def begin(self, anyway: bool = False) -> None:
        """Lets another thread work from here on if the last error has spoilt the one before, or
        `anyway`, and lets those begin that it shares its work with.

        Where there is no memory, a thread dies before it is known to have begun, and is waited for
        without end: see `Fence.eased`.
        """
        if self.spoilt or anyway:
            self.close()
            self.thread, self.spoilt = _Thread(), False
            self.thread.result(partial(_gather, torch.get_num_threads()))

    def close(self) -> None:
        """Lets the thread go."""
        if self.thread is not None and self.thread.ends:
            self.thread.end()
        self.thread = None


class _Thread:
    """A thread that does one thing after the other, until it is let go: with `ends`, by its end."""

    def __init__(self) -> None:
        self.ends = True
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="spelldown-training", daemon=True).start()

    def result(self, work: Callable[[], Made]) -> Made:
        done: Future[Made] = Future()
        self._tasks.put(partial(_do, work, done))
        return done.result()

    def end(self) -> None:
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # and all that it holds


def _do(work: Callable[[], Made], done: "Future[Made]") -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)
    finally:
        del work, done  # else the error holds them, and they the error


def _gather(threads: int) -> None:
    """Starts the threads that torch shares the calling thread's work with."""
    torch.set_num_threads(threads)
    torch.zeros(threads * GRAIN).add_(1)
