"""From a cut to frames: MFCC or log-mel from a waveform, or arrays that come ready; then deltas
and cepstral normalisation.

Frames come in two steps so that augmentation can stand between them:

    static = frontend.static(cut)       (T, width)          as the kind gives them
    frames = frontend.finish(static)    (T, output_width)   with deltas, normalised

Waveforms lie in [-1, 1], as soundfile gives them. At that scale the layers' energy floor (the
float32 epsilon) is about the energy of noise of one 16-bit step, so digital silence looks like a
very quiet room rather than like an abyss. Nothing is dithered: the same recording always gives the
same frames.

Frames made from a waveform are rounded to half-precision, which is how a cache on disk stores them
(`spelldown.data.cache`): cached or not, in training or in use, the numbers are the same. Rounding
moves a log-mel energy by at most 0.004 and a cepstrum by at most 0.03, a few thousandths of how
much it moves by itself. And they do not depend on how many threads work: sums over bands, which
kernels split differently, are made in double precision.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import numpy as np
import soxr
import torch
from pydantic import Field, model_validator
from torch import Tensor

from spelldown.data.loading.speakers import Spread
from spelldown.data.reading.analysis import Analysis
from spelldown.data.recordings import WINDOW_SECONDS, file_of, first_line, samples_of
from spelldown.errors import AudioError, DataError
from spelldown.settings import Settings

FRAMES_PER_SECOND = 100
SECONDS_PER_FRAME = 1 / FRAMES_PER_SECOND
DELTA_WINDOW = 2  # frames to each side that a delta looks at
SPHINX_BANDS = 40  # behind ready-made cepstra, unless those are more
LEAST_DEVIATION = 1e-3  # of a coefficient over an utterance, in its own units
LOWEST_HZ = 20.0  # Kaldi's mel bands lie from here ...
BELOW_NYQUIST_HZ = 400.0  # ... to so far below half the sample rate

Content = Literal["cepstra", "log-mel"]
Normalise = Literal["mean-variance", "mean", "none"]
SAMPLE_RATE = "samples a second, to which other recordings are brought"


class FinishSettings(Settings):
    """What every kind of frontend does at its end.

    deltas: 0 none, 1 with first differences, 2 with second differences too.
    normalise: of each coefficient: `mean-variance`, `mean` alone, or `none`.
    normalise_over: the `utterance`, or all that its `speaker` says in that part of the corpus, or
        in that recording; the utterance where nobody knows who speaks.
    """

    deltas: int = Field(0, ge=0, le=2)
    normalise: Normalise = "mean-variance"
    normalise_over: Literal["utterance", "speaker"] = "utterance"


class ArraysFrontendSettings(FinishSettings):
    """Frames that come ready, `width` numbers each; `content` says what they are."""

    kind: Literal["arrays"] = "arrays"
    width: int = Field(13, ge=1, description="numbers a frame in the files")
    content: Content = Field(
        "cepstra", description="what they are, cepstra or log-mel; frequency warping goes by it"
    )


class SoundFrontendSettings(FinishSettings):
    """What the kinds that make frames of recordings have in common."""

    sample_rate: int = Field(16000, ge=8000, description=SAMPLE_RATE)
    lowest: float = Field(LOWEST_HZ, ge=0, description="Hz at which the mel bands begin")
    highest: float | None = Field(
        None, gt=0, description="Hz at which they end; null: 400 below half the sample rate"
    )

    @property
    def span(self) -> tuple[float, float]:
        """From where to where the mel bands lie, in Hz."""
        end = self.sample_rate / 2 - BELOW_NYQUIST_HZ if self.highest is None else self.highest
        return self.lowest, end

    @model_validator(mode="after")
    def _bands_have_room(self) -> Self:
        lowest, highest = self.span
        if not lowest < highest <= self.sample_rate / 2:
            raise ValueError(
                f"mel bands from {lowest:g} to {highest:g} Hz (lowest, highest); at "
                f"{self.sample_rate} samples a second they lie in 0 to {self.sample_rate / 2:g}"
            )
        return self


class MfccSettings(SoundFrontendSettings):
    """`width` mel-cepstral coefficients from `filters` mel bands, as Kaldi computes them."""

    kind: Literal["mfcc"] = "mfcc"
    width: int = Field(13, ge=1, description="coefficients a frame")
    filters: int = Field(40, ge=4, description="mel bands that they are made from")

    @model_validator(mode="after")
    def _no_more_cepstra_than_bands(self) -> "MfccSettings":
        if self.width > self.filters:
            raise ValueError(
                f"width {self.width} is more than the {self.filters} mel bands (filters) give"
            )
        return self


class LogMelSettings(SoundFrontendSettings):
    """`width` log-mel energies, as Kaldi computes them."""

    kind: Literal["log-mel"] = "log-mel"
    width: int = Field(80, ge=4, description="mel bands")


FrontendSettings = Annotated[
    ArraysFrontendSettings | MfccSettings | LogMelSettings, Field(discriminator="kind")
]


Change = Callable[[Tensor], Tensor]
"""What augmentation does to a waveform."""


class Frontend:
    """Frames of cuts or of waveforms, the same in training and in use.

    width: numbers a frame before deltas; output_width: after deltas.
    content: what static frames hold, `cepstra` or `log-mel` (augmentation warps them by it).
    mel_bands: how many bands there are, or lie behind the cepstra (ready-made: Sphinx' usual 40).
    """

    def __init__(self, settings: ArraysFrontendSettings | MfccSettings | LogMelSettings) -> None:
        self.settings = settings
        self.width = settings.width
        self.output_width = settings.width * (1 + settings.deltas)
        self.content: Content = "cepstra"
        self.mel_bands = max(SPHINX_BANDS, settings.width)
        self._analysis: Analysis | None = None
        if isinstance(settings, MfccSettings):
            self.mel_bands = settings.filters
            self._analysis = _analysis(settings, settings.filters, settings.width)
        elif isinstance(settings, LogMelSettings):
            self.content = "log-mel"
            self.mel_bands = settings.width
            self._analysis = _analysis(settings, settings.width)
        else:
            self.content = settings.content
            if settings.content == "log-mel":
                self.mel_bands = settings.width  # the numbers are the bands themselves

    @property
    def halves(self) -> bool:
        """Whether half-precision holds static frames exactly: those that are made from sound."""
        return self._analysis is not None

    def count(self, cut: Any, speed: float = 1.0) -> int:
        """Frames that `static(cut, speed)` will have, without reading it."""
        if isinstance(self.settings, ArraysFrontendSettings):
            return int(cut.num_frames)
        ours = self.settings.sample_rate
        return _frame_count(
            _resampled_count(cut.num_samples, speed * cut.sampling_rate, ours), ours
        )

    def static(self, cut: Any, speed: float = 1.0, change: Change | None = None) -> Tensor:
        """Frames of a lhotse cut before deltas and normalisation, (T, width) float32.

        speed, change: for recordings only, see `of_samples`.
        Raises DataError for frames that cannot be read, of another width or non-finite, AudioError
        for a recording that cannot be read or is shorter than one window; both name the utterance
        and its file.
        """
        if isinstance(self.settings, ArraysFrontendSettings):
            return self._ready_made(cut)
        if not cut.has_recording:
            raise DataError(
                f"utterance {cut.id} has no recording, and frontend kind "
                f"{self.settings.kind} needs one; kind arrays takes frames that come ready"
            )
        try:
            samples = samples_of(cut)
        except AudioError as error:
            raise AudioError(f"utterance {cut.id}: {error}") from error
        name = f"utterance {cut.id} ({file_of(cut)})"
        return self.of_samples(samples, cut.sampling_rate, name, speed, change)

    def of_samples(
        self,
        samples: Tensor,
        sample_rate: int,
        name: str = "the recording",
        speed: float = 1.0,
        change: Change | None = None,
    ) -> Tensor:
        """Static frames (T, width) of a waveform: (N,), or (channels, N), which are averaged.

        samples: float, in [-1, 1]. Any `sample_rate` in Hz: other ones are resampled to ours.
        speed: 1.1 plays it a tenth faster, and higher: the waveform is resampled (Ko et al. 2015).
        change: what is done to the waveform (N,) at our rate before it is analysed.
        Raises AudioError, with `name`, for less than one window of 25 ms or non-finite samples,
        and when the frontend takes only frames that come ready.
        """
        if self._analysis is None or isinstance(self.settings, ArraysFrontendSettings):
            raise AudioError(
                f"{name} is a waveform, but this frontend (kind arrays) only takes frames that "
                f"come ready, {self.width} numbers each; kinds mfcc and log-mel take waveforms"
            )
        ours = self.settings.sample_rate
        if samples.dim() == 2:
            samples = samples.mean(dim=0)
        samples = resample(samples.to(torch.float32), speed * sample_rate, ours)
        window = round(WINDOW_SECONDS * ours)
        if len(samples) < window:
            raise AudioError(
                f"{name} is {1000 * len(samples) / ours:.1f} ms long; frames need at least one "
                f"window of {1000 * WINDOW_SECONDS:.0f} ms"
            )
        if not bool(torch.isfinite(samples).all()):
            raise AudioError(f"{name} holds samples that are not finite numbers")
        if change is not None:
            samples = change(samples)
        return self._analysis.frames(samples).half().float()

    @property
    def by_speaker(self) -> bool:
        """Whether frames are normalised over all that a speaker says."""
        return self.settings.normalise_over == "speaker"

    def finish(self, frames: Tensor, spread: Spread | None = None) -> Tensor:
        """Frames with deltas, and normalised: (T, width) -> (T, output_width).

        spread: the speaker's, of frames `with_deltas`; None normalises over these frames."""
        return normalised(self.with_deltas(frames), self.settings.normalise, spread)

    def with_deltas(self, frames: Tensor) -> Tensor:
        """Frames with their deltas, not normalised: (T, width) -> (T, output_width)."""
        return add_deltas(frames, self.settings.deltas)

    def _ready_made(self, cut: Any) -> Tensor:
        if not cut.has_features:
            raise DataError(
                f"utterance {cut.id} has no ready-made frames, as frontend kind arrays needs; "
                "kinds mfcc and log-mel make frames from recordings"
            )
        where = f"{file_of(cut)} (utterance {cut.id})"
        try:
            found = np.ascontiguousarray(cut.load_features(), dtype=np.float32)
        except Exception as error:  # lhotse's storages raise errors of many kinds
            raise DataError(f"{where}: its frames cannot be read: {first_line(error)}") from error
        if found.ndim != 2 or found.shape[1] != self.width:
            raise DataError(
                f"{where} has frames of shape {found.shape}; "
                f"the recipe's frontend.width asks for (frames, {self.width})"
            )
        finite = np.isfinite(found)
        if not finite.all():
            bad = finite.size - int(finite.sum())
            raise DataError(f"{where}: {bad} of {finite.size} numbers are not finite")
        return torch.from_numpy(found)


def add_deltas(frames: Tensor, order: int) -> Tensor:
    """Frames with their differences behind them: (T, F) -> (T, F * (1 + order)).

    d[t] = sum_n n (c[t+n] - c[t-n]) / (2 sum_n n^2), n = 1..2, the first and last frames repeated
    beyond the edges: the regression of HTK (The HTK Book, section 5.6) and of Kaldi's first deltas.
    Second deltas are deltas of the deltas, as in HTK; Kaldi's differ from them at the edges.
    """
    parts = [frames]
    for _ in range(order):
        parts.append(_delta(parts[-1]))
    return torch.cat(parts, dim=1) if order else frames


def _delta(frames: Tensor) -> Tensor:
    length = len(frames)
    if length == 0:
        return frames
    edge = (DELTA_WINDOW, -1)
    padded = torch.cat((frames[:1].expand(edge), frames, frames[-1:].expand(edge)))
    total = torch.zeros_like(frames)
    for n in range(1, DELTA_WINDOW + 1):
        later = padded[DELTA_WINDOW + n : DELTA_WINDOW + n + length]
        earlier = padded[DELTA_WINDOW - n : DELTA_WINDOW - n + length]
        total += n * (later - earlier)
    return total / (2 * sum(n * n for n in range(1, DELTA_WINDOW + 1)))


def normalised(frames: Tensor, how: Normalise, spread: Spread | None = None) -> Tensor:
    """Frames (T, F) less their mean over time and, for `mean-variance`, over their deviation: their
    own, or those of `spread`.

    The deviation is the population's and at least LEAST_DEVIATION, so that a coefficient that
    never moves becomes zero rather than amplified rounding noise.
    """
    if how == "none":
        return frames
    centred = frames - (frames.mean(dim=0) if spread is None else spread.mean)
    if how == "mean":
        return centred
    own = centred.square().mean(dim=0).sqrt() if spread is None else spread.deviation
    return centred / own.clamp_min(LEAST_DEVIATION)


def _analysis(settings: SoundFrontendSettings, bands: int, width: int | None = None) -> Analysis:
    rate, window, shift = settings.sample_rate, WINDOW_SECONDS, SECONDS_PER_FRAME
    return Analysis(rate, settings.span, bands, width, window=window, shift=shift)


def resample(samples: Tensor, rate: float, ours: int) -> Tensor:
    """A waveform (N,) float32 of `rate` samples a second at our rate; N * ours / rate, rounded."""
    if rate == ours or len(samples) == 0:
        return samples
    out = torch.from_numpy(np.asarray(soxr.resample(samples.numpy(), rate, ours, quality="HQ")))
    # Of the exact length that `count` foretells, whatever the resampler rounds to.
    wanted = _resampled_count(len(samples), rate, ours)
    return torch.nn.functional.pad(out, (0, wanted - len(out)))


def _resampled_count(samples: int, rate: float, ours: int) -> int:
    return math.floor(samples * ours / rate + 0.5)


def _frame_count(samples: int, rate: int) -> int:
    # One frame for every whole shift, rounded: lhotse's layers mirror the edges.
    shift = rate // FRAMES_PER_SECOND
    return (samples + shift // 2) // shift
