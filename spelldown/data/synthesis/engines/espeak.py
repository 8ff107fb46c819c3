"""eSpeak NG: the `espeakng-loader` package's library, or an `espeak-ng` program on the PATH."""

import importlib.util
import io
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
import soundfile

from spelldown.data.synthesis.engines import espeak_voices as known
from spelldown.data.synthesis.engines.speaking import (
    TIMEOUT,
    ChildEngine,
    Programs,
    Request,
    Speech,
    Voice,
    spoken_text,
    unknown,
)
from spelldown.errors import DataError

INSTALL = "pip install espeakng-loader  (or, on Debian and Ubuntu: apt-get install espeak-ng)"
WORDS_A_MINUTE = 130  # at pace 1: about 15 letters a second, as people read aloud


class EspeakVoices:
    """Which voices there are: every language can be spoken by every variant.

    languages: (code, identifier, name) of each, as ("en-us", "gmw/en-US", "English (America)")
    variants: identifiers, as `!v/f3`
    """

    name = "espeak"
    paced = True
    languages: list[tuple[str, str, str]]
    variants: list[str]

    def read(self, languages: Iterable[Sequence[str]], variants: Iterable[str]) -> None:
        self.languages = [(code, identifier, name) for code, identifier, name in languages]
        self.variants = list(variants)
        self.identifiers = frozenset(one for _, one, _ in self.languages) | set(self.variants)

    def check(self, voice: str) -> None:
        # eSpeak NG itself falls back silently to the plain accent for a variant that it lacks.
        accent, plus, variant = voice.partition("+")
        if accent not in self.identifiers or (plus and f"!v/{variant}" not in self.identifiers):
            raise DataError(f"this eSpeak NG has no voice {voice!r}")

    def cast(self, voices: Sequence[str], languages: Sequence[str]) -> list[Voice]:
        """A voice for each variant, in all accents of the languages.

        Without names: those variants that people, too, would understand (`espeak_voices.py`).
        """
        have = [variant.removeprefix("!v/") for variant in self.variants]
        wrong = [unknown("voice", one, have) for one in voices if one not in have]
        accents: list[str] = []
        for language in languages:
            found = self._accents(language)
            accents += found
            if not found:
                codes = [code for code, _, _ in self.languages]
                wrong.append(unknown("language", language, codes))
        if wrong:
            raise DataError("this eSpeak NG cannot speak so", wrong)
        good = [*known.TRAIN, *known.DEV, *known.TEST]
        chosen = voices or [variant for variant in good if variant in have] or have
        code = languages[0] if len(languages) == 1 else ""
        return [
            Voice(
                speaker=f"espeak-{variant.replace(' ', '-')}",
                ids=tuple(known.identifier(accent, variant) for accent in accents),
                language=code,
            )
            for variant in chosen
        ]

    def _accents(self, language: str) -> list[str]:
        """Identifiers by a code (`el`), by the beginning of several (`en`, `fr`), or by a name."""
        asked = language.lower()
        exact = [one for code, one, _ in self.languages if code.lower() == asked]
        if exact:
            return exact
        every = [one for code, one, _ in self.languages if code.lower().startswith(f"{asked}-")]
        people = [one for one in every if one in known.ACCENTS]  # English has odd ones, too
        return people or every or [one for _, one, n in self.languages if n.lower() == asked]


class LoaderEngine(EspeakVoices, ChildEngine):
    """The `espeakng-loader` package's library, in one child process for many utterances."""

    name = "espeak"
    title = "eSpeak NG"
    install = INSTALL

    def __init__(self, timeout: float = TIMEOUT) -> None:
        super().__init__(timeout)
        self.read(self.about["languages"], self.about["variants"])

    def speak(self, request: Request) -> Speech:
        self.check(request.voice)
        return super().speak(request)

    def asked(self, request: Request) -> dict[str, Any]:
        return super().asked(request) | {"rate": words_a_minute(request)}


class ProgramEngine(EspeakVoices):
    """An `espeak-ng` program, started for each utterance. It has no pitch range to set."""

    def __init__(self, program: str, timeout: float = TIMEOUT) -> None:
        self._program = program
        self._programs = Programs(timeout)
        self.version = self._run("--version").decode().split(":")[1].split()[0]
        listed = [row for row in self._listed("--voices") if not row[1].startswith("mb/")]
        self.read(listed, [row[1] for row in self._listed("--voices=variant")])

    def _listed(self, option: str) -> list[tuple[str, str, str]]:
        # Pty Language Age/Gender VoiceName File (Other) ...; a file's name may hold one space
        rows = []
        for line in self._run(option).decode().splitlines():
            fields = line.split(None, 4)
            if len(fields) == 5 and fields[0].isdigit():
                file = re.split(r"\s{2,}|\s+\(", fields[4].strip())[0]
                rows.append((fields[1], file, fields[3].replace("_", " ")))
        return rows

    def speak(self, request: Request) -> Speech:
        self.check(request.voice)
        numbers = {"-s": words_a_minute(request), "-p": request.pitch, "-a": request.volume}
        options = [str(part) for pair in numbers.items() for part in pair]
        text = spoken_text(request.text)
        wav = self._run("-v", request.voice, *options, "--stdout", "--", text)
        samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
        return Speech(np.asarray(samples, dtype=np.int16), rate)

    def close(self) -> None:
        self._programs.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, *arguments: str) -> bytes:
        try:
            status, printed, complained = self._programs.run([self._program, *arguments])
        except OSError as error:
            raise DataError(f"{self._program} cannot be run: {error.strerror}") from error
        except DataError as error:
            raise DataError(f"{self._program} {error.summary}") from error
        if status != 0:
            raise DataError(f"{self._program} has failed: {complained or status}")
        return printed


def words_a_minute(request: Request) -> int:
    """How fast a request is to be spoken, as eSpeak NG counts it."""
    return round(WORDS_A_MINUTE * request.speed)


def find_espeak(timeout: float = TIMEOUT) -> Callable[[], LoaderEngine | ProgramEngine]:
    """How to start eSpeak NG; raises DataError with what to install when there is none."""
    if importlib.util.find_spec("espeakng_loader") is not None:
        return lambda: LoaderEngine(timeout)
    program = shutil.which("espeak-ng")
    if program is not None:
        return lambda: ProgramEngine(program, timeout)
    raise DataError(
        "nothing here can speak: eSpeak NG is needed, and neither its library nor its program "
        f"was found. To install it: {INSTALL}"
    )
