"""Speech from a file of sentences, by any engine: a prepared corpus like any other.

Beside what every corpus here has (see `corpus.py`), OUT holds `prepared.json`: what was made, from
what; `look.html`, the same look at it that other corpora get; and `left_out.txt` where something
could not be spoken.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track

from spelldown.data.preparing.looking.made import look_at
from spelldown.data.preparing.text import TextForm, TextSettings
from spelldown.data.synthesis.corpus import Made, make_corpus
from spelldown.data.synthesis.engines.kinds import EngineName, find_engine
from spelldown.data.synthesis.engines.speaking import Engine, Voice
from spelldown.data.synthesis.folder import KIND, PREPARED, open_folder
from spelldown.data.synthesis.planning import (
    Part,
    SharesSettings,
    Span,
    VarietySettings,
    plan,
    split,
)
from spelldown.data.synthesis.texts import Text, Unheard, read_sentences, scripts
from spelldown.errors import DataError
from spelldown.settings import Settings
from spelldown.writing import write_whole

LEFT_OUT = "left_out.txt"
VERSION = 1  # of how utterances are drawn


class SpeakingSettings(Settings):
    """Who speaks: an engine, its voices, and what language they speak."""

    engine: EngineName = Field("espeak", description="`--list` shows which are here")
    voices: tuple[str, ...] = Field((), description="by name; else all good ones that are here")
    languages: tuple[str, ...] = Field((), description="codes, as el or pt-br; several: accents")
    command: str | None = Field(
        None,
        description="for --engine command: a program and its arguments, in which {text} {voice} "
        "{speed} {seed} {out} are filled in; without {text} it reads the sentence, without {out} "
        "it prints the recording",
    )
    timeout: float = Field(60.0, gt=0, description="seconds that the engine has for a sentence")

    @model_validator(mode="after")
    def _command_for_its_engine(self) -> Self:
        if (self.command is not None) != (self.engine == "command"):
            raise ValueError("--engine command and --command 'PROGRAM ...' go together")
        if self.engine == "command" and len(self.languages) > 1:
            raise ValueError(
                f"--language {' '.join(self.languages)}: a command cannot be told which to speak; "
                "name the one that it speaks"
            )
        return self


class SayingSettings(Settings):
    """What is said."""

    text: Path = Field(description="the file of sentences, one a line, in any script (UTF-8)")
    leave_out: tuple[Path, ...] = Field(
        (),
        description="a file of sentences not to be spoken: a list, a Kaldi text, a CSV, cuts; "
        "again for each file",
    )
    letters: Span = Field((2, 200), description="of a sentence, least and most: others are not")
    problems: Literal["stop", "leave-out"] = Field(
        "stop", description="what a sentence that cannot be spoken does"
    )


class SyntheticSettings(Settings):
    """A synthetic corpus: what is said, how it is spelled, who says it, how, how much."""

    saying: SayingSettings
    form: TextSettings = TextSettings()
    speaking: SpeakingSettings = SpeakingSettings()
    variety: VarietySettings = VarietySettings()
    shares: SharesSettings = SharesSettings()


@dataclass(frozen=True)
class Result:
    """What came out: each part's size, and what was not spoken.

    sentences: how many there are for each part; not all of them may have been needed.
    with_digits: sentences whose digits were spoken as words.
    said_again: utterances beyond the first of each sentence. dropped: lines of the text, by reason.
    doubtful: utterances that the look found something about, by reason.
    unheard: the files whose sentences were left out. took: seconds.
    """

    engine: str
    parts: Mapping[str, Made]
    sentences: Mapping[str, int]
    said_again: int
    with_digits: int
    dropped: Counter[str]
    unheard: Sequence[Unheard]
    doubtful: Mapping[str, int]
    took: float

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for machines."""
        parts = {
            name: {
                "utterances": one.utterances,
                "hours": round(one.seconds / 3600, 4),
                "speakers": len(one.speakers),
                "sentences": self.sentences[name],
            }
            for name, one in self.parts.items()
        }
        return {
            "kind": KIND,
            "engine": self.engine,
            "parts": parts,
            "said_again": self.said_again,
            "with_digits": self.with_digits,
            "dropped": dict(self.dropped),
            "doubtful": dict(self.doubtful),
            "unheard": [
                {"file": str(one.path), "sentences": one.sentences, "matched": one.matched}
                for one in self.unheard
            ],
        }


