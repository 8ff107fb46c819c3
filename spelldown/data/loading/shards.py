"""Frames of a part in one file on disk, mapped into memory (`spelldown.data.cache` makes it)."""

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF = np.dtype("<f2")


class Shard:
    """The static frames of a part's utterances in one file, which is mapped when first read.

    counts: frames of each utterance; unreadable: why an utterance has none there, by its place.
    """

    def __init__(self, path: Path, counts: Sequence[int], width: int) -> None:
        self.path, self.width = path, width
        self.unreadable: dict[int, str] = {}
        self._counts = list(counts)
        self._kept: Sequence[int] = range(len(counts))
        self._ends = [0, *accumulate(counts)]
        self._mapped: NDArray[np.float16] | None = None

    def leave_out(self, unreadable: Mapping[int, str]) -> None:
        """Counts on no frames of these utterances."""
        if unreadable:
            self.unreadable = {**self.unreadable, **unreadable}
            self._counts = [0 if i in unreadable else n for i, n in enumerate(self._counts)]
            self._ends = [0, *accumulate(self._counts)]

    def keeping(self, places: Sequence[int]) -> "Shard":
        """The same file, for the utterances at these places alone, counted from 0."""
        other = copy(self)
        other._kept = [self._kept[place] for place in places]
        return other

    @property
    def total(self) -> int:
        """Frames of all utterances."""
        return self._ends[-1]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.total * self.width * HALF.itemsize

    def offset(self, place: int) -> int:
        """Where the utterance at `place` begins, in bytes."""
        return self._ends[place] * self.width * HALF.itemsize

    def frames(self, place: int) -> Tensor:
        """Frames (T, width) float32 of the utterance at `place`; a copy."""
        if self._mapped is None:
            shape = (self.total, self.width)
            self._mapped = np.memmap(self.path, HALF, "r", shape=shape)
        row = self._kept[place]
        found = self._mapped[self._ends[row] : self._ends[row + 1]]
        return torch.from_numpy(found.astype(np.float32))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # a worker maps the file for itself


class Cached:
    """Frames of several parts one after the other, at each speed that may be asked for.

    shards: by speed, those of the parts in their order; counts: utterances of each part.
    """

    def __init__(self, shards: Mapping[float, Sequence[Shard]], counts: Sequence[int]) -> None:
        self._shards = shards
        self._ends = np.cumsum(counts)

    def frames(self, index: int, speed: float = 1.0) -> Tensor:
        """Frames (T, width) float32 of an utterance, counted through all parts."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        begins = int(self._ends[part - 1]) if part else 0
        return self._shards[speed][part].frames(index - begins)
