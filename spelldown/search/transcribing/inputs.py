"""What is asked for on a command line, found: files, folders, patterns, standard input."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spelldown.data.recordings import ENDINGS
from spelldown.errors import DataError
from spelldown.search.transcribing.transcript import ARRAYS, Failure, Item

STANDARD_INPUT = Path("-")


@dataclass
class Inputs:
    """What was found: the utterances, the files of no known type in folders and patterns, and the
    folders that could not be looked into.
    """

    items: list[Item] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def inputs(paths: Iterable[Path | str]) -> Inputs:
    """The utterances in files, folders and patterns; `-` is standard input, by the id `stdin`.

    Folders are searched through, files in the order of their names; hidden ones do not count. In
    the course's layout only features are taken: a folder `transcripts` beside one named `mfcc` is
    passed over. Patterns (`*`, `?`, `[...]`, and `**` for folders of any depth) are for shells that
    leave them alone; a file of that very name comes first. An id is the file's path within the
    folder asked for or below the pattern's first star, or its name, without the ending; those that
    would be alike are whole paths.

    Raises DataError naming every path that is not there or, asked for by itself, of no known type.
    """
    found = Inputs()
    named: list[tuple[str, Path]] = []
    wrong: list[str] = []
    for path in map(Path, paths):
        if path == STANDARD_INPUT:
            named.append(("stdin", path))
        elif path.is_dir():
            named += _sorted_out(_folder(path, found), found)
        elif path.exists():
            if _known(path):
                named.append((path.stem, path))
            else:
                wrong.append(f"{path}: not of a known type; known: {' '.join(ARRAYS + ENDINGS)}")
        elif glob.has_magic(str(path)):
            matches = list(_matching(path, found))
            named += _sorted_out(matches, found)
            if not matches:
                wrong.append(f"{path}: no file is named like that")
        else:
            wrong.append(f"{path}: no such file or folder")
    if [path for _, path in named].count(STANDARD_INPUT) > 1:
        wrong.append("-: standard input can be read only once")
    if wrong:
        raise DataError("not everything asked for can be transcribed:", wrong)
    named = _told_apart(named)
    found.items = [Item(name, path) for name, path in named]
    return found


def _told_apart(named: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Ids and files, with the whole path where several files have one id."""
    files: dict[str, set[Path]] = {}
    for name, path in named:
        files.setdefault(name, set()).add(path)
    return [
        (str(path) if len(files[name]) > 1 and path != STANDARD_INPUT else name, path)
        for name, path in named
    ]


def _sorted_out(
    files: Iterable[tuple[Path, Path]], found: Inputs
) -> Iterator[tuple[str, Path]]:  # fmt: skip
    """(root, file) to (id, file); those of no known type are noted."""
    for root, file in files:
        if _known(file):
            yield file.relative_to(root).with_suffix("").as_posix(), file
        else:
            found.unknown.append(file)


def _known(path: Path) -> bool:
    return path.suffix.lower() in ARRAYS + ENDINGS


def _folder(folder: Path, found: Inputs) -> Iterator[tuple[Path, Path]]:
    """A folder's root and each file below it in the order of their names, without hidden ones."""
    root = folder / "mfcc" if (folder / "mfcc").is_dir() else folder

    def closed(error: OSError) -> None:
        why = f"the folder cannot be read: {error.strerror or error}"
        found.failures.append(Failure(str(error.filename or root), why))

    for place, folders, files in os.walk(root, onerror=closed):
        passed = {"transcripts"} if "mfcc" in folders else set()
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in passed)
        yield from ((root, Path(place, name)) for name in sorted(files) if not name.startswith("."))


def _matching(pattern: Path, found: Inputs) -> Iterator[tuple[Path, Path]]:
    """The root of a pattern and each file that it matches, in the order of their names.

    Folders are searched through, but not those that `**` passes on its way to their files.
    """
    fixed = [*pattern.parts]
    for place, part in enumerate(fixed):
        if glob.has_magic(part):
            fixed = fixed[:place]
            break
    root = Path(*fixed)
    for match in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(match)
        if path.is_file():
            yield root, path
        elif path.is_dir() and "**" not in pattern.parts:
            yield from ((root, file) for _, file in _folder(path, found))