def make_synthetic(out: Path, settings: SyntheticSettings, processes: int | None = None) -> Result:
    """Makes the corpus in the folder `out`, or what is missing of it.

    The same settings give the same bytes, however often it was interrupted and whatever the number
    of `processes` (default: the processors that there are). With more hours than before, what is
    there is kept and goes on.

    Raises DataError for texts, engines and voices that cannot be used, for a folder that holds
    something else, and for a sentence that cannot be spoken (unless they are left out).
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    began = time.monotonic()
    speaking = settings.speaking
    saying = settings.saying
    text = read_sentences(saying.text, TextForm(settings.form), saying.letters, saying.leave_out)
    _tell_unheard(console, text.unheard)
    start = find_engine(speaking.engine, speaking.command, speaking.timeout)
    with start() as engine:
        voices = _cast(engine, speaking, text)
        engine_name, paced = f"{engine.name} {engine.version}", engine.paced
    parts = split(text.sentences, voices, settings.shares, settings.variety.seed)
    shares = [plan(part, settings.variety, paced) for part in parts]
    about = _about(settings, engine_name, text, voices)
    with open_folder(out, about, replace=False):
        lenient = saying.problems == "leave-out"
        jobs = processes or _processors()
        made = make_corpus(out, shares, start, jobs, console, lenient)
        doubtful = _look(out, settings, made, jobs, console)
        shown = speaking.command or engine_name
        result = _result(shown, text, parts, made, doubtful, time.monotonic() - began)
        _write_account(out, settings, result)
    return result


def _tell_unheard(console: Console, files: Sequence[Unheard]) -> None:
    """Says what was left out for each file; loudly when it was nothing, since that looks alike."""
    for one in files:
        if one.matched:
            of = f"{one.matched:,} of {one.sentences:,}"
            console.print(f"{one.path}: {of} sentences are in the text, and are not spoken")
        else:
            console.print(
                f"{one.path}: none of {one.sentences:,} sentences is in the text, so nothing is "
                f"left out. If that is wrong: a sentence a line expected; the first reads "
                f"{one.first!r}",
                style="yellow",
            )


def _look(
    out: Path,
    settings: SyntheticSettings,
    made: Mapping[str, Made],
    jobs: int,
    console: Console,
) -> dict[str, int]:
    about = {
        "kind": f"{KIND} speech ({settings.speaking.engine})",
        "source": str(settings.saying.text),
        "settings": settings.model_dump(mode="json"),
    }
    total = sum(one.utterances for one in made.values())

    def shown(every: Iterable[Any]) -> Iterable[Any]:
        hidden = not console.is_terminal
        return track(
            every, "hearing it all", total, console=console, transient=True, disable=hidden
        )

    return look_at(out, list(made), about, jobs, shown)


def _result(
    engine: str,
    text: Text,
    parts: Sequence[Part],
    made: Mapping[str, Made],
    doubtful: Mapping[str, int],
    took: float,
) -> Result:
    sentences = {part.name: len(part.sentences) for part in parts}
    again = sum(max(0, made[name].utterances - count) for name, count in sentences.items())
    digits = sum(any(map(str.isdigit, one.written)) for one in text.sentences)
    dropped, unheard = text.dropped, text.unheard
    return Result(engine, made, sentences, again, digits, dropped, unheard, doubtful, took)


def _cast(engine: Engine, settings: SpeakingSettings, text: Text) -> list[Voice]:
    """The voices, in a language that somebody has chosen for this text."""
    languages = settings.languages
    if not languages and engine.name == "espeak":
        strange = [name for name in scripts(text.sentences) if name != "LATIN"]
        if strange:
            raise DataError(
                f"the text has {strange[0].lower()} letters: say which language it is in, as "
                "--language el (`spelldown prepare synthetic --list` shows them)"
            )
        languages = ("en",)
    cast = engine.cast(settings.voices, languages)
    twice = [name for name, count in Counter(v.speaker for v in cast).items() if count > 1]
    if twice:
        raise DataError(f"the voice {twice[0]!r} is named twice, or two have that name")
    return cast


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _about(
    settings: SyntheticSettings, engine: str, text: Text, voices: Sequence[Voice]
) -> dict[str, Any]:
    """All that decides what the recordings are, so that no folder holds two kinds."""
    page = settings.model_dump(mode="json")
    page["shares"].pop("hours")  # more of the same
    page.pop("saying")  # the text itself counts
    page["speaking"].pop("timeout")
    said = {"sentences": len(text.sentences), "digest": text.digest()}
    speakers = [voice.speaker for voice in voices]
    return {"version": VERSION, "engine": engine, "text": said, "voices": speakers} | page


def _write_account(out: Path, settings: SyntheticSettings, result: Result) -> None:
    page = result.as_dict() | {"settings": settings.model_dump(mode="json")}
    write_whole(out / PREPARED, json.dumps(page, indent=2, ensure_ascii=False) + "\n")
    problems = [str(one) for made in result.parts.values() for one in made.left_out]
    if problems:
        write_whole(out / LEFT_OUT, "\n".join(problems) + "\n")
    else:
        (out / LEFT_OUT).unlink(missing_ok=True)
