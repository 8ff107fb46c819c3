"""Names for utterances whose source gives them none: of the file, and of the place in it."""

import json
from pathlib import Path

from spelldown.data.preparing.sources.reading.entries import Entries
from spelldown.data.preparing.sources.reading.files import named_after

Place = tuple[str, float | None, int | None]
"""An audio file, the end in seconds, and the channel."""


def place_name(audio: Path, base: Path, start: float, end: float | None) -> str:
    """`folder-file`, from the folder `base` on; `folder-file-0001500` for what starts at 1.5 s."""
    try:
        name = named_after(audio.relative_to(base))
    except ValueError:
        name = named_after(Path(audio.name))
    return name if not start and end is None else f"{name}-{_milliseconds(start)}"


class Names:
    """Tells those apart that start at the same place of a file.

    The first keeps its name; those that end elsewhere, or are in another channel, have that behind
    it: `a-0001500-0002750` from 1.5 to 2.75 s, `a-channel1`.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._count = 0

    def apart(self, name: str, audio: Path, end: float | None, channel: int | None) -> str:
        """The name of an utterance; the same as another's where it is the same sound."""
        self._count += 1
        place: Place = (str(audio), end, channel)
        if self._entries.add("places", self._count, name, json.dumps(place)) is None:
            return name
        first = self._entries.get("places", name)
        assert first is not None and first.rest is not None
        file, first_end, first_channel = json.loads(first.rest)
        if file != str(audio):
            return name
        if end != first_end:
            name += "-end" if end is None else f"-{_milliseconds(end)}"
        if channel != first_channel:
            name += "-all" if channel is None else f"-channel{channel}"
        return name


def _milliseconds(seconds: float) -> str:
    return f"{round(1000 * seconds):07d}"
