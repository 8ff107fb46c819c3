"""The course's arrays as they are: `ROOT/<part>/mfcc/*.npy` and `ROOT/<part>/transcripts/*.npy`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from spelldown.data.checks import Problem, text_file_of, text_of
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.preparing.sources.reading.entries import Entries
from spelldown.data.preparing.sources.reading.files import need_folder
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError
from spelldown.settings import Settings


class ArraysSourceSettings(Settings):
    """A corpus in the course's layout: frames without audio, each part a split by its name."""

    kind: Literal["arrays"] = "arrays"
    pairing: Literal["name", "order"] = Field(
        "name", description="how features find their transcripts: by file name, or as both sort"
    )
    parts: tuple[str, ...] = Field((), description="the parts to read; none named: all")


def read(source: Path, settings: ArraysSourceSettings) -> Iterator[Utterance | Problem]:
    """The utterances of each part, as cuts with frames, and what is wrong with the others.

    Parts may call their files alike: from the second on, an utterance of a name that was there is
    called `<part>.<name>`. The arrays are read to check them, and a part's cuts (not its frames)
    are held in memory together, as training on them does. Raises DataError for a folder without
    parts.
    """
    need_folder(source)
    have = sorted(one.name for one in source.iterdir() if (one / "mfcc").is_dir())
    absent = [part for part in settings.parts if part not in have]
    if absent or not have:
        raise DataError(
            f"{source}: no part {', '.join(absent)}; there is {', '.join(have)}"
            if have
            else f"{source}: no folder in it holds mfcc/; ROOT/<part>/mfcc/*.npy expected"
        )
    count = 0
    corpus = ArraysSettings(root=source, pairing=settings.pairing)
    with Entries() as entries:
        for name in settings.parts or have:
            part = read_part(corpus, name)
            yield from part.problems
            for cut in part.cuts:
                count += 1
                if entries.add("ids", count, cut.id, None) is not None:
                    cut.id = f"{name}.{cut.id}"
                where = text_file_of(cut)
                yield Utterance(cut.id, where, text=text_of(cut), split=name, cut=cut)
