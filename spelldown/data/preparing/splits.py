"""Which part an utterance goes to: the corpus's own, or by speaker, or by chance from its name.

Nothing is drawn by a generator whose state matters: every choice comes from a hash of the seed and
a name, so that the same corpus is split the same way anywhere.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from spelldown.errors import DataError
from spelldown.settings import Settings

TEST_SHARE = 0.1  # where the corpus brings no parts, and nobody says how it is to be split
DEV_SHARE = 0.1
MOST_PARTS = 100  # more are no parts: another column was taken for them
NAMED = 3  # speakers and parts that a message names
DEV_NAMES = ("dev", "val", "eval", "cv_dev")  # what a development part's name begins with
TRAIN = "train"
CHILD = 16  # years from which a speaker counts as grown up


class SplitSettings(Settings):
    """How a corpus is split into parts."""

    split: dict[str, float] | None = Field(
        None, description="parts and their shares, instead of those that the corpus brings"
    )
    by: Literal["auto", "speaker", "utterance"] = Field(
        "auto", description="what is kept whole; auto: speakers where they are known"
    )
    dev_share: float = Field(
        DEV_SHARE, ge=0, lt=1, description="taken as dev where the corpus brings none; 0: none"
    )
    seed: int = Field(1, ge=0, description="of the choice")

    @model_validator(mode="after")
    def _told_once(self) -> "SplitSettings":
        if self.split is not None and self.dev_share != DEV_SHARE:
            raise ValueError("--split says how large dev is: leave --dev-share away")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Those that were asked for, or the usual ones."""
        if self.split is not None:
            return self.split
        train = round(1 - TEST_SHARE - self.dev_share, 9)
        if train <= 0:
            raise DataError(
                f"--dev-share {self.dev_share:g} leaves nothing to learn from beside test's "
                f"{TEST_SHARE:g}; say --split train=...,dev=...,test=..."
            )
        usual = {TRAIN: train, "dev": self.dev_share, "test": TEST_SHARE}
        return {name: share for name, share in usual.items() if share}

    @field_validator("split")
    @classmethod
    def _of_one_whole(cls, split: dict[str, float] | None) -> dict[str, float] | None:
        if split is not None and (
            not split or min(split.values()) <= 0 or abs(sum(split.values()) - 1) > 1e-6
        ):
            raise ValueError("shares above 0 that sum to 1 expected, as train=0.8 dev=0.1 test=0.1")
        return split


@dataclass
class Voice:
    """What a speaker has in the corpus: seconds, and what they are like as far as it is known."""

    seconds: float = 0.0
    gender: str | None = None
    age: int | None = None

    @property
    def kind(self) -> tuple[str, str]:
        """Speakers of a kind are shared out evenly: by gender, and children apart from adults."""
        age = "" if self.age is None else ("child" if self.age < CHILD else "adult")
        return age, self.gender or ""


@dataclass
class Spoken:
    """What must be known of one of the corpus's own parts to split it, gathered in one passage.

    Memory grows with speakers, not with utterances.
    """

    utterances: int = 0
    nameless: int = 0
    voices: dict[str, Voice] = field(default_factory=dict)

    def add(self, seconds: float, speaker: str | None, gender: str | None, age: int | None) -> None:
        """Takes an utterance into account."""
        self.utterances += 1
        if speaker is None:
            self.nameless += 1
            return
        voice = self.voices.setdefault(speaker, Voice())
        voice.seconds += seconds
        voice.gender = voice.gender or gender
        voice.age = age if voice.age is None else voice.age


@dataclass(frozen=True)
class Splits:
    """Which part every utterance goes to, and how that was decided, in words and for JSON."""

    part_of: Callable[[str | None, str | None, str], str]
    """(the corpus's own part, speaker, id) -> part"""
    said: tuple[str, ...]
    record: Mapping[str, Any]


def split(found: Mapping[str | None, Spoken], settings: SplitSettings) -> Splits:
    """Decides about the parts. `found`: what is in each of the corpus's own, None: in no part.

    Kept are those that the corpus brings, unless `settings.split` says otherwise; where it brings
    train and no dev, dev is taken from train. What is in no part is learnt from, unless its speaker
    is in a part that judges: then it goes there. Raises DataError for a corpus that cannot be split
    as it is asked, or that has too many parts to be any.
    """
    brings = sorted(name for name in found if name is not None)
    if settings.split is not None or not brings:
        return _anew(_joined(found), settings.shares, settings, bool(brings))
    if len(brings) > MOST_PARTS:
        raise DataError(
            f"the corpus has {len(brings)} parts ({', '.join(brings[:NAMED])}, ...): is the split "
            "column right? --split train=0.8,dev=0.1,test=0.1 splits anew"
        )
    return _kept(found, brings, settings)


