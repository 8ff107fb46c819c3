"""Where somebody speaks, judged as the sound comes: by a trained detector, or by energy.

A detector takes mono blocks of any length and gives a yes or no for each hop of its own, some
seconds later. What it says of a place does not depend on how the sound was cut into blocks.

    silero   Silero VAD (extra `pauses`; MIT): a small recurrent network, robust against noise
    energy   louder than the background of the half minute around; needs nothing, and misses
             quiet speech in noise
"""

import importlib
import importlib.util
from typing import Any, Literal, Protocol

import numpy
import soxr
import torch
from numpy.typing import NDArray

from spelldown.errors import AudioError
from spelldown.search.transcribing.sound.streams import Samples

Flags = NDArray[numpy.bool_]
Kind = Literal["auto", "energy", "silero"]

MODULE = "silero_vad"


class Detector(Protocol):
    """Tells speech from the rest.

    hop: seconds that each of its answers stands for; the first begins with the first sample
    """

    hop: float

    def push(self, samples: Samples) -> Flags:
        """Answers that have got ready with these samples, perhaps none."""
        ...

    def finish(self) -> Flags:
        """The answers that were still to come; the last hop may be a part of one."""
        ...


def detector(kind: Kind, rate: int) -> Detector:
    """A detector for sound at `rate` Hz; `auto` is silero where it is installed, else energy.

    Raises AudioError if silero is asked for and not installed.
    """
    there = importlib.util.find_spec(MODULE) is not None
    if kind == "silero" and not there:
        raise AudioError(
            "the pause detector silero is not installed: pip install 'spelldown[pauses]', or "
            "choose --pauses energy"
        )
    return Energy(rate) if kind == "energy" or not there else Silero(rate)


class Energy:
    """Speech is what is louder than the background.

    The background is the 10th percentile of the loudness over the stretch of 10 s that is judged
    and those before and behind it, the speech's loudness its 95th (at most RANGE above: digital
    silence is no background). The threshold lies at a fifth of the way between them, within
    LEAST and MOST dB. Half a minute that varies less than CONTRAST dB has no speech. A recording of
    less than a STRETCH may be nothing but speech: if it varies too little, its background is the
    2nd percentile.
    """

    STRETCH = 1000  # hops: ten seconds
    SMOOTH = 5  # hops over which the energy is averaged
    LEAST, MOST, SHARE, RANGE, CONTRAST = 3.0, 12.0, 0.2, 45.0, 8.0
    QUIETEST = 1e-10  # mean square below which all is equally silent: -100 dB

    def __init__(self, rate: int) -> None:
        self._samples = max(1, round(rate / 100))
        self.hop = self._samples / rate
        self._rest = numpy.zeros(0, numpy.float32)
        self._energy = numpy.zeros(0)  # of the stretches held
        self._behind = 0  # hops at the front that have been judged

    def push(self, samples: Samples) -> Flags:
        self._hear(numpy.concatenate((self._rest, samples)))
        found = [numpy.zeros(0, bool)]
        while len(self._energy) >= self._behind + 2 * self.STRETCH:
            found.append(self._judge(self._behind, self._behind + self.STRETCH, 2 * self.STRETCH))
        return numpy.concatenate(found)

    def finish(self) -> Flags:
        if len(self._rest):
            part = numpy.array([float(numpy.mean(self._rest**2))])
            self._energy = numpy.concatenate((self._energy, part))
        return self._judge(self._behind, len(self._energy), 2 * self.STRETCH)

    def _hear(self, samples: Samples) -> None:
        whole = len(samples) // self._samples
        used, self._rest = numpy.split(samples, [whole * self._samples])
        squares = numpy.square(used.astype(numpy.float64)).reshape(whole, self._samples)
        self._energy = numpy.concatenate((self._energy, squares.mean(axis=1)))

    def _judge(self, start: int, end: int, ahead: int) -> Flags:
        """Answers for hops start to end, by all held and `ahead` from `start` on."""
        if end <= start:
            return numpy.zeros(0, bool)
        window = numpy.ones(self.SMOOTH) / self.SMOOTH
        held = self._energy[: start + ahead]
        edge = self.SMOOTH // 2
        smooth = numpy.convolve(numpy.pad(held, edge, mode="edge"), window, mode="valid")
        loudness = 10 * numpy.log10(numpy.maximum(smooth, self.QUIETEST))
        least, floor, peak = numpy.percentile(loudness, [2, 10, 95])
        if peak - floor < self.CONTRAST and len(held) < self.STRETCH:
            floor = least
        floor = max(floor, peak - self.RANGE)
        rise = min(max(self.SHARE * (peak - floor), self.LEAST), self.MOST)
        speech: Flags = loudness[start:end] > floor + rise
        if peak - floor < self.CONTRAST:
            speech[:] = False
        self._energy = self._energy[start:]  # a stretch back is enough for the next
        self._behind = end - start
        return speech


