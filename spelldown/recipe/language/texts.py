"""What a language model is made from: files of sentences, and what is said in a corpus."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.preparing.text import TextForm, TextSettings
from spelldown.data.synthesis.texts import compared, forbidden_in, read_lines
from spelldown.data.vocabulary import Vocabulary, describe_unknown, normalised
from spelldown.errors import SHOWN, DataError
from spelldown.settings import Settings

MOST_HELD_OUT = 5000  # sentences: enough for a perplexity, and for judging every epoch
LONGEST_LINE = 100_000  # characters; a file without line ends would be one sentence


class TextsSettings(Settings):
    """Which sentences a language model is made from."""

    text: tuple[Path, ...] = Field(
        (), description="sentences, one a line, in UTF-8, perhaps gzipped; may be given again"
    )
    leave_out: tuple[Path, ...] = Field(
        (),
        description="sentences that are left out wherever they occur, such as a test's: lines, a "
        "Kaldi text, a table, a manifest, or a part's folder in the course's layout; may be given "
        "again",
    )
    unknown: Literal["stop", "drop-line", "drop-character"] = Field(
        "stop", description="what is done with characters that the vocabulary lacks"
    )
    text_form: Literal["as-is", "own", "librispeech"] = Field(
        "as-is",
        description="how lines are brought to the form that is spelled: own has capitals and no "
        "punctuation, librispeech A-Z, apostrophe and space alone (as `spelldown prepare`)",
    )
    held_out: float = Field(
        0.02,
        ge=0,
        lt=1,
        description=f"share of the sentences, at most {MOST_HELD_OUT:,}, that is not learnt but "
        "judges the model, where there is no dev part to do so",
    )


@dataclass
class Met:
    """What became of the lines that were read.

    learnt, characters: sentences that were given out, and their characters. left_out: those that
    occur in a file to leave out. odd: lines with characters that the vocabulary lacks, dropped or
    mended, and `unknown` those characters. digest: of all that was given out, in its order.
    """

    learnt: int = 0
    characters: int = 0
    left_out: int = 0
    odd: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    digest: str = ""


class Texts:
    """Sentences for a language model over a vocabulary, read anew each time they are gone through.

    transcripts: what is said in a corpus, to learn from too. judging: sentences that judge the
    model; without them some are held out.
    """

    def __init__(
        self,
        settings: TextsSettings,
        vocabulary: Vocabulary,
        transcripts: Sequence[str] = (),
        judging: Sequence[str] = (),
    ) -> None:
        if not settings.text and not transcripts:
            raise DataError("nothing to learn from: neither a text nor transcripts")
        self.settings, self.vocabulary, self.transcripts = settings, vocabulary, transcripts
        form = settings.text_form
        self._form = None if form == "as-is" else TextForm(TextSettings(form=form))
        self._forbidden = {
            key for path in settings.leave_out for keys in _left_out(path) for key in keys
        }
        known = (line for line in map(_tidy, judging) if line and not vocabulary.unknown(line))
        self.judging = list(known)
        self._holds_out = not self.judging and settings.held_out > 0
        self.met = Met()

    def count(self) -> int:
        """How many lines there are, for an estimate of the time."""
        return len(self.transcripts) + sum(
            1 for path in self.settings.text for _ in read_lines(path)
        )

    def sentences(self, lines: Iterable[tuple[str, str]] | None = None) -> Iterator[str]:
        """The sentences to learn from, in the order of the files; `met` tells of them afterwards.

        lines: those of `lines()`, perhaps with a progress bar around them. Those held out are in
        `judging` afterwards. Raises DataError at the end if lines had characters that the
        vocabulary lacks and `unknown` is stop, and if nothing was left.
        """
        met, held_out, digest = Met(), list[str](), hashlib.sha256()
        problems: list[str] = []
        for place, line in self.lines() if lines is None else lines:
            if self._forbidden and compared(line) in self._forbidden:
                met.left_out += 1
                continue
            if unknown := self.vocabulary.unknown(line):
                met.odd += 1
                met.unknown.update(c for c in normalised(line) if c in unknown)
                if len(problems) <= SHOWN:
                    problems.append(f"{place}: {describe_unknown(unknown, self.vocabulary)}")
                if self.settings.unknown != "drop-character":
                    continue
                line = _tidy("".join(" " if c in unknown else c for c in normalised(line)))
                if not line:
                    continue
            if self._holds_out and len(held_out) < MOST_HELD_OUT and self._is_held_out(line):
                held_out.append(line)
                continue
            met.learnt, met.characters = met.learnt + 1, met.characters + len(line)
            digest.update(f"{line}\n".encode())
            yield line
        met.digest = digest.hexdigest()
        self._hold_known(met, problems)
        if not met.learnt:
            raise DataError(
                f"no sentence to learn from: {met.left_out} left out, {met.odd} with characters "
                "that the vocabulary lacks, and all other lines are empty"
            )
        self.met = met
        if self._holds_out:
            self.judging = held_out

    def lines(self) -> Iterator[tuple[str, str]]:
        """Every line that is not empty, in the form that is spelled, with its place.

        Raises DataError for one that cannot be a sentence.
        """
        for number, text in enumerate(self.transcripts, 1):
            if line := _tidy(text):
                yield f"transcript {number}", line
        for path in self.settings.text:
            for number, text in enumerate(read_lines(path), 1):
                if len(text) > LONGEST_LINE:
                    raise DataError(
                        f"{path}, line {number}: {len(text):,} characters in one line; a text has "
                        "a sentence a line, so break it at the ends of sentences"
                    )
                line = _tidy(text)
                if self._form is not None:
                    line = self._form.said(line).text
                if line:
                    yield f"{path}, line {number}", line

    def _is_held_out(self, line: str) -> bool:
        """By the sentence alone, so that all of its copies go the same way."""
        return zlib.crc32(line.encode()) / 2**32 < self.settings.held_out

    def _hold_known(self, met: Met, problems: Sequence[str]) -> None:
        if self.settings.unknown != "stop" or not met.odd:
            return
        often = ", ".join(f"{c!r} {n:,}" for c, n in met.unknown.most_common(SHOWN))
        more = [f"and {met.odd - len(problems):,} more lines"] if met.odd > len(problems) else []
        raise DataError(
            f"{met.odd:,} lines have characters that the vocabulary lacks ({often} times). "
            "--unknown drop-line leaves these lines out, --unknown drop-character the characters; "
            "--text-form own or librispeech brings texts as they are printed to capitals without "
            "punctuation",
            [*problems[: SHOWN - 1], *more],
        )


def _left_out(path: Path) -> Iterator[list[str]]:
    """What each sentence of a file, or of a part in the course's layout, is as it is compared."""
    if path.is_dir():
        part = read_part(ArraysSettings(root=path.parent), path.name)
        return ([compared(text)] for text in part.texts)
    return forbidden_in(path)


def _tidy(line: str) -> str:
    return " ".join(line.split())
