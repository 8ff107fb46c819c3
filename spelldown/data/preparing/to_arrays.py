"""A prepared corpus in the course's layout: `<part>/mfcc/*.npy` and `<part>/transcripts/*.npy`.

Frames are as the front end makes them before deltas and normalisation, float32 (T, width), as the
course's are; transcripts are `<sos>`, single characters, `<eos>`. Beside them lie `.arrays.json`,
how they were made and of which manifest, and `.made`, a digest of what each one was made of: frames
of the same stretch and channel of the same recording are not made again.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray
from pydantic import Field

from spelldown.data.cache import VERSION
from spelldown.data.checks import text_of
from spelldown.data.frontend import Frontend, LogMelSettings, MfccSettings
from spelldown.data.loading.ahead import side_by_side
from spelldown.data.preparing.disk.folder import naming
from spelldown.data.reading.identity import digest_of
from spelldown.data.recordings import file_of
from spelldown.errors import DataError
from spelldown.progress import Progress, quiet
from spelldown.settings import Settings
from spelldown.writing import FULL, write_whole

HEAD = 128  # bytes before the numbers in an .npy file of two axes
MADE = ".arrays.json"  # says how the arrays in a folder were made, and of which manifest
EACH = ".made"  # a line for each utterance's frames: a digest of what they were made of, its name


class ArraysOutputSettings(Settings):
    """Which frames are written."""

    features: Literal["mfcc", "log-mel"] = Field("mfcc", description="what frames hold")
    width: int = Field(28, ge=1, description="numbers a frame; the course's homework has 28")
    sample_rate: int = Field(
        16000, ge=8000, description="samples a second, to which other recordings are brought"
    )

    def frontend(self) -> Frontend:
        """What makes them."""
        if self.features == "log-mel":
            return Frontend(LogMelSettings(width=self.width, sample_rate=self.sample_rate))
        filters = max(40, self.width)
        return Frontend(
            MfccSettings(width=self.width, filters=filters, sample_rate=self.sample_rate)
        )


def to_arrays(
    out: Path,
    parts: Iterable[str],
    settings: ArraysOutputSettings,
    *,
    jobs: int = 1,
    progress: Progress = quiet,
) -> None:
    """Writes the arrays of a prepared corpus into its own folder; goes on where it was interrupted.

    Arrays of utterances that are no longer in a part go, and those of parts that are no more.
    Raises DataError for utterances whose names give the same file, for folders that hold somebody
    else's arrays, and for a full disk.
    """
    frontend = settings.frontend()
    parts = list(parts)
    try:
        for part in _stale(out, parts):
            _remove(out / part)
        for part in parts:
            _write_part(out, part, settings, frontend, jobs, progress)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"{error.filename or out}: the disk is full; the arrays that were made are kept, "
                "and the same command goes on"
            ) from error
        raise


def _write_part(
    out: Path,
    part: str,
    settings: ArraysOutputSettings,
    frontend: Frontend,
    jobs: int,
    progress: Progress,
) -> None:
    folder, manifest = out / part, out / f"{part}.jsonl.gz"
    names = _names(out, part)
    _claim(folder, settings)
    made = _digests(folder)
    with naming(folder / EACH), (folder / EACH).open("a", encoding="utf-8") as journal:

        def keep(name: str, digest: str) -> None:
            if made.get(name) != digest:
                made[name] = digest
                journal.write(f"{digest} {name}\n")
                journal.flush()

        cuts = (_from_anywhere(cut, out) for cut in CutSet.from_jsonl_lazy(manifest))
        work = _made(cuts, folder, frontend, made, keep, jobs)
        for name, digest in progress(f"arrays of {part}", work, len(names)):
            keep(name, digest)
    for kind in ("mfcc", "transcripts"):
        for file in (folder / kind).glob("*.npy"):
            if file.stem not in names:
                file.unlink()
    lines = "".join(f"{made[name]} {name}\n" for name in sorted(names))
    write_whole(folder / EACH, lines)
    write_whole(folder / MADE, json.dumps({**_about(settings), "manifest": _digest_of(manifest)}))


def outdated(out: Path, parts: Collection[str]) -> list[str]:
    """The folders of `out` whose arrays were made here, and are not those of its manifests now.

    parts: those that there are
    """
    return [
        part
        for part in _parts_with_arrays(out)
        if part not in parts
        or _claimed(out / part).get("manifest") != _digest_of(out / f"{part}.jsonl.gz")
    ]


def _parts_with_arrays(out: Path) -> list[str]:
    return sorted(made.parent.name for made in out.glob(f"*/{MADE}"))


def _stale(out: Path, parts: Collection[str]) -> list[str]:
    return [part for part in _parts_with_arrays(out) if part not in parts]


def _remove(folder: Path) -> None:
    """Takes away the arrays of a part that is no more, and nothing else."""
    for kind in ("mfcc", "transcripts"):
        for file in (folder / kind).glob("*.npy"):
            file.unlink()
        with suppress(OSError):  # not there, or the user keeps something else in it
            (folder / kind).rmdir()
    (folder / EACH).unlink(missing_ok=True)
    (folder / MADE).unlink()
    with suppress(OSError):
        folder.rmdir()


def _about(settings: ArraysOutputSettings) -> dict[str, Any]:
    return {**settings.model_dump(mode="json"), "version": VERSION}


def _digest_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()[:32]


def _claimed(folder: Path) -> dict[str, Any]:
    """How the arrays in a folder were made; empty where that cannot be known."""
    try:
        told = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _claim(folder: Path, settings: ArraysOutputSettings) -> None:
    """Makes sure that the arrays in a folder are ours, and made with these settings or none."""
    asked, there = _about(settings), folder / MADE
    if not there.is_file() and any((folder / "mfcc").glob("*")):
        raise DataError(f"{folder / 'mfcc'} holds arrays that were not made here; remove them")
    made = _claimed(folder)
    made.pop("manifest", None)  # until all is there, they are of none
    if made != asked:
        for file in (folder / "mfcc").glob("*.npy"):
            file.unlink()
        (folder / EACH).unlink(missing_ok=True)
    write_whole(there, json.dumps(asked))


def _digests(folder: Path) -> dict[str, str]:
    """What the frames of each utterance were made of, by its name; a torn line is mended."""
    path = folder / EACH
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if lines.pop():  # a kill came while the last was written
        write_whole(path, "".join(f"{line}\n" for line in lines))
    told = (line.partition(" ") for line in lines)
    return {name: digest for digest, _, name in told}


def _names(out: Path, part: str) -> set[str]:
    names: set[str] = set()
    for cut in CutSet.from_jsonl_lazy(out / f"{part}.jsonl.gz"):
        name = _name(cut.id)
        if name in names:
            raise DataError(f"{part}: two utterances would be {name}.npy, one of them {cut.id}")
        names.add(name)
    return names


def _name(id: str) -> str:
    return id.replace("/", "-").replace(os.sep, "-").lstrip(".") or "-"


def _made(
    cuts: Iterable[Cut],
    folder: Path,
    frontend: Frontend,
    made: Mapping[str, str],
    keep: Callable[[str, str], None],
    jobs: int,
) -> Iterator[tuple[str, str]]:
    """Writes every utterance's two files, `jobs` at the same time; its name and digest then."""

    def asked() -> Iterator[tuple[Cut, str, bool]]:
        for cut in cuts:
            name, digest = _name(cut.id), digest_of({}, [cut])
            fresh = made.get(name) == digest and _is_whole(folder, cut, frontend)
            if name in made and not fresh:
                keep(name, "-")  # until they are made, the file may be of the one or the other
            yield cut, digest, fresh

    def make(one: tuple[Cut, str, bool]) -> tuple[str, str]:
        cut, digest, fresh = one
        return _write(cut, folder, frontend, digest, fresh)

    with ThreadPoolExecutor(jobs) as pool:
        for _, written in side_by_side(pool, make, asked(), jobs):
            yield written.result()


