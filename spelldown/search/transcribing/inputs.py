"""What is asked for on a command line, found: files, folders, patterns, standard input."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spelldown.data.recordings import ENDINGS, opened
from spelldown.errors import AudioError, DataError
from spelldown.search.transcribing.transcript import ARRAYS, Failure, Item

STANDARD_INPUT = Path("-")


@dataclass
class Inputs:
    """What was found: the utterances, the files in folders and patterns that by their names are no
    recordings, and all that was asked for but is not there or cannot be read.
    """

    items: list[Item] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def inputs(paths: Iterable[Path | str]) -> Inputs:
    """The utterances in files, folders and patterns; `-` is standard input, by the id `stdin`.

    A file that is asked for by its name may be called anything: what is in it decides. Folders are
    searched through, files in the order of their names, for those that are called like recordings
    or features; hidden ones do not count. In the course's layout only features are taken: a folder
    `transcripts` beside one named `mfcc` is passed over. Patterns (`*`, `?`, `[...]`, and `**` for
    folders of any depth) are for shells that leave them alone, and as choosy as folders, unless
    they spell an ending (`*.wave`); a file of that very name comes first. An id is the file's path
    within the folder asked for or below the pattern's first star, or its name, without the ending;
    those that would be alike are whole paths.

    Raises DataError if nothing is left to transcribe, naming all that cannot be, and for standard
    input asked for twice.
    """
    found = Inputs()
    named: list[tuple[str, Path]] = []
    for path in map(Path, paths):
        if path == STANDARD_INPUT:
            named.append(("stdin", path))
        elif os.path.isdir(path):
            named += _sorted_out(_folder(path, found), found)
        elif os.path.lexists(path):
            if _readable(path, found):
                named.append((path.stem, path))
        elif glob.has_magic(str(path)):
            matches = list(_matching(path, found))
            named += _sorted_out(matches, found, _ending(path))
            if not matches:
                found.failures.append(Failure(str(path), "no file is named like that"))
        else:
            found.failures.append(Failure(str(path), _absent(path)))
    if [path for _, path in named].count(STANDARD_INPUT) > 1:
        raise DataError("-: standard input can be read only once")
    if found.failures and not named:
        wrong = [f"{failure.id}: {failure.error}" for failure in found.failures]
        raise DataError("nothing that was asked for can be transcribed:", wrong)
    named = _told_apart(named)
    found.items = [Item(name, path) for name, path in named]
    return found


def _absent(path: Path) -> str:
    """Why there is nothing at a path."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "no such file or folder"
    except (OSError, ValueError) as error:  # a folder on the way is closed; a name too long
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return "no such file or folder"


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
    files: Iterable[tuple[Path, Path]], found: Inputs, asked: str = ""
) -> Iterator[tuple[str, Path]]:
    """(root, file) to (id, file); those that are called neither like recordings nor as `asked` are
    noted.
    """
    for root, file in files:
        if not _known(file) and not (asked and file.suffix == asked):
            found.unknown.append(file)
        elif _readable(file, found):
            yield file.relative_to(root).with_suffix("").as_posix(), file


def _known(path: Path) -> bool:
    return path.suffix.lower() in ARRAYS + ENDINGS


def _readable(path: Path, found: Inputs) -> bool:
    """Whether a file is called, or else begins, like a recording or features; if not, it is noted.

    So what is certainly none is told before hours of work; what is damaged, when its turn comes.
    """
    if _known(path):
        return True
    try:
        opened(path).close()
    except AudioError as error:
        found.failures.append(Failure(str(path), str(error).removeprefix(f"{path}: ")))
        return False
    return True


def _ending(pattern: Path) -> str:
    """The ending that a pattern spells; empty where it spells none."""
    return "" if glob.has_magic(pattern.suffix) else pattern.suffix


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
