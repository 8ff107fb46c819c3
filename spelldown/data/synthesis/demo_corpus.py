"""The demo's corpus: a little language in fifty voices, made in seconds."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from rich.console import Console

from spelldown.data.synthesis.corpus import Share, Utterance, make_corpus
from spelldown.data.synthesis.engines import espeak_voices as voices
from spelldown.data.synthesis.engines.espeak import WORDS_A_MINUTE, find_espeak
from spelldown.data.synthesis.engines.speaking import Request
from spelldown.data.synthesis.folder import open_folder, what_it_is_made_from
from spelldown.data.synthesis.sentences import draw_sentences
from spelldown.data.synthesis.sound import Take
from spelldown.errors import DataError
from spelldown.settings import Settings

PARTS = ("train", "dev", "test")
VERSION = 2  # of what is said and how: other corpora are made anew
SILENCE = (0.0, 0.4)  # seconds before the speech, and after it


def _least_first(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(f"{list(span)} is not [least, most]")
    return span


Span = Annotated[tuple[int, int], AfterValidator(_least_first)]


class DemoCorpusSettings(Settings):
    """How much is said, how differently, and how cleanly.

    train, dev, test: utterances; no sentence occurs twice, no voice in two parts.
    rate: words a minute; pitch, intonation: eSpeak NG's 0 to 99. These and the next two are
        [least, most], drawn for every utterance.
    loudness: of the speech, in dB below full scale (root mean square).
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


def make_demo_corpus(out: Path, settings: DemoCorpusSettings | None = None) -> None:
    """Makes the corpus in the folder `out`, or says that it is there already.

    Can be interrupted at any moment and started again: finished recordings are kept, and the
    manifests are written when all is there. A corpus of other settings is replaced.

    Raises DataError when no engine is installed (with the command that installs one), when the
    engine lacks the voices, or when `out` holds something else.
    """
    settings = settings or DemoCorpusSettings()
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if _is_there(out, settings):
        console.print(f"The corpus is there already: {out}")
        return
    start = find_espeak()
    with start() as engine:
        about = _about(settings, engine.version)
        planned = dict(plan(settings, engine.identifiers))
    began = time.monotonic()
    shares = [Share(part, planned[part], count=len(planned[part])) for part in PARTS]
    with open_folder(out, about, replace=True):
        made = make_corpus(out, shares, start, settings.processes, console)
    console.print(
        f"Made {sum(one.utterances for one in made.values()):,} utterances, "
        f"{sum(one.seconds for one in made.values()) / 60:.0f} minutes of speech, "
        f"in {time.monotonic() - began:.0f} seconds: {out}"
    )


def plan(
    settings: DemoCorpusSettings, engine_voices: frozenset[str]
) -> Iterator[tuple[str, list[Utterance]]]:
    """Every part's utterances; the same for the same settings and voices."""
    random = Random(settings.seed)
    counts = {"test": settings.test, "dev": settings.dev, "train": settings.train}
    sentences = iter(draw_sentences(sum(counts.values()), random))
    accents = [accent for accent in voices.ACCENTS if accent in engine_voices]
    for part, count in counts.items():
        cast = _cast(part, engine_voices)
        utterances = []
        for number in range(count):
            variant = cast[number % len(cast)]
            request = Request(
                text=next(sentences),
                voice=voices.identifier(random.choice(accents), variant),
                speed=random.randint(*settings.rate) / WORDS_A_MINUTE,
                pitch=random.randint(*settings.pitch),
                intonation=random.randint(*settings.intonation),
                seed=number,
            )
            take = Take(
                loudness=random.uniform(*settings.loudness),
                noise=random.uniform(*settings.noise),
                seed=random.getrandbits(32),
                before=random.uniform(*SILENCE),
                after=random.uniform(*SILENCE),
            )
            name = f"{variant}-{number:04d}"
            path = f"audio/{part}/{name}.wav"
            utterances.append(
                Utterance(name, variant, "English", request.text, path, request, take)
            )
        yield part, utterances


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


def _about(settings: DemoCorpusSettings, engine_version: str) -> dict[str, Any]:
    """What the corpus is made from, as it stands in its folder."""
    wanted = settings.model_dump(mode="json", exclude={"processes"})
    return {"version": VERSION, "engine": f"eSpeak NG {engine_version}", "settings": wanted}


def _is_there(out: Path, settings: DemoCorpusSettings) -> bool:
    found = what_it_is_made_from(out)
    wanted = _about(settings, "") | {"engine": found.get("engine")}  # any engine's is as good
    return found == wanted and all((out / f"{part}.jsonl.gz").is_file() for part in PARTS)
