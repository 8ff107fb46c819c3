"""A spoken corpus: recordings and lhotse manifests, whole or not there (where, see `folder.py`)."""

import gzip
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path

import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spelldown.data.checks import Problem
from spelldown.data.loading.ahead import side_by_side
from spelldown.data.recordings import UNREADABLE
from spelldown.data.synthesis.engines.speaking import Engine, Request
from spelldown.data.synthesis.sound import Take, record
from spelldown.errors import DataError
from spelldown.writing import write_whole

IN_A_ROW = 20  # failures after which the engine itself must be broken


@dataclass(frozen=True)
class Utterance:
    """One recording to be made: who says what, how, and where it goes."""

    id: str
    speaker: str
    language: str
    text: str
    path: str
    request: Request
    take: Take
    sample_rate: int = 16000


@dataclass(frozen=True)
class Share:
    """A part of the corpus: its utterances in order, taken until they last `seconds`.

    count: how many there are, where that is known.
    """

    name: str
    utterances: Iterable[Utterance]
    seconds: float = inf
    count: int | None = None


@dataclass
class Made:
    """What a part has become."""

    utterances: int = 0
    seconds: float = 0.0
    left_out: list[Problem] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)


def make_corpus(
    out: Path,
    shares: Sequence[Share],
    start: Callable[[], Engine],
    processes: int,
    console: Console,
    leave_out: bool = False,
) -> dict[str, Made]:
    """Makes the recordings that are not there yet, then the manifests; gives each part's size.

    Can be interrupted at any moment and called again: finished recordings are kept, and the result
    is the same to the byte. Each of the `processes` threads has an engine of its own, and with all
    engines an utterance depends on its request alone.

    leave_out: an utterance that cannot be spoken is left out, and is not an error.
    Raises DataError for the others, and OSError, with the file's name, where the disk is full.
    """
    made: dict[str, Made] = {}
    studio = _Studio(out, start)
    manifests: dict[str, bytes] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[so_far]}"))
    try:
        with (
            Progress(
                *columns,
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,  # a log would get an empty line
            ) as progress,
            ThreadPoolExecutor(processes) as pool,
        ):
            try:
                for share in shares:
                    spoken = _in_order(pool, studio, share, processes, leave_out)
                    shown = _shown(progress, share, spoken)
                    made[share.name], manifests[share.name] = _listed(shown)
            finally:
                studio.stop()
        for name, manifest in manifests.items():
            write_whole(out / f"{name}.jsonl.gz", manifest)
            _sweep(out / "audio" / name, made[name].paths, out)
    except KeyboardInterrupt:
        console.print(f"stopped; what is spoken stays in {out}: the same command goes on from here")
        raise
    finally:
        studio.end()
    return made


class _Studio:
    """Where recordings are made: an engine for each thread, ended together."""

    def __init__(self, out: Path, start: Callable[[], Engine]) -> None:
        self._out, self._start = out, start
        self._mine = threading.local()
        self._engines: set[Engine] = set()
        self._stopped = threading.Event()

    def seconds(self, utterance: Utterance) -> float:
        """The seconds of one recording, made unless it is there."""
        path = self._out / utterance.path
        try:
            return float(soundfile.info(path).duration)
        except UNREADABLE:
            pass  # not there, or cut off by a power failure
        recording = io.BytesIO()
        rate = utterance.sample_rate
        try:
            speech = self._engine().speak(utterance.request)
            samples = record(speech, utterance.take, rate, len(utterance.text))
        except DataError as error:
            self._leave()
            who = f"as {utterance.request.voice!r}"
            raise DataError(f"{utterance.request.text!r} {who}: {error.summary}") from error
        kind = path.suffix[1:].upper()
        soundfile.write(recording, samples, rate, format=kind, subtype="PCM_16")
        try:
            write_whole(path, recording.getvalue(), lasting=False)
        except OSError as error:
            raise _DiskError(f"{path}: {error.strerror}; the same command goes on") from error
        return len(samples) / rate

    def _engine(self) -> Engine:
        if self._stopped.is_set():
            raise DataError("stopped")
        if getattr(self._mine, "engine", None) is None:
            self._mine.engine = self._start().__enter__()
            self._engines.add(self._mine.engine)
        engine: Engine = self._mine.engine
        return engine

    def _leave(self) -> None:
        """Ends this thread's engine, which may be broken; the next utterance gets a new one."""
        engine, self._mine.engine = getattr(self._mine, "engine", None), None
        if engine is not None:
            self._engines.discard(engine)
            engine.__exit__(None, None, None)

    def stop(self) -> None:
        """Lets no thread go on: what is being spoken is not finished."""
        self._stopped.set()
        for engine in list(self._engines):
            engine.close()

    def end(self) -> None:
        """Tidies up behind all engines, when no thread uses them any more."""
        while self._engines:
            self._engines.pop().__exit__(None, None, None)