class Silero:
    """Silero VAD 6 (Silero Team 2021-2026, MIT licence), by its own package, on one core.

    It remembers what it heard, so each hop would have to wait for the one before. Instead the sound
    is cut into lanes of some 4 s that are heard side by side, each beginning a second early to
    get its memory. Speech begins where its probability reaches 0.5 and ends below 0.35, as in the
    package's own use of it.
    """

    RATE, HOP = 16_000, 512
    LANE, EARLY, LANES = 125, 31, 16  # hops in a lane, hops heard before it, lanes at a time
    BEGINS, ENDS = 0.5, 0.35

    def __init__(self, rate: int) -> None:
        self.hop = self.HOP / self.RATE
        self._model = _silero()
        self._resample: Any = None
        if rate != self.RATE:
            self._resample = soxr.ResampleStream(rate, self.RATE, 1, dtype="float32", quality="HQ")
        self._held = numpy.zeros(self.EARLY * self.HOP, numpy.float32)  # silence before the first
        self._speaking = False

    def push(self, samples: Samples) -> Flags:
        return self._take(samples, last=False)

    def finish(self) -> Flags:
        return self._take(numpy.zeros(0, numpy.float32), last=True)

    def _take(self, samples: Samples, last: bool) -> Flags:
        if self._resample is not None:
            samples = self._resample.resample_chunk(samples, last=last)
        self._held = numpy.concatenate((self._held, samples))
        found = [numpy.zeros(0, bool)]
        early, round_ = self.EARLY * self.HOP, self.LANES * self.LANE * self.HOP
        while len(self._held) >= early + round_ or (last and len(self._held) > early):
            new = len(self._held) - early
            hops = min(-(-new // self.HOP), self.LANES * self.LANE)
            found.append(self._decided(self._heard(hops)))
            self._held = self._held[min(new, round_) :]
        return numpy.concatenate(found)

    @torch.inference_mode()
    def _heard(self, hops: int) -> NDArray[numpy.float32]:
        """Probabilities of speech in the next hops, at most LANES x LANE.

        Always in as many lanes: the network is compiled anew for every other number.
        """
        wide = self.EARLY + self.LANE
        held = numpy.zeros((self.LANES * self.LANE + self.EARLY) * self.HOP, numpy.float32)
        there = self._held[: len(held)]
        held[: len(there)] = there
        steps = torch.from_numpy(held).view(-1, self.HOP)
        sound = torch.stack([steps[lane * self.LANE :][:wide] for lane in range(self.LANES)], dim=1)
        self._model.reset_states()
        found = torch.stack([self._model(step, self.RATE).flatten() for step in sound])
        probabilities: NDArray[numpy.float32] = found[self.EARLY :].T.reshape(-1)[:hops].numpy()
        return probabilities

    def _decided(self, probabilities: NDArray[numpy.float32]) -> Flags:
        found = numpy.zeros(len(probabilities), bool)
        for place, probability in enumerate(probabilities.tolist()):
            self._speaking = probability >= (self.ENDS if self._speaking else self.BEGINS)
            found[place] = self._speaking
        return found


_loaded: Any = None


def _silero() -> Any:
    """The package's network, loaded once; importing it sets torch's threads, which is undone."""
    global _loaded
    if _loaded is None:
        threads = torch.get_num_threads()
        try:
            _loaded = importlib.import_module(MODULE).load_silero_vad()
        finally:
            torch.set_num_threads(threads)
    return _loaded
