"""eSpeak NG driven from outside: a child process speaks, this one only listens.

Nothing of eSpeak NG (GPL) is ever loaded here. The `espeakng-loader` package comes first, driven
through `espeak.py`; without it, an `espeak-ng` program on the PATH.
"""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from spelldown.errors import DataError

INSTALL = "pip install espeakng-loader  (or, on Debian and Ubuntu: apt-get install espeak-ng)"


@dataclass(frozen=True)
class Request:
    """What to say and how: words a minute; pitch, intonation (pitch range), volume: 0 to 100.

    The volume is well below 100, at which the louder voices clip.
    """

    text: str
    voice: str
    rate: int = 160
    pitch: int = 50
    intonation: int = 50
    volume: int = 35


class Engine(Protocol):
    """Something that speaks; a context manager that ends what it started."""

    version: str
    voices: frozenset[str]
    sample_rate: int

    def speak(self, request: Request) -> NDArray[np.int16]:
        """The samples of one utterance; raises DataError for a voice that is not there."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def find_engine() -> Callable[[], Engine]:
    """How to start an engine; raises DataError with what to install when there is none."""
    if importlib.util.find_spec("espeakng_loader") is not None:
        return LoaderEngine
    program = shutil.which("espeak-ng")
    if program is not None:
        return lambda: ProgramEngine(program)
    raise DataError(
        "nothing here can speak: the demo's corpus needs eSpeak NG, "
        f"and neither its library nor its program was found. To install it: {INSTALL}"
    )


class LoaderEngine:
    """The `espeakng-loader` package's library, in one child process for many utterances."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("espeak.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            about = json.loads(self._line())
        except BaseException:
            self.__exit__()
            raise
        self.version: str = about["version"]
        self.voices = frozenset(about["voices"])
        self.sample_rate: int = about["sample_rate"]

    def speak(self, request: Request) -> NDArray[np.int16]:
        _check_voice(request.voice, self.voices)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: the reading below says of what
        count = int(self._line())
        if count < 0:
            raise DataError(f"eSpeak NG cannot use its voice {request.voice!r}")
        return np.frombuffer(self._process.stdout.read(2 * count), dtype="<i2")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else "without a word"
            raise DataError(f"eSpeak NG has stopped: {last}. To install it anew: {INSTALL}")
        return line


class ProgramEngine:
    """An `espeak-ng` program, started for each utterance. It has no pitch range to set."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.version = self._run("--version").decode().split(":")[1].split()[0]
        listed = self._run("--voices=en") + self._run("--voices=variant")
        self.voices = frozenset(re.findall(r"\s((?:gmw|!v)/\S+)", listed.decode()))
        self.sample_rate = 22050

    def speak(self, request: Request) -> NDArray[np.int16]:
        _check_voice(request.voice, self.voices)
        numbers = {"-s": request.rate, "-p": request.pitch, "-a": request.volume}
        options = [str(part) for pair in numbers.items() for part in pair]
        wav = self._run("-v", request.voice, *options, "--stdout", "--", request.text.lower())
        samples, self.sample_rate = soundfile.read(io.BytesIO(wav), dtype="int16")
        return np.asarray(samples, dtype=np.int16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _run(self, *arguments: str) -> bytes:
        done = subprocess.run(
            [self._program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise DataError(f"{self._program} has failed: {said or done.returncode}")
        return done.stdout


def _check_voice(voice: str, voices: frozenset[str]) -> None:
    # eSpeak NG itself falls back silently to the plain accent for a variant that it lacks.
    accent, plus, variant = voice.partition("+")
    if accent not in voices or (plus and f"!v/{variant}" not in voices):
        raise DataError(f"this eSpeak NG has no voice {voice!r}")
