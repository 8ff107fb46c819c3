"""The folder of a spoken corpus: whose it is, and one process in it at a time.

OUT/<part>.jsonl.gz     cuts; paths relative to OUT
OUT/audio/<part>/...    one recording an utterance: 16 bit, mono
OUT/corpus.json         what it is made from, written first
OUT/.lock               while it is being made
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from spelldown.errors import DataError
from spelldown.writing import held, write_whole

ABOUT, PREPARED, LOCK = "corpus.json", "prepared.json", ".lock"
KIND = "synthetic"  # in prepared.json


def what_it_is_made_from(out: Path) -> dict[str, Any]:
    """What the corpus in `out` is made from; empty when there is none."""
    try:
        found = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def open_folder(out: Path, about: dict[str, Any], replace: bool) -> Iterator[None]:
    """Makes the folder one of a corpus that is made from `about`, and keeps other processes out.

    A corpus that is made from something else is taken away if `replace`, else it is an error; what
    is no corpus of ours, or has become another's, always is one, and so is another process in it
    (DataError). If nothing is spoken in the end, nothing stays.
    """
    _check(out, about, replace)
    made = [path for path in (out, *out.parents) if not path.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with held(out / LOCK) as ours:
            if not ours:
                raise DataError(
                    f"{out}: another process is making a corpus in this folder; wait for it, stop "
                    "it, or name another folder"
                )
            _check(out, about, replace)  # it may just have been finished
            try:
                _begin(out, about)
                yield
            finally:
                if not _holds_any(out):
                    (out / ABOUT).unlink(missing_ok=True)
                    shutil.rmtree(out / "audio", ignore_errors=True)
    finally:
        with suppress(OSError):  # something is in there
            for path in made:
                path.rmdir()


def _check(out: Path, about: dict[str, Any], replace: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a new folder")
    found = what_it_is_made_from(out)
    if not found and out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise DataError(f"{out} holds something else than a corpus of ours; name a new folder")
    now = _prepared(out)
    if now.get("kind", KIND) != KIND:
        raise DataError(
            f"{out} has been prepared from {now['kind']} {now.get('source', '')} meanwhile; "
            "name a new folder"
        )
    if found and found != about and not replace and _holds_any(out):
        raise DataError(
            f"{out} is made otherwise; name a new folder, or delete that one",
            list(_differences(found, about)),
        )


def _prepared(out: Path) -> dict[str, Any]:
    """The account of the corpus that was prepared into the folder last; empty if there is none."""
    try:
        found = json.loads((out / PREPARED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{out / PREPARED} cannot be read ({error}); remove it") from error
    return found if isinstance(found, dict) else {}


def _begin(out: Path, about: dict[str, Any]) -> None:
    """Takes away what is made from something else, and writes down what this is made from."""
    if what_it_is_made_from(out) == about:
        return
    for manifest in out.glob("*.jsonl.gz"):
        manifest.unlink()
    if (out / "audio").exists():
        shutil.rmtree(out / "audio")
    write_whole(out / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _holds_any(out: Path) -> bool:
    """Whether anything is spoken there."""
    made = chain(out.glob("*.jsonl.gz"), (out / "audio").rglob("*"))
    return any(path.is_file() for path in made)


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        before, now = (json.dumps(one, ensure_ascii=False) for one in (old, new))
        yield f"{name}: {before} there, {now} now"
