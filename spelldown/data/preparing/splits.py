"""Which part an utterance goes to: the corpus's own, or by speaker, or by chance from its name.

Nothing is drawn by a generator whose state matters: every choice comes from a hash of the seed and
a name, so that the same corpus is split the same way anywhere.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from spelldown.errors import DataError
from spelldown.settings import Settings

USUAL_SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
DEV_NAMES = ("dev", "valid", "eval", "cv_dev")  # what a development part's name begins with
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
        0.1, ge=0, lt=1, description="of train, taken as dev where the corpus brings none; 0: none"
    )
    seed: int = Field(1, ge=0, description="of the choice")

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
    train and no dev, dev is taken from train. Raises DataError for a corpus that cannot be split
    as it is asked.
    """
    brings = sorted(name for name in found if name is not None)
    if settings.split is not None or not brings:
        shares = settings.split or USUAL_SHARES
        return _anew(_joined(found), shares, settings, bool(brings))
    said = [f"parts as the corpus has them: {', '.join(brings)}"]
    record: dict[str, Any] = {"kept": brings}
    if None in found:
        said.append(
            f"{found[None].utterances} utterances are in none of the corpus's parts; they are in "
            f"{TRAIN} now"
        )
    base: dict[str | None, str] = {**{name: name for name in brings}, None: TRAIN}
    has_dev = any(name.lower().startswith(DEV_NAMES) for name in brings)
    if TRAIN not in base.values() or (TRAIN not in brings and None not in found):
        if not has_dev:
            said.append("there is no part called train to take dev from")
        return Splits(lambda part, speaker, id: base[part], tuple(said), record)
    if has_dev or not settings.dev_share:
        return Splits(lambda part, speaker, id: base[part], tuple(said), record)
    train = _joined({n: spoken for n, spoken in found.items() if base[n] == TRAIN})
    shares = {TRAIN: 1 - settings.dev_share, "dev": settings.dev_share}
    taken = _anew(train, shares, settings, False)
    said += [f"dev is taken from train: {line}" for line in taken.said]

    def part_of(part: str | None, speaker: str | None, id: str) -> str:
        name = base[part]
        return taken.part_of(part, speaker, id) if name == TRAIN else name

    return Splits(part_of, tuple(said), {**record, "dev_from_train": taken.record})


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
            f"{len(spoken.voices)} known speakers cannot be split into {len(shares)} parts with "
            "no speaker in two; --split-by utterance splits by name alone"
        )
    record: dict[str, Any] = {"shares": dict(shares), "seed": settings.seed}
    if settings.by == "utterance" or not by_speaker:
        if spoken.voices and settings.by != "utterance":
            said.append(
                f"only {len(spoken.voices)} known speakers: split by utterance, so that the same "
                "voices are in all parts, and scores tell nothing of new voices"
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
        said.append(f"{spoken.nameless} utterances have no speaker; they are in {largest}")
    record |= {
        "by": "speaker",
        "speakers": {n: sorted(_of(parts, n)) for n in shares if n != largest},
    }
    return Splits(lambda p, speaker, id: parts.get(speaker or "", largest), tuple(said), record)


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
