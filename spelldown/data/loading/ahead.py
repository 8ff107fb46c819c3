"""Things made ahead of time by threads, while whoever wants them is busy with the last."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Made = TypeVar("Made")
Item = TypeVar("Item")

AHEAD = 8  # items under way for each thread, so that none waits for a slow one


def ahead(source: Iterator[Made], count: int) -> Iterator[Made]:
    """What `source` gives, in its order, up to `count` of them made in advance by a thread.

    None marks the end, and must not be among them. An error of the source is raised where it would
    have been. The thread works on one processor core, whatever number others have, begins with the
    first that is asked for, and ends when the iterator is closed or forgotten.
    """
    ready: queue.Queue[tuple[Made | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(found: tuple[Made | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return ready.put(found, timeout=0.1)
            except queue.Full:
                pass

    def make() -> None:
        _work_alone()
        try:
            for found in source:
                put((found, None))
                if stopped.is_set():
                    return
            put((None, None))
        except BaseException as error:
            put((None, error))

    torch.get_num_threads()  # settles this thread's number, if torch was not used here yet
    thread = threading.Thread(target=make, name="spelldown-batches", daemon=True)
    thread.start()
    try:
        while True:
            found, error = ready.get()
            if error is not None:
                raise error
            if found is None:
                return
            yield found
    finally:
        stopped.set()
        thread.join()


def _work_alone() -> None:
    """Bounds the calling thread to one processor core, and no other.

    torch counts threads for each apart, but the number last set anywhere is also that of every
    thread that first uses torch later. So a thread that does nothing else sets it back.
    """
    usual = torch.get_num_threads()  # asked first: the number would be looked up again otherwise
    torch.set_num_threads(1)
    restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restoring.start()
    restoring.join()


def side_by_side(
    pool: ThreadPoolExecutor, work: Callable[[Item], Made], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Future[Made]]]:
    """Each item with what `work` makes of it in one of the pool's threads, in the items' order.

    Items are taken up to AHEAD for each thread before the first is done, whose future is waited for
    by whoever asks for its result. What has not begun when the iterator is closed, is not done.
    """
    under_way: deque[tuple[Item, Future[Made]]] = deque()
    try:
        for item in items:
            under_way.append((item, pool.submit(work, item)))
            if len(under_way) >= AHEAD * threads:
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()
