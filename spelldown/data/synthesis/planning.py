"""Who says what, how: every utterance of a synthetic corpus, drawn from its settings and seed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from spelldown.data.synthesis.corpus import Share, Utterance
from spelldown.data.synthesis.engines.speaking import Request, Voice
from spelldown.data.synthesis.sound import Take
from spelldown.data.synthesis.texts import Sentence
from spelldown.errors import DataError
from spelldown.settings import Settings

A_FOLDER = 1000  # recordings
SECONDS_AN_HOUR = 3600
SPEEDS, UNPACED = (0.85, 1.15), (1, 1)


def _within(lowest: float, highest: float, unit: str = "") -> AfterValidator:
    """Refuses a span that is not [least, most], or not within these."""

    def checked(span: tuple[float, float]) -> tuple[float, float]:
        if not lowest <= span[0] <= span[1] <= highest:
            limits = f" within {lowest:g} to {highest:g}{unit}" if highest < inf else ""
            raise ValueError(f"{list(span)} is not [least, most]{limits}")
        return span

    return AfterValidator(checked)


Span = Annotated[tuple[float, float], _within(0, inf)]
Factors = Annotated[tuple[float, float], _within(0.5, 2)]
Noise = Annotated[tuple[float, float], _within(-20, 100, " dB")]
Loudness = Annotated[tuple[float, float], _within(-60, 0, " dB")]
Silence = Annotated[tuple[float, float], _within(0, 10, " seconds")]


class VarietySettings(Settings):
    """How different the utterances are. Spans are [least, most], drawn for every utterance."""

    speeds: Factors | None = Field(
        None, description="times the engine's own pace; none: 0.85 to 1.15 if it can be told"
    )
    pitches: Factors = Field(
        (0.9, 1.1),
        description="times the voice's frequencies, as if a smaller person spoke; children: 1.2",
    )
    noise: Noise = Field((10, 40), description="in dB below the speech; from white to brown")
    clean: bool = Field(False, description="no noise at all")
    loudness: Loudness = Field((-35, -15), description="of the speech, in dB to full scale")
    silence: Silence = Field((0, 0.5), description="seconds before the speech, and after it")
    sample_rate: int = Field(16000, ge=8000, le=48000, description="of the recordings, in Hz")
    format: Literal["flac", "wav"] = Field(
        "flac", description="of the recordings; without loss both, wav half as large again"
    )
    seed: int = Field(1, ge=0, description="of all that is drawn by chance")


class SharesSettings(Settings):
    """How much there is of each part."""

    split: dict[str, float] = Field(
        {"train": 1.0},
        description="parts and their shares of voices, sentences and hours, none in two parts",
    )
    hours: float | None = Field(
        None,
        gt=0,
        description="of speech, in all parts; without: every sentence once. A larger number, "
        "later, goes on with what is there",
    )

    @field_validator("split")
    @classmethod
    def _of_one_whole(cls, split: dict[str, float]) -> dict[str, float]:
        if not split or min(split.values()) <= 0 or abs(sum(split.values()) - 1) > 1e-6:
            raise ValueError("shares above 0 that sum to 1 expected, as train=0.8 dev=0.1 test=0.1")
        strange = [name for name in split if not re.fullmatch(r"\w[\w-]*", name)]
        if strange:
            raise ValueError(f"{strange[0]!r} is no name for a part: letters, digits, - and _")
        return split


@dataclass(frozen=True)
class Part:
    """The sentences and the voices of a part, and how long it is to be, in seconds."""

    name: str
    sentences: Sequence[Sentence]
    voices: Sequence[Voice]
    seconds: float | None


def split(
    sentences: Sequence[Sentence], voices: Sequence[Voice], settings: SharesSettings, seed: int
) -> list[Part]:
    """The parts, no sentence and no voice in two of them; both shuffled by the seed.

    Raises DataError when there are too few for as many parts.
    """
    for what, have in (("voices", len(voices)), ("sentences", len(sentences))):
        if have < len(settings.split):
            raise DataError(
                f"{len(settings.split)} parts need at least as many {what}, since none is in two "
                f"of them; there {'is' if have == 1 else 'are'} {have}"
            )
    lines = _dealt(_shuffled(sentences, f"{seed}/sentences"), settings.split)
    cast = _dealt(_shuffled(voices, f"{seed}/voices"), settings.split)
    return [
        Part(
            name,
            lines[name],
            cast[name],
            None if settings.hours is None else share * settings.hours * SECONDS_AN_HOUR,
        )
        for name, share in settings.split.items()
    ]


def _dealt(things: Sequence[Any], shares: Mapping[str, float]) -> dict[str, Sequence[Any]]:
    """The things in shares, at least one each; the largest share is what the others leave."""
    most = max(shares, key=lambda name: shares[name])
    found: dict[str, Sequence[Any]] = {}
    left = list(things)
    others = len(shares) - 1
    for name in shares:
        if name == most:
            continue
        count = max(1, min(round(shares[name] * len(things)), len(left) - others))
        found[name], left = left[:count], left[count:]
        others -= 1
    return found | {most: left}


def _shuffled(things: Sequence[Any], seed: str) -> list[Any]:
    mixed = list(things)
    Random(seed).shuffle(mixed)
    return mixed


def plan(part: Part, settings: VarietySettings, paced: bool = True) -> Share:
    """A part's utterances in order: without end if it is to be so long, else each sentence once.

    When all sentences are said, they are said again, by other voices.

    paced: whether the engine can be told how fast to speak. An utterance depends on its number,
    on the settings and on the part alone.
    """
    if not paced and settings.speeds not in (None, UNPACED):
        raise DataError("the command cannot be told how fast to speak: put {speed} into it")
    speeds = settings.speeds or (SPEEDS if paced else UNPACED)

    def utterances() -> Iterator[Utterance]:
        number = 0
        while part.seconds is not None or number < len(part.sentences):
            yield _utterance(part, number, settings, speeds if paced else None)
            number += 1

    count = len(part.sentences) if part.seconds is None else None
    return Share(part.name, utterances(), part.seconds or inf, count)


def _utterance(
    part: Part, number: int, settings: VarietySettings, speeds: tuple[float, float] | None
) -> Utterance:
    random = Random(f"{settings.seed}/{part.name}/{number}")
    time, place = divmod(number, len(part.sentences))
    sentence = part.sentences[place]
    voice = part.voices[(place + time) % len(part.voices)]
    pitch = random.uniform(*settings.pitches)
    speed = random.uniform(*(speeds or UNPACED))
    request = Request(
        text=sentence.said,
        voice=random.choice(voice.ids),
        speed=round(speed / pitch, 3) if speeds else 1.0,  # the pitch makes it faster
        pitch=random.randint(35, 65),
        intonation=random.randint(35, 65),
        seed=random.getrandbits(31),
    )
    take = Take(
        loudness=random.uniform(*settings.loudness),
        noise=None if settings.clean else random.uniform(*settings.noise),
        colour=random.uniform(0, 2),
        pitch=pitch,
        seed=random.getrandbits(31),
        before=random.uniform(*settings.silence),
        after=random.uniform(*settings.silence),
    )
    name = f"{voice.speaker}-{number:06d}"
    return Utterance(
        id=name,
        speaker=voice.speaker,
        language=voice.language,
        text=sentence.written,
        path=f"audio/{part.name}/{number // A_FOLDER:03d}/{name}.{settings.format}",
        request=request,
        take=take,
        sample_rate=settings.sample_rate,
    )
