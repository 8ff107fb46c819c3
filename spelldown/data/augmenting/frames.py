"""Each utterance a little different in every epoch: speed, vocal tract, masks, noise.

Three steps: on the waveform, where there is one, and on either side of the frontend's end:

    sound = augment.sound                                    see `augmenting.waveform`
    static = frontend.static(cut, speed, change)             (T, width)
    static = augment.perturb(static, random)                 (T', width): another T
    frames = augment.mask(frontend.finish(static), random)   (T', output_width)

Nothing is kept between utterances: the caller makes `random` from seed, epoch and utterance, so any
epoch can be made again and a resumed run needs no state.
"""

import math
from typing import Annotated

import numpy as np
import torch
from lhotse.features.kaldi.layers import Wav2MFCC
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor

from spelldown.data.augmenting.waveform import Sound, SoundSettings
from spelldown.data.frontend import (
    ArraysFrontendSettings,
    Frontend,
    LogMelSettings,
    MfccSettings,
)
from spelldown.data.reading.analysis import LIFTER
from spelldown.settings import Settings


class MaskSettings(Settings):
    """`count` masks, each of a width drawn from 0 to `width` (frames, coefficients or bands)."""

    count: int = Field(2, ge=0, description="masks an utterance")
    width: int = Field(4, ge=1, description="the widest, in coefficients or bands")


class TimeMaskSettings(MaskSettings):
    """Masks over frames; together they cover at most `share` of the utterance."""

    width: int = Field(25, ge=1, description="the widest, in frames")
    share: float = Field(0.2, gt=0, le=1, description="most of the utterance that all of them hide")


def _slowest_first(speed: tuple[float, float]) -> tuple[float, float]:
    if not 0.5 <= speed[0] <= speed[1] <= 2:
        raise ValueError(f"{list(speed)} is not [slowest, fastest] within 0.5 to 2")
    return speed


class AugmentSettings(Settings):
    """What changes in training. Every part can be left out: null, or 0.

    sound: what is done to the recording itself, before frames are made.
    speed: [slowest, fastest]: a factor is drawn for each utterance; 1.1 makes it a tenth faster.
        Frames are stretched and pitch stays; sound.speeds changes both.
    time_warp: a drawn frame is moved by fewer than so many frames, and those around it stretched
        and squeezed; 80 in SpecAugment.
    warp: vocal tracts are made longer or shorter by a factor drawn from 1 - warp to 1 + warp.
    band_masks: over mel bands, for cepstra too: the bands are held still before normalisation,
        which makes them their mean; width in bands.
    time_masks, frequency_masks: SpecAugment on normalised frames, filled with 0, the mean. A
        frequency mask hides a coefficient and its deltas together; width in coefficients.
    noise: standard deviation of Gaussian noise on normalised frames.
    from_epoch: the first epoch, counted from 1, in which anything is changed.
    """

    sound: SoundSettings | None = None
    speed: Annotated[tuple[float, float], AfterValidator(_slowest_first)] | None = (0.9, 1.1)
    time_warp: int = Field(0, ge=0)
    warp: float = Field(0.1, ge=0, le=0.4)
    band_masks: MaskSettings | None = None
    time_masks: TimeMaskSettings | None = TimeMaskSettings(count=2, width=25, share=0.2)
    frequency_masks: MaskSettings | None = MaskSettings(count=2, width=4)
    noise: float = Field(0.0, ge=0)
    from_epoch: int = Field(1, ge=1)


