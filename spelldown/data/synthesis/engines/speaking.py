"""What every engine takes and gives, and how a process of its own is spoken with.

Either a program that is run for each sentence (`Programs`), or one that stays (`ChildEngine`).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from threading import Thread, Timer
from time import monotonic
from typing import IO, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from spelldown.errors import DataError

SHOWN = 12  # names listed in a message
TIMEOUT = 60.0  # seconds for a sentence
STARTING = 120.0  # seconds that an engine has to be there: they load much
MOST = 2**27  # bytes of a recording of a sentence: ten minutes of the finest
CHUNK = 2**16


@dataclass(frozen=True)
class Request:
    """What to say and how.

    voice: as the engine calls it
    speed: 1 is the engine's own pace, 2 is twice as fast
    pitch, intonation, volume: eSpeak NG's 0 to 99; other engines have no such knobs. The volume is
        well below 99, at which the louder voices clip.
    seed: of what the engine draws by chance: the same request gives the same samples
    """

    text: str
    voice: str
    speed: float = 1.0
    pitch: int = 50
    intonation: int = 50
    volume: int = 35
    seed: int = 0


@dataclass(frozen=True)
class Speech:
    """What was spoken: samples (N,), at so many a second."""

    samples: NDArray[np.int16]
    sample_rate: int


@dataclass(frozen=True)
class Voice:
    """Somebody who speaks.

    speaker: the name in the corpus; one voice is one person in the eyes of a split
    ids: what the engine calls it, once for each of its accents
    language: what it speaks, as `en` or `pt-br`; empty where nobody knows
    """

    speaker: str
    ids: tuple[str, ...]
    language: str = ""


class SilentError(DataError):
    """An engine that gave no speech, or too little, for a sentence."""


class Engine(Protocol):
    """Something that speaks; a context manager that ends what it started."""

    name: str
    version: str
    paced: bool  # whether it can be told how fast to speak

    def speak(self, request: Request) -> Speech:
        """One utterance; raises DataError for a voice that is not there or a failure."""

    def cast(self, voices: Sequence[str], languages: Sequence[str]) -> list[Voice]:
        """The voices by these names (empty: all that are good) in these languages.

        Raises DataError for names and languages that the engine lacks, with near ones.
        """

    def close(self) -> None:
        """Ends at once what it started, from whatever thread."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def unknown(what: str, asked: str, have: Sequence[str]) -> str:
    """A line about a name that is not there: `no voice 'f33'; did you mean 'f3'?`"""
    close = get_close_matches(asked, have, n=1)
    if close:
        return f"no {what} {asked!r}; did you mean {close[0]!r}?"
    some = ", ".join(have[:SHOWN]) + (", ..." if len(have) > SHOWN else "")
    return f"no {what} {asked!r}; there {'are' if have else 'is'} {some or 'none'}"


def spoken_text(text: str) -> str:
    """The text as engines read it best: capitals only would be spelled, letter by letter."""
    return text.lower() if text.isupper() else text


class Programs:
    """Programs that are run one after the other, each in a time, with whatever they start."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, arguments: Sequence[str], given: bytes = b"") -> tuple[int, bytes, str]:
        """Its status, what it prints, at most MOST bytes, and the last of its complaints.

        Raises OSError if it cannot be started, and DataError if it prints more or takes longer;
        then it has been ended.
        """
        process = subprocess.Popen(
            arguments,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # ended with all that it starts
        )
        self._running.add(process)
        printed, complained = bytearray(), bytearray()
        assert process.stdin and process.stdout and process.stderr
        threads = [
            Thread(target=_give, args=(process.stdin, given), daemon=True),
            Thread(target=_keep, args=(process.stdout, printed, MOST, False), daemon=True),
            Thread(target=_keep, args=(process.stderr, complained, CHUNK, True), daemon=True),
        ]
        until = monotonic() + self._timeout
        try:
            for thread in threads:
                thread.start()
            for thread in threads[1:]:
                thread.join(max(0.0, until - monotonic()))
                if len(printed) > MOST:
                    raise DataError(f"printed more than {MOST >> 20} MiB for a sentence")
                if thread.is_alive():
                    raise subprocess.TimeoutExpired(arguments, self._timeout)
            status = process.wait(max(0.0, until - monotonic()))
        except subprocess.TimeoutExpired:
            raise DataError(f"was not done after {self._timeout:g} seconds (--timeout)") from None
        finally:
            _end(process)
            process.wait()
            self._running.discard(process)
        lines = bytes(complained).decode(errors="replace").strip().splitlines()
        return status, bytes(printed), lines[-1] if lines else ""

    def end(self) -> None:
        """Ends at once what is running, from whatever thread."""
        for process in list(self._running):
            _end(process)


def _give(pipe: IO[bytes], said: bytes) -> None:
    with contextlib.suppress(OSError), pipe:  # who does not listen is not made to
        while said:
            said = said[pipe.write(said) :]


def _keep(pipe: IO[bytes], kept: bytearray, most: int, last: bool) -> None:
    """Reads to the end; of more than `most` bytes, keeps the last ones, or stops."""
    with contextlib.suppress(OSError), pipe:
        while chunk := pipe.read(CHUNK):
            kept += chunk
            if len(kept) > most:
                if not last:
                    return
                del kept[:-most]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started, unless its end was seen: its number is free then."""
    if process.returncode is not None:
        return
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class ChildEngine:
    """An engine in a child process, that speaks many utterances one after the other.

    The process runs `child.py` in this Python; it ends with this object, when our process does, or
    when a sentence takes longer than `timeout` seconds.
    """

    name = ""  # what child.py knows it by
    paced = True
    title = ""
    install = ""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._late = 0.0  # seconds after which it was ended
        script = Path(__file__).with_name("child.py")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads fills up)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # as many processes as cores are running
            start_new_session=True,  # Ctrl-C is for us; we end the child
        )
        try:
            with self._within(max(timeout, STARTING)):
                self.about: Mapping[str, Any] = json.loads(self._line())
        except BaseException:
            self.close()
            raise
        self.version: str = self.about["version"]

    def speak(self, request: Request) -> Speech:
        with self._within(self._timeout):
            return self._speak(self.asked(request), request.text)

    def asked(self, request: Request) -> dict[str, Any]:
        """The request as child.py reads it."""
        return asdict(request) | {"text": spoken_text(request.text)}

    def _speak(self, asked: Mapping[str, Any], text: str) -> Speech:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has died or was ended: the reading below says of what
        answer = json.loads(self._line())
        if "error" in answer:
            raise DataError(f"{self.title} cannot say {text!r}: {answer['error']}")
        samples = self._process.stdout.read(2 * int(answer["samples"]))
        if len(samples) < 2 * int(answer["samples"]):
            raise self._stopped()
        return Speech(np.frombuffer(samples, dtype="<i2"), int(answer["sample_rate"]))

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Ends the process if it takes longer: the reading then finds nothing."""

        def end() -> None:
            self._late = seconds
            self.close()

        timer = Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._process.communicate()
        self._said.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._stopped()
        return line

    def _stopped(self) -> DataError:
        """What the process has died of."""
        self._process.wait()
        if self._late:
            return DataError(f"{self.title} was not done after {self._late:g} seconds (--timeout)")
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        last = said.splitlines()[-1] if said else "without a word"
        return DataError(f"{self.title} has stopped: {last}. To install it anew: {self.install}")
