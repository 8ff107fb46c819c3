"""What is said into the microphone, until Enter is pressed."""

import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy

from spelldown.errors import AudioError
from spelldown.search.transcribing.sound.streams import Samples

BLOCK_SECONDS = 0.1


def enter_pressed() -> None:
    """Waits for a line, or the end, of standard input."""
    sys.stdin.readline()


class Microphone:
    """The default microphone at its own rate, open until `until` returns; what it hears waits in
    a queue, so that nothing is lost while something is being spelled.

    rate: samples a second. Many devices know one rate and refuse all others.

    Raises AudioError if sounddevice or PortAudio is not installed or there is no microphone.
    """

    incomplete = ""

    def __init__(self, until: Callable[[], None] = enter_pressed) -> None:
        self._until = until
        self._heard: queue.Queue[Samples | None] = queue.Queue()
        self._device = _sounddevice()
        try:
            self.rate = round(self._device.query_devices(kind="input")["default_samplerate"])
            self._stream = self._device.InputStream(
                samplerate=self.rate,
                channels=1,
                dtype="float32",
                blocksize=round(BLOCK_SECONDS * self.rate),
                callback=self._hear,
            )
        except (self._device.PortAudioError, ValueError) as error:
            raise AudioError(f"no microphone can be used: {error}") from error

    def _hear(self, samples: Any, frames: int, time: Any, status: Any) -> None:
        if status and status.input_overflow:
            self.incomplete = "the microphone was not read fast enough: some of it is lost"
        self._heard.put(numpy.array(samples[:, 0], numpy.float32))

    def __enter__(self) -> Self:
        try:
            self._stream.start()
        except self._device.PortAudioError as error:
            raise AudioError(f"no microphone can be used: {error}") from error
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _listen(self) -> None:
        try:
            self._until()
            self._stream.stop()  # waits for the blocks that are under way
        except Exception as error:  # a microphone that was pulled out, a closed standard input
            self.incomplete = f"listening ended early: {error}"
        finally:
            self._heard.put(None)  # whoever reads the blocks would wait for ever

    def blocks(self) -> Iterator[Samples]:
        """What is heard, as it comes. Raises AudioError if nothing was recorded."""
        count = 0
        while (block := self._heard.get()) is not None:
            count += len(block)
            yield block
        if not count:
            raise AudioError("nothing was recorded")


def _sounddevice() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise AudioError(
            "the microphone needs sounddevice: pip install 'spelldown[microphone]'"
        ) from error
    except OSError as error:  # its library is not part of the package on Linux
        raise AudioError(
            f"the microphone needs PortAudio ({error}): apt install libportaudio2, "
            "dnf install portaudio, or brew install portaudio"
        ) from error
