"""How far what was spelled is from what was said.

Three measures over a set of utterances:

    distance  mean number of character edits an utterance: the seed's measure. Texts as they are
    CER       character edits / characters said, over the whole set, as jiwer gives it
    WER       word edits / words said, over the whole set, as jiwer gives it

CER and WER are fractions and may exceed 1. Like jiwer's, they do not see spaces before and after a
text, and WER splits at any run of spaces. The distance sees all of them, as the course's does; how
much of it they are is `Scores.edge_distance`, and 0 for texts without such spaces. Intervals are
95 % percentile bootstrap intervals over utterances (Bisani and Ney, "Bootstrap estimates for
confidence intervals in ASR performance evaluation", ICASSP 2004), with the same draws every time.

An empty reference is an utterance in which nothing was said: each character spelled is an
insertion, and it adds nothing to the characters said. If nothing was said in the whole set, a rate
is 0 if nothing was spelled either, else the number of edits (as if one unit had been said).
"""

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy
from rapidfuzz.distance import Levenshtein

DRAWS = 2000
"""Bootstrap draws: the ends of an interval then vary by a few per cent of its width."""
GAP = "·"
"""Stands in an aligned text where the other has a character more."""
VISIBLE = str.maketrans({" ": "␣", "\t": "⇥", "\n": "⏎", "\r": "⏎", "\u00a0": "⍽"})
"""White space as it is printed where two texts differ in it: there it must be seen."""


@dataclass(frozen=True)
class Counts:
    """The fewest edits that turn a reference into a hypothesis, by kind, in one unit."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    hits: int = 0

    @property
    def edits(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def length(self) -> int:
        """Units said: the reference's length."""
        return self.hits + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Edits by units said, 0 or more; see the head of this file for an empty reference."""
        return self.edits / max(self.length, 1)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.hits + other.hits,
        )


def edit_counts(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Counts:
    """The edits between two sequences: texts for characters, `text.split()` for words."""
    edits = Levenshtein.editops(reference, hypothesis)
    tags = [tag for tag, _, _ in edits.as_list()]
    insertions, deletions = tags.count("insert"), tags.count("delete")
    substitutions = len(tags) - insertions - deletions
    hits = len(reference) - deletions - substitutions
    return Counts(insertions, deletions, substitutions, hits)


@dataclass(frozen=True)
class Utterance:
    """One utterance's texts and edits; `distance` counts characters of the texts as they are."""

    id: str
    reference: str
    hypothesis: str
    distance: int
    characters: Counts
    words: Counts


