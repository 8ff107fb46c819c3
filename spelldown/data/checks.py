"""Is this utterance fit to train on? Every way in which data is wrong, named with its file."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import compute_num_frames
from numpy.typing import NDArray
from torch import Tensor

from spelldown.data.frontend import SECONDS_PER_FRAME
from spelldown.data.recordings import file_of, wrong_with_recording
from spelldown.data.vocabulary import Vocabulary, describe_unknown, normalised
from spelldown.errors import DataError

Source = Literal["frames", "recording"]
"""What a front end takes."""


@dataclass(frozen=True)
class Problem:
    """Something that makes an utterance unusable: which, in which file, what was found."""

    utterance: str
    file: str
    found: str

    def __str__(self) -> str:
        if Path(self.file).stem == self.utterance:
            return f"{self.file}: {self.found}"
        return f"{self.file} (utterance {self.utterance}): {self.found}"


@dataclass(frozen=True)
class Part:
    """One part of a corpus: the usable utterances, in sorted order, and what is wrong elsewhere.

    `problems` names the utterances that are *not* among the cuts; a run keeps it as its
    `left_out.txt`.
    """

    name: str
    cuts: CutSet
    problems: tuple[Problem, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The texts (NFC) of those utterances that have one."""
        return [text for text in map(text_of, self.cuts) if text is not None]

    @property
    def hours(self) -> float:
        """Hours of speech."""
        return float(sum(cut.duration for cut in self.cuts)) / 3600


class UnusableError(DataError):
    """What is wrong with one file; becomes a Problem."""


def read_array(path: Path) -> NDArray[np.generic]:
    """The array of one `.npy` file, read whole; never unpickles.

    Raises UnusableError for an empty, damaged or truncated file and for arrays of objects.
    """
    try:
        with path.open("rb") as file:
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged header can raise nearly anything
        if "Object arrays" in str(error):
            found = "an array of Python objects, which could run code when read; save plain numbers"
        elif path.is_file() and path.stat().st_size == 0:
            found = "an empty file (0 bytes)"
        elif isinstance(error, OSError):
            found = f"cannot be read: {error.strerror or error}"
        else:
            found = f"not a whole .npy array (damaged or cut short: {error})"
        raise UnusableError(found) from error
    return array


