"""A corpus of beeps to prepare: recordings in no time, and sources that name them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from spelldown.data.checks import Problem
from spelldown.data.preparing.prepare import Prepared, PrepareSettings, prepare
from spelldown.data.preparing.utterance import Utterance

RATE = 16000
TEXTS = ("we call it a bear", "Hello, world", "it's three o'clock", "the dogs' bones", "so be it")


def beep(
    seconds: float = 1.0, loudness: float = 0.2, rate: int = RATE, seed: int = 0
) -> NDArray[np.float32]:
    """A tone in noise, (N,) within [-1, 1]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 220 * time) + 0.3 * random.standard_normal(len(time))
    return (loudness * tone).clip(-1, 1).astype(np.float32)


def write_kaldi(folder: Path, speakers: int = 6, each: int = 4) -> Path:
    """A Kaldi folder with `train` and `test`, texts, speakers, genders and ages."""
    for part, first in (("train", 0), ("test", 100)):
        root = folder / part
        (root / "audio").mkdir(parents=True)
        lines: dict[str, list[str]] = {}
        for speaker in range(first, first + speakers):
            lines.setdefault("spk2gender", []).append(f"{speaker:03} {'mf'[speaker % 2]}")
            lines.setdefault("spk2age", []).append(f"{speaker:03} {9 + speaker % 4 * 6}")
            for number in range(each):
                name = f"{speaker:03}-{number}"
                seconds = 0.8 + 0.1 * ((speaker + number) % 5)
                samples = beep(seconds, seed=10 * speaker + number)
                soundfile.write(root / "audio" / f"{name}.wav", samples, RATE)
                text = f"{TEXTS[number % len(TEXTS)]} {'abcdefgh'[speaker % 8]}".upper()
                lines.setdefault("text", []).append(f"{name} {text}")
                lines.setdefault("wav.scp", []).append(f"{name} audio/{name}.wav")
                lines.setdefault("utt2spk", []).append(f"{name} {speaker:03}")
        for name, content in lines.items():
            (root / name).write_text("".join(f"{line}\n" for line in content))
    return folder


def utterances(folder: Path, count: int, **about: Any) -> list[Utterance]:
    """Utterances of recordings that are written into `folder`; `about` holds for all."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"u{number:03}.wav"
        soundfile.write(path, beep(0.5 + 0.05 * (number % 7), seed=number), RATE)
        told = {"text": f"{TEXTS[number % len(TEXTS)]} {number}", **about}
        found.append(Utterance(path.stem, f"table, line {number + 1}", audio=path, **told))
    return found


def prepared(
    out: Path,
    source: Iterable[Utterance | Problem] | Callable[[], Iterable[Utterance | Problem]],
    settings: PrepareSettings | None = None,
    **more: Any,
) -> Prepared:
    """`prepare` of a source that is a list, or a function that gives one."""
    give = source if callable(source) else lambda: source
    about = {"kind": "test", "source": "here"}
    return prepare(give, about, out, settings or PrepareSettings(), **more)


def files_of(out: Path) -> dict[str, bytes]:
    """What is in a prepared folder, without what is kept for the next time."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("*")) if path.is_file()}
