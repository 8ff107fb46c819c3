"""Why an utterance is doubtful, or cannot be used at all: every reason, by name."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, field_validator

from spelldown.data.preparing.hearing import Heard
from spelldown.data.preparing.text import Said
from spelldown.settings import Settings

UNUSABLE = {
    "source": "what the source says of it is wrong or incomplete",
    "unreadable": "its recording cannot be read",
    "cut-short": "its recording ends before it should",
    "non-finite": "its recording holds samples that are not finite numbers",
    "too-short": "shorter than the 25 ms that one frame looks at",
    "no-text": "nothing is left of its text",
}
DOUBTFUL = {
    "open-end": "its recording may have been cut short",
    "silent": "nothing can be heard in it",
    "clipped": "its recording was too loud for its format",
    "short": "very short",
    "long": "very long",
    "crowded": "more text than can be said in its time",
    "sparse": "hardly any text for its time",
    "lost": "letters, digits or signs that are read out were taken from its text",
    "repeated": "its words are also in a part that is to judge what was learnt",
}
REASONS = {**UNUSABLE, **DOUBTFUL}
ALL_UNUSABLE = "unusable"


class DoubtSettings(Settings):
    """From where on an utterance is doubtful, and which reasons are enough to leave it out."""

    leave_out: tuple[str, ...] = Field(
        (),
        description=f"reasons to leave utterances out for: {', '.join(UNUSABLE)} (all these stop "
        f"the preparation otherwise, and are unusable together), {', '.join(DOUBTFUL)}",
    )
    shortest: float = Field(0.3, ge=0, description="seconds under which an utterance is short")
    longest: float = Field(30.0, gt=0, description="seconds over which an utterance is long")
    crowded: float = Field(25.0, gt=0, description="characters a second over which it is crowded")
    sparse: float = Field(
        1.5, ge=0, description="characters a second under which it is sparse, from 3 seconds on"
    )
    silent: float = Field(-60.0, lt=0, description="dB under which the loudest 25 ms are silence")
    clipped: float = Field(0.001, gt=0, lt=1, description="share of samples at full scale")

    @field_validator("leave_out")
    @classmethod
    def _known(cls, reasons: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [one for one in reasons if one not in (*REASONS, ALL_UNUSABLE)]
        if unknown:
            known = ", ".join((ALL_UNUSABLE, *REASONS))
            raise ValueError(f"no reason {', '.join(map(repr, unknown))}; known: {known}")
        return reasons

    @property
    def leaves_out(self) -> frozenset[str]:
        """The reasons that are enough."""
        asked = set(self.leave_out)
        return frozenset(asked | set(UNUSABLE) if ALL_UNUSABLE in asked else asked)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason and what was found: `crowded`, `41.0 characters a second`."""

    reason: str
    words: str

    @property
    def unusable(self) -> bool:
        """Whether nothing can be learnt from the utterance."""
        return self.reason in UNUSABLE


def doubts(heard: Heard, said: Said | None, settings: DoubtSettings) -> Iterator[Doubt]:
    """All that is doubtful about an utterance by itself; `said` is None where nobody wrote it."""
    yield from (Doubt(reason, words) for reason, words in heard.found)
    broken = any(reason in UNUSABLE for reason, _ in heard.found)
    seconds = heard.seconds
    if said is not None:
        if not said.text:
            yield Doubt("no-text", "nothing that is spelled is left of its text")
        if said.letters:
            gone = ", ".join(f"{c!r}" for c in sorted(said.letters))
            yield Doubt("lost", f"taken from its text: {gone}")
    if broken or not seconds:
        return
    if heard.channels and heard.loudest < settings.silent:
        yield Doubt("silent", f"its loudest 25 ms are at {heard.loudest:.0f} dB")
    if heard.clipped > settings.clipped:
        yield Doubt("clipped", f"{heard.clipped:.1%} of its samples are at full scale")
    if seconds < settings.shortest:
        yield Doubt("short", f"{seconds:.2f} s")
    if seconds > settings.longest:
        yield Doubt("long", f"{seconds:.1f} s")
    if said is not None and said.text:
        pace = len(said.text) / seconds
        words = f"{len(said.text)} characters in {seconds:.2f} s, {pace:.1f} a second"
        if pace > settings.crowded:
            yield Doubt("crowded", words)
        if pace < settings.sparse and seconds >= 3:
            yield Doubt("sparse", words)
