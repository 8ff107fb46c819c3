"""What many tests share: tiny corpora in the course's layout, and the recorded speech, if there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tiny_study import write_study
from toy_corpus import write_corpus, write_utterance
from trained_run import Trained, copied, train_toy

from spelldown.study.folder import StudyFolder

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = {}
    if not SHARED.is_dir():
        absent["data"] = f"recorded speech is not here: no folder {SHARED}"
    if not torch.cuda.is_available():
        absent["gpu"] = "no GPU here"
    for item in items:
        for marker, reason in absent.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


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
        parts = {"train": 12, "dev": 4, "test": 3} if parts is None else parts
        return write_corpus(tmp_path / "corpus", parts, width, words, seed, silent)

    return make


@pytest.fixture
def corpus(make_corpus: Callable[..., Path]) -> Path:
    """The root of a corpus with 12 train, 4 dev and 3 test utterances, width 4."""
    return make_corpus()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run trained for a moment, for the tests of a module; `trained` is what they may change."""
    return train_toy(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def trained(once: Trained, tmp_path: Path) -> Trained:
    """A copy of the module's run, of its own for each test."""
    return copied(once, tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study's page over a corpus that need not be there."""
    return lambda **page: write_study(tmp_path, tmp_path / "corpus", **page)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """The folder of that study."""
    return StudyFolder(tmp_path / "studies" / "tiny")
