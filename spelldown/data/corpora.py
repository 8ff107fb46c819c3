"""Folders of speech as lhotse cuts: the course's arrays, or manifests of recordings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from lhotse import CutSet, Features, MonoCut, SupervisionSegment
from lhotse.cut import Cut
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from spelldown.data.checks import (
    Part,
    Problem,
    UnusableError,
    read_frames,
    read_text,
)
from spelldown.data.frontend import SECONDS_PER_FRAME
from spelldown.data.recordings import file_of, wrong_with_recording
from spelldown.errors import DataError
from spelldown.settings import Settings

UNIONS = {"train-clean-460": "train-clean-100+train-clean-360"}
SLOW_FROM = 5000  # files from which reading takes long enough to show progress
MANIFESTS = (".jsonl.gz", ".jsonl")


class PartsSettings(Settings):
    """What every kind of corpus has: a folder, and parts in it."""

    root: Path = Field(description="the corpus's folder, from the one spelldown is called in")
    train: str = Field("train", description="the part to learn from; several are joined by +")
    dev: str = Field("dev", description="the part that judges the run after every epoch")
    test: str | None = Field("test", description="the part for `spelldown evaluate`, if there is")
    problems: Literal["stop", "leave-out"] = Field(
        "stop", description="unusable utterances stop the run, or are left out and listed"
    )


class ArraysSettings(PartsSettings):
    """A corpus in the course's layout: `ROOT/<part>/mfcc/*.npy` and `.../transcripts/*.npy`."""

    kind: Literal["arrays"] = "arrays"
    pairing: Literal["name", "order"] = Field(
        "name", description="how features find their transcripts: by file name, or as both sort"
    )


class CutsSettings(PartsSettings):
    """A corpus as lhotse manifests of cuts with audio: `ROOT/<part>.jsonl.gz`."""

    kind: Literal["cuts"] = "cuts"


CorpusSettings = Annotated[ArraysSettings | CutsSettings, Field(discriminator="kind")]


def read_part(settings: ArraysSettings | CutsSettings, part: str) -> Part:
    """A part of the corpus, each file read once and looked at, nothing copied.

    `part` is a partition's name or several joined by `+`; `train-clean-460` joins LibriSpeech's
    two where there is no partition of that name. Where joined partitions share an utterance's
    name, all ids become `<partition>.<name>`. Utterances with problems are set aside in
    `Part.problems`: pass the result to `check_part`, which decides about them.

    Raises DataError for a part that is not there or cannot be paired at all.
    """
    names = [name.strip() for name in part.split("+")]
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"part {part!r}: partition names joined by +, each once, expected")
    have = _partitions(settings)
    names = [
        piece
        for name in names
        for piece in (UNIONS.get(name, name).split("+") if name not in have else [name])
    ]
    for name in names:
        if name not in have:
            close = get_close_matches(name, have, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"no partition {name!r} in {settings.root}; "
                f"there {'are' if have else 'is'} {', '.join(have) or 'none'}{hint}"
            )
    read = _read_arrays if isinstance(settings, ArraysSettings) else _read_manifest
    parts = [read(settings, name) for name in names]  # type: ignore[arg-type]
    if _share_a_name(parts):
        parts = [_named_apart(found) for found in parts]
    return Part(
        part,
        CutSet.from_cuts([cut for found in parts for cut in found.cuts]),
        tuple(problem for found in parts for problem in found.problems),
    )


def _share_a_name(parts: Sequence[Part]) -> bool:
    """Whether an utterance's name, usable or not, is in more than one partition."""
    names = [
        {cut.id for cut in part.cuts}.union(problem.utterance for problem in part.problems)
        for part in parts
    ]
    return len(set().union(*names)) < sum(map(len, names))


def _named_apart(part: Part) -> Part:
    cuts = list(part.cuts)
    for cut in cuts:
        cut.id = f"{part.name}.{cut.id}"
    problems = [replace(one, utterance=f"{part.name}.{one.utterance}") for one in part.problems]
    return Part(part.name, CutSet.from_cuts(cuts), tuple(problems))


def _partitions(settings: ArraysSettings | CutsSettings) -> list[str]:
    """The names of the partitions that are there."""
    if not settings.root.is_dir():
        raise DataError(f"data.root: {settings.root.absolute()} is not a folder")
    if isinstance(settings, ArraysSettings):
        return sorted(f.name for f in settings.root.iterdir() if (f / "mfcc").is_dir())
    files = [f.name for f in settings.root.iterdir()]
    return sorted({f.removesuffix(e) for f in files for e in MANIFESTS if f.endswith(e)})


# --- the course's layout


def _read_arrays(settings: ArraysSettings, name: str) -> Part:
    folder = settings.root / name
    pairs, problems = _pair(folder, settings.pairing)
    cuts: list[MonoCut] = []
    for cut, found in _read_all(pairs, f"reading {name}"):
        problems.extend(found)
        if cut is not None:
            cuts.append(cut)
    return Part(name, CutSet.from_cuts(cuts), tuple(problems))


