"""From what an engine gives to a recording: size of the speaker, rate, loudness, noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from spelldown.data.synthesis.engines.speaking import SilentError, Speech

SILENCE = 1e-8  # power
LETTERS_A_SECOND = 60.0  # nobody speaks as fast: the engine has stopped midway
HIGHEST = 0.95  # of full scale


@dataclass(frozen=True)
class Take:
    """How an utterance is recorded.

    loudness: of the speech, in dB below full scale (root mean square)
    noise: dB below the speech, negative above it; None for none
    colour: of the noise: its power falls with frequency to this exponent. 0 white, 1 pink, 2 brown
    pitch: all frequencies times this, voice and mouth alike, as if the speaker were that much
        smaller; it is shorter by as much
    before, after: seconds of silence, or of the noise alone, around the speech: engines begin and
        end with the sound itself, which no recording of a person does
    """

    loudness: float
    noise: float | None
    seed: int
    colour: float = 0.0
    pitch: float = 1.0
    before: float = 0.0
    after: float = 0.0


def record(speech: Speech, take: Take, sample_rate: int, letters: int = 0) -> NDArray[np.float32]:
    """The speech as a recording (N,) in [-1, 1], at `sample_rate`.

    Raises SilentError for silence, or speech that is too short for so many letters.
    """
    samples = soxr.resample(
        speech.samples.astype(np.float32) / 2**15, speech.sample_rate * take.pitch, sample_rate
    )
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    if power < SILENCE:
        raise SilentError("the engine was silent")
    if letters > LETTERS_A_SECOND * len(samples) / sample_rate:
        raise SilentError(f"{len(samples) / sample_rate:.2f} s of speech for {letters} letters")
    gain = 10 ** (take.loudness / 20) / np.sqrt(power)
    edges = (round(take.before * sample_rate), round(take.after * sample_rate))
    samples = np.pad(samples, edges)
    if take.noise is not None:
        noise = _noise(len(samples), take)
        noise *= np.sqrt(power) * 10 ** (-take.noise / 20)
        samples = samples + noise
    gain = min(gain, HIGHEST / float(np.abs(samples).max()))
    recorded: NDArray[np.float32] = (gain * samples).clip(-1, 1)
    return recorded


def _noise(count: int, take: Take) -> Any:
    """Noise (N,) of power 1, of the colour, by the take's seed."""
    noise = np.random.default_rng(take.seed).standard_normal(count, dtype=np.float32)
    if not take.colour:
        return noise
    spectrum = np.fft.rfft(noise)
    steps = np.arange(len(spectrum), dtype=np.float32)
    steps[: max(1, count // 500)] = max(1, count // 500)  # no more power below 1/500 of the rate
    coloured = np.fft.irfft(spectrum * steps ** (-take.colour / 2), count).astype(np.float32)
    return coloured / np.sqrt(np.mean(np.square(coloured)))
