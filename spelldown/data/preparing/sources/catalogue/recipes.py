"""A corpus by lhotse's own recipe, which reads the copy that is there into manifests.

lhotse opens every recording for its length and keeps the manifests of all parts in memory; only
then are utterances given one at a time. That is its way, and why LibriSpeech, Common Voice and
LJSpeech are read by ourselves.
"""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lhotse import CutSet, Recording
from lhotse.cut import MonoCut

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.catalogue.listing import CorpusEntry, function_for
from spelldown.data.preparing.sources.cuts import Found, spoken, utterance_of
from spelldown.data.preparing.sources.reading.entries import each_once
from spelldown.data.preparing.sources.reading.files import need_folder
from spelldown.data.preparing.utterance import Utterance
from spelldown.data.reading.quiet import hushed
from spelldown.errors import DataError

# What lhotse's functions call the same thing.
PARTS = ("dataset_parts", "parts", "splits", "dataset_part", "subset")
LANGUAGES = ("languages", "language", "lang", "langs")
FOLDERS = ("corpus_dir", "data_dir", "audio_dir", "tedlium_root")
Manifests = Mapping[str, Any]


def arguments(
    function: Callable[..., Any], parts: tuple[str, ...], language: str | None
) -> dict[str, Any]:
    """`parts` and `language` under the names that one of lhotse's functions has for them.

    Left out where it has none. A function whose default is a single name is given the single one.
    """
    parameters = inspect.signature(function).parameters
    given: dict[str, Any] = {}
    name = next((one for one in PARTS if one in parameters), None)
    if parts and name:
        only_one = name in ("dataset_part", "subset")
        if only_one and len(parts) > 1:
            raise DataError(f"lhotse's {function.__name__} takes one part at a time")
        given[name] = parts[0] if only_one else list(parts)
    name = next((one for one in LANGUAGES if one in parameters), None)
    if language and name:
        given[name] = language if name in ("language", "lang") else [language]
    elif language:
        raise DataError(f"lhotse's {function.__name__} has no languages to choose from")
    return given


def refuse_unknown(entry: CorpusEntry, options: Mapping[str, Any]) -> None:
    """Raises DataError for options that neither reading nor downloading a corpus takes."""
    functions = [function_for("download", entry.name) if entry.downloads else None]
    if entry.reader == "lhotse":
        functions.append(function_for("prepare", entry.name))
    takes = {name: None for one in functions if one for name in inspect.signature(one).parameters}
    unknown = [name for name in options if name not in takes]
    if unknown:
        raise DataError(
            f"{entry.name} takes no {', '.join(unknown)} among its options; "
            f"lhotse's functions for it take {', '.join(takes) or 'none'}"
        )


def read(
    name: str,
    source: Path,
    parts: tuple[str, ...] = (),
    language: str | None = None,
    options: Mapping[str, Any] | None = None,
    manifests: Path | None = None,
) -> Iterator[Utterance | Problem]:
    """The utterances of a corpus as lhotse reads it from the folder `source`.

    `options` are further arguments of lhotse's `prepare_<name>`; those that it does not have are
    passed over, since they are for downloads (see `refuse_unknown`). lhotse may keep its manifests
    in the folder `manifests`, where some recipes find them again. Raises DataError where it cannot
    make anything of `source`.
    """
    need_folder(source)
    function = function_for("prepare", name)
    if function is None:
        raise DataError(f"lhotse has no recipe for {name}")
    with TemporaryDirectory(prefix="spelldown-") as scratch:
        parameters = inspect.signature(function).parameters
        own = {key: value for key, value in (options or {}).items() if key in parameters}
        given = {**arguments(function, parts, language), **own}
        found = _prepare(function, name, source, given, manifests or Path(scratch))
        leaves = list(_leaves(found, ()))
        if not leaves:
            raise DataError(f"lhotse's {function.__name__} found nothing in {source}")
        found = (
            one for split, leaf in _chosen(leaves, parts) for one in _utterances(name, split, leaf)
        )
        for one in each_once(found):
            _refuse_passing(one, name, Path(scratch))
            yield one