def read_frames(path: Path) -> tuple[int, int]:
    """The shape (T, F) of the frames in a file, having found them usable.

    Usable: two axes, at least one frame and one coefficient, numbers that stay finite as
    float32, and no coefficient that is exactly the same in all frames: such a column is a failed
    conversion or digital silence, not speech, and has no deviation to be normalised by. However
    short, real speech never repeats a float32 exactly; only a single frame does, and normalising
    it would leave nothing but zeros. Raises UnusableError.
    """
    array = read_array(path)
    if array.ndim != 2:
        raise UnusableError(f"shape {array.shape}; (frames, coefficients) expected")
    if array.dtype.kind not in "fiu":
        raise UnusableError(f"numbers of type {array.dtype}; floating point expected")
    frames, width = array.shape
    if not frames or not width:
        raise UnusableError(f"an empty array of shape {array.shape}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    low, high = numbers.min(axis=0), numbers.max(axis=0)  # a NaN anywhere reaches both
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = ~np.isfinite(numbers)
        frame, column = np.argwhere(bad)[0]
        raise UnusableError(
            f"{bad.sum()} of {bad.size} numbers are not finite, the first in frame {frame}, "
            f"coefficient {column}: {array[frame, column]}"
        )
    if frames == 1:
        raise UnusableError("zero variance: a single frame; two or more expected")
    constant = np.flatnonzero(low == high)
    if constant.size:
        raise UnusableError(
            f"zero variance: coefficient {_some(constant)} is the same in all {frames} frames"
        )
    return frames, width


def read_text(path: Path) -> str:
    """The text (NFC) of a transcript array: `<sos>`, single characters, `<eos>`.

    Raises UnusableError naming every reason at once.
    """
    array = read_array(path)
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UnusableError(
            f"type {array.dtype}, shape {array.shape}; a row of single characters expected"
        )
    try:
        symbols = [s if isinstance(s, str) else s.decode() for s in array.tolist()]
    except UnicodeDecodeError as error:
        raise UnusableError(f"characters that are not UTF-8: {error}") from error
    found = []
    for mark, place in (("<sos>", 0), ("<eos>", -1)):
        if symbols and symbols[place] == mark:
            symbols.pop(place)
        else:
            found.append(f"no {mark} at the {'end' if place else 'start'}")
    odd = [s for s in symbols if len(s) != 1 and not _one_letter(s)]
    if odd:
        found.append(f"symbols that are not single characters: {_some(sorted(set(odd)))}")
    if found:
        raise UnusableError("; ".join(found))
    return normalised("".join(symbols))


def _one_letter(symbol: str) -> bool:
    """A base character with combining marks, as some scripts write one letter."""
    return bool(symbol) and all(unicodedata.category(c).startswith("M") for c in symbol[1:])


def _some(items: Sequence[object] | NDArray[np.generic], most: int = 5) -> str:
    shown = ", ".join(str(item) if not isinstance(item, str) else repr(item) for item in items[:5])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def text_of(cut: Cut) -> str | None:
    """The text of an utterance, NFC; None when nobody wrote it down."""
    texts = [s.text for s in cut.supervisions]
    if not texts or any(text is None for text in texts):
        return None
    return normalised(" ".join(texts))


def frames_of(cut: Cut) -> int:
    """How many frames of 10 ms an utterance has, or will have once its audio is analysed."""
    if cut.has_features:
        return int(cut.num_frames)
    return int(compute_num_frames(cut.duration, SECONDS_PER_FRAME, cut.sampling_rate))


def text_file_of(cut: Cut) -> str:
    """The file that holds an utterance's text."""
    for supervision in cut.supervisions:
        if supervision.custom and "file" in supervision.custom:
            return str(supervision.custom["file"])
    return file_of(cut)


def ctc_frames_needed(texts: Tensor, lengths: Tensor) -> Tensor:
    """The fewest frames from which CTC can spell each text, (B,): one a symbol, and a blank between
    two equal neighbours (Graves et al. 2006, section 3.1).

    texts (B, L) of any symbols, lengths (B,) of them; neither `<sos>` nor `<eos>` counts.
    """
    place = torch.arange(texts.shape[1], device=texts.device)[1:]
    doubled = (texts[:, 1:] == texts[:, :-1]) & (place < lengths.unsqueeze(1))
    return lengths + doubled.sum(dim=1)


def _frames_needed(symbols: Sequence[int]) -> int:
    row = torch.tensor([list(symbols)], dtype=torch.int64)
    return max(1, int(ctc_frames_needed(row, torch.tensor([len(symbols)]))))


def _size(text: str, symbols: Sequence[int]) -> str:
    if len(symbols) == len(text):
        return f"{len(text)} characters"
    return f"{len(text)} characters, {len(symbols)} symbols,"


def problems_of(
    cuts: Sequence[Cut],
    vocabulary: Vocabulary | None = None,
    width: int | None = None,
    output_length: Callable[[int], int] | None = None,
    need_text: bool = False,
    fewest_frames: Callable[[int], int] | None = None,
    source: Source | None = None,
) -> Iterator[Problem]:
    """All that is wrong with utterances that could be read.

    Checked: that frames or a recording are there (`source`, what the recipe's front end takes), the
    feature width (against `width`, or else against the commonest), the text's presence
    (`need_text`), its characters (where there is a vocabulary), and whether the listener's
    `output_length(T)` leaves CTC enough frames for the text, also when augmentation makes
    `fewest_frames(T)` of T. No file is opened but for recordings beside ready-made frames.
    """
    widths = Counter(cut.num_features for cut in cuts if cut.has_features)
    usual = widths.most_common(1)[0][0] if widths else None
    expected = usual if width is None else width
    for cut in cuts:
        missing = _wrong_with_source(cut, source)
        if missing:
            yield Problem(cut.id, file_of(cut), missing)
        elif source != "recording" and cut.has_features and cut.num_features != expected:
            than = "the recipe's front end takes" if width is not None else "the others have"
            found = f"{cut.num_features} coefficients a frame where {than} {expected}"
            yield Problem(cut.id, file_of(cut), found)
        text = text_of(cut)
        if text is None:
            if need_text:
                yield Problem(cut.id, text_file_of(cut), "no transcript")
            continue
        unknown = vocabulary.unknown(text) if vocabulary else []
        if vocabulary and unknown:
            yield Problem(cut.id, text_file_of(cut), describe_unknown(unknown, vocabulary))
        if output_length is not None:
            frames = frames_of(cut)
            left = fewest_frames(frames) if fewest_frames else frames
            spelled = vocabulary if vocabulary and not unknown else None
            symbols = spelled.encode(text) if spelled else [ord(letter) for letter in text]
            have, needed = output_length(left), _frames_needed(symbols)
            if have < needed:
                fastest = "the fastest augment.speed and augment.sound.speeds"
                faster = f", which are {left} at {fastest}" if left < frames else ""
                found = (
                    f"a text of {_size(text, symbols)} needs {needed} frames from the listener "
                    f"for CTC; it makes {have} of these {frames}{faster}"
                )
                yield Problem(cut.id, text_file_of(cut), found)


def _wrong_with_source(cut: Cut, source: Source | None) -> str:
    if source == "frames" and not cut.has_features:
        return "no ready-made frames, and frontend.kind arrays needs them; mfcc and log-mel do not"
    if source == "recording" and not cut.has_recording:
        return "no recording, and frontend.kind mfcc and log-mel need one; arrays does not"
    if source == "recording" and cut.has_features:  # without them `read_part` has looked
        return wrong_with_recording(cut)
    return ""


def check_part(
    part: Part,
    problems: Literal["stop", "leave-out"] = "stop",
    vocabulary: Vocabulary | None = None,
    width: int | None = None,
    output_length: Callable[[int], int] | None = None,
    need_text: bool = False,
    fewest_frames: Callable[[int], int] | None = None,
    source: Source | None = None,
) -> Part:
    """The part with every unusable utterance left out, or DataError naming them all.

    Adds to what `read_part` found what only the recipe can tell: `vocabulary` for unknown
    characters, `width` of the frames (else the commonest in the part), the listener's
    `output_length(frames)` for CTC (of the `fewest_frames(frames)` that augmentation makes),
    `need_text` for parts that must have transcripts, and `source`, what its front end takes. With
    `problems="stop"` any problem raises DataError; with `leave-out` the utterances are dropped and
    stay listed in `Part.problems`. A part of which nothing is left raises.
    """
    cuts = list(part.cuts)
    asked = (vocabulary, width, output_length, need_text, fewest_frames, source)
    new = list(problems_of(cuts, *asked))
    unusable = {problem.utterance for problem in new}
    left = [cut for cut in cuts if cut.id not in unusable]
    every = (*part.problems, *new)
    total = len({cut.id for cut in cuts}.union(problem.utterance for problem in every))
    if not left:
        raise DataError(
            f"no utterance of {part.name} can be used, of {total}",
            [str(problem) for problem in every],
        )
    if every and problems == "stop":
        raise DataError(
            f"{total - len(left)} of {total} utterances of {part.name} cannot be used; "
            "mend or remove them, or set data.problems: leave-out",
            [str(problem) for problem in every],
        )
    return replace(part, cuts=CutSet.from_cuts(left), problems=every)
