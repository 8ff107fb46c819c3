"""What a preparation says at its end: parts, what is doubtful, and what a recipe names."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from spelldown.data.preparing.prepare import Prepared


def show_prepared(out: Console, prepared: "Prepared", arrays: Path | None) -> None:
    """The table at the end, what is doubtful, and what to do next."""
    record = prepared.record
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("part")
    columns = ("hours", "utterances", "speakers", "words", "clipped")
    for name in columns:
        table.add_column(name, justify="right")
    for part, told in record["parts"].items():
        numbers = {name: f"{told[name]:,}" for name in columns[1:]}
        numbers["speakers"] = numbers["speakers"] if told["speakers"] else "unknown"
        table.add_row(part, f"{told['hours']:.2f}", *numbers.values())
    out.print(table)
    for line in _remarks(record):
        out.print(line)
    out.print(f"a look at it: {prepared.out / 'look.html'}")
    kind = "arrays" if arrays else "cuts"
    named = "".join(f", {part}: {names}" for part, names in _parts_for(record).items())
    # Without wrapping: it is to be copied.
    line = f"in a recipe: data: {{kind: {kind}, root: {prepared.out}{named}}}"
    out.print(line, soft_wrap=True, highlight=False)
    if nothing_judges(record["parts"]):
        anew = record["settings"]["split"]["split"] is not None or "train" not in record["parts"]
        how = (
            "--split train=0.9,dev=0.1 makes one" if anew else "--dev-share 0.1 takes it from train"
        )
        out.print(
            f"no part of it judges a run yet, and a recipe needs one (data.dev): {how}, or name "
            "another there, data.dev=NAME",
            highlight=False,
        )


def nothing_judges(parts: Iterable[str]) -> bool:
    """Whether no part, by its name, is one that judges a run after every epoch."""
    from spelldown.data.preparing.looking.figures import rank

    return all(rank(part)[0] != 1 for part in parts)


def _parts_for(record: dict[str, Any]) -> dict[str, str]:
    """What a recipe names as train, dev and test, where the parts are not called so themselves.

    All that is learnt from; of several others, the one that is read most cleanly.
    """
    from spelldown.data.preparing.looking.figures import rank

    every: dict[int, list[str]] = {}
    for part in record["parts"]:
        every.setdefault(rank(part)[0], []).append(part)
    learnt, wanted = every.get(0, []), {}
    if "train" not in learnt and learnt:
        called = [part for part in learnt if part.startswith("train")]
        wanted["train"] = "+".join(called or learnt)
    for kind, name in ((1, "dev"), (2, "test")):
        if name not in (judging := every.get(kind, [])) and judging:
            wanted[name] = next((part for part in judging if "clean" in part), judging[0])
    return wanted


def _remarks(record: dict[str, Any]) -> Iterator[str]:
    from spelldown.data.preparing.looking.doubts import REASONS
    from spelldown.data.preparing.looking.page import shown

    vocabulary, text = record["vocabulary"], record["text"]
    characters = "".join(shown(c) for c in sorted(vocabulary["characters"]))
    cut = "" if len(characters) <= 80 else " ..."
    count = len(vocabulary["characters"])
    yield f"{count} characters in {vocabulary['of']}: {characters[:80]}{cut}"
    for key, words in (("letters", "letters, digits and signs"), ("punctuation", "punctuation")):
        removed = text[f"{key}_removed"]
        if removed:
            few = ", ".join(f"{shown(c)} {n:,}" for c, n in list(removed.items())[:12])
            yield f"{words} taken from the texts: {few}{' ...' if len(removed) > 12 else ''}"
    if vocabulary["not_in_it"]:
        few = " ".join(map(shown, list(vocabulary["not_in_it"])[:20]))
        yield f"only outside of {vocabulary['of']}, so never learnt: {few}"
    if shared := record["splits"].get("speakers_in_several_parts"):
        who = "1 speaker is" if shared == 1 else f"{shared:,} speakers are"
        yield f"{who} in several parts, so that scores tell little of new voices"
    if record["mixed_to_one_channel"]:
        mixed = record["mixed_to_one_channel"]
        many = "1 recording has" if mixed == 1 else f"{mixed:,} recordings have"
        yield f"{many} several channels: mixed"
    for reason, told in record["doubtful"].items():
        yield f"{told['count']:,} {reason}: {REASONS[reason]}"
    for reason, count in record["left_out"].items():
        yield f"left out, {count:,} {reason}: {REASONS[reason]}"
