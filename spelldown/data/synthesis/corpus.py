"""The demo's corpus: recordings and lhotse manifests, made in seconds, whole or not at all.

DIR/train.jsonl.gz, dev.jsonl.gz, test.jsonl.gz     cuts; paths relative to DIR
DIR/audio/<part>/<utterance>.wav                    16 kHz, 16 bit, mono
DIR/corpus.json                                     what it was made from
"""

import gzip
import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
import soundfile
import soxr
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spelldown.data.synthesis import voices
from spelldown.data.synthesis.engine import Engine, Request, find_engine
from spelldown.data.synthesis.sentences import draw_sentences
from spelldown.errors import DataError
from spelldown.settings import Settings
from spelldown.writing import write_whole

SAMPLE_RATE = 16000
PARTS = ("train", "dev", "test")
ABOUT = "corpus.json"
VERSION = 1  # of what is said and how: other corpora are made anew


def _least_first(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(f"{list(span)} is not [least, most]")
    return span


Span = Annotated[tuple[int, int], AfterValidator(_least_first)]


class SynthesisSettings(Settings):
    """How much is said, how differently, and how cleanly.

    train, dev, test: utterances; no sentence occurs twice, no voice in two parts.
    rate: words a minute; pitch, intonation: eSpeak NG's 0 to 99. These and the next two are
        [least, most], drawn for every utterance.
    loudness: of the whole recording, in dB below full scale (root mean square).
    noise: white noise, in dB below the speech.
    processes: engines at work at the same time.
    """

    train: int = Field(2000, ge=1)
    dev: int = Field(120, ge=1)
    test: int = Field(200, ge=1)
    rate: Span = (105, 150)
    pitch: Span = (35, 65)
    intonation: Span = (35, 65)
    loudness: Span = (-30, -20)
    noise: Span = (25, 45)
    seed: int = Field(1, ge=0)
    processes: int = Field(2, ge=1)


@dataclass(frozen=True)
class Utterance:
    """One recording to be made: who says what, and where it goes."""

    id: str
    part: str
    speaker: str
    request: Request
    loudness: float
    noise: float
    seed: int

    @property
    def path(self) -> str:
        return f"audio/{self.part}/{self.id}.wav"


def make_demo_corpus(out: Path, settings: SynthesisSettings | None = None) -> None:
    """Makes the corpus in the folder `out`, or says that it is there already.

    Can be interrupted at any moment and started again: finished recordings are kept, and the
    manifests are written when all is there. A corpus of other settings is replaced.

    Raises DataError when no engine is installed (with the command that installs one), when the
    engine lacks the voices, or when `out` holds something else.
    """
    settings = settings or SynthesisSettings()
    console = Console(stderr=True)
    if _is_there(out, settings):
        console.print(f"The corpus is there already: {out}")
        return
    start = find_engine()
    with start() as engine:
        about = _about(settings, engine.version)
        utterances = plan(settings, engine.voices)
    _prepare(out, about)
    began = time.monotonic()
    seconds = _record(out, utterances, settings.processes, start, console)
    for part in PARTS:
        cuts = [_cut(u, seconds[u.id]) for u in utterances if u.part == part]
        write_whole(out / f"{part}.jsonl.gz", _manifest(cuts))
    console.print(
        f"Made {len(utterances):,} utterances, {sum(seconds.values()) / 60:.0f} minutes of speech, "
        f"in {time.monotonic() - began:.0f} seconds: {out}"
    )


def plan(settings: SynthesisSettings, engine_voices: frozenset[str]) -> list[Utterance]:
    """Every utterance of the corpus; the same for the same settings and voices."""
    random = Random(settings.seed)
    counts = {"test": settings.test, "dev": settings.dev, "train": settings.train}
    sentences = iter(draw_sentences(sum(counts.values()), random))
    accents = [accent for accent in voices.ACCENTS if accent in engine_voices]
    utterances = []
    for part, count in counts.items():
        cast = _cast(part, engine_voices)
        for number in range(count):
            variant = cast[number % len(cast)]
            request = Request(
                text=next(sentences),
                voice=voices.identifier(random.choice(accents), variant),
                rate=random.randint(*settings.rate),
                pitch=random.randint(*settings.pitch),
                intonation=random.randint(*settings.intonation),
            )
            utterance = Utterance(
                id=f"{variant}-{number:04d}",
                part=part,
                speaker=variant,
                request=request,
                loudness=random.uniform(*settings.loudness),
                noise=random.uniform(*settings.noise),
                seed=random.getrandbits(32),
            )
            utterances.append(utterance)
    return utterances


def _cast(part: str, engine_voices: frozenset[str]) -> list[str]:
    """The variants of a part that the engine has."""
    wanted = {"train": voices.TRAIN, "dev": voices.DEV, "test": voices.TEST}[part]
    least = voices.LEAST_TRAIN if part == "train" else voices.LEAST_HELD_OUT
    cast = [variant for variant in wanted if f"!v/{variant}" in engine_voices]
    if len(cast) < least or not any(accent in engine_voices for accent in voices.ACCENTS):
        raise DataError(
            f"this eSpeak NG has {len(cast)} of the {len(wanted)} {part} voices; at least {least} "
            "are needed, and an English accent: install a newer one, or espeakng-loader"
        )
    return cast


# --- recordings


def _record(
    out: Path,
    utterances: list[Utterance],
    processes: int,
    start: Callable[[], Engine],
    console: Console,
) -> dict[str, float]:
    """Makes the recordings that are not there yet; gives the seconds of all, by id."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    seconds: dict[str, float] = {}
    stop = threading.Event()
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress,
        ThreadPoolExecutor(processes) as pool,
    ):
        task = progress.add_task("speaking", total=len(utterances))

        def work(share: list[Utterance]) -> None:
            with start() as engine:
                for utterance in share:
                    if stop.is_set():
                        return
                    seconds[utterance.id] = _record_one(out, utterance, engine)
                    progress.advance(task)

        # Threads that wait, each for a process that speaks.
        shares = [pool.submit(work, utterances[i::processes]) for i in range(processes)]
        try:
            for share in shares:
                share.result()
        finally:
            stop.set()  # after an error or Ctrl-C the others end with their utterance
    return seconds


def _record_one(out: Path, utterance: Utterance, engine: Engine) -> float:
    """The seconds of one recording, made unless it is there."""
    path = out / utterance.path
    if path.exists():
        return float(soundfile.info(path).duration)
    spoken = engine.speak(utterance.request)
    samples = _in_a_room(spoken, engine.sample_rate, utterance)
    recording = io.BytesIO()
    soundfile.write(recording, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    write_whole(path, recording.getvalue(), lasting=False)
    return len(samples) / SAMPLE_RATE


def _in_a_room(spoken: NDArray[np.int16], sample_rate: int, utterance: Utterance) -> Any:
    """The speech as a recording (N,) float32: at our rate, at its loudness, in its noise."""
    samples = soxr.resample(spoken.astype(np.float32) / 2**15, sample_rate, SAMPLE_RATE)
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    if power < 1e-8:
        raise DataError(f"eSpeak NG was silent as {utterance.request.voice!r}")
    gain = 10 ** (utterance.loudness / 20) / np.sqrt(power)
    gain = min(gain, 0.95 / float(np.abs(samples).max()))
    noise = np.random.default_rng(utterance.seed).standard_normal(len(samples), dtype=np.float32)
    noise *= np.sqrt(power) * 10 ** (-utterance.noise / 20)
    return (gain * (samples + noise)).clip(-1, 1)


# --- the folder


def _about(settings: SynthesisSettings, engine_version: str) -> dict[str, Any]:
    """What the corpus is made from, as it stands in its folder."""
    wanted = settings.model_dump(mode="json", exclude={"processes"})
    return {"version": VERSION, "engine": f"eSpeak NG {engine_version}", "settings": wanted}


def _found(out: Path) -> dict[str, Any]:
    """What the corpus in `out` was made from; empty when there is none."""
    try:
        found = json.loads((out / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_there(out: Path, settings: SynthesisSettings) -> bool:
    found = _found(out)
    wanted = _about(settings, "") | {"engine": found.get("engine")}  # any engine's is as good
    return found == wanted and all((out / f"{part}.jsonl.gz").is_file() for part in PARTS)


def _prepare(out: Path, about: dict[str, Any]) -> None:
    """Empties `out` of a corpus made from something else, and makes the folders."""
    if _found(out) != about:
        if out.exists() and any(out.iterdir()) and not (out / ABOUT).exists():
            raise DataError(f"{out} holds something else than a corpus of ours; name a new folder")
        for part in PARTS:
            (out / f"{part}.jsonl.gz").unlink(missing_ok=True)
        if (out / "audio").exists():
            shutil.rmtree(out / "audio")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / ABOUT, json.dumps(about, indent=2) + "\n")
    for part in PARTS:
        (out / "audio" / part).mkdir(parents=True, exist_ok=True)


def _cut(utterance: Utterance, seconds: float) -> MonoCut:
    """The manifest's entry, with a path relative to the corpus' folder."""
    count = round(seconds * SAMPLE_RATE)
    source = AudioSource("file", [0], utterance.path)
    spoken = SupervisionSegment(
        utterance.id,
        utterance.id,
        0.0,
        seconds,
        text=utterance.request.text,
        language="English",
        speaker=utterance.speaker,
        custom={"voice": utterance.request.voice},
    )
    recording = Recording(utterance.id, [source], SAMPLE_RATE, count, seconds)
    return MonoCut(utterance.id, 0.0, seconds, 0, supervisions=[spoken], recording=recording)


def _manifest(cuts: Sequence[MonoCut]) -> bytes:
    """The cuts as lhotse writes them, a line each; the same bytes for the same cuts."""
    lines = "".join(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n" for cut in cuts)
    return gzip.compress(lines.encode(), mtime=0)
