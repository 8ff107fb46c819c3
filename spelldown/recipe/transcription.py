"""Spelling what has no transcript, file by file or as the hand-in of the course."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spelldown.errors import DataError
from spelldown.recipe.evaluation import Progress
from spelldown.recipe.run import Run
from spelldown.search.transcriber import Failure, Item, Transcript, inputs
from spelldown.writing import write_whole


@dataclass(frozen=True)
class Heard:
    """What was spelled of one input, or why nothing was (`error`, and then no text).

    score: natural logarithm of the spelling's probability; ended: whether `<eos>` came before the
    search's limit; seconds of speech
    """

    id: str
    text: str | None
    score: float | None = None
    ended: bool | None = None
    seconds: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def line(self) -> str:
        """The id and the text, with a tab between."""
        return f"{self.id}\t{self.text}"


def transcribe(
    run: Run, paths: Sequence[Path], warn: Callable[[str], None] = lambda text: None
) -> Iterator[Heard]:
    """What was spelled of each file in `paths` and of each in their folders, in order.

    `warn` is told of files that were passed over. Raises DataError for paths that are not there,
    or hold nothing that could be transcribed.
    """
    for found in run.transcriber.transcribe(_items(paths, warn)):
        if isinstance(found, Failure):
            yield Heard(found.id, None, error=found.error)
        else:
            yield Heard(found.id, found.text, found.score, found.ended, found.seconds)


def write_submission(
    run: Run,
    paths: Sequence[Path],
    file: Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Writes the course's hand-in, `index,label` in the order of file names; how many it holds.

    Written whole or not at all. `warn` is told of files that were passed over. Raises DataError if
    any input cannot be spelled or is there twice: each line's index is its place among all.
    """
    items = sorted(_items(paths, warn), key=lambda item: (_file(item).name, _file(item)))
    times = Counter(_file(item).resolve() for item in items)
    if twice := [str(path) for path, count in times.items() if count > 1]:
        raise DataError(
            f"asked for twice; a hand-in has one line a file, {file} not written", twice
        )
    spelled = run.transcriber.transcribe(items)
    results = list(progress(spelled, len(items)) if progress else spelled)
    failures = [f"{found.id}: {found.error}" for found in results if isinstance(found, Failure)]
    if failures:
        raise DataError(
            f"{len(failures)} of {len(results)} inputs cannot be spelled; {file} was not written, "
            "since a line is missing for each",
            failures,
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("index", "label"))
    texts = [found.text for found in results if isinstance(found, Transcript)]
    writer.writerows(enumerate(texts))
    write_whole(file, table.getvalue())
    return len(texts)


def _file(item: Item) -> Path:
    assert isinstance(item.source, Path)  # `inputs` finds nothing else
    return item.source


def _items(paths: Sequence[Path], warn: Callable[[str], None]) -> list[Item]:
    items, unknown = inputs(paths)
    if unknown:
        some = ", ".join(map(str, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        warn(f"passed over {len(unknown)} files that are neither .npy nor audio: {some}")
    if not items:
        raise DataError(f"nothing to transcribe in {', '.join(map(str, paths))}")
    return items
