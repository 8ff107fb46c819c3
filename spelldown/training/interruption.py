"""Ctrl-C and SIGTERM as a wish to stop soon, rather than a blow."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """While this context lasts, the first SIGINT or SIGTERM is only noted in `wished`.

    A second one interrupts at once, as ever, unless this is `patient`: what watches over several
    processes may send its own after the terminal's, and kills those that take too long. Outside the
    main thread signals stay as they are.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, patient: bool = False) -> None:
        self.wished, self.patient = False, patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.wished = False
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wished = True
        if not self.patient:
            self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
