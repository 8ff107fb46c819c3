"""The figures of a prepared corpus, added up while its utterances go by.

Memory grows with speakers and with different characters, not with utterances.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor
from typing import Any

from spelldown.data.preparing.hearing import Heard
from spelldown.data.preparing.looking.doubts import Doubt
from spelldown.data.preparing.splits import CHILD, DEV_NAMES, is_learnt_from
from spelldown.data.preparing.text import Said
from spelldown.data.preparing.utterance import Utterance

SHOWN = 50  # doubtful utterances of a reason that a page names; all are in doubtful.txt
EXAMPLES = 3  # utterances named for a character
RARE = 20  # times in the training text under which a character is rare


def rank(part: str) -> tuple[int, str]:
    """Sorts parts: 0 learnt from, 1 judging while it is learnt, 2 tested on at the end."""
    if part.lower().startswith(DEV_NAMES):
        return 1, part
    return (0 if is_learnt_from(part) else 2), part


@dataclass
class Bins:
    """A histogram: counts of values from `low` on in steps; beyond its ends they count in the end
    bins."""

    low: float
    step: float
    counts: list[int]

    @classmethod
    def between(cls, low: float, high: float, step: float) -> "Bins":
        """Empty bins."""
        return cls(low, step, [0] * round((high - low) / step))

    def add(self, value: float) -> None:
        """Counts a value."""
        place = floor((value - self.low) / self.step)
        self.counts[min(max(place, 0), len(self.counts) - 1)] += 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"low": self.low, "step": self.step, "counts": self.counts}


@dataclass
class PartFigures:
    """One part's figures."""

    utterances: int = 0
    seconds: float = 0.0
    characters: int = 0
    words: int = 0
    untranscribed: int = 0
    nameless: int = 0
    clipped: int = 0
    speakers: set[str] = field(default_factory=set)
    genders: Counter[str] = field(default_factory=Counter)
    children: float = 0.0
    aged: float = 0.0
    durations: Bins = field(default_factory=lambda: Bins.between(0, 35, 0.5))
    pace: Bins = field(default_factory=lambda: Bins.between(0, 35, 1))
    levels: Bins = field(default_factory=lambda: Bins.between(-70, 0, 2))

    def add(self, utterance: Utterance, heard: Heard, text: str | None, clipped: bool) -> None:
        """Takes an utterance into account."""
        seconds = heard.seconds
        self.utterances += 1
        self.seconds += seconds
        self.durations.add(seconds)
        if heard.channels:
            self.levels.add(heard.level)
        self.clipped += clipped
        if text is None:
            self.untranscribed += 1
        else:
            self.characters += len(text)
            self.words += len(text.split())
            self.pace.add(len(text) / seconds)
        if utterance.speaker is None:
            self.nameless += 1
        else:
            self.speakers.add(utterance.speaker)
        if utterance.gender:
            self.genders[utterance.gender] += 1
        if utterance.age is not None:
            self.aged += seconds
            self.children += seconds * (utterance.age < CHILD)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {
            "utterances": self.utterances,
            "hours": round(self.seconds / 3600, 4),
            "speakers": len(self.speakers),
            "without_speaker": self.nameless,
            "without_text": self.untranscribed,
            "words": self.words,
            "characters": self.characters,
            "clipped": self.clipped,
            "genders": dict(sorted(self.genders.items())),
        }
        if self.aged:
            told["hours_of_children"] = round(self.children / 3600, 4)
        bins = ("durations", "pace", "levels")
        return told | {name: getattr(self, name).as_dict() for name in bins}


@dataclass
class Figures:
    """All parts' figures, the characters of their texts, and what is doubtful."""

    parts: dict[str, PartFigures] = field(default_factory=dict)
    letters: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    mixed: int = 0
    rates: Counter[int] = field(default_factory=Counter)
    doubtful: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        part: str,
        utterance: Utterance,
        heard: Heard,
        said: Said | None,
        doubts: Iterable[Doubt],
    ) -> None:
        """Takes an utterance of a part into account."""
        found = list(doubts)
        clipped = any(doubt.reason == "clipped" for doubt in found)
        text = None if said is None else said.text
        mine = self.parts.setdefault(part, PartFigures())
        mine.add(utterance, heard, text, clipped)
        self.mixed += len(heard.taken) > 1
        if heard.channels:
            self.rates[heard.rate] += 1
        if said is not None:
            self._text(part, utterance, said)
        for doubt in found:
            self.counts[doubt.reason] += 1
            shown = self.doubtful.setdefault(doubt.reason, [])
            if len(shown) < SHOWN:
                shown.append({"id": utterance.id, "part": part, "found": doubt.words})

    def _text(self, part: str, utterance: Utterance, said: Said) -> None:
        self.letters.setdefault(part, Counter()).update(said.text)
        self.removed.update(said.punctuation)
        self.lost.update(said.letters)
        self.changed += said.text != utterance.text
        for character in set(said.text):
            named = self.examples.setdefault(character, [])
            if len(named) < EXAMPLES:
                named.append(utterance.id)

    def as_dict(self, learnt: Iterable[str]) -> dict[str, Any]:
        """For JSON. The characters in the parts that are `learnt` from are the vocabulary."""
        train = sorted(learnt)
        known: Counter[str] = Counter()
        elsewhere: Counter[str] = Counter()
        for part in train:
            known.update(self.letters.get(part, Counter()))
        for part, letters in self.letters.items():
            if part not in train:
                elsewhere.update({c: n for c, n in letters.items() if c not in known})
        rare = [c for c, n in known.items() if n < RARE]
        return {
            "parts": {name: self.parts[name].as_dict() for name in sorted(self.parts, key=rank)},
            "text": {
                "changed": self.changed,
                "punctuation_removed": _most(self.removed),
                "letters_removed": _most(self.lost),
            },
            "vocabulary": {
                "of": "+".join(train),
                "characters": _most(known),
                "not_in_it": _most(elsewhere),
                "examples": {c: self.examples[c] for c in sorted({*rare, *elsewhere})},
            },
            "rates": {str(rate): n for rate, n in sorted(self.rates.items())},
            "mixed_to_one_channel": self.mixed,
            "doubtful": {
                reason: {"count": n, "first": self.doubtful[reason]}
                for reason, n in self.counts.most_common()
            },
        }


def _most(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first; equals in the order of their code points."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