def _kept(found: Mapping[str | None, Spoken], brings: list[str], settings: SplitSettings) -> Splits:
    """The parts that the corpus brings, with dev taken from train where it has none."""
    held = _held_out(found)
    said = [f"parts as the corpus has them: {', '.join(brings)}", *_of_no_part(found, held)]
    shared = _shared(found)
    record: dict[str, Any] = {"kept": brings, "speakers_in_several_parts": len(shared)}
    said += _sharing(shared)

    def base(part: str | None, speaker: str | None, id: str) -> str:
        return part if part is not None else held.get(speaker or "", TRAIN)

    has_dev = any(name.lower().startswith(DEV_NAMES) for name in brings)
    if TRAIN not in brings and None not in found:
        if not has_dev:
            said.append("there is no part called train to take dev from")
        return Splits(base, tuple(said), record)
    if has_dev or not settings.dev_share:
        return Splits(base, tuple(said), record)
    train = _joined({n: spoken for n, spoken in found.items() if n in (None, TRAIN)})
    own = found[TRAIN].voices if TRAIN in found else {}
    train.voices = {n: v for n, v in train.voices.items() if n in own or n not in held}
    shares = {TRAIN: 1 - settings.dev_share, "dev": settings.dev_share}
    taken = _anew(train, shares, settings, False)
    said += [f"dev is taken from train: {line}" for line in taken.said]

    def part_of(part: str | None, speaker: str | None, id: str) -> str:
        name = base(part, speaker, id)
        return taken.part_of(part, speaker, id) if name == TRAIN else name

    return Splits(part_of, tuple(said), {**record, "dev_from_train": taken.record})


def is_learnt_from(part: str) -> bool:
    """Whether a part, by its name, is neither for development nor a test."""
    return not (part.lower().startswith(DEV_NAMES) or "test" in part.lower())


def _held_out(found: Mapping[str | None, Spoken]) -> dict[str, str]:
    """The part of every speaker who is in one that judges what was learnt."""
    judging = [name for name in sorted(filter(None, found)) if not is_learnt_from(name)]
    return {speaker: name for name in judging for speaker in found[name].voices}


def _of_no_part(found: Mapping[str | None, Spoken], held: Mapping[str, str]) -> list[str]:
    """Where utterances go that are in none of the corpus's parts."""
    if None not in found:
        return []
    stray = found[None]
    many = "1 utterance is" if stray.utterances == 1 else f"{stray.utterances} utterances are"
    them = "it is" if stray.utterances == 1 else "they are"
    said = [f"{many} in none of the corpus's parts; {them} in {TRAIN}"]
    known = sorted(speaker for speaker in stray.voices if speaker in held)
    if known:
        some = ", ".join(f"{speaker} in {held[speaker]}" for speaker in known[:NAMED])
        more = ", ..." if len(known) > NAMED else ""
        said[0] += f" now, but for those of speakers who are in another part: {some}{more}"
    return said


def _sharing(shared: Mapping[str, list[str]]) -> list[str]:
    """What is to be said of speakers who are in several parts."""
    if not shared:
        return []
    some = "; ".join(f"{who}: {', '.join(shared[who])}" for who in sorted(shared)[:NAMED])
    more = "; ..." if len(shared) > NAMED else ""
    count = "1 speaker is" if len(shared) == 1 else f"{len(shared)} speakers are"
    return [
        f"{count} in several of the corpus's parts ({some}{more}): scores "
        "tell little of new voices; --split train=0.8,dev=0.1,test=0.1 keeps speakers whole"
    ]


def _shared(found: Mapping[str | None, Spoken]) -> dict[str, list[str]]:
    """The speakers who are in several of the corpus's own parts, each with those."""
    parts: dict[str, list[str]] = {}
    for name in sorted(filter(None, found)):
        for speaker in found[name].voices:
            parts.setdefault(speaker, []).append(name)
    return {speaker: names for speaker, names in parts.items() if len(names) > 1}


def _joined(found: Mapping[str | None, Spoken]) -> Spoken:
    whole = Spoken()
    for spoken in found.values():
        whole.utterances += spoken.utterances
        whole.nameless += spoken.nameless
        for name, voice in spoken.voices.items():
            if name in whole.voices:
                whole.voices[name].seconds += voice.seconds
            else:
                whole.voices[name] = Voice(voice.seconds, voice.gender, voice.age)
    return whole


