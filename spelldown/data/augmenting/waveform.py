"""What is done to a recording before frames are made of it: speed, a room, noise, volume.

    speed = sound.speed(random)                                    drawn first: it tells the length
    frontend.static(cut, speed, lambda x: sound.changed(x, random))

Everything is drawn from `random`, which the caller makes from seed, epoch and utterance, and
reckoned with numpy, whose sums do not depend on the number of threads.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from spelldown.data.frontend import resample
from spelldown.data.recordings import ENDINGS, length_of, read_piece
from spelldown.errors import AudioError, DataError
from spelldown.settings import Settings

Samples = NDArray[np.float32]

LONGEST_ROOM = 4.0  # seconds of an impulse response that are used
ROOMS_KEPT = 64  # impulse responses in memory
SHARE = "share of utterances that it happens to, each drawn anew in every epoch"


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"{list(span)} is not [least, most]")
    return span


def _distinct_speeds(speeds: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0.5 <= speed <= 2 for speed in speeds) or len(set(speeds)) < len(speeds):
        raise ValueError(f"{list(speeds)}: different factors within 0.5 to 2 expected")
    return speeds


def _seconds(span: tuple[float, float]) -> tuple[float, float]:
    if not 0.05 <= span[0] <= span[1] <= LONGEST_ROOM:
        raise ValueError(f"{list(span)} is not [shortest, longest] within 0.05 to 4 seconds")
    return span


Span = Annotated[tuple[float, float], AfterValidator(_ordered)]
Speeds = Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_distinct_speeds)]


class NoiseSettings(Settings):
    """Noise from recordings, a piece drawn for each utterance and repeated where it is short.

    snr: [least, most] dB that the speech is above the noise, over the whole utterance.
    """

    folder: Path = Field(description="of recordings of any rate and format, in folders or not")
    snr: Span = (5.0, 20.0)
    share: float = Field(0.5, gt=0, le=1, description=SHARE)


class SimulatedRoomSettings(Settings):
    """Rooms as noise that dies away: the impulse itself, then its decaying echo.

    t60: [shortest, longest] seconds in which the echo falls by 60 dB.
    direct: [least, most] dB that the impulse is above its whole echo.
    """

    kind: Literal["simulated"] = "simulated"
    t60: Annotated[tuple[float, float], AfterValidator(_seconds)] = (0.1, 0.6)
    direct: Span = (0.0, 10.0)
    share: float = Field(0.5, gt=0, le=1, description=SHARE)


class RecordedRoomSettings(Settings):
    """Rooms by their impulse responses: recordings of a clap or a sweep worked out, in a folder."""

    kind: Literal["recorded"] = "recorded"
    folder: Path = Field(description="of impulse responses, recordings of any rate and format")
    share: float = Field(0.5, gt=0, le=1, description=SHARE)


RoomSettings = Annotated[SimulatedRoomSettings | RecordedRoomSettings, Field(discriminator="kind")]


class SoundSettings(Settings):
    """What is done to recordings in training, in this order. Every part can be left out: null.

    speeds: factors, one drawn for each utterance: speed perturbation as the field does it, by
        resampling, so that pitch and formants move too; [0.9, 1.0, 1.1] is usual.
    room: reverberation.
    noise: from a folder of recordings.
    volume: [least, most] dB, drawn for each utterance; normalised frames hardly notice.
    """

    speeds: Speeds | None = None
    room: RoomSettings | None = None
    noise: NoiseSettings | None = None
    volume: Span | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "SoundSettings":
        if not (self.speeds or self.alters):
            raise ValueError("nothing is done to sound; name speeds, room, noise or volume")
        return self

    @property
    def alters(self) -> bool:
        """Whether more than speed changes, so that no utterance is heard the same way twice."""
        return self.room is not None or self.noise is not None or self.volume is not None


class Sound:
    """The changes of `settings` to waveforms of `rate` samples a second.

    speeds: all factors that `speed` may draw. Raises DataError for a folder of noise or impulse
    responses that is not there, is empty, or holds recordings that cannot be read, each named.
    """

    def __init__(self, settings: SoundSettings, rate: int) -> None:
        self.settings, self.rate = settings, rate
        self.speeds = settings.speeds or (1.0,)
        self.alters = settings.alters
        room, noise = settings.room, settings.noise
        self._noises = recordings_in(noise.folder, "augment.sound.noise") if noise else []
        recorded = room.folder if isinstance(room, RecordedRoomSettings) else None
        self._rooms = recordings_in(recorded, "augment.sound.room") if recorded else []

    def files(self) -> list[str]:
        """The names and lengths of all recordings that may be drawn, in their order."""
        return [f"{path.name} {seconds}" for path, seconds in (*self._noises, *self._rooms)]

    def speed(self, random: Generator) -> float:
        """One of the factors."""
        return self.speeds[int(random.integers(len(self.speeds)))]

    def changed(self, samples: Tensor, random: Generator) -> Tensor:
        """A waveform (N,) float32 in a room, with noise, at a volume: (N,) float32.

        It may leave [-1, 1]: nothing is clipped. Raises AudioError naming a recording of noise, or
        an impulse response, that is damaged inside.
        """
        settings, made = self.settings, samples.numpy()
        if settings.room is not None and random.random() < settings.room.share:
            made = reverberated(made, self._drawn_room(settings.room, random))
        if settings.noise is not None and random.random() < settings.noise.share:
            noise = self._drawn_noise(len(made), random)
            made = with_noise(made, noise, random.uniform(*settings.noise.snr))
        if settings.volume is not None:
            made = made * np.float32(10 ** (random.uniform(*settings.volume) / 20))
        return torch.from_numpy(made)

    def _drawn_room(
        self, room: SimulatedRoomSettings | RecordedRoomSettings, random: Generator
    ) -> Samples:
        if isinstance(room, SimulatedRoomSettings):
            t60, direct = random.uniform(*room.t60), random.uniform(*room.direct)
            return simulated_room(t60, direct, self.rate, random)
        path, _ = self._rooms[int(random.integers(len(self._rooms)))]
        return _recorded_room(path, self.rate)

    def _drawn_noise(self, count: int, random: Generator) -> Samples:
        path, seconds = self._noises[int(random.integers(len(self._noises)))]
        wanted = count / self.rate
        start = random.uniform(0, max(0.0, seconds - wanted))
        samples, rate = read_piece(path, start, wanted)
        if not bool(torch.isfinite(samples).all()):
            raise AudioError(f"{path}: holds samples that are not finite numbers")
        noise = resample(samples, rate, self.rate).numpy()
        if len(noise) < count:  # from a drawn place in it, again and again
            noise = np.roll(noise, -int(random.integers(len(noise))))
        return np.resize(noise, count)


def recordings_in(folder: Path, key: str) -> list[tuple[Path, float]]:
    """Every recording in a folder and the folders in it, by path, with its length in seconds.

    Files of other kinds are passed over. Raises DataError, beginning with `key`, for a folder that
    is not there or holds no recording, and for all recordings that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{key}.folder: {folder.absolute()} is not a folder")
    found, problems = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.name.startswith("."):
            try:
                found.append((path, length_of(path)))
            except AudioError as error:
                problems.append(str(error))
    if problems:
        raise DataError(
            f"{key}.folder: {len(problems)} recordings in {folder} cannot be used; mend or "
            "remove them",
            problems,
        )
    if not found:
        kinds = ", ".join(ENDINGS)
        raise DataError(f"{key}.folder: no recording in {folder.absolute()} ({kinds})")
    return found


