"""A corpus of recordings, made in no time: hums of a few tenths of a second, with their texts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from numpy.typing import NDArray

WORDS = ("A", "BEE", "SEA", "DOG", "EGG", "FOX")
RATE = 16000


def hum(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """A pulsing harmonic sound with some noise, within [-1, 1]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = random.uniform(90, 250)
    sound = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    sound = sound * (1 + np.sin(2 * np.pi * random.uniform(2, 6) * time))
    return (0.1 * sound + 0.003 * random.normal(size=len(time))).astype(np.float32)


def write_recordings(
    root: Path,
    parts: Mapping[str, int] | None = None,
    seed: int = 0,
    suffix: str = ".wav",
    prefix: str = "",
) -> Path:
    """A corpus of cuts in the folder `root`, which it returns; the same for the same arguments.

    parts: utterances of each, 9 of train and 3 of dev unless told; prefix: of utterances' names
    """
    random = np.random.default_rng(seed)
    for part, count in (parts or {"train": 9, "dev": 3}).items():
        (root / "audio").mkdir(parents=True, exist_ok=True)
        cuts = []
        for number in range(count):
            name = f"{prefix}{part}-{number:03}"
            path = root / "audio" / f"{name}{suffix}"
            soundfile.write(path, hum(random.uniform(0.3, 0.9), int(random.integers(999))), RATE)
            text = " ".join(random.choice(WORDS, random.integers(1, 3)))
            recording = Recording.from_file(path, recording_id=name)
            said = SupervisionSegment(name, name, 0.0, recording.duration, text=text)
            cuts.append(MonoCut(name, 0.0, recording.duration, 0, [said], recording=recording))
        CutSet.from_cuts(cuts).to_file(root / f"{part}.jsonl.gz")
    return root