def _anew(
    spoken: Spoken, shares: Mapping[str, float], settings: SplitSettings, replaced: bool
) -> Splits:
    """New parts with these shares."""
    said = ["the parts that the corpus brings are split anew"] if replaced else []
    wanted = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    by_speaker = len(spoken.voices) >= len(shares)
    if settings.by == "speaker" and not by_speaker:
        raise DataError(
            f"{_known(spoken)} cannot be split into {len(shares)} parts with "
            "no speaker in two; --split-by utterance splits by name alone"
        )
    record: dict[str, Any] = {"shares": dict(shares), "seed": settings.seed}
    if settings.by == "utterance" or not by_speaker:
        if spoken.voices and settings.by != "utterance":
            said.append(
                f"only {_known(spoken)}: split by utterance, so that the same "
                "voices are in all parts, and scores tell nothing of new voices"
            )
        elif settings.by != "utterance":
            said.append(
                "no speaker is known: the same voices may be in all parts, so that scores tell "
                "little of new voices"
            )
        said.append(f"by utterance, from a hash of its name and seed {settings.seed}: {wanted}")
        choose = _by_name(shares, settings.seed)
        return Splits(lambda p, s, id: choose(id), tuple(said), {**record, "by": "utterance"})
    parts = share_out(spoken.voices, shares, settings.seed)
    largest = max(shares, key=lambda name: shares[name])
    counts = Counter(parts.values())
    said.append(
        f"by speaker, with seed {settings.seed}, shares of the time ({wanted}): "
        + ", ".join(f"{name} {counts[name]}" for name in shares)
        + " speakers"
    )
    if spoken.nameless:
        many = "1 utterance has" if spoken.nameless == 1 else f"{spoken.nameless} utterances have"
        them = "it is" if spoken.nameless == 1 else "they are"
        said.append(f"{many} no speaker; {them} in {largest}")
    record |= {
        "by": "speaker",
        "speakers": {n: sorted(_of(parts, n)) for n in shares if n != largest},
    }
    return Splits(lambda p, speaker, id: parts.get(speaker or "", largest), tuple(said), record)


def _known(spoken: Spoken) -> str:
    return f"{len(spoken.voices)} known speaker{'s' * (len(spoken.voices) != 1)}"


def _of(parts: Mapping[str, str], name: str) -> list[str]:
    return [speaker for speaker, part in parts.items() if part == name]


def _by_name(shares: Mapping[str, float], seed: int) -> Callable[[str], str]:
    def choose(id: str) -> str:
        place = _hash(seed, id) / 2**64
        for name, share in shares.items():
            place -= share
            if place < 0:
                return name
        return name  # a share lost to rounding

    return choose


def share_out(
    voices: Mapping[str, Voice], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """The part of every speaker, whole, so that parts have their shares of the time.

    One speaker after the other goes to the part that is furthest behind its share; those of a kind
    (gender; child or adult) come together, so that each kind is spread over all parts. Within a
    kind the order comes from the seed. No part is left without a speaker.
    """
    order = sorted(voices, key=lambda name: (voices[name].kind, _hash(seed, name), name))
    given = dict.fromkeys(shares, 0.0)
    parts: dict[str, str] = {}
    for name in order:
        whole = sum(given.values()) + voices[name].seconds
        part = max(shares, key=lambda p: shares[p] * whole - given[p])
        parts[name] = part
        given[part] += voices[name].seconds
    for empty in (part for part in shares if part not in parts.values()):
        counts = Counter(parts.values())
        fullest = max(shares, key=lambda p: counts[p])
        quietest = min(_of(parts, fullest), key=lambda name: (voices[name].seconds, name))
        parts[quietest] = empty
    return parts


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest())


def file_names(parts: Iterable[str]) -> list[str]:
    """The names of parts as files can have them, and a recipe join them by +; in the same order.

    Raises DataError for parts whose names would be the same, on some disks or on all.
    """
    names: dict[str, str] = {}
    met: dict[str, str] = {}
    for part in parts:
        names[part] = re.sub(r"[^\w.-]", "-", part).strip(".-") or TRAIN
        other = met.setdefault(names[part].casefold(), part)
        if other != part:
            raise DataError(
                f"the parts {other!r} and {part!r} would be one file, {names[part]}.jsonl.gz: call "
                "one of them otherwise, or --split train=0.8,dev=0.1,test=0.1 splits anew"
            )
    return list(names.values())
