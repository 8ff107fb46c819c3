"""Folders of speech as lhotse cuts: the course's arrays, or manifests of recordings."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from lhotse import CutSet
from pydantic import Field, model_validator

from spelldown.data.checks import Part
from spelldown.data.loading.speakers import speaker_in
from spelldown.data.reading.arrays import nobody, read_arrays
from spelldown.data.reading.manifests import MANIFESTS, read_manifest
from spelldown.errors import DataError
from spelldown.settings import Settings

UNIONS = {"train-clean-460": "train-clean-100+train-clean-360"}


class AddedSettings(Settings):
    """A corpus of the same kind that training hears too, such as synthetic speech.

    rate: share of its utterances that an epoch has, drawn anew each time.
    last_rate: the share moves evenly to this one in the run's last epoch, or in `until_epoch`.
    until_epoch: the last epoch that has any; null for all.
    """

    root: Path = Field(description="the added corpus's folder")
    part: str = Field("train", description="what to hear of it; several are joined by +")
    rate: float = Field(1.0, gt=0, le=1)
    last_rate: float | None = Field(None, ge=0, le=1)
    until_epoch: int | None = Field(None, ge=1)


class PartsSettings(Settings):
    """What every kind of corpus has: a folder, and parts in it."""

    root: Path = Field(description="the corpus's folder, from the one spelldown is called in")
    train: str = Field("train", description="the part to learn from; several are joined by +")
    dev: str = Field("dev", description="the part that judges the run after every epoch")
    test: str | None = Field("test", description="the part for `spelldown evaluate`, if there is")
    problems: Literal["stop", "leave-out"] = Field(
        "stop",
        description="unusable utterances stop the run, or are left out and listed; recordings that "
        "only decoding finds damaged are left out with a cache alone (prepare finds them too)",
    )
    also: tuple[AddedSettings, ...] = Field((), description="corpora that training hears too")


class ArraysSettings(PartsSettings):
    """A corpus in the course's layout: `ROOT/<part>/mfcc/*.npy` and `.../transcripts/*.npy`."""

    kind: Literal["arrays"] = "arrays"
    pairing: Literal["name", "order"] = Field(
        "name", description="how features find their transcripts: by file name, or as both sort"
    )
    speaker: Literal["prefix"] | None = Field(
        None,
        description="who speaks: `prefix`, what a file's name has before its first -, as in the "
        "course's data, named after LibriSpeech; null: nobody knows",
    )


class CutsSettings(PartsSettings):
    """A corpus as lhotse manifests of cuts with audio: `ROOT/<part>.jsonl.gz`."""

    kind: Literal["cuts"] = "cuts"
    cache: Literal["half"] | None = Field(
        None,
        description="frames are made once and kept on disk, half-precision; null makes them anew",
    )
    cache_folder: Path | None = Field(
        None, description="where they are kept; null keeps them in `cache` in each corpus's folder"
    )

    @model_validator(mode="after")
    def _what_is_placed_is_kept(self) -> "CutsSettings":
        if self.cache_folder is not None and self.cache is None:
            raise ValueError("nothing is kept in cache_folder without a cache; add cache: half")
        return self


CorpusSettings = Annotated[ArraysSettings | CutsSettings, Field(discriminator="kind")]


def partitions(part: str) -> set[str]:
    """The partitions that a part is joined from, by name; none for an empty part."""
    names = {name.strip() for name in part.split("+")} - {""}
    return {piece for name in names for piece in (name, *UNIONS.get(name, name).split("+"))}


def read_part(settings: ArraysSettings | CutsSettings, part: str) -> Part:
    """A part of the corpus, each file read once and looked at, nothing copied.

    `part` is a partition's name or several joined by `+`; `train-clean-460` joins LibriSpeech's
    two where there is no partition of that name. Where joined partitions share an utterance's
    name, all ids become `<partition>.<name>`. Utterances with problems are set aside in
    `Part.problems`: pass the result to `check_part`, which decides about them.

    Raises DataError for a part that is not there or cannot be paired at all.
    """
    names = partitions_of(settings, part)
    if isinstance(settings, ArraysSettings):
        named = speaker_in if settings.speaker == "prefix" else nobody
        parts = [read_arrays(settings.root, name, settings.pairing, named) for name in names]
    else:
        parts = [read_manifest(settings.root, name) for name in names]
    if _share_a_name(parts):
        parts = [_named_apart(found) for found in parts]
    return Part(
        part,
        CutSet.from_cuts([cut for found in parts for cut in found.cuts]),
        tuple(problem for found in parts for problem in found.problems),
    )


