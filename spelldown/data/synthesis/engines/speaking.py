"""What every engine takes and gives, and how one in a process of its own is spoken with."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from spelldown.errors import DataError

SHOWN = 12  # names listed in a message


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


class ChildEngine:
    """An engine in a child process, that speaks many utterances one after the other.

    The process runs `child.py` in this Python; it ends with this object, or when our process does.
    """

    name = ""  # what child.py knows it by
    paced = True
    title = ""
    install = ""

    def __init__(self) -> None:
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
            self.about: Mapping[str, Any] = json.loads(self._line())
        except BaseException:
            self.close()
            raise
        self.version: str = self.about["version"]

    def speak(self, request: Request) -> Speech:
        asked = asdict(request) | {"text": spoken_text(request.text)}
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has died or was ended: the reading below says of what
        answer = json.loads(self._line())
        if "error" in answer:
            raise DataError(f"{self.title} cannot say {request.text!r}: {answer['error']}")
        samples = self._process.stdout.read(2 * int(answer["samples"]))
        return Speech(np.frombuffer(samples, dtype="<i2"), int(answer["sample_rate"]))

    def close(self) -> None:
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._process.communicate()
        self._said.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else "without a word"
            raise DataError(f"{self.title} has stopped: {last}. To install it anew: {self.install}")
        return line
