"""Any program of the user's that writes a recording of a sentence.

The command is split as a shell would split it, but no shell runs it: a sentence is one argument,
whatever stands in it. In its arguments are replaced

    {text}   the sentence; a command without it gets the sentence on its standard input
    {voice}  one of the voices
    {speed}  as 1.1, where 2 is twice as fast
    {seed}   a number: the same for the same utterance
    {out}    where the recording is to go, a name that ends in .wav (any format that we can read);
             a command without it writes the recording to its standard output
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from spelldown.data.synthesis.engines.speaking import Request, Speech, Voice
from spelldown.errors import DataError

PLACES = ("text", "voice", "speed", "seed", "out")
NO_VOICE = "voice"


class CommandEngine:
    """A program that is started for each utterance, and ended when it takes longer than `timeout`.

    Its name in speakers and identifiers is the program's.
    """

    def __init__(self, command: str, timeout: float) -> None:
        self._arguments = split_command(command)
        self._timeout = timeout
        self._running: set[subprocess.Popen[bytes]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="spelldown-")
        self.name = Path(self._arguments[0]).stem
        self.version = command
        self.paced = self._takes("speed")

    def cast(self, voices: Sequence[str], languages: Sequence[str]) -> list[Voice]:
        """The voices as they are named: the command knows what they mean."""
        if voices and not self._takes("voice"):
            raise DataError(f"the command takes no voice: put {{voice}} into it: {self.version}")
        if not voices and self._takes("voice"):
            raise DataError("the command wants a {voice}: say which there are, --voices A,B,C")
        language = languages[0] if len(languages) == 1 else ""
        return [
            Voice(f"{self.name}-{Path(voice).stem}", (voice,), language)
            for voice in voices or [NO_VOICE]
        ]

    def speak(self, request: Request) -> Speech:
        out = Path(self._folder.name) / "said.wav"
        out.unlink(missing_ok=True)
        values = {
            "text": request.text,
            "voice": request.voice,
            "speed": f"{request.speed:.3f}",
            "seed": str(request.seed),
            "out": str(out),
        }
        place = re.compile("{(" + "|".join(PLACES) + ")}")  # once over: a text may hold {out}
        arguments = [place.sub(lambda m: values[m[1]], one) for one in self._arguments]
        said = self._run(arguments, "" if self._takes("text") else request.text, request.text)
        if self._takes("out"):
            if not out.is_file():
                raise DataError(f"{self._calls(request.text)} wrote no {{out}}")
            said = out.read_bytes()
        try:
            samples, rate = soundfile.read(io.BytesIO(said), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            where = "{out}" if self._takes("out") else "its standard output"
            raise DataError(
                f"{self._calls(request.text)} wrote no recording to {where}: {error}"
            ) from error
        mono = samples.mean(axis=1) * 2**15
        return Speech(mono.clip(-(2**15), 2**15 - 1).astype(np.int16), rate)

    def close(self) -> None:
        for process in list(self._running):
            _end(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._folder.cleanup()

    def _takes(self, what: str) -> bool:
        return any(f"{{{what}}}" in argument for argument in self._arguments)

    def _calls(self, text: str) -> str:
        return f"the command {self.name!r}, asked to say {text!r},"

    def _run(self, arguments: Sequence[str], given: str, text: str) -> bytes:
        """What the program prints; raises DataError when it fails or takes too long."""
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # ended with all that it starts
        )
        self._running.add(process)
        try:
            printed, complained = process.communicate(given.encode(), timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{self._calls(text)} was not done after {self._timeout:g} seconds (--timeout)"
            ) from None
        finally:
            if process.poll() is None:
                _end(process)
                process.communicate()
            self._running.discard(process)
        if process.returncode != 0:
            lines = complained.decode(errors="replace").strip().splitlines()
            why = f": {lines[-1]}" if lines else ""
            raise DataError(f"{self._calls(text)} failed with status {process.returncode}{why}")
        return printed


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started, if it is still there."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def split_command(command: str) -> list[str]:
    """The command's arguments; raises DataError for one that cannot be run."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise DataError(f"--command {command!r}: {error}") from error
    if not arguments:
        raise DataError("--command is empty: give a program, as 'say -o {out} {text}'")
    strange = [
        name
        for argument in arguments
        for name in re.findall(r"{(\w+)}", argument)
        if name not in PLACES
    ]
    if strange:
        have = ", ".join(f"{{{name}}}" for name in PLACES)
        raise DataError(f"--command: there is no {{{strange[0]}}}; what is replaced is {have}")
    if shutil.which(arguments[0]) is None:
        raise DataError(
            f"--command: there is no program {arguments[0]!r} here, or it cannot be run"
        )
    return arguments


def find_command(command: str | None, timeout: float) -> Callable[[], CommandEngine]:
    """How to start the command; raises DataError for one that cannot be run."""
    if command is None:
        raise DataError(
            "--engine command needs the command: --command 'program -v {voice} -o {out} {text}'"
        )
    split_command(command)
    return lambda: CommandEngine(command, timeout)