def partitions_of(settings: ArraysSettings | CutsSettings, part: str) -> list[str]:
    """The partitions of the corpus that a part is joined from. DataError for one that is not
    there, which names those that are."""
    names = [name.strip() for name in part.split("+")]
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"part {part!r}: names of parts joined by +, each once, expected")
    have = _partitions(settings)
    names = [
        piece
        for name in names
        for piece in (UNIONS.get(name, name).split("+") if name not in have else [name])
    ]
    for name in names:
        if name not in have:
            close = get_close_matches(name, have, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else _remedy(settings, name, have)
            raise DataError(
                f"no part {name!r} in {settings.root}; "
                f"there {'are' if len(have) > 1 else 'is'} {', '.join(have) or 'none'}{hint}"
            )
    return names


def read_added(settings: ArraysSettings | CutsSettings, own: Part) -> list[Part]:
    """The corpora that training hears beside its `own` part, as `data.also` names them.

    Where ids are shared with corpora before, those of the later one become `<folder>.<id>`. Raises
    DataError as `read_part` does, naming the corpus.
    """
    taken = {cut.id for cut in own.cuts}
    parts: list[Part] = []
    for number, added in enumerate(settings.also):
        own_parts = {"train": "", "dev": "", "test": None}  # these are not the added corpus's
        place = settings.model_copy(update={"root": added.root, "also": (), **own_parts})
        try:
            part = read_part(place, added.part)
        except DataError as error:
            raise DataError(f"data.also.{number}: {error.summary}", error.problems) from error
        for name in (added.root.resolve().name, f"{added.root.resolve().name}.{number}"):
            if taken.isdisjoint(cut.id for cut in part.cuts):
                break
            part = _named_apart(replace(part, name=name))
        taken.update(cut.id for cut in part.cuts)
        parts.append(replace(part, name=f"{added.part} of {added.root}"))
    return parts


def _share_a_name(parts: Sequence[Part]) -> bool:
    """Whether an utterance's name, usable or not, is in more than one partition."""
    names = [
        {cut.id for cut in part.cuts}.union(problem.utterance for problem in part.problems)
        for part in parts
    ]
    return len(set().union(*names)) < sum(map(len, names))


def _named_apart(part: Part) -> Part:
    cuts = list(part.cuts)
    for cut in cuts:
        cut.id = f"{part.name}.{cut.id}"
    problems = [replace(one, utterance=f"{part.name}.{one.utterance}") for one in part.problems]
    return Part(part.name, CutSet.from_cuts(cuts), tuple(problems))


def _partitions(settings: ArraysSettings | CutsSettings) -> list[str]:
    """The names of the partitions that are there."""
    if not settings.root.is_dir():
        raise DataError(
            f"data.root: {settings.root.absolute()} is not a folder; `{_maker(settings)}` makes it"
        )
    if isinstance(settings, ArraysSettings):
        return sorted(f.name for f in settings.root.iterdir() if (f / "mfcc").is_dir())
    files = [f.name for f in settings.root.iterdir()]
    return sorted({f.removesuffix(e) for f in files for e in MANIFESTS if f.endswith(e)})


def _remedy(settings: ArraysSettings | CutsSettings, name: str, have: Sequence[str]) -> str:
    """What makes a part that the settings name and that is not there, or which key names another;
    empty for one that they do not name."""
    named = {"train": settings.train, "dev": settings.dev, "test": settings.test}
    key = next((key for key, part in named.items() if name in partitions(part or "")), "")
    if not key or not have:
        return ""
    other = f"data.{key}=NAME names another"
    if key == "dev" and "train" in have:
        return f"; prepare takes one from train with --dev-share 0.1, or {other}"
    return f"; {other}"


def _maker(settings: ArraysSettings | CutsSettings) -> str:
    """The command that makes a corpus of this kind in its folder."""
    if settings.root == Path("data/demo"):
        return "spelldown demo"
    to = " --to arrays" if isinstance(settings, ArraysSettings) else ""
    return f"spelldown prepare KIND SOURCE {settings.root}{to}"
