"""Any program of the user's that writes a recording of a sentence.

The command is split as a shell would split it, but no shell runs it: a sentence is one argument,
whatever stands in it. In its arguments are replaced

    {text}   the sentence; a command without it gets the sentence on its standard input
    {voice}  one of the voices
    {speed}  as 1.1, where 2 is twice as fast
    {seed}   a number: the same for the same utterance
    {out}    where the recording is to go, a name that ends in .wav (any format that we can read);
             a command without it writes the recording to its standard output

A sentence may begin with `-`, as an option does: `-- {text}` where the program knows what that
means, or a command without {text}.
"""

import io
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from spelldown.data.synthesis.engines.speaking import MOST, Programs, Request, Speech, Voice
from spelldown.errors import DataError

PLACES = ("text", "voice", "speed", "seed", "out")
NO_VOICE = "voice"


class CommandEngine:
    """A program that is started for each utterance, and ended when it takes longer than `timeout`.

    Its name in speakers and identifiers is the program's.
    """

    def __init__(self, command: str, timeout: float) -> None:
        self._arguments = split_command(command)
        self._programs = Programs(timeout)
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
            if out.stat().st_size > MOST:
                raise DataError(
                    f"{self._calls(request.text)} wrote more than {MOST >> 20} MiB to {{out}}"
                )
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
        self._programs.end()

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
        try:
            status, printed, complained = self._programs.run(arguments, given.encode())
        except OSError as error:
            raise DataError(
                f"--command: {arguments[0]!r} cannot be run: {error.strerror} (a program expected, "
                "or a script whose first line names one that is here, as #!/bin/sh)"
            ) from error
        except DataError as error:
            raise DataError(f"{self._calls(text)} {error.summary}") from error
        if status != 0:
            why = f": {complained}" if complained else ""
            raise DataError(f"{self._calls(text)} failed with status {status}{why}")
        return printed


def split_command(command: str) -> list[str]:
    """The command's arguments; raises DataError for one that cannot be run."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise DataError(f"--command {command!r}: {error}") from error
    if not arguments:
        raise DataError("--command is empty: give a program, as 'say -o {out} -- {text}'")
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
            "--engine command needs the command: --command 'program -v {voice} -o {out} -- {text}'"
        )
    split_command(command)
    return lambda: CommandEngine(command, timeout)
