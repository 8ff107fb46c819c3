"""lhotse's manifests of cuts: `ROOT/<part>.jsonl.gz`."""

from collections import Counter
from functools import partial
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from spelldown.data.checks import Part, Problem
from spelldown.data.recordings import file_of, wrong_with_recording
from spelldown.errors import DataError

MANIFESTS = (".jsonl.gz", ".jsonl")


def read_manifest(root: Path, name: str) -> Part:
    """The cuts of `ROOT/<name>.jsonl.gz` by their ids, and what is wrong with the others.

    Raises DataError for a file that is no manifest of cuts.
    """
    path = next(f for e in MANIFESTS if (f := root / f"{name}{e}").is_file())
    try:
        cuts = list(CutSet.from_jsonl_lazy(path))
    except Exception as error:  # lhotse and the JSON reader raise all kinds
        raise DataError(f"{path}: not a manifest of lhotse cuts ({error})") from error
    counts = Counter(cut.id for cut in cuts)
    usable, problems = [], []
    for cut in map(partial(_beside, root), sorted(cuts, key=lambda cut: cut.id)):
        found = _wrong_with_audio(cut) or ("this id is there twice" if counts[cut.id] > 1 else "")
        if found:
            problems.append(Problem(cut.id, str(path), found))
        else:
            usable.append(cut)
    return Part(name, CutSet.from_cuts(usable), tuple(problems))


def _beside(root: Path, cut: Cut) -> Cut:
    """The cut with relative audio paths read from the manifest's folder, where they are there."""
    if (
        cut.has_recording
        and not Path(file_of(cut)).is_absolute()
        and (root / file_of(cut)).exists()
    ):
        return cut.with_recording_path_prefix(root)
    return cut


def _wrong_with_audio(cut: Cut) -> str:
    """What is wrong with a cut's recording, without decoding it; empty when nothing is."""
    if not (cut.has_recording or cut.has_features):
        return "a cut with neither a recording nor features"
    if not cut.duration > 0:
        return f"a duration of {cut.duration} s"
    # A cut that has both may never be heard: `check_part` knows what the recipe needs.
    return "" if cut.has_features else wrong_with_recording(cut)