def _pair(
    folder: Path, pairing: Literal["name", "order"]
) -> tuple[list[tuple[Path, Path | None]], list[Problem]]:
    """Each features file with its transcript, sorted by file name as the course sorts them.

    By name: a file and its transcript are called alike, so one missing file cannot shift all
    that follow. By order, for data whose names differ: the n-th with the n-th, and unequal
    counts raise DataError. Without transcripts at all, every transcript is None.
    """
    problems: list[Problem] = []
    features = _arrays_in(folder / "mfcc", problems)
    texts = _arrays_in(folder / "transcripts", problems)
    if not features:
        raise DataError(
            f"no .npy file in {folder / 'mfcc'}", [str(problem) for problem in problems]
        )
    if not texts:
        return [(path, None) for path in features], problems
    if pairing == "order":
        if len(features) != len(texts):
            raise DataError(
                f"{folder}: {len(features)} files in mfcc and {len(texts)} in transcripts "
                "cannot be paired by order (data.pairing); equal counts expected"
            )
        return list(zip(features, texts, strict=True)), problems
    by_name = {path.name: path for path in texts}
    if not any(path.name in by_name for path in features):
        raise DataError(
            f"{folder}: no file in mfcc ({features[0].name}, ...) has the name of one in "
            f"transcripts ({texts[0].name}, ...); rename them alike, or, if both sort in the "
            "same order, set data.pairing: order"
        )
    pairs: list[tuple[Path, Path | None]] = []
    for path in features:
        if path.name in by_name:
            pairs.append((path, by_name.pop(path.name)))
        else:
            other = folder / "transcripts" / path.name
            problems.append(Problem(path.stem, str(path), f"unpaired: there is no {other}"))
    for path in by_name.values():
        other = folder / "mfcc" / path.name
        problems.append(Problem(path.stem, str(path), f"unpaired: there is no {other}"))
    return pairs, problems


def _arrays_in(folder: Path, problems: list[Problem]) -> list[Path]:
    """The `.npy` files of a folder in the order of their names; hidden files do not count."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    for name in names:
        if not name.endswith(".npy"):
            problems.append(Problem(Path(name).stem, str(folder / name), "not an .npy file"))
    return [folder / name for name in names if name.endswith(".npy")]


def _read_all(
    pairs: Sequence[tuple[Path, Path | None]], doing: str
) -> Iterator[tuple[MonoCut | None, list[Problem]]]:
    """`_read_pair` of all, in order, with a progress bar where it takes a while.

    One after the other: numpy reads headers with ast.literal_eval, which fails now and then when
    two threads use it (CPython 3.11: "AST constructor recursion depth mismatch"), and from a
    warm cache threads are no faster.
    """
    yield from track(
        map(_read_pair, pairs),
        escape(doing),
        total=len(pairs),
        console=Console(stderr=True),
        transient=True,
        disable=len(pairs) < SLOW_FROM,
    )


def _read_pair(pair: tuple[Path, Path | None]) -> tuple[MonoCut | None, list[Problem]]:
    """The cut of one utterance, or all that is wrong with its two files."""
    path, transcript = pair
    shape: tuple[int, int] | None = None
    text: str | None = None
    problems = []
    try:
        shape = read_frames(path)
    except UnusableError as error:
        problems.append(Problem(path.stem, str(path), error.summary))
    if transcript is not None:
        try:
            text = read_text(transcript)
        except UnusableError as error:
            problems.append(Problem(path.stem, str(transcript), error.summary))
    if shape is None or problems:
        return None, problems
    return _cut(path, shape, text, transcript), []


def _cut(path: Path, shape: tuple[int, int], text: str | None, transcript: Path | None) -> MonoCut:
    """A cut that points at the array where it lies."""
    frames, width = shape
    about = {"recording_id": path.stem, "start": 0.0, "duration": frames * SECONDS_PER_FRAME}
    features = Features(
        type="mfcc",
        num_frames=frames,
        num_features=width,
        frame_shift=SECONDS_PER_FRAME,
        sampling_rate=16000,
        storage_type="numpy_files",
        storage_path=str(path.parent),
        storage_key=path.name,
        channels=0,
        **about,
    )
    spoken = []
    if text is not None:
        spoken = [
            SupervisionSegment(path.stem, text=text, custom={"file": str(transcript)}, **about)
        ]
    return MonoCut(path.stem, 0.0, about["duration"], 0, supervisions=spoken, features=features)


# --- lhotse manifests


def _read_manifest(settings: CutsSettings, name: str) -> Part:
    path = next(f for e in MANIFESTS if (f := settings.root / f"{name}{e}").is_file())
    try:
        cuts = list(CutSet.from_jsonl_lazy(path))
    except Exception as error:  # lhotse and the JSON reader raise all kinds
        raise DataError(f"{path}: not a manifest of lhotse cuts ({error})") from error
    counts = Counter(cut.id for cut in cuts)
    usable, problems = [], []
    for cut in map(partial(_beside, settings.root), sorted(cuts, key=lambda cut: cut.id)):
        found = _wrong_with_audio(cut) or ("this id is there twice" if counts[cut.id] > 1 else "")
        if found:
            problems.append(Problem(cut.id, str(path), found))
        else:
            usable.append(cut)
    return Part(name, CutSet.from_cuts(usable), tuple(problems))


def _beside(root: Path, cut: Cut) -> Cut:
    """The cut with relative audio paths read from the manifest's folder, where they are there."""
    if (
        cut.has_recording
        and not Path(file_of(cut)).is_absolute()
        and (root / file_of(cut)).exists()
    ):
        return cut.with_recording_path_prefix(root)
    return cut


def _wrong_with_audio(cut: Cut) -> str:
    """What is wrong with a cut's recording, without decoding it; empty when nothing is."""
    if not (cut.has_recording or cut.has_features):
        return "a cut with neither a recording nor features"
    if not cut.duration > 0:
        return f"a duration of {cut.duration} s"
    # A cut that has both may never be heard: `check_part` knows what the recipe needs.
    return "" if cut.has_features else wrong_with_recording(cut)
