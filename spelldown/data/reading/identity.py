"""What an utterance's frames depend on, as a digest: which pieces of which files, changed how."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lhotse.cut import Cut


def digest_of(about: Mapping[str, Any], cuts: Sequence[Cut]) -> str:
    """A digest of `about` and of what is heard in each cut, in their order.

    Of files it takes path, size and the times of the last change of content and of status: no
    file is read, and one that was replaced by another of its size and date is told apart.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for cut in cuts:
        digest.update(json.dumps(_heard(cut), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _heard(cut: Cut) -> Any:
    """All of an utterance that its frames depend on: not its name, nor what was said."""
    changes = _changes(getattr(cut, "transforms", None))
    whole = getattr(cut, "recording", None)
    if whole is None:  # several recordings joined or laid over each other
        tracks = [
            (t.type, t.offset, t.snr, t.is_snr_reference, t.mute, _heard(t.cut))
            for t in getattr(cut, "tracks", ())
        ]
        return [tracks, changes, cut.duration, [] if tracks else repr(cut)]
    files = [
        (source.type, source.channels, *_file(str(source.source)))
        if source.type == "file"
        else (source.type, source.channels, hashlib.sha256(str(source.source).encode()).hexdigest())
        for source in whole.sources
    ]
    changes += _changes(whole.transforms)
    span = (cut.start, cut.duration, cut.channel)
    return [files, whole.sampling_rate, whole.num_samples, changes, span]


def _changes(transforms: Sequence[Any] | None) -> list[Any]:
    """What is done to the sound, such as the reverberation of a room that was recorded."""
    told = [t if isinstance(t, dict) else t.to_dict() for t in transforms or ()]
    return [told, [_file(str(path)) for path in _files_in(told)]]


def _files_in(told: Any) -> list[Any]:
    """The files of all recordings that plain values speak of."""
    if isinstance(told, dict):
        own = [told["source"]] if told.get("type") == "file" and "source" in told else []
        return own + _files_in(list(told.values()))
    return [path for one in told for path in _files_in(one)] if isinstance(told, list) else []


def _file(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:  # reading it will say so
        return os.path.abspath(path), 0, 0, 0
    # A copy may take over the date of what it is a copy of, but not that of its own making.
    return os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns
