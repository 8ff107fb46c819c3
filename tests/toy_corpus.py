"""Corpora in the course's layout, made in no time, whose letters can be read off their frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORDS = ("A", "BEE", "SEA", "DOG", "IT'S", "EGG", "FOX", "OFF")


def spell_frames(text: str, width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Frames (T, width) from which `text` can be read: 6 to 9 noisy frames a letter."""
    letters = [np.random.default_rng(ord(letter)).normal(0, 3, width) for letter in text]
    steps = [np.tile(letter, (int(random.integers(6, 10)), 1)) for letter in letters]
    frames = np.concatenate(steps)
    return (frames + random.normal(0, 0.5, frames.shape)).astype(np.float32)


def write_utterance(
    part: Path, name: str, frames: NDArray[np.float32], text: str | None = None
) -> None:
    """One utterance in the course's layout; without a transcript when `text` is None."""
    (part / "mfcc").mkdir(parents=True, exist_ok=True)
    np.save(part / "mfcc" / f"{name}.npy", frames)
    if text is not None:
        (part / "transcripts").mkdir(exist_ok=True)
        np.save(part / "transcripts" / f"{name}.npy", np.array(["<sos>", *text, "<eos>"]))


def write_corpus(
    root: Path,
    parts: Mapping[str, int] | None = None,
    width: int = 4,
    words: int = 2,
    seed: int = 0,
    silent: Sequence[str] = (),
) -> Path:
    """A corpus in the folder `root`, which it returns; the same for the same arguments.

    parts: utterances of each, 12 of train and 4 of dev unless told; words: that an utterance holds
    at most; silent: the parts without transcripts
    """
    random = np.random.default_rng(seed)
    for part, count in (parts or {"train": 12, "dev": 4}).items():
        for number in range(count):
            text = " ".join(random.choice(WORDS, random.integers(1, words + 1)))
            frames = spell_frames(text, width, random)
            known = None if part in silent else text
            write_utterance(root / part, f"{part}-{number:03}", frames, known)
    return root
