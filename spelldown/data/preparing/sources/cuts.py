"""lhotse's manifests: cuts as they are, or recordings with their supervisions."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lhotse import MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.serialization import deserialize_item
from pydantic import Field

from spelldown.data.checks import Problem, text_of
from spelldown.data.preparing.sources.reading.entries import Entries, each_once
from spelldown.data.preparing.sources.reading.files import missing, need_folder
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError
from spelldown.settings import Settings

MANIFESTS = (".jsonl.gz", ".jsonl")


class Found(NamedTuple):
    """Something of a manifest: where it is, what it is, and what is wrong with it."""

    where: str
    item: Any
    wrong: str = ""


class CutsSourceSettings(Settings):
    """A manifest of lhotse's, or a folder of them, each a split by its name."""

    kind: Literal["cuts"] = "cuts"
    parts: tuple[str, ...] = Field((), description="the manifests to read; none named: all")


def read(source: Path, settings: CutsSourceSettings) -> Iterator[Utterance | Problem]:
    """The utterances of manifests line by line, and what is wrong with other lines.

    `source` is a manifest of cuts (.jsonl, .jsonl.gz) or a folder of them: `train.jsonl.gz` and
    `x_cuts_train.jsonl.gz` are the split `train`. A folder may hold recordings and supervisions in
    files of their own, as lhotse writes them (`x_recordings_train.jsonl.gz`,
    `x_supervisions_train.jsonl.gz`): each supervision is an utterance then. Relative audio paths
    start from the manifest's folder where the file is there, else from the current one, as lhotse
    has it. Audio from commands is refused, since reading it would run programs; other audio that is
    in no file, and cuts that mix several recordings, are Problems. Raises DataError for a folder
    without manifests.
    """
    yield from each_once(_read(source, settings))


def _read(source: Path, settings: CutsSourceSettings) -> Iterator[Utterance | Problem]:
    for split, (path, *others) in _manifests(source, settings.parts):
        if others:
            lines = (_lines(path), _lines(others[0]))
            yield from spoken(*lines, split, path.parent)
        else:
            yield from _cuts(path, split)


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(one) for one in MANIFESTS if path.name.endswith(one))


def _manifests(source: Path, parts: tuple[str, ...]) -> list[tuple[str | None, tuple[Path, ...]]]:
    """Each split with its manifest of cuts, or those of its recordings and supervisions."""
    if source.is_file():
        if not source.name.endswith(MANIFESTS):
            raise DataError(f"{source}: a manifest ending in {' or '.join(MANIFESTS)} expected")
        return [(None, (source,))]
    need_folder(source, MANIFESTS)
    files = sorted(one for one in source.iterdir() if one.name.endswith(MANIFESTS))
    by_name = {_stem(one): one for one in files}
    found: dict[str, tuple[Path, ...]] = {}
    for name, path in by_name.items():
        pieces = name.split("_")
        if "supervisions" in pieces and not path.name.startswith("."):
            other = "_".join("recordings" if one == "supervisions" else one for one in pieces)
            if other not in by_name:
                raise DataError(f"{path}: there is no manifest {other} of recordings beside it")
            found[_split(pieces, "supervisions")] = (by_name[other], path)
        elif "recordings" not in pieces and not path.name.startswith("."):
            found[_split(pieces, "cuts")] = (path,)
    absent = [part for part in parts if part not in found]
    if absent or not found:
        raise DataError(
            f"{source}: no manifest of {', '.join(absent)}; there is {', '.join(found)}"
            if found
            else f"{source}: holds no manifest of cuts, ending in {' or '.join(MANIFESTS)}"
        )
    several = len(found) > 1
    return [(name if several else None, found[name]) for name in (parts or found)]


def _split(pieces: list[str], kind: str) -> str:
    """The split in a manifest's name: what comes after the kind, or else all of it."""
    after = pieces[pieces.index(kind) + 1 :] if kind in pieces else []
    return "_".join(after or pieces)


def _last(where: str) -> str:
    return where.rpartition(", ")[2]


