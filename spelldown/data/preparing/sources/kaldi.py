"""Kaldi's data folders: `wav.scp` and `text`, and `segments`, `utt2spk`, `spk2gender`, `spk2age`.

Format: https://kaldi-asr.org/doc/data_prep.html. Other files, `utt2dur` among them, are not read.
Where we differ: files need not be sorted, relative paths in `wav.scp` start from the folder that
holds it (Kaldi: from where a script was started), and commands in it are never run.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from math import isfinite
from pathlib import Path
from typing import Literal

from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.reading.entries import (
    Entries,
    Entry,
    each_once,
)
from spelldown.data.preparing.sources.reading.files import missing, need_folder
from spelldown.data.preparing.sources.reading.lines import Encoding, read_lines, shown
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError
from spelldown.settings import Settings

ARCHIVED = re.compile(r"\.ark(:\d+)?$")  # a place inside one of Kaldi's archives
GAP = re.compile(r"[ \t]+")
BY_UTTERANCE = ("wav.scp", "text", "segments", "utt2spk")
WRONG = "what is wrong"  # kept beside the files: what each id is complained of


class KaldiSettings(Settings):
    """A Kaldi folder, or a folder of several, each a split by its name."""

    kind: Literal["kaldi"] = "kaldi"
    parts: tuple[str, ...] = Field(
        (), description="the subfolders to read; none named: all that hold a wav.scp"
    )
    encoding: Encoding = "utf-8"


def read(source: Path, settings: KaldiSettings) -> Iterator[Utterance | Problem]:
    """The utterances of a Kaldi folder in the order of `text`, and what is wrong with the others.

    `source` holds a `wav.scp`, or subfolders that do: these are splits by their names. A folder
    without `text` gives utterances without texts. Every id of a folder comes once, as an utterance
    or as a Problem that tells all that is wrong with it; one that a file has twice is a Problem,
    since nobody knows which line is right. An id that is in two splits is a Problem in the second,
    since the same utterance would be learnt and tested. Ids are kept on disk once they are many.
    Raises DataError for folders without a `wav.scp`, and where it holds nothing but commands.
    """
    yield from each_once(_read(source, settings))


def _read(source: Path, settings: KaldiSettings) -> Iterator[Utterance | Problem]:
    for folder, split in _folders(source, settings.parts):
        with Entries() as entries:
            yield from _Folder(folder, split, entries, settings.encoding).read()


def _folders(source: Path, parts: tuple[str, ...]) -> list[tuple[Path, str | None]]:
    """The Kaldi folders of a source, each with the split that it is."""
    need_folder(source)
    if (source / "wav.scp").exists() and not parts:
        return [(source, None)]
    have = sorted(one.name for one in source.iterdir() if (one / "wav.scp").exists())
    if not have:
        raise DataError(
            f"{source}: neither the folder nor a folder in it holds a file wav.scp; "
            "a Kaldi data folder expected"
        )
    absent = [part for part in parts if part not in have]
    if absent:
        raise DataError(
            f"{source}: no Kaldi folder {', '.join(absent)}; there is {', '.join(have)}"
        )
    return [(source / name, name) for name in (parts or have)]


class _Folder:
    """One Kaldi folder while it is read."""

    def __init__(self, folder: Path, split: str | None, entries: Entries, encoding: str) -> None:
        self.folder = folder
        self.split = split
        self.entries = entries
        self.encoding = encoding
        self.genders: dict[str, str] = {}
        self.ages: dict[str, str] = {}
        self.complaints = 0

    def read(self) -> Iterator[Utterance | Problem]:
        for name in BY_UTTERANCE:
            if name == "wav.scp" or self.has(name):
                self.load(name)
        self.genders = dict(self.by_speaker("spk2gender"))
        self.ages = dict(self.by_speaker("spk2age"))
        self.refuse_only_commands()
        audio = "segments" if self.has("segments") else "wav.scp"
        texts = "text" if self.has("text") else None
        for entry in self.entries.all(texts or audio):
            found = self.utterance(entry, texts, audio)
            if isinstance(found, Problem):
                self.complain(found)
            elif found is not None:
                yield found
        if texts:
            for entry in self.entries.without(audio, texts):
                found = self.problem(audio, entry.line, entry.id, "no entry of this id in text")
                self.complain(found)
        if audio == "segments":
            for entry in self.entries.without("wav.scp", "in segments"):
                unused = "no segment of it in segments"
                self.complain(self.problem("wav.scp", entry.line, entry.id, unused))
        for entry in self.entries.all(WRONG):
            yield Problem(*json.loads(entry.rest or ""))

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def where(self, name: str, line: int) -> str:
        return f"{self.folder / name}, line {line}"

    def problem(self, name: str, line: int, utterance: str, found: str) -> Problem:
        return Problem(shown(utterance), self.where(name, line), found)

    def complain(self, wrong: Problem, alone: bool = False) -> None:
        """Keeps what is wrong with an id, with what else is; `alone`: others may look like it."""
        self.complaints += 1
        id = f"{wrong.utterance}\n{self.complaints}" if alone else wrong.utterance
        told = json.dumps(astuple(wrong))
        if self.entries.add(WRONG, self.complaints, id, told) is None:
            return
        before = self.entries.get(WRONG, id)
        assert before is not None and before.rest is not None
        first = Problem(*json.loads(before.rest))
        both = f"{first.found}; {Path(wrong.file).name}: {wrong.found}"
        self.entries.change(WRONG, id, json.dumps(astuple(replace(first, found=both))))

    def load(self, name: str) -> None:
        """Keeps the lines of a file by their ids; of those that are wrong the id alone."""
        empty = True
        for number, text, wrong in read_lines(self.folder / name, self.encoding):
            if not text.strip():
                continue
            empty = False
            key, _, rest = GAP.sub(" ", text.strip(" \t"), count=1).partition(" ")
            if wrong:
                hidden = shown(key) != key  # a lone surrogate shows as a question mark
                self.complain(self.problem(name, number, key, wrong), alone=hidden)
                if hidden:
                    continue
                rest = ""
            elif not rest:
                missing_is = "text" if name == "text" else "entry"
                bare = f"an id with no {missing_is} after it"
                self.complain(self.problem(name, number, key, bare))
            before = self.entries.add(name, number, key, rest or None)
            if before is not None:
                twice = f"this id is there twice; the first is in line {before}"
                self.complain(self.problem(name, number, key, twice))
                self.entries.change(name, key, None)
            if name == "segments" and rest:
                self.entries.add("in segments", number, GAP.split(rest)[0], None)
        if empty and name in ("wav.scp", "text"):
            raise DataError(f"{self.folder / name}: an empty file; one line an utterance expected")

    def by_speaker(self, name: str) -> Iterator[tuple[str, str]]:
        """What a file says of each speaker."""
        if self.has(name):
            for _, text, wrong in read_lines(self.folder / name, self.encoding):
                fields = GAP.split(text.strip(" \t"))
                if len(fields) == 2 and not wrong:
                    yield fields[0], fields[1]

    def refuse_only_commands(self) -> None:
        first = None
        for entry in self.entries.all("wav.scp"):
            if not _is_command(entry.rest or ""):
                return
            first = first or entry
        if first:
            raise DataError(
                f"{self.where('wav.scp', first.line)}: {_refused(first.rest or '')}; "
                "all other entries are commands, too"
            )

    def utterance(self, said: Entry, texts: str | None, audio: str) -> Utterance | Problem | None:
        """An utterance, or why there is none, from its entry in `text` (without one, the audio's).

        None where one of its lines was complained of when it was loaded.
        """
        key, told = said.id, self.entries.get("utt2spk", said.id)
        entry = self.entries.get(audio, key)
        if entry is None:
            return self.problem(texts or audio, said.line, key, f"no entry of this id in {audio}")
        if said.rest is None or entry.rest is None or (told is not None and told.rest is None):
            return None
        start, end, recording = 0.0, None, entry
        if audio == "segments":
            try:
                name, start, end = _segment(entry.rest)
            except ValueError as error:
                return self.problem(audio, entry.line, key, str(error))
            found = self.entries.get("wav.scp", name)
            if found is None or found.rest is None:
                why = f"no usable entry of the recording {name} in wav.scp"
                return self.problem(audio, entry.line, key, why)
            recording = found
        path = recording.rest or ""
        file = self.folder / path
        wrong = _refused(path) or self.missing(path, file)
        if wrong:
            return self.problem("wav.scp", recording.line, key, wrong)
        speaker = told.rest if told else None
        age = self.ages.get(speaker or "", "")
        return Utterance(
            id=key,
            where=self.where(texts or audio, said.line),
            text=said.rest if texts else None,
            audio=file,
            start=start,
            end=end,
            split=self.split,
            speaker=speaker,
            gender=self.genders.get(speaker or ""),
            age=int(age) if age.isdecimal() else None,
            more={} if age.isdecimal() or not age else {"age": age},
        )

    def missing(self, path: str, file: Path) -> str:
        wrong = missing(file)
        if wrong and ARCHIVED.search(path):
            return f"{path} lies in one of Kaldi's archives, which are not read; audio files are"
        if wrong and not Path(path).is_absolute():
            return f"{wrong} (relative paths start from the folder that holds wav.scp)"
        return wrong


def _is_command(path: str) -> bool:
    return path.endswith("|") or path.startswith("|")


def _refused(path: str) -> str:
    """Why an entry is refused without looking for a file; empty where it is not."""
    if _is_command(path):
        return (
            f"a command ({path[:60]}{'...' if len(path) > 60 else ''}), which would run a program "
            "when read; convert the audio once and write the files' paths instead"
        )
    return "standard input, which is not read; an audio file expected" if path == "-" else ""


def _segment(rest: str) -> tuple[str, float, float | None]:
    """The recording, start and end in seconds of a segment; an end of -1 is the recording's."""
    fields = GAP.split(rest.strip())
    if len(fields) < 3:
        raise ValueError(f"{rest!r} found; recording, start and end expected")
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        raise ValueError(f"{rest!r} found; start and end in seconds expected") from None
    if not (isfinite(start) and isfinite(end)) or start < 0 or (end <= start and end != -1):
        raise ValueError(f"from {fields[1]} to {fields[2]} s is no stretch of a recording")
    return fields[0], start, None if end == -1 else end
