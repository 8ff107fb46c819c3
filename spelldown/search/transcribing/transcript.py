"""What is asked of a transcriber and what it answers: an item in, a transcript or a failure out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lhotse.cut import Cut
from torch import Tensor

from spelldown.data.loading.speakers import Spread
from spelldown.search.transcribing.words import Word

ARRAYS = (".npy",)  # endings of files with features; all others are taken for audio


@dataclass(frozen=True)
class Waveform:
    """Samples in memory: (N,) or (channels, N), float in [-1, 1], at `sample_rate` Hz."""

    samples: Tensor
    sample_rate: int


@dataclass(frozen=True)
class Item:
    """An utterance to transcribe.

    source: a file (`.npy` with static frames (T, width), else audio), a lhotse cut, samples, or
            static frames (T, width) in memory: as the frontend takes them, before deltas
    spread: by what its frames are normalised; None for themselves
    """

    id: str
    source: Path | Cut | Waveform | Tensor
    spread: Spread | None = None


@dataclass(frozen=True)
class Alternative:
    """Another spelling of the same utterance, from a search that keeps several; see Hypothesis."""

    text: str
    score: float
    ended: bool
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Transcript:
    """What an utterance was spelled as.

    score:   by which the search chose it; of greedy search, the natural logarithm of its
             probability; see Hypothesis
    ended:   whether the speller ended it by itself
    seconds: how long the utterance is
    letters: the text that each symbol adds, with `<eos>` if it came
    weights: attention (H, L, T') on the CPU, a row for each of the L letters; None if not kept
    seconds_per_frame: of the listener's frames, T' in `weights`
    words:   when each word was said, from the attention; None if not asked for
    log_probs: the speller's logarithm of each letter's probability
    parts:   what the score is made of: each judge's part, which add up to it
    nbest:   what else the search found, from better to worse
    """

    id: str
    text: str
    score: float
    ended: bool
    seconds: float
    letters: tuple[str, ...]
    weights: Tensor | None
    seconds_per_frame: float
    words: tuple[Word, ...] | None = None
    log_probs: tuple[float, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    nbest: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be transcribed, and why."""

    id: str
    error: str


def named(id: str, error: str) -> str:
    """What went wrong, with the id before it unless it begins so: ids may be whole paths."""
    return error if error.startswith(f"{id}: ") else f"{id}: {error}"