class Augment:
    """The changes of `settings` to the frames of `frontend`.

    sound: what is done to recordings before; None where nothing is, and with ready-made frames.
    Raises DataError if a folder of noise or of impulse responses cannot be used.
    """

    def __init__(self, settings: AugmentSettings, frontend: Frontend) -> None:
        self.settings = settings
        self._width = frontend.width
        self._bands = frontend.mel_bands
        # For frames that come ready the bands are a guess that need not be exact: 16 kHz speech.
        analysis: MfccSettings | LogMelSettings = LogMelSettings()
        self.sound: Sound | None = None
        if not isinstance(frontend.settings, ArraysFrontendSettings):
            analysis = frontend.settings
            self.sound = Sound(settings.sound, analysis.sample_rate) if settings.sound else None
        edges = _mel(np.array(analysis.span))
        self._centres = np.linspace(float(edges[0]), float(edges[1]), self._bands + 2)[1:-1]
        # Cepstra are warped as the log-mel spectrum that they describe: to it, and back from it.
        self._to_bands: NDArray[np.float64] | None = None
        if frontend.content == "cepstra":
            transform = _cepstral_transform(self._bands, self._width)
            if isinstance(frontend.settings, MfccSettings):
                transform = transform * np.asarray(Wav2MFCC.make_lifter(self._width, LIFTER))
            self._to_bands = np.asarray(np.linalg.pinv(transform), dtype=np.float64)
            self._from_bands = transform

    def active(self, epoch: int) -> bool:
        """Whether this epoch, counted from 1, is to be changed at all."""
        return epoch >= self.settings.from_epoch

    def perturb(self, static: Tensor, random: Generator) -> Tensor:
        """Static frames (T, width) at another speed and of another vocal tract: (T', width).

        T' = T / speed, rounded, at least 1.
        """
        speed = self.settings.speed
        if speed is not None:
            static = at_speed(static, random.uniform(*speed))  # first: `frames_after` draws it too
        if self.settings.time_warp > 0:
            static = warped_in_time(static, self.settings.time_warp, random)
        matrix = self._drawn_band_map(random)
        if matrix is not None:
            # In double precision: sums come out the same over however many threads they are split.
            static = (static.double() @ torch.from_numpy(matrix)).float()
        return static

    def frames_after(self, frames: int, random: Generator) -> int:
        """How many frames `perturb` makes of so many with a `random` in this state."""
        speed = self.settings.speed
        return frames if speed is None else count_at_speed(frames, random.uniform(*speed))

    def most_frames(self, frames: int) -> int:
        """The most frames that can come of so many, other speeds of sound included."""
        if self.sound is not None:
            frames = max(frames, math.ceil((frames + 0.5) / min(self.sound.speeds)))
        speed = self.settings.speed
        return frames if speed is None else count_at_speed(frames, speed[0])

    def fewest_frames(self, frames: int) -> int:
        """The fewest frames that can come of so many, other speeds of sound included."""
        if self.sound is not None:
            frames = min(frames, max(1, math.floor((frames - 0.5) / max(self.sound.speeds))))
        speed = self.settings.speed
        return frames if speed is None else count_at_speed(frames, speed[1])

    def mask(self, frames: Tensor, random: Generator) -> Tensor:
        """Normalised frames (T, width * (1 + deltas)) with noise and masks; a new tensor."""
        settings = self.settings
        frames = frames.clone()
        if settings.noise > 0:
            noise = random.standard_normal(tuple(frames.shape), dtype=np.float32)
            frames += settings.noise * torch.from_numpy(noise)
        length = len(frames)
        if settings.time_masks is not None and settings.time_masks.count > 0:
            most = int(settings.time_masks.share * length / settings.time_masks.count)
            for start, end in _drawn_masks(settings.time_masks, length, random, most):
                frames[start:end] = 0
        if settings.frequency_masks is not None:
            blocks = frames.view(length, -1, self._width)  # statics, deltas, second deltas
            for start, end in _drawn_masks(settings.frequency_masks, self._width, random):
                blocks[:, :, start:end] = 0
        return frames

    def _drawn_band_map(self, random: Generator) -> NDArray[np.float64] | None:
        """One drawn linear map (width, width) of frames that warps and hides mel bands."""
        settings = self.settings
        matrix: NDArray[np.float64] | None = None
        if settings.warp > 0:
            matrix = self._warping(random.uniform(1 - settings.warp, 1 + settings.warp))
        if settings.band_masks is not None:
            matrix = np.eye(self._bands) if matrix is None else matrix
            for start, end in _drawn_masks(settings.band_masks, self._bands, random):
                # Constant in time, so that cepstral mean normalisation makes it the mean.
                matrix[:, start:end] = 0
        if matrix is None or self._to_bands is None:
            return matrix
        return self._to_bands @ matrix @ self._from_bands

    def _warping(self, factor: float) -> NDArray[np.float64]:
        """The map (bands, bands) that moves what stands at f Hz to f * factor Hz.

        As in vocal tract length normalisation (Lee and Rose, 1996), here drawn instead of fitted
        (Jaitly and Hinton, 2013); the outermost bands are repeated where nothing moves in.
        """
        sources = _mel(_hz(self._centres) / factor)
        source = np.interp(sources, self._centres, np.arange(self._bands))
        lower = np.minimum(source.astype(np.int64), self._bands - 2)
        share = source - lower
        matrix = np.zeros((self._bands, self._bands))
        column = np.arange(self._bands)
        matrix[lower, column] = 1 - share
        matrix[lower + 1, column] = share
        return matrix


def count_at_speed(frames: int, factor: float) -> int:
    """Frames that are left of so many at `factor` times the speed, at least 1."""
    return max(1, round(frames / factor))


def at_speed(frames: Tensor, factor: float) -> Tensor:
    """Frames (T, F) played `factor` times as fast: (round(T / factor), F), interpolated linearly.

    Pitch and formants stay as they are, unlike when a waveform is resampled.
    """
    length = count_at_speed(len(frames), factor)
    if length == len(frames):
        return frames
    stretched = torch.nn.functional.interpolate(
        frames.T.unsqueeze(0), size=length, mode="linear", align_corners=True
    )
    return stretched.squeeze(0).T.contiguous()


def warped_in_time(frames: Tensor, most: int, random: Generator) -> Tensor:
    """Frames (T, F) of which a drawn one is moved by fewer than `most`, earlier or later: (T, F).

    Those before it and those after it are spread evenly over what is left to them, interpolated
    linearly; the first and the last stay. As SpecAugment's time warping (Park et al. 2019, section
    2), whose spline through one moved point is near to these two lines. Utterances of less than
    twice `most` are warped by less.
    """
    last = len(frames) - 1
    most = min(most, last // 2)
    if most < 2:
        return frames
    point = int(random.integers(most, last - most + 1))
    moved = point + int(random.integers(1 - most, most))
    source = np.interp(np.arange(last + 1), [0, moved, last], [0, point, last])
    left = np.minimum(source.astype(np.int64), last - 1)
    share = torch.from_numpy((source - left).astype(np.float32)).unsqueeze(1)
    before = torch.from_numpy(left)
    return torch.lerp(frames[before], frames[before + 1], share)


def _drawn_masks(
    settings: MaskSettings, size: int, random: Generator, most: int | None = None
) -> list[tuple[int, int]]:
    """Masks as (start, end) along an axis of `size`, none wider than `most`."""
    widest = min(settings.width, size if most is None else most)
    masks = []
    for _ in range(settings.count):
        width = int(random.integers(0, widest + 1))
        start = int(random.integers(0, size - width + 1))
        masks.append((start, start + width))
    return masks


def _cepstral_transform(bands: int, width: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II, (bands, width): log-mel @ it = cepstra."""
    return np.asarray(Wav2MFCC.make_dct_matrix(width, bands), dtype=np.float64)


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hz / 700.0)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700.0 * np.expm1(mel / 1127.0)