class _DiskError(DataError):
    """A recording that cannot be written: no fault of the sentence."""


def _in_order(
    pool: ThreadPoolExecutor, studio: _Studio, share: Share, processes: int, leave_out: bool
) -> Iterator[tuple[Utterance, float | Problem]]:
    """Each utterance with its seconds, in order, until they are enough; the next are under way."""
    total, failures = 0.0, 0
    for utterance, spoken in side_by_side(pool, studio.seconds, share.utterances, processes):
        try:
            seconds = spoken.result()
        except _DiskError:
            raise
        except DataError as error:
            failures += 1
            if not leave_out or failures == IN_A_ROW:
                raise
            yield utterance, Problem(utterance.id, utterance.path, error.summary)
        else:
            total, failures = total + seconds, 0
            yield utterance, seconds
        if total >= share.seconds:
            return


def _shown(
    progress: Progress, share: Share, spoken: Iterator[tuple[Utterance, float | Problem]]
) -> Iterator[tuple[Utterance, float | Problem]]:
    """The same, with a progress bar over the seconds that are wanted, or the utterances."""
    by_time = isfinite(share.seconds)
    total = share.seconds if by_time else share.count
    task = progress.add_task(f"speaking {share.name}", total=total, so_far="")
    seconds = 0.0
    for number, (utterance, result) in enumerate(spoken, 1):
        seconds += 0.0 if isinstance(result, Problem) else result
        of = f"/{share.seconds / 3600:.2f}" if by_time else ""
        many = f"{number:,} utterances" if by_time or not total else f"{number:,}/{total:,}"
        progress.update(
            task,
            completed=seconds if by_time else number,
            so_far=f"{many}, {seconds / 3600:.2f}{of} h",
        )
        yield utterance, result
    progress.update(task, total=progress.tasks[task].completed)


def _listed(spoken: Iterator[tuple[Utterance, float | Problem]]) -> tuple[Made, bytes]:
    """The cuts as lhotse writes them, a line each; the same bytes for the same cuts.

    They stay in memory, about a hundred bytes each, until all are there.
    """
    made, file = Made(), io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for utterance, result in spoken:
            if isinstance(result, Problem):
                made.left_out.append(result)
                continue
            line = json.dumps(_cut(utterance, result).to_dict(), ensure_ascii=False)
            packed.write(f"{line}\n".encode())
            made.utterances += 1
            made.seconds += result
            made.paths.add(utterance.path)
            made.speakers.add(utterance.speaker)
    return made, file.getvalue()


def _sweep(folder: Path, wanted: set[str], out: Path) -> None:
    """Removes what an interrupted or a longer corpus left: recordings that no manifest lists."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(out).as_posix() not in wanted:
            path.unlink()


def _cut(utterance: Utterance, seconds: float) -> MonoCut:
    """The manifest's entry, with a path relative to the corpus' folder."""
    rate = utterance.sample_rate
    source = AudioSource("file", [0], utterance.path)
    custom = {"voice": utterance.request.voice}
    if utterance.text != utterance.request.text:
        custom["written"] = utterance.request.text  # as `prepare` keeps it
    spoken = SupervisionSegment(
        utterance.id,
        utterance.id,
        0.0,
        seconds,
        text=utterance.text,
        language=utterance.language or None,
        speaker=utterance.speaker,
        custom=custom,
    )
    recording = Recording(utterance.id, [source], rate, round(seconds * rate), seconds)
    return MonoCut(utterance.id, 0.0, seconds, 0, supervisions=[spoken], recording=recording)
