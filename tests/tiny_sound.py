"""Sound for tests: bursts of noise for speech, and a transcriber of random weights."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from spelldown.data.frontend import Frontend, MfccSettings
from spelldown.data.vocabulary import Vocabulary
from spelldown.model.listening.blocks import BiLSTMSettings, ConvSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.model.spelling.attention import DotSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.transcriber import Transcriber

RATE = 8000  # samples a second of all that these make
Samples = NDArray[np.float32]


class Hearing(Recognizer):
    """A recognizer of random weights that notes how many utterances each batch had."""

    def __init__(self, width: int, vocabulary: int) -> None:
        torch.manual_seed(2)
        super().__init__(
            ListenerSettings(blocks=(ConvSettings(widths=(8,), stride=4), BiLSTMSettings(width=8))),
            DotSettings(width=8),
            SpellerSettings(embedding=8, width=16, tied=False),
            None,
            input_width=width,
            vocabulary=vocabulary,
        )
        for parameter in self.speller.parameters():
            parameter.data *= 5
        self.batches: list[int] = []

    def listen(self, frames: Tensor, lengths: Tensor) -> Memory:
        self.batches.append(len(lengths))
        return super().listen(frames, lengths)


def hearing_transcriber(longest: int = 12) -> Transcriber:
    """Hears sound at RATE and spells at most `longest` letters of nonsense."""
    frontend = Frontend(MfccSettings(width=5, filters=20, sample_rate=RATE))
    vocabulary = Vocabulary.course()
    recognizer = Hearing(frontend.output_width, len(vocabulary))
    search = GreedySettings(longest=longest)
    return Transcriber(recognizer, frontend, vocabulary, search, "float32")


def bursts(*spans: tuple[float, float], seconds: float, rate: int = RATE, seed: int = 0) -> Samples:
    """`seconds` of a quiet background with loud noise in each span (start, end)."""
    random = np.random.default_rng(seed)
    sound = random.normal(0, 1e-3, round(seconds * rate))
    for start, end in spans:
        place = slice(round(start * rate), round(end * rate))
        sound[place] += random.normal(0, 0.1, len(sound[place]))
    return sound.astype(np.float32)


def write_sound(path: Path, samples: Samples, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path
