"""Folders of audio with a text file beside each: `a/x.wav` and `a/x.txt`."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.reading.entries import each_once
from spelldown.data.preparing.sources.reading.files import missing, named_after, need_folder
from spelldown.data.preparing.sources.reading.lines import Encoding, read_lines
from spelldown.data.preparing.utterance import PassedOver, Utterance
from spelldown.data.recordings import ENDINGS
from spelldown.errors import DataError
from spelldown.settings import Settings

SPLITS = (
    *("train", "train-*", "training", "dev", "dev-*", "development", "valid", "validation", "val"),
    *("eval", "test", "test-*", "testing"),
)


# What is converted before it is read, of all that may lie beside a text.
CONVERTIBLE = (
    *(".m4a", ".aac", ".wma", ".mp4", ".webm", ".amr", ".3gp", ".3gpp", ".mka", ".mkv", ".mov"),
    *(".avi", ".ac3", ".ape", ".wv", ".mp2", ".m4b", ".spx", ".ra", ".gsm", ".mpeg", ".mpg"),
)
PREPARED = frozenset((".preparing", "prepared.json"))  # what is in a folder that was prepared into
ABOUT = (
    *("readme", "read_me", "license", "licence", "copying", "copyright", "notice", "changelog"),
    *("changes", "authors", "citation", "credits", "acknowledg", "about", "version"),
)


class FolderSettings(Settings):
    """A folder, and all folders in it, of audio files with a text file beside each."""

    kind: Literal["folder"] = "folder"
    speaker: Literal["none", "folder", "top-folder"] = Field(
        "none",
        description="folder: each folder of audio is a speaker, and called so; top-folder: each "
        "uppermost one is, with all that lies in it (train, dev, test and the like aside)",
    )
    splits: tuple[str, ...] = Field(
        SPLITS, description="top folders of these names, in any case, are splits"
    )
    audio: tuple[str, ...] = Field(ENDINGS, description="endings of audio files, in any case")
    text: str = Field(".txt", description="the ending of text files, in any case")
    encoding: Encoding = "utf-8"


def read(source: Path, settings: FolderSettings) -> Iterator[Utterance | Problem]:
    """The utterances of a folder in the order of their paths, and what has no counterpart.

    An utterance is named for its path inside `source`, `a-x` for `a/x.wav`. Lines of a text are
    joined by spaces. Folders that are speakers have their own names, and where several are called
    the same, their paths (inside of their part), as `anna/day 1`. Passed over are hidden files and
    folders, folders that were prepared into, and texts without audio that are called README,
    LICENSE and the like, of which a `PassedOver` tells; links to folders are followed once.
    The names in one folder are held in memory, those in all of them are not. Raises DataError for
    a folder that holds neither audio nor text.
    """
    need_folder(source)
    empty = True
    for found in each_once(_read(source, settings)):
        empty = empty and isinstance(found, PassedOver)
        yield found
    if empty:
        raise DataError(
            f"{source}: no audio in it or in its folders; files ending in "
            f"{', '.join(settings.audio)} expected, each with a {settings.text} beside it"
        )


def _read(source: Path, settings: FolderSettings) -> Iterator[Utterance | Problem]:
    names = _names(source, settings)
    for folder, files in _folders(source, source, set()):
        if isinstance(files, Problem):
            yield files
        else:
            yield from _Folder(source, folder, settings, names).read(files)


def _names(source: Path, settings: FolderSettings) -> Counter[str]:
    """How many speakers' folders are called by each name; those of one path are one speaker's."""
    if settings.speaker != "folder":
        return Counter()
    endings = tuple(map(str.lower, settings.audio))
    paths = {
        _places(folder.relative_to(source).parts, settings)[1]
        for folder, files in _folders(source, source, set())
        if not isinstance(files, Problem) and any(one.lower().endswith(endings) for one in files)
    }
    return Counter(path[-1] for path in paths if path)


def _places(
    inside: tuple[str, ...], settings: FolderSettings
) -> tuple[str | None, tuple[str, ...]]:
    """The part that a folder is in, by its path, and the rest of the path."""
    top = inside[0].lower() if inside else ""
    if any(fnmatchcase(top, one.lower()) for one in settings.splits):
        return inside[0], inside[1:]
    return None, inside


def speaker_folders(audio: Path, source: Path, settings: FolderSettings) -> tuple[str, ...]:
    """The folders in the source or in its part, from the top down, that an audio file lies in."""
    return _places(audio.parent.relative_to(source).parts, settings)[1]


def _folders(
    root: Path, folder: Path, met: set[tuple[int, int]]
) -> Iterator[tuple[Path, list[str] | Problem]]:
    """Every folder with the names of its files, sorted; what is hidden is passed over."""
    try:
        known = folder.stat()
        if (known.st_dev, known.st_ino) in met:
            return
        met.add((known.st_dev, known.st_ino))
        with os.scandir(folder) as entries:
            every = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        named = folder.relative_to(root).as_posix()
        wrong = f"the folder cannot be read: {error.strerror or error}"
        yield folder, Problem(named, str(folder), wrong)
        return
    if folder != root and PREPARED.intersection(name for name, _ in every):
        return  # such as the folder that this one is prepared into
    inside = [(name, is_folder) for name, is_folder in every if not name.startswith(".")]
    yield folder, [name for name, is_folder in inside if not is_folder]
    for name in (name for name, is_folder in inside if is_folder):
        yield from _folders(root, folder / name, met)


@dataclass(frozen=True)
class _Folder:
    """One folder while it is read."""

    root: Path
    folder: Path
    settings: FolderSettings
    names: Counter[str]  # of speakers' folders

    def read(self, files: list[str]) -> Iterator[Utterance | Problem]:
        settings = self.settings
        endings, ending = tuple(map(str.lower, settings.audio)), settings.text.lower()
        sounds = [name for name in files if name.lower().endswith(endings)]
        texts = [name for name in files if name.lower().endswith(ending)]
        named = {name[: -len(ending)]: name for name in reversed(texts)}
        used = set()
        for name in sounds:
            text = named.get(Path(name).stem, named.get(name))
            if text is None:
                yield self.problem(name, f"no text file {Path(name).stem}{settings.text} beside it")
            else:
                used.add(text)
                yield self.utterance(name, text)
        unread = _unread(files, {*sounds, *texts})
        for name in (one for one in texts if one not in used):
            lonely = "a text without an audio file beside it"
            if name.lower().startswith(ABOUT):
                yield PassedOver(name, str(self.folder / name), lonely)
            else:
                yield self.problem(name, _not_read(name[: -len(ending)], unread) or lonely)

    def named(self, name: str) -> str:
        return named_after((self.folder / name).relative_to(self.root))

    def problem(self, name: str, found: str) -> Problem:
        return Problem(self.named(name), str(self.folder / name), found)

    def utterance(self, name: str, text_name: str) -> Utterance | Problem:
        audio, file = self.folder / name, self.folder / text_name
        try:
            lines = list(read_lines(file, self.settings.encoding))
        except DataError as error:
            return Problem(self.named(name), str(file), error.summary.removeprefix(f"{file}: "))
        wrong = next((line for line in lines if line.wrong), None)
        if wrong:
            return Problem(self.named(name), f"{file}, line {wrong.number}", wrong.wrong)
        text = " ".join(line.text.strip() for line in lines if line.text.strip())
        if not text:
            return Problem(self.named(name), str(file), "an empty text")
        if unreachable := missing(audio):
            return Problem(self.named(name), str(audio), unreachable)
        split, path = _places(self.folder.relative_to(self.root).parts, self.settings)
        return Utterance(
            id=self.named(name),
            where=str(audio),
            text=text,
            audio=audio,
            split=split,
            speaker=self.speaker(path) if path else None,
        )

    def speaker(self, path: tuple[str, ...]) -> str | None:
        if self.settings.speaker == "folder":
            return path[-1] if self.names[path[-1]] < 2 else "/".join(path)
        return path[0] if self.settings.speaker == "top-folder" else None


def _unread(files: list[str], read: set[str]) -> dict[str, str]:
    """Files that are not read, by their names with and without ending; sound before others."""
    others = [name for name in files if name not in read and Path(name).suffix]
    others.sort(key=lambda name: Path(name).suffix.lower() in CONVERTIBLE)  # the last one stays
    return {key: name for name in others for key in (name, Path(name).stem)}


def _not_read(stem: str, unread: dict[str, str]) -> str:
    """What is to be said of a text beside which there is a file of its name that is not read."""
    name = unread.get(stem)
    if name is None:
        return ""
    kind = Path(name).suffix
    if kind.lower() in ENDINGS:
        return f"{name} is beside it, but {kind} is not among the endings that --audio names"
    convert = f"ffmpeg -i {shlex.quote(name)} {shlex.quote(f'{stem}.wav')}"
    if kind.lower() in CONVERTIBLE:
        return f"{name} is beside it, but {kind} is not read; convert it: `{convert}`"
    return f"{name} is beside it, but {kind} is not read; if it is a recording: `{convert}`"
