"""The course's layout: `ROOT/<part>/mfcc/*.npy` with `ROOT/<part>/transcripts/*.npy`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from lhotse import CutSet, Features, MonoCut, SupervisionSegment
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from spelldown.data.checks import Part, Problem, UnusableError, read_frames, read_text
from spelldown.data.frontend import SECONDS_PER_FRAME
from spelldown.errors import DataError

SLOW_FROM = 5000  # files from which reading takes long enough to show progress


def nobody(name: str) -> str | None:
    """Who speaks in a file of this name, where names say nothing of it."""
    return None


def read_arrays(
    root: Path,
    name: str,
    pairing: Literal["name", "order"],
    speaker: Callable[[str], str | None] = nobody,
) -> Part:
    """The utterances of `ROOT/<name>`, each file read once, and what is wrong with the others.

    speaker: who speaks in a file of a name (without its ending).
    Raises DataError for a partition that cannot be paired at all.
    """
    pairs, problems = _pair(root / name, pairing)
    cuts: list[MonoCut] = []
    for cut, found in _read_all(pairs, f"reading {name}"):
        problems.extend(found)
        if cut is not None:
            for supervision in cut.supervisions:
                supervision.speaker = speaker(cut.id)
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
