"""Spelling what has no transcript: recordings of any length, or the hand-in of the course."""

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from spelldown.data.corpora import ArraysSettings
from spelldown.data.frontend import ArraysFrontendSettings
from spelldown.data.loading.speakers import speaker_in
from spelldown.errors import DataError
from spelldown.progress import Progress, quiet
from spelldown.recipe.run import Run
from spelldown.search.transcribing.inputs import STANDARD_INPUT, Inputs, inputs
from spelldown.search.transcribing.joined import Heard, Source, heard, seconds_of
from spelldown.search.transcribing.sound.activity import detector
from spelldown.search.transcribing.sound.microphone import Microphone, enter_pressed
from spelldown.search.transcribing.sound.pauses import PauseSettings
from spelldown.search.transcribing.sound.streams import copied
from spelldown.search.transcribing.transcript import ARRAYS, Failure, Item, Transcript, named
from spelldown.writing import write_whole

Warn = Callable[[str], None]


def silent(text: str) -> None:
    """Warns nobody."""


@dataclass(frozen=True)
class Asked:
    """What is to be transcribed, with what is not there or certainly cannot be read."""

    sources: tuple[Source, ...]
    failures: tuple[Failure, ...] = ()

    def seconds(self) -> float:
        """How long all files together say that they are; opens each, and so costs some time."""
        files = (source.sound for source in self.sources)
        return sum(seconds_of(file) or 0.0 for file in files if isinstance(file, Path))


@contextmanager
def asked_for(
    paths: Sequence[Path | str],
    warn: Warn = silent,
    stdin: BinaryIO | None = None,
    channel: int | None = None,
) -> Iterator[Asked]:
    """The files in `paths`, folders and patterns, with `-` for what is read from `stdin` here.

    channel: which to hear, counted from 0; the mean of all if None.
    `warn` is told of files that were passed over. Standard input is kept in a temporary file, so
    that it is no burden on memory. Raises DataError if there is nothing that could be transcribed.
    """
    found = _found(paths, warn)
    with tempfile.TemporaryDirectory(prefix="spelldown-") as folder:
        sources = []
        for item in found.items:
            path, name = _file(item), str(item.source)
            if path == STANDARD_INPUT:
                if stdin is None:
                    raise DataError("-: standard input is not to be read here")
                path, name = _kept(stdin, Path(folder)), "standard input"
            sources.append(Source(item.id, path, name, channel))
        yield Asked(tuple(sources), tuple(found.failures))


def _kept(stdin: BinaryIO, folder: Path) -> Path:
    """Standard input as a file: an array if it begins like one, else audio."""
    path = folder / "stdin"
    copied(stdin, path)
    with path.open("rb") as file:
        array = file.read(6) == b"\x93NUMPY"
    return path.rename(folder / "stdin.npy") if array else path


def microphone(run: Run, until: Callable[[], None] = enter_pressed) -> Asked:
    """What is said until `until` returns: by default, until Enter is pressed.

    Raises DataError if the run takes no sound, AudioError if there is no microphone.
    """
    frontend = run.recipe.frontend
    if isinstance(frontend, ArraysFrontendSettings):
        raise DataError(
            f"{run.folder.path} takes frames that come ready (frontend kind arrays), no sound; a "
            "run with frontend kind mfcc or log-mel can listen"
        )
    listening = Microphone(until)
    return Asked((Source("microphone", lambda: listening, "the microphone"),))


def transcribe(run: Run, paths: Sequence[Path | str], warn: Warn = silent) -> Iterator[Heard]:
    """What was spelled of each file in `paths`, folders and patterns: `asked_for` and `spelled`."""
    with asked_for(paths, warn) as asked:
        yield from spelled(run, asked)


def spelled(
    run: Run,
    asked: Asked,
    settings: PauseSettings | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Heard]:
    """What was spelled of each source, in order, as they get ready; those that failed, too.

    Recordings are cut at pauses and joined again, their silence left out; features are spelled
    whole. `progress` is told of seconds of sound that are done. Raises AudioError for a pause
    detector that is not installed.
    """
    settings = settings or PauseSettings()
    if settings.kind != "auto":
        detector(settings.kind, 16_000)  # is it there? Before anything is read
    for failure in asked.failures:
        yield Heard(failure.id, None, error=failure.error)
    yield from heard(run.transcriber, _named_sources(run, asked.sources), settings, progress)


def write_submission(
    run: Run,
    paths: Sequence[Path | str],
    file: Path,
    progress: Progress = quiet,
    warn: Warn = silent,
) -> int:
    """Writes the course's hand-in, `index,label` in the order of file names; how many it holds.

    Written whole or not at all. `warn` is told of files that were passed over. Raises DataError if
    any input cannot be spelled or is there twice: each line's index is its place among all.
    """
    found = _found(paths, warn)
    closed = [named(failure.id, failure.error) for failure in found.failures]
    if closed or any(_file(item) == STANDARD_INPUT for item in found.items):
        raise DataError(
            "a hand-in has one line a file, and not all can be read:",
            closed or ["-: standard input has no file name"],
        )
    items = sorted(found.items, key=lambda item: (_file(item).name, _file(item)))
    times = Counter(_file(item).resolve() for item in items)
    if twice := [str(path) for path, count in times.items() if count > 1]:
        raise DataError(
            f"asked for twice; a hand-in has one line a file, {file} not written", twice
        )
    done = run.transcriber.transcribe(_by_name(run, items))
    results = list(progress("spelling", done, len(items)))
    failures = [named(found.id, found.error) for found in results if isinstance(found, Failure)]
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


def _by_name(run: Run, items: Sequence[Item]) -> list[Item]:
    """Files, each normalised over all of its speaker's, where file names tell who speaks."""
    data = run.recipe.data
    named = isinstance(data, ArraysSettings) and data.speaker == "prefix"
    speakers = [speaker_in(_file(item).stem) if named else None for item in items]
    return run.transcriber.by_speaker(items, speakers)


def _named_sources(run: Run, sources: Sequence[Source]) -> list[Source]:
    """The sources, those among them that are arrays as `_by_name` has them."""
    arrays = {
        place: Item(source.name, source.sound)
        for place, source in enumerate(sources)
        if isinstance(source.sound, Path) and source.sound.suffix.lower() in ARRAYS
    }
    spreads = {
        place: item.spread
        for place, item in zip(arrays, _by_name(run, list(arrays.values())), strict=True)
    }
    return [replace(one, spread=spreads.get(place)) for place, one in enumerate(sources)]


def _file(item: Item) -> Path:
    assert isinstance(item.source, Path)  # `inputs` finds nothing else
    return item.source


def _found(paths: Sequence[Path | str], warn: Warn) -> Inputs:
    found = inputs(paths)
    if unknown := found.unknown:
        some = ", ".join(map(str, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        files = "1 file" if len(unknown) == 1 else f"{len(unknown)} files"
        warn(f"passed over {files} called neither .npy nor like audio: {some}")
    if not found.items and not found.failures:
        raise DataError(f"nothing to transcribe in {', '.join(map(str, paths))}")
    return found