def _refuse_passing(found: Utterance | Problem, name: str, scratch: Path) -> None:
    """A few recipes convert audio, and put it beside the manifests."""
    if isinstance(found, Utterance) and found.cut is not None and found.cut.has_recording:
        for source in found.cut.recording.sources:
            if source.type == "file" and Path(source.source).is_relative_to(scratch):
                raise DataError(
                    f"lhotse's recipe for {name} writes audio of its own; name a folder where it "
                    "can stay by manifests"
                )


def _prepare(
    function: Callable[..., Any], name: str, source: Path, given: dict[str, Any], output: Path
) -> Any:
    parameters = inspect.signature(function).parameters
    folder = next((one for one in FOLDERS if one in parameters), next(iter(parameters)))
    asked: dict[str, Any] = {folder: source, **given}
    if "output_dir" in parameters:
        asked.setdefault("output_dir", output)
    absent = [
        one.name
        for one in parameters.values()
        if one.default is one.empty and one.name not in asked
    ]
    if absent:
        raise DataError(
            f"{name} needs more than a folder: give {', '.join(absent)} as options "
            f"(arguments of lhotse's {function.__name__})"
        )
    try:
        with hushed():
            return function(**asked)
    except Exception as error:  # recipes fail by assertion, KeyError, whatever comes
        said = str(error).partition("\n")[0] or _failed_at(error)
        raise DataError(
            f"{source}: lhotse's {function.__name__} cannot read it: {type(error).__name__}: {said}"
        ) from error


def _failed_at(error: Exception) -> str:
    """The line of source that has failed, for an error that says nothing itself."""
    places = traceback.extract_tb(error.__traceback__)
    return f"at `{places[-1].line}`" if places and places[-1].line else "no reason given"


def _leaves(found: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Manifests]]:
    """Each part's manifests, with the names that lead to them, however deep they lie."""
    if isinstance(found, CutSet):
        yield path, {"cuts": found}
    elif isinstance(found, Mapping):
        heard = "recordings" in found or "audio" in found
        if (heard and "supervisions" in found) or isinstance(found.get("cuts"), CutSet):
            yield path, found
        else:
            for key, inside in found.items():
                yield from _leaves(inside, (*path, str(key)))


def _chosen(
    leaves: list[tuple[tuple[str, ...], Manifests]], parts: tuple[str, ...]
) -> list[tuple[str | None, Manifests]]:
    """Parts by name: without the names that all have in common, and only those asked for."""
    paths = [path for path, _ in leaves]
    while len(paths) > 1 and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    named = ["-".join(path) or None for path in paths]
    chosen = [
        (name, leaf)
        for name, path, (_, leaf) in zip(named, paths, leaves, strict=True)
        if not parts or name in parts or set(parts).intersection(path)
    ]
    if not chosen:
        there = ", ".join(name for name in named if name)
        raise DataError(f"no part {', '.join(parts)}; there is {there or 'only the whole'}")
    return chosen


def _utterances(name: str, split: str | None, leaf: Manifests) -> Iterator[Utterance | Problem]:
    supervisions = leaf.get("supervisions")
    if supervisions is None:
        for cut in leaf["cuts"]:
            where = f"{name}, {split or 'all'}"
            if isinstance(cut, MonoCut):
                yield utterance_of(cut, where, split)
            else:
                found = f"a {type(cut).__name__}; cuts of one recording and one channel expected"
                yield Problem(cut.id, where, found)
        return
    recordings = leaf.get("recordings", leaf.get("audio"))
    yield from spoken(
        (Found(_file_of(one), one) for one in recordings or ()),
        (Found(f"{name}, {split or 'all'}", one) for one in supervisions),
        split,
    )


def _file_of(recording: Recording) -> str:
    files = [str(one.source) for one in recording.sources if one.type == "file"]
    return files[0] if files else str(recording.id)