def with_noise(samples: Samples, noise: Samples, snr: float) -> Samples:
    """Samples and noise (N,) together, the noise made `snr` dB weaker; silence stays as it is."""
    speech, other = _power(samples), _power(noise)
    if speech == 0 or other == 0:
        return samples
    return samples + np.float32(math.sqrt(speech / other) * 10 ** (-snr / 20)) * noise


def simulated_room(t60: float, direct: float, rate: int, random: Generator) -> Samples:
    """The impulse response of a room: 1, then noise that falls by 60 dB in `t60` seconds.

    All of the noise together is `direct` dB below the impulse. A common stand-in for the late part
    of a measured response (Polack 1988); it has no single early echoes.
    """
    count = max(2, round(t60 * rate))
    response = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / (t60 * rate))
    response[0] = 0
    response *= 10 ** (-direct / 20) / math.sqrt(float(np.square(response).sum()))
    response[0] = 1
    return response.astype(np.float32)


def reverberated(samples: Samples, room: Samples) -> Samples:
    """Samples (N,) as heard in a room of this impulse response, as loud as before: (N,).

    What the response has before its peak is left out, so that speech stays where it was in time.
    """
    room = room[int(np.abs(room).argmax()) :]
    size = _fast_size(len(samples) + len(room) - 1)
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(room, size)
    heard = np.fft.irfft(spectrum, size)[: len(samples)]
    before, after = _power(samples), _power(heard)
    scale = math.sqrt(before / after) if after > 0 else 1.0
    return (scale * heard).astype(np.float32)


@lru_cache(ROOMS_KEPT)
def _recorded_room(path: Path, rate: int) -> Samples:
    samples, found = read_piece(path, 0.0, LONGEST_ROOM)
    room: Samples = resample(samples, found, rate).numpy()
    if not np.isfinite(room).all() or not room.any():
        raise AudioError(f"{path}: silence, or numbers that are not finite, is no impulse response")
    return room


def _power(samples: NDArray[Any]) -> float:
    return float(np.square(samples, dtype=np.float64).mean())


def _fast_size(count: int) -> int:
    """A size not far above `count` that is quick to transform."""
    power = 1 << (count - 1).bit_length()
    return next(size for size in (power * 5 // 8, power * 3 // 4, power) if size >= count)