def _from_anywhere(cut: Cut, out: Path) -> Cut:
    """A cut whose recording is found from the folder that one is in."""
    inside = cut.has_recording and not Path(file_of(cut)).is_absolute()
    return cut.with_recording_path_prefix(out) if inside else cut


def _write(cut: Cut, folder: Path, frontend: Frontend, digest: str, fresh: bool) -> tuple[str, str]:
    name = _name(cut.id)
    if not fresh:
        frames = folder / "mfcc" / f"{name}.npy"
        write_whole(frames, _array(frontend.static(cut).numpy()), lasting=False)
    text, letters = text_of(cut), folder / "transcripts" / f"{name}.npy"
    if text is None:
        letters.unlink(missing_ok=True)
    else:
        symbols = np.array(["<sos>", *text, "<eos>"])
        write_whole(letters, _array(symbols), lasting=False)
    return name, digest


def _is_whole(folder: Path, cut: Cut, frontend: Frontend) -> bool:
    """Whether an utterance's file has the length of its frames."""
    file = folder / "mfcc" / f"{_name(cut.id)}.npy"
    try:
        return file.stat().st_size == HEAD + 4 * frontend.width * frontend.count(cut)
    except OSError:
        return False


def _array(numbers: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, numbers)
    return buffer.getvalue()
