"""What every kind of source gives, one at a time: an utterance as it was found.

A source reads its own tables and folders and nothing else: it opens no audio. Whether a recording
can be read, how long it is and what its text becomes is looked at once, for all sources alike, when
the utterance is turned into a cut.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut

from spelldown.data.checks import Problem


class PassedOver(Problem):
    """Something in a source that looks like part of an utterance and is none: told, and no more."""


class Remark(Problem):
    """Something that is worth telling of a source, and is no part of an utterance."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance as its source describes it.

    id: its name in the source, unique there
    where: where it was found, for messages: `train/text, line 12`
    text: as it was written; None where nobody wrote it down
    audio: the file that it lies in; None where `cut` says all
    start, end: of the utterance in the file, in seconds; an end of None is the file's
    channel: counted from 0; None is decided by the reader's settings
    split: the part that the corpus itself puts it in, `train`, `dev`, `test` or a name of its own
    speaker, gender, age, language: as the source has them
    cut: a whole lhotse cut, from sources that have those (its text is in `text` too)
    more: anything else worth keeping, into the supervision's custom fields
    """

    id: str
    where: str
    text: str | None = None
    audio: Path | None = None
    start: float = 0.0
    end: float | None = None
    channel: int | None = None
    split: str | None = None
    speaker: str | None = None
    gender: str | None = None
    age: int | None = None
    language: str | None = None
    cut: MonoCut | None = None
    more: dict[str, Any] = field(default_factory=dict)
