"""The thread that works: the one that asks for it, until oneDNN has failed in that.

oneDNN (Xbyak within it) keeps the first error of every thread: once a kernel found no room, none is
ever made again in the same thread, however much room there is. So work goes on in another.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Made = TypeVar("Made")
SIGN = "could not create a primitive"
GRAIN = 1 << 15  # numbers that torch gives to a thread at least


class Worker:
    """Runs work in the calling thread, or in one thread of its own once that one is spoilt."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], Made]) -> Made:
        """What `work` gives, made under the caller's modes and with as many threads of torch."""
        if self.pool is None:
            return work()
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        threads = torch.get_num_threads()

        def elsewhere() -> Made:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                return work()

        return self.pool.submit(elsewhere).result()

    def failed(self, error: Exception) -> None:
        """Takes another thread from here on, if this error has spoilt the one that works; to be
        followed by `begin`."""
        if SIGN in str(error):
            self.close()
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="spelldown-training")

    def begin(self) -> None:
        """Lets the thread begin, if there is to be one, and those that it shares its work with.

        Where there is no memory, a thread dies before it is known to have begun, and is waited for
        without end: see `Fence.eased`.
        """
        if self.pool is not None:
            self.pool.submit(_gather, torch.get_num_threads()).result()

    def close(self) -> None:
        """Lets the thread go."""
        if self.pool is not None:
            self.pool.shutdown(wait=False)
        self.pool = None


def _gather(threads: int) -> None:
    """Starts the threads that torch shares the calling thread's work with."""
    torch.set_num_threads(threads)
    torch.zeros(threads * GRAIN).add_(1)