class Interval(NamedTuple):
    """Both ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The measures over a set of utterances, with what they were made of."""

    each: tuple[Utterance, ...] = field(repr=False)

    @property
    def utterances(self) -> int:
        return len(self.each)

    @cached_property
    def characters(self) -> Counts:
        """Character edits of the whole set, by kind."""
        return sum((one.characters for one in self.each), Counts())

    @cached_property
    def words(self) -> Counts:
        """Word edits of the whole set, by kind."""
        return sum((one.words for one in self.each), Counts())

    @property
    def distance(self) -> float:
        """Mean character edits an utterance."""
        return sum(one.distance for one in self.each) / len(self.each)

    @property
    def edge_distance(self) -> float:
        """What spaces before and after the texts add to the distance: CER does not see them."""
        return self.distance - self.characters.edits / len(self.each)

    @property
    def cer(self) -> float:
        return self.characters.rate

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def sentence_error_rate(self) -> float:
        """Share of the utterances with any wrong word."""
        return sum(one.words.edits > 0 for one in self.each) / len(self.each)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of `distance`, `cer` and `wer`, by name; worked out when first asked."""
        return bootstrap(self.each)

    def worst(self, count: int = 10) -> list[Utterance]:
        """The utterances with the most character edits; of equals, the shorter reference first."""
        return heapq.nsmallest(
            count, self.each, key=lambda one: (-one.distance, len(one.reference), one.id)
        )

    def as_dict(self) -> dict[str, Any]:
        """All measures as plain numbers, for JSON; intervals as [low, high]."""
        intervals = {f"{name}_interval": [*ends] for name, ends in self.intervals.items()}
        return {
            "utterances": self.utterances,
            "distance": self.distance,
            "edge_distance": self.edge_distance,
            "cer": self.cer,
            "wer": self.wer,
            **intervals,
            "sentence_error_rate": self.sentence_error_rate,
            "characters": {**asdict(self.characters), "length": self.characters.length},
            "words": {**asdict(self.words), "length": self.words.length},
        }


def score(
    references: Sequence[str], hypotheses: Sequence[str], ids: Sequence[str] | None = None
) -> Scores:
    """The measures of `hypotheses` against `references`, pair by pair.

    ids: names of the utterances, for `worst`; their numbers from 0 if not given.

    Raises ValueError if there are no utterances or the sequences differ in length.
    """
    if ids is None:
        ids = [str(number) for number in range(len(references))]
    if not len(references) == len(hypotheses) == len(ids):
        raise ValueError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(ids)} ids: "
            "there must be as many of each"
        )
    if not references:
        raise ValueError("no utterances to score")
    return Scores(tuple(map(_utterance, ids, references, hypotheses)))


def _utterance(id: str, reference: str, hypothesis: str) -> Utterance:
    said, spelled = reference.strip(), hypothesis.strip()
    characters = edit_counts(said, spelled)
    unstripped = (said, spelled) != (reference, hypothesis)
    return Utterance(
        id=id,
        reference=reference,
        hypothesis=hypothesis,
        distance=Levenshtein.distance(reference, hypothesis) if unstripped else characters.edits,
        characters=characters,
        words=edit_counts(said.split(), spelled.split()),
    )


def bootstrap(
    utterances: Sequence[Utterance], draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """95 % intervals of `distance`, `cer` and `wer` from sets drawn anew with replacement."""
    table = numpy.array(
        [
            (one.distance, 1, one.characters.edits, one.characters.length,
             one.words.edits, one.words.length)
            for one in utterances
        ],
        dtype=numpy.float64,
    )  # fmt: skip
    random = numpy.random.default_rng(seed)
    count = len(utterances)
    # How often each utterance is in each draw; sums over a draw are then one matrix product.
    times = random.multinomial(count, numpy.full(count, 1 / count), size=draws)
    sums = times.astype(numpy.float64) @ table
    rates = sums[:, 0::2] / numpy.maximum(sums[:, 1::2], 1)
    low, high = numpy.percentile(rates, [2.5, 97.5], axis=0)
    return {
        name: Interval(float(low[column]), float(high[column]))
        for column, name in enumerate(("distance", "cer", "wer"))
    }


class Piece(NamedTuple):
    """A stretch of two texts: "equal", "replace", "delete" (only said), "insert" (only spelled)."""

    kind: str
    said: str
    spelled: str


def pieces(reference: str, hypothesis: str) -> Iterator[Piece]:
    """The two texts cut where they differ; joined again, the pieces are the texts."""
    for step in Levenshtein.opcodes(reference, hypothesis):
        yield Piece(
            str(step.tag),
            reference[step.src_start : step.src_end],
            hypothesis[step.dest_start : step.dest_end],
        )


class Aligned(NamedTuple):
    """Two texts and a line of marks, all of one length, to be printed under each other.

    Marks: space = equal, S = another character, D = said but not spelled, I = spelled but not said.
    """

    reference: str
    hypothesis: str
    marks: str

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, width: int = 100, labels: tuple[str, str] = ("said", "spelled")) -> list[str]:
        """The three lines, labelled, wrapped to `width` characters of text each."""
        margin = max(map(len, labels)) + 2
        heads = (labels[0].ljust(margin), labels[1].ljust(margin), " " * margin)
        return [
            (head + line[start : start + width]).rstrip()
            for start in range(0, max(len(self.marks), 1), width)
            for head, line in zip(heads, self, strict=True)
        ]


def aligned(reference: str, hypothesis: str) -> Aligned:
    """Both texts with equal characters under each other and GAP where one has more.

    White space is VISIBLE where the texts differ.
    """
    said, spelled, marks = [], [], []
    for piece in pieces(reference, hypothesis):
        length = max(len(piece.said), len(piece.spelled))
        shown = piece.said, piece.spelled
        if piece.kind != "equal":
            shown = piece.said.translate(VISIBLE), piece.spelled.translate(VISIBLE)
        said.append(shown[0].ljust(length, GAP))
        spelled.append(shown[1].ljust(length, GAP))
        mark = {"equal": " ", "replace": "S", "delete": "D", "insert": "I"}[piece.kind]
        marks.append(mark * length)
    return Aligned("".join(said), "".join(spelled), "".join(marks))
