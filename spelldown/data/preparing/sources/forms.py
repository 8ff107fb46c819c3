"""Forms of tables that are known by name: how Common Voice, LJSpeech and NeMo write theirs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spelldown.data.preparing.sources.reading.files import need_folder
from spelldown.errors import DataError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
Table = tuple[Path, str | None]  # and the split that it is


def _tables(source: Path, parts: tuple[str, ...]) -> list[Table]:
    """All tables of a folder: one is the corpus, several are splits by their names."""
    have = sorted(
        one for one in source.iterdir() if one.suffix in TABLES and not one.name.startswith(".")
    )
    if parts:
        have = [_table(source, part, have) for part in parts]
    if not have:
        raise DataError(f"{source}: holds no table; {', '.join(TABLES)} expected")
    names = [one.stem for one in have]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{source}: two tables are called {', '.join(twice)}; name the file itself")
    return [(one, one.stem if len(have) > 1 else None) for one in have]


def _table(source: Path, part: str, have: list[Path]) -> Path:
    named = [one for one in have if part in (one.stem, one.name)]
    if not named:
        there = ", ".join(one.name for one in have) or "none"
        raise DataError(f"{source}: no table {part}; there is {there}")
    return named[0]


def _common_voice(source: Path, parts: tuple[str, ...]) -> list[Table]:
    """train.tsv, dev.tsv and test.tsv, or else validated.tsv, which brings no split."""
    folder = _language(source)
    have = sorted(folder.glob("*.tsv"))
    if parts:
        chosen = [_table(folder, part, have) for part in parts]
    else:
        splits = [one for one in have if one.stem in ("train", "dev", "test")]
        chosen = splits or [one for one in have if one.stem == "validated"]
    if not chosen:
        there = ", ".join(one.name for one in have)
        raise DataError(
            f"{folder}: neither train.tsv, dev.tsv, test.tsv nor validated.tsv; there is {there}"
        )
    return [(one, None if one.stem == "validated" else one.stem) for one in chosen]


def _language(source: Path) -> Path:
    """The folder of one language, where `source` is that or holds only that one."""
    if any(source.glob("*.tsv")):
        return source
    within = sorted({one.parent for one in source.glob("*/*.tsv")})
    if len(within) == 1:
        return within[0]
    if within:
        names = ", ".join(one.name for one in within)
        raise DataError(f"{source}: holds several languages ({names}); name one of these folders")
    raise DataError(f"{source}: holds no .tsv; the folder of one language of Common Voice expected")


def _ljspeech(source: Path, parts: tuple[str, ...]) -> list[Table]:
    if not (source / "metadata.csv").exists():
        raise DataError(f"{source}: holds no metadata.csv; the folder of LJSpeech expected")
    if parts:
        raise DataError("LJSpeech has no parts to choose from")
    return [(source / "metadata.csv", None)]


@dataclass(frozen=True)
class Form:
    """What a table of a known form has by itself; settings that are given go before.

    columns: the column of each thing that it has, where it is not called so
    names: of the columns, where there is no header row
    audio_folder: in which relative paths start, from the table's own folder
    kept: further columns for `Utterance.more`
    """

    tables: Callable[[Path, tuple[str, ...]], list[Table]] = _tables
    columns: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    delimiter: str = "auto"
    quotes: bool = True
    audio_folder: Path = Path()
    audio_suffix: str = ""
    kept: tuple[str, ...] = ()
    language: str | None = None
    gender: str | None = None


FORMS = {
    "plain": Form(),
    # Its texts hold quotation marks that are never closed: they are characters like any other.
    "common-voice": Form(
        tables=_common_voice,
        columns={
            "audio": "path",
            "text": "sentence",
            "speaker": "client_id",
            "language": "locale",
        },
        delimiter="tab",
        quotes=False,
        audio_folder=Path("clips"),
        kept=("accents", "variant"),
    ),
    "nemo": Form(columns={"audio": "audio_filepath", "start": "offset", "duration": "duration"}),
    # `text` is the third column, with numbers and abbreviations written out; `written` the second.
    # One speaker reads all of it: no speaker is named, so that it can be split at all.
    "ljspeech": Form(
        tables=_ljspeech,
        columns={"audio": "id"},
        names=("id", "written", "text"),
        delimiter="pipe",
        quotes=False,
        audio_folder=Path("wavs"),
        audio_suffix=".wav",
        language="en",
        gender="female",
    ),
}


def find_tables(source: Path, form: Form, parts: tuple[str, ...]) -> list[Table]:
    """The tables that a source is, each with the split that it is by itself.

    Raises DataError where there are none, and where `parts` are asked for that are not there.
    """
    if source.is_file():
        if parts:
            raise DataError(f"{source}: one table has no parts to choose from; name its folder")
        splits = form is FORMS["common-voice"] and source.stem in ("train", "dev", "test")
        return [(source, source.stem if splits else None)]
    need_folder(source, TABLES)
    return form.tables(source, parts)