def _lines(path: Path) -> Iterator[Found]:
    """What lhotse makes of each line."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Found(f"{path}, line {number}", *_item(line))
    except (OSError, EOFError, zlib.error) as error:
        if not number:
            raise DataError(f"{path}: cannot be read: {error}") from error
        found = f"the file is cut short or damaged: {error}"
        yield Found(f"{path}, line {number + 1}", None, found)


def _item(line: bytes) -> tuple[Any, str]:
    try:
        data = json.loads(line)
        item = deserialize_item(data)
        return item, ""
    except Exception as error:  # lhotse's readers raise all kinds
        return None, f"not a line of a manifest of lhotse's ({type(error).__name__}: {error})"


# --- cuts


def _cuts(path: Path, split: str | None) -> Iterator[Utterance | Problem]:
    for where, cut, wrong in _lines(path):
        if wrong:
            yield Problem(_last(where), where, wrong)
        elif isinstance(cut, MonoCut):
            yield utterance_of(cut, where, split, path.parent)
        elif isinstance(cut, MultiCut):
            yield _of_many_channels(cut, where, split, path.parent)
        else:
            kind = type(cut).__name__
            found = f"a {kind}; cuts of one recording expected"
            yield Problem(str(getattr(cut, "id", where)), where, found)


def utterance_of(
    cut: MonoCut, where: str, split: str | None, base: Path | None = None
) -> Utterance | Problem:
    """The utterance of a cut, with its paths looked up from `base`; or why it cannot be had."""
    if cut.has_recording:
        wrong = _wrong_with_sources(cut.recording)
        if wrong:
            return Problem(cut.id, where, wrong)
        if base is not None:
            cut = _beside(base, cut)
        wrong = next(filter(None, (missing(Path(one.source)) for one in _files(cut))), "")
        if wrong and not cut.has_features:
            return Problem(cut.id, where, wrong)
    elif not cut.has_features:
        return Problem(cut.id, where, "a cut with neither a recording nor features")
    said = cut.supervisions[0] if cut.supervisions else None
    return Utterance(
        id=cut.id,
        where=where,
        text=text_of(cut),
        split=split,
        speaker=said.speaker if said else None,
        gender=said.gender if said else None,
        language=said.language if said else None,
        cut=cut,
    )


def _of_many_channels(
    cut: MultiCut, where: str, split: str | None, base: Path
) -> Utterance | Problem:
    """An utterance that several channels heard: which of them counts is for others to say."""
    wrong = _wrong_with_sources(cut.recording)
    files = [one for one in cut.recording.sources if one.type == "file"]
    if not wrong and (len(files) != 1 or cut.recording.transforms):
        wrong = "channels in several files; cuts of one file expected"
    path = Path(files[0].source) if files else Path()
    if not path.is_absolute() and (base / path).exists():
        path = base / path
    wrong = wrong or missing(path)
    if wrong:
        return Problem(cut.id, where, wrong)
    said = cut.supervisions[0] if cut.supervisions else None
    return Utterance(
        id=cut.id,
        where=where,
        text=text_of(cut),
        audio=path,
        start=cut.start,
        end=cut.end,
        split=split,
        speaker=said.speaker if said else None,
        gender=said.gender if said else None,
        language=said.language if said else None,
    )


def _files(cut: MonoCut) -> list[Any]:
    return [one for one in cut.recording.sources if one.type == "file"]


def _wrong_with_sources(recording: Recording) -> str:
    for source in recording.sources:
        if source.type == "command":
            return (
                f"its audio comes from a command ({str(source.source)[:60]}), which would run a "
                "program when read; convert the audio once and let the manifest name the files"
            )
        if source.type not in ("file", "memory"):
            return f"its audio comes from a {source.type}; a file expected"
    return ""


def _beside(base: Path, cut: MonoCut) -> MonoCut:
    files = [Path(one.source) for one in _files(cut)]
    if any(not one.is_absolute() and (base / one).exists() for one in files):
        return cut.with_recording_path_prefix(base)
    return cut


# --- recordings and supervisions


def spoken(
    recordings: Iterable[Found],
    supervisions: Iterable[Found],
    split: str | None,
    base: Path | None = None,
) -> Iterator[Utterance | Problem]:
    """An utterance for each supervision; recordings wait on disk once they are many."""
    with Entries() as entries:
        for number, (where, recording, wrong) in enumerate(recordings, start=1):
            if not isinstance(recording, Recording):
                found = wrong or f"a {type(recording).__name__}; a recording expected"
                yield Problem(_last(where), where, found)
                continue
            content = json.dumps([where, recording.to_dict()])
            if entries.add("recordings", number, recording.id, content) is not None:
                yield Problem(recording.id, where, "this id is there twice")
        for number, (where, said, wrong) in enumerate(supervisions, start=1):
            if not isinstance(said, SupervisionSegment):
                found = wrong or f"a {type(said).__name__}; a supervision expected"
                yield Problem(_last(where), where, found)
                continue
            entries.add("used", number, said.recording_id, None)
            entry = entries.get("recordings", said.recording_id)
            if entry is None:
                yield Problem(said.id, where, f"there is no recording {said.recording_id}")
                continue
            recording = Recording.from_dict(json.loads(entry.rest or "")[1])
            yield _spoken_in(recording, said, where, split, base)
        for entry in entries.without("recordings", "used"):
            where = json.loads(entry.rest or "")[0]
            yield Problem(entry.id, where, "no supervision says what is said in it")


def _spoken_in(
    recording: Recording,
    said: SupervisionSegment,
    where: str,
    split: str | None,
    base: Path | None = None,
) -> Utterance | Problem:
    """The utterance of one supervision of a recording."""
    channels = said.channel if isinstance(said.channel, list) else [said.channel]
    about = (said.id, said.start, said.duration)
    if len(channels) == 1:
        cut = MonoCut(*about, channels[0], [said.with_offset(-said.start)], recording=recording)
        return utterance_of(cut, where, split, base)
    cut = MultiCut(*about, channels, [said.with_offset(-said.start)], recording=recording)
    return _of_many_channels(cut, where, split, base or Path())
