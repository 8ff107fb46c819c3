"""Whether what is scored was trained on: a corpus may be prepared or split anew after a run.

A run writes down which utterances it learnt from (train) and which chose its weights (dev), each
with a checksum of its text; a tuning writes down which chose the weights of the search. A score
over any of them flatters the run, and nobody would see it.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

from lhotse.cut import Cut

from spelldown.data.checks import text_of
from spelldown.errors import SpelldownError
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.using.ready import TUNED
from spelldown.search.search import SearchSettings
from spelldown.training.run.checkpoint import load_checkpoint, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.writing import write_whole

ROLES = {"train": "were trained on", "dev": "chose the weights, as part of dev"}
NAMED = 3  # utterances that a message names


def write_trained_on(folder: RunFolder, said: Mapping[str, Mapping[str, str | None]]) -> None:
    """Notes the utterances of `train` and `dev` (id to text) in a run's folder."""
    about = {
        role: {id: _checksum(text) for id, text in utterances.items()}
        for role, utterances in said.items()
    }
    write_whole(folder.trained_on, json.dumps(about, ensure_ascii=False, indent=0) + "\n")


def checksums(cuts: Sequence[Cut]) -> dict[str, int]:
    """Utterances by id, each with a checksum of its text."""
    return {cut.id: _checksum(text_of(cut)) for cut in cuts}


def _checksum(text: str | None) -> int:
    return zlib.crc32((text or "").encode())


def known_to(folder: RunFolder, recipe: Recipe, part: str, cuts: Sequence[Cut]) -> list[str]:
    """What to tell of utterances in `part` that the run has met in training; often nothing.

    `recipe` is the one in use, with what was changed on the command line. That the train part
    itself was trained on, and that dev chose the weights, needs no telling.
    """
    before = _noted(folder)
    if before is None:
        return _by_digest(folder, recipe, part, cuts)
    # Of another corpus, equal names mean nothing unless the texts are equal too.
    same_place = recipe.data.root == _as_trained(folder, recipe).data.root
    told = []
    for role, what in ROLES.items():
        if part in _names(recipe, role):
            continue
        known = before.get(role, {})
        met = [
            cut.id
            for cut in cuts
            if cut.id in known and (same_place or known[cut.id] == _checksum(text_of(cut)))
        ]
        if met:
            told.append(
                f"{len(met)} of the {len(cuts)} utterances of {part} {what} ({_some(met)}): the "
                "corpus was split or prepared anew since, and the score flatters the run"
            )
    return told


def known_to_tuning(
    folder: RunFolder, search: SearchSettings, part: str, cuts: Sequence[Cut]
) -> list[str]:
    """What to tell of utterances in `part` that chose weights of the search in use; often nothing.

    search: that is in use. Its weights count as tuned where they are those that the run's tuning
    found: others may have been laid over some of them, or over all.
    """
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        record = json.loads((folder.tuning / TUNED).read_text(encoding="utf-8"))
        found, known = record["weights"], record["utterances"]
        kept = {name: value for name, value in found.items() if getattr(search, name, 0) == value}
        met = [id for id, checksum in checksums(cuts).items() if known.get(id) == checksum]
        same_kind = record["search"]["kind"] == search.kind
        if met and same_kind and (kept == found or any(kept.values())):
            weights = ", ".join(f"{name} {value:g}" for name, value in kept.items())
            return [
                f"{weights}: tuned on {len(met)} of the {len(cuts)} utterances of {part} "
                f"({_some(met)}), so that the score flatters the search"
            ]
    return []


def _names(recipe: Recipe, role: str) -> list[str]:
    """The parts that a role has: train may be several, joined by +."""
    whole = str(getattr(recipe.data, role))
    return [whole, *whole.split("+")]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def _as_trained(folder: RunFolder, recipe: Recipe) -> Recipe:
    with suppress(SpelldownError):
        return read_recipe(folder.recipe)
    return recipe


def _noted(folder: RunFolder) -> Mapping[str, Mapping[str, int]] | None:
    """What the run noted; None if it did not, or what it noted cannot be read."""
    try:
        found = json.loads(folder.trained_on.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _by_digest(folder: RunFolder, recipe: Recipe, part: str, cuts: Sequence[Cut]) -> list[str]:
    """For runs that noted no utterances: whether dev, where it is what is scored, is as it was."""
    if part != recipe.data.dev:
        return []
    was = _conditions(folder).get("corpus", {}).get("dev", {}).get("ids")
    now = sha256(repr([cut.id for cut in cuts]).encode()).hexdigest()
    if was is None or was == now:
        return []
    return [
        f"{part} has not the utterances that it had when the run was trained: the corpus was split "
        "or prepared anew since, and this older run did not note which it was trained on, so some "
        "of those scored here may have been"
    ]


def _conditions(folder: RunFolder) -> Mapping[str, Any]:
    if newest(folder.last) is None:
        return {}
    with suppress(SpelldownError):
        return dict(load_checkpoint(folder.last).state.get("conditions", {}))
    return {}
