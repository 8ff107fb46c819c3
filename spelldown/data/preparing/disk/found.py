"""Utterances on disk between two passages over a corpus, a line of JSON each."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lhotse.serialization import deserialize_item

from spelldown.data.checks import Problem
from spelldown.data.preparing.hearing import Heard
from spelldown.data.preparing.looking.doubts import Doubt
from spelldown.data.preparing.text import Said
from spelldown.data.preparing.utterance import Utterance


def utterance_as_dict(utterance: Utterance) -> dict[str, Any]:
    """An utterance for JSON, without what is not known of it."""
    told: dict[str, Any] = {
        name: value
        for name in Utterance.__slots__
        if (value := getattr(utterance, name)) is not None and name != "cut"
    }
    if utterance.audio is not None:
        told["audio"] = str(utterance.audio)
    if utterance.cut is not None:
        told["cut"] = utterance.cut.to_dict()
    return told


def utterance_from_dict(told: dict[str, Any]) -> Utterance:
    """The utterance that `utterance_as_dict` told."""
    told = dict(told)
    if "audio" in told:
        told["audio"] = Path(told["audio"])
    if "cut" in told:
        told["cut"] = deserialize_item(told["cut"])
    return Utterance(**told)


@dataclass(frozen=True, slots=True)
class Found:
    """What a source gave: an utterance and the key of its sound, or what is wrong with one."""

    what: Utterance | Problem
    key: int = 0

    def line(self) -> str:
        """One line of JSON."""
        if isinstance(self.what, Problem):
            return json.dumps({"problem": asdict(self.what)}, ensure_ascii=False)
        told = {"utterance": utterance_as_dict(self.what), "key": self.key}
        return json.dumps(told, ensure_ascii=False)

    @classmethod
    def of_line(cls, line: str) -> Self:
        """What `line` wrote."""
        told = json.loads(line)
        if "problem" in told:
            return cls(Problem(**told["problem"]))
        return cls(utterance_from_dict(told["utterance"]), told["key"])


@dataclass(frozen=True, slots=True)
class Fit:
    """An utterance that can be used: heard, its text as it is spelled, and what is doubtful."""

    utterance: Utterance
    heard: Heard
    said: Said | None
    doubts: tuple[Doubt, ...]

    def line(self) -> str:
        """One line of JSON."""
        said = self.said
        told = {
            "utterance": utterance_as_dict(self.utterance),
            "heard": self.heard.as_dict(),
            "said": None if said is None else [said.text, said.punctuation, said.letters],
            "doubts": [[doubt.reason, doubt.words] for doubt in self.doubts],
        }
        return json.dumps(told, ensure_ascii=False)

    @classmethod
    def of_line(cls, line: str) -> Self:
        """What `line` wrote."""
        told = json.loads(line)
        return cls(
            utterance_from_dict(told["utterance"]),
            Heard.from_dict(told["heard"]),
            None if told["said"] is None else Said(*told["said"]),
            tuple(Doubt(*doubt) for doubt in told["doubts"]),
        )


def read_found(path: Path) -> Iterator[Found]:
    """All that a source gave, in its order."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            yield Found.of_line(line)


def read_fit(path: Path) -> Iterator[Fit]:
    """All utterances that can be used, in their source's order."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            yield Fit.of_line(line)


def named(what: Utterance | Problem) -> str:
    """An utterance for people: its name, its row, and its file."""
    if isinstance(what, Problem):
        return f"{what.utterance} ({what.file})"
    places = dict.fromkeys([what.where, str(what.audio or what.where)])  # each once
    return f"{what.id} ({'; '.join(places)})"
