"""LibriSpeech's layout: `<part>/<speaker>/<chapter>/*.flac` with a `*.trans.txt` in each chapter.

Read by ourselves, chapter by chapter: lhotse's recipe opens all 292,000 recordings before it gives
the first utterance, and holds all of them in memory. The layout has everything that we need.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.reading.entries import each_once
from spelldown.data.preparing.sources.reading.files import missing, need_folder
from spelldown.data.preparing.sources.reading.lines import read_lines, shown
from spelldown.data.preparing.utterance import Utterance
from spelldown.data.recordings import ENDINGS
from spelldown.errors import DataError

ENDING = ".trans.txt"


def read(source: Path, parts: Sequence[str] = ()) -> Iterator[Utterance | Problem]:
    """The utterances of LibriSpeech, mini LibriSpeech, or anything of their layout.

    `source` is the folder of the parts, the one above it (as the archives unpack), or one part.
    Parts are splits by their names; none named reads all that are there. Genders are taken from
    `SPEAKERS.TXT`. Raises DataError where no part is, or one that is asked for is not.
    """
    need_folder(source)
    root, have = _parts(source)
    absent = [part for part in parts if part not in have]
    if absent:
        raise DataError(f"{root}: no part {', '.join(absent)}; there is {', '.join(have)}")
    genders = _genders(root)
    yield from each_once(
        found
        for part in parts or have
        for texts in _chapters(root / part)
        for found in _chapter(texts, part, genders)
    )


def _parts(source: Path) -> tuple[Path, list[str]]:
    """The folder that holds the parts, and their names."""
    for root in (source, source / "LibriSpeech"):
        have = sorted(one.name for one in _folders(root) if next(_chapters(one), None))
        if have:
            return root, have
    if next(_chapters(source), None):
        whole = source.resolve()
        return whole.parent, [whole.name]
    raise DataError(
        f"{source}: not LibriSpeech's layout, <part>/<speaker>/<chapter>/*{ENDING}; "
        "the folder LibriSpeech, or the one that holds it, expected"
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


def _chapters(part: Path) -> Iterator[Path]:
    """The files of texts of a part, one a chapter, in the order of their folders."""
    for speaker in _folders(part):
        for chapter in _folders(speaker):
            yield from sorted(one for one in chapter.iterdir() if one.name.endswith(ENDING))


def _genders(root: Path) -> dict[str, str]:
    """Each speaker's gender, `M` or `F`; none where there is no such file."""
    file = root / "SPEAKERS.TXT"
    if not file.is_file():
        return {}
    rows = [line.text.split("|") for line in read_lines(file) if not line.text.startswith(";")]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 2}


def _chapter(texts: Path, part: str, genders: dict[str, str]) -> Iterator[Utterance | Problem]:
    sounds = {
        one.stem: one
        for one in sorted(texts.parent.iterdir())
        if one.suffix.lower() in ENDINGS and not one.name.startswith(".")
    }
    told = set()
    for number, line, wrong in read_lines(texts):
        if not line.strip():
            continue
        where = f"{texts}, line {number}"
        key, _, text = line.strip().partition(" ")
        told.add(key)
        if key not in sounds:
            wrong = wrong or f"there is no {key}.flac beside it"
        wrong = wrong or ("" if text.strip() else "an id with no text after it")
        wrong = wrong or missing(sounds[key])
        if wrong:
            yield Problem(shown(key), where, wrong)
            continue
        speaker = texts.parent.parent.name
        yield Utterance(
            id=key,
            where=where,
            text=text.strip(),
            audio=sounds[key],
            split=part,
            speaker=speaker,
            gender=genders.get(speaker),
            language="en",
        )
    for key, path in sounds.items():
        if key not in told:
            yield Problem(key, str(path), f"no line of this id in {texts.name}")
