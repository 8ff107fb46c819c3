"""A look at a corpus that lies there as manifests: all is heard, and the page written."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lhotse import CutSet

from spelldown.data.checks import Problem
from spelldown.data.loading.ahead import side_by_side
from spelldown.data.preparing.hearing import Heard, hear
from spelldown.data.preparing.looking.doubts import DoubtSettings, doubts
from spelldown.data.preparing.looking.figures import Figures, rank
from spelldown.data.preparing.looking.page import look_page
from spelldown.data.preparing.sources.cuts import utterance_of
from spelldown.data.preparing.text import Said
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError
from spelldown.writing import write_whole

LOOK = "look.html"


def look_at(
    folder: Path,
    parts: Sequence[str],
    about: dict[str, Any],
    jobs: int,
    shown: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, int]:
    """Writes FOLDER/look.html, the figures and doubts of FOLDER/<part>.jsonl.gz.

    about: what the page says of it: `kind`, `source` and `settings`
    jobs: recordings decoded at the same time
    shown: progress around all utterances, part after part

    Gives how many utterances are doubtful for each reason. Whoever calls holds the folder.
    """
    figures, settings = Figures(), DoubtSettings()
    with ThreadPoolExecutor(jobs) as pool:
        every = side_by_side(pool, _heard, _utterances(folder, parts), jobs)
        for (part, utterance), pending in shown(every):
            heard = pending.result()
            text = utterance.text  # in its form since it was made
            said = None if text is None else Said(text, Counter(), Counter())
            figures.add(part, utterance, heard, said, doubts(heard, said, settings))
    learnt = [part for part in parts if not rank(part)[0]] or list(parts)
    record = {
        **about,
        "splits": {"said": []},
        **figures.as_dict(learnt),
        "left_out": {},
    }
    write_whole(folder / LOOK, look_page(record, folder.absolute().name))
    return dict(figures.counts)


def _utterances(folder: Path, parts: Sequence[str]) -> Iterator[tuple[str, Utterance]]:
    for part in parts:
        manifest = folder / f"{part}.jsonl.gz"
        for cut in CutSet.from_jsonl_lazy(manifest):
            found = utterance_of(cut, str(manifest), part, folder)
            if isinstance(found, Problem):  # a recording taken away since it was made
                raise DataError("the corpus is not whole", [str(found)])
            yield part, found


def _heard(one: tuple[str, Utterance]) -> Heard:
    return hear(one[1], None)
