"""What each row spelled for the same utterances, differences marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from spelldown.search.metrics import Utterance, pieces
from spelldown.study.report.rows import RowFigures
from spelldown.training.validation import spread

SHOWN = 10  # utterances
LONGEST = 600  # letters of one that ran on


@dataclass(frozen=True)
class Spelled:
    """What one row made of an utterance: as HTML, with the number of character edits."""

    row: str
    marked: Markup
    edits: int


@dataclass(frozen=True)
class Shown:
    """One utterance, as it was said and as each row spelled it."""

    id: str
    said: str
    lines: tuple[Spelled, ...]


def utterances(rows: Sequence[RowFigures], part: str) -> list[Shown]:
    """Ten utterances of a part, evenly from the shortest to the longest, by every row that was
    scored on it: by its run of the lowest seed."""
    spelled = {one.name: found for one in rows if (found := _first(one, part))}
    if not spelled:
        return []
    each = list(spelled.values())
    shared = [key for key in each[0] if all(key in others for others in each[1:])]
    ordered = sorted(shared, key=lambda key: (len(key[1]), key[0]))
    chosen = [ordered[place] for place in sorted(spread(len(ordered), SHOWN))] if ordered else []
    return [
        Shown(id, said, tuple(_line(row, found[id, said]) for row, found in spelled.items()))
        for id, said in chosen
    ]


def _first(one: RowFigures, part: str) -> Mapping[tuple[str, str], Utterance]:
    for run in one.runs:
        if run.outcome.over and part in run.scores:
            return {(u.id, u.reference): u for u in run.scores[part].each}
    return {}


def _line(row: str, found: Utterance) -> Spelled:
    return Spelled(row, marked(found.reference, found.hypothesis), found.distance)


def marked(said: str, spelled: str) -> Markup:
    """What was spelled, with <ins> around letters that were not said, and the letters that were
    left out in <del>. Of letters that stand for others, those are in the title."""
    out, length = Markup(), 0
    for piece in pieces(said, spelled):
        if length > LONGEST:
            left = Markup(' <small class="soft">and so on, {:,} letters in all</small>')
            return out + left.format(len(spelled))
        length += max(len(piece.spelled), len(piece.said))
        if piece.kind == "equal":
            out += piece.spelled
        elif piece.kind == "delete":
            out += Markup('<del title="left out">{}</del>').format(piece.said)
        elif piece.kind == "insert":
            out += Markup("<ins>{}</ins>").format(_cut(piece.spelled))
        else:
            out += Markup('<ins title="said: {}">{}</ins>').format(piece.said, _cut(piece.spelled))
    return out or Markup('<span class="soft">(nothing)</span>')


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
