"""What fits into memory, by length: learnt from what did not, and remembered with the run.

Every time that a batch does not fit, a line of RUN/memory.jsonl says at which update, and how many
utterances of that length are tried together from then on. A resumed run knows each line from the
update on that it was written at, not before, so that it makes every update as it was made the
first time: it does not fail first, and it ends with the same bits.
"""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from torch import Tensor

from spelldown.data.batching import Batch
from spelldown.errors import DoesNotFitError
from spelldown.writing import write_whole

Doing = Literal["training", "validating"]
STEP = 1.25
"""Lengths within this factor count as alike. What did not fit at some length tells nothing of
shorter ones: attention takes memory by frames times symbols."""


@dataclass(frozen=True)
class Lesson:
    """Something that did not fit: `utterances` of `frames` frames and `symbols` symbols.

    update: before which it was learnt, counted from 0; place: at which batch, in a validation;
    most: utterances of that length that are tried together since; where: the device and its limit,
    which it holds for
    """

    update: int
    place: int
    doing: Doing
    utterances: int
    frames: int
    symbols: int
    most: int
    where: str


class Fits:
    """How batches are cut into parts that fit.

    path: where lessons are kept, such as RUN/memory.jsonl; None keeps them in memory alone
    where: the device and its limit; lessons from elsewhere do not count
    tell: what is learnt, for people
    """

    def __init__(
        self,
        path: Path | None = None,
        where: str = "",
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path, self.where, self.tell = path, where, tell
        self.now = (0, 0)  # the update, and in a validation the batch, that is being made
        self.kept = _read(path) if path is not None else []
        self.lessons = [lesson for lesson in self.kept if lesson.where == where]

    def most(self, frames: int, doing: Doing) -> int | None:
        """How many utterances of so many frames are tried together; None for any number.

        As it was known to whoever made what is being made for the first time.
        """
        budgets = [
            lesson.most * lesson.frames
            for lesson in self.lessons
            if lesson.doing == doing
            and (lesson.update, lesson.place) <= self.now
            and _class(lesson.frames) <= _class(frames)
        ]
        return max(1, min(budgets) // max(frames, 1)) if budgets else None

    def parts(self, batch: Batch, doing: Doing = "training") -> list[Batch]:
        """The batch in parts that fit as far as is known; itself, if it may fit whole.

        Parts are as even as can be, and padded no further than to their own longest.
        """
        most = self.most(_length(batch), doing)
        if most is None or len(batch) <= most:
            return [batch]
        count = -(-len(batch) // most)
        cuts = [round(part * len(batch) / count) for part in range(count + 1)]
        return [_part(batch, *cut) for cut in pairwise(cuts)]

    def failed(self, part: Batch, doing: Doing = "training") -> None:
        """Learns that this part does not fit.

        Raises DoesNotFitError if it is a single utterance.
        """
        frames, symbols = _length(part), _symbols(part)
        if len(part) == 1:
            raise DoesNotFitError(
                f"{part.ids[0]}: this utterance of {frames} frames and {symbols} symbols alone "
                f"does not fit into memory ({self.where}) in {doing}. What would help: more memory "
                "(training.memory, if that is the limit), leaving such long utterances out of the "
                "corpus, or a smaller recognizer"
            )
        most = (len(part) + 1) // 2
        lesson = Lesson(*self.now, doing, len(part), frames, symbols, most, self.where)
        self.lessons.append(lesson)
        self.kept.append(lesson)
        if self.path is not None:
            lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.kept]
            write_whole(self.path, "".join(lines))
        self.tell(
            f"{len(part)} utterances of {frames} frames do not fit into memory ({self.where}): "
            f"from here on, batches of such length are done {most} utterances at a time in {doing}"
        )


def _read(path: Path) -> list[Lesson]:
    lessons = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError, TypeError):
                lessons.append(Lesson(**json.loads(line)))
    return lessons


def _class(frames: int) -> int:
    """Which lengths count as alike."""
    return math.floor(math.log(max(frames, 1)) / math.log(STEP))


def _length(batch: Batch) -> int:
    return max(int(batch.frames.shape[1]), _symbols(batch))


def _symbols(batch: Batch) -> int:
    return 0 if batch.symbols is None else int(batch.symbols.shape[1])


def _part(batch: Batch, start: int, end: int) -> Batch:
    """The utterances from `start` to before `end`."""
    rows = slice(start, end)
    lengths = batch.lengths[rows]
    symbols = batch.symbol_lengths
    return Batch(
        ids=batch.ids[rows],
        frames=_trimmed(batch.frames[rows], lengths),
        lengths=lengths,
        symbols=None
        if batch.symbols is None or symbols is None
        else _trimmed(batch.symbols[rows], symbols[rows]),
        symbol_lengths=None if symbols is None else symbols[rows],
        texts=None if batch.texts is None else batch.texts[rows],
    )


def _trimmed(padded: Tensor, lengths: Tensor) -> Tensor:
    return padded[:, : int(lengths.max())].contiguous()
