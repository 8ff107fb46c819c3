"""What many tests share: tiny corpora in the course's layout, and the recorded speech, if there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
WORDS = ("A", "BEE", "SEA", "DOG", "IT'S", "EGG", "FOX", "OFF")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    absent = pytest.mark.skip(reason=f"recorded speech is not here: no folder {SHARED}")
    for item in items:
        if "data" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded speech; its tests carry the marker `data`."""
    return SHARED.resolve()


@pytest.fixture(scope="session")
def an4(shared_data: Path) -> Path:
    """AN4 in the course's layout; its tests carry the marker `data`."""
    if not (shared_data / "an4").is_dir():
        pytest.skip(f"AN4 is not here: no folder {shared_data / 'an4'}")
    return shared_data / "an4"


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


@pytest.fixture(name="write_utterance")
def write_utterance_fixture() -> Callable[..., None]:
    """`write_utterance(part folder, name, frames, text=None)`, for corpora made by hand."""
    return write_utterance


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Writes a corpus in the course's layout and returns its root.

    Keywords: `parts` {name: utterances}, `width`, `words` an utterance holds at most, `seed`,
    and `silent`, the parts without transcripts.
    """

    def make(
        parts: dict[str, int] | None = None,
        width: int = 4,
        words: int = 3,
        seed: int = 0,
        silent: Sequence[str] = ("test",),
    ) -> Path:
        random = np.random.default_rng(seed)
        parts = {"train": 12, "dev": 4, "test": 3} if parts is None else parts
        for part, count in parts.items():
            for number in range(count):
                text = " ".join(random.choice(WORDS, random.integers(1, words + 1)))
                frames = spell_frames(text, width, random)
                known = None if part in silent else text
                write_utterance(tmp_path / "corpus" / part, f"{part}-{number:03}", frames, known)
        return tmp_path / "corpus"

    return make


@pytest.fixture
def corpus(make_corpus: Callable[..., Path]) -> Path:
    """The root of a corpus with 12 train, 4 dev and 3 test utterances, width 4."""
    return make_corpus()
