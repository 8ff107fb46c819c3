"""Where a language model's symbols and transcripts come from: a run, or a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spelldown.data.corpora import ArraysSettings, CutsSettings, read_added, read_part
from spelldown.data.reading.manifests import MANIFESTS
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError, RunError
from spelldown.recipe.recipe import read_recipe
from spelldown.training.run.run_folder import RunFolder


@dataclass(frozen=True)
class Said:
    """Transcripts to learn from, and of the dev part, which judges."""

    train: tuple[str, ...]
    dev: tuple[str, ...]


def vocabulary_of(run: Path) -> Vocabulary:
    """The symbols of a run. Raises RunError for a folder without one, DataError for a bad one."""
    folder = RunFolder(run)
    try:
        return Vocabulary.from_json(folder.vocabulary.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{run} holds no trained run: {folder.vocabulary}: {error.strerror}"
        ) from None


def said_in_run(run: Path, overrides: Sequence[str] = ()) -> Said:
    """What a run was trained and judged on; `data.root=...` says where it lies now.

    Raises RunError for a folder without a run, DataError for a corpus that is not there.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise RunError(f"{run} holds no run: there is no {folder.recipe}")
    data = read_recipe(folder.recipe, overrides).data
    train = read_part(data, data.train)
    parts = [train, *read_added(data, train)]
    return Said(
        tuple(text for part in parts for text in part.texts),
        tuple(read_part(data, data.dev).texts),
    )


def said_in_corpus(root: Path) -> Said:
    """What is said in a corpus' parts `train` and, if there is one, `dev`.

    root: a folder that `spelldown prepare` made, or one in the course's layout. Raises DataError
    for another.
    """
    if any((root / f"train{ending}").is_file() for ending in MANIFESTS):
        data: CutsSettings | ArraysSettings = CutsSettings(root=root)
        has_dev = any((root / f"dev{ending}").is_file() for ending in MANIFESTS)
    elif (root / "train" / "transcripts").is_dir():
        data, has_dev = ArraysSettings(root=root), (root / "dev" / "transcripts").is_dir()
    else:
        raise DataError(
            f"{root} is no prepared corpus with a part `train`: `spelldown prepare` makes one"
        )
    dev = read_part(data, "dev").texts if has_dev else []
    return Said(tuple(read_part(data, "train").texts), tuple(dev))
