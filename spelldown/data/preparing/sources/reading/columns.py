"""What columns of tables are called elsewhere, and what is told of those that are not used."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from spelldown.data.preparing.sources.reading.lines import shown

# What others call these columns, for a hint.
ALSO_CALLED = {
    "audio": ("path", "file", "filename", "file_name", "wav", "audio_path", "audio_filepath"),
    "text": ("sentence", "transcript", "transcription", "normalized_text", "label"),
    "speaker": (
        *("speaker_id", "speaker_name", "spk", "spk_id", "client_id", "who", "reader", "voice"),
        *("user", "user_id", "person"),
    ),
}
# Columns that say which sound is meant, by any of these names, are used or told that they are not.
SAYS_WHICH = {
    "start": ("start", "offset", "start_time", "begin", "begin_time", "segment_start"),
    "end": ("end", "end_time", "stop", "stop_time", "segment_end"),
    "duration": ("duration", "dur"),
    "channel": ("channel",),
}
WHERE = {"start": " in its file, in seconds", "end": " in its file, in seconds"}
WHERE |= {"duration": ", in seconds", "channel": ", counted from 0"}
NAMED = 8  # columns that a line names


def nearest(name: str, column: str, names: Iterable[str], used: Collection[str]) -> str | None:
    """A column that may be meant by `column`, which is to say `name` and is not there."""
    free = {one.casefold(): one for one in names if one not in used}
    for also in (column.casefold(), *ALSO_CALLED.get(name, ())):
        if also in free:
            return free[also]
    close = get_close_matches(column.casefold(), free, n=1)
    return free[close[0]] if close else None


def left(names: list[str], speaker: bool) -> str:
    """What is told of columns that are not used; `speaker`: whether one says who speaks."""
    some = ", ".join(repr(shown(one)) for one in names[:NAMED])
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    told = f"not used: column{'s' * (len(names) > 1)} {some}{more}"
    if speaker:
        return told
    near = next((one for one in names if one.casefold() in ALSO_CALLED["speaker"]), "NAME")
    which = "it" if len(names) == 1 else "one of them"
    return (
        f"{told}; if {which} says who speaks, say --columns speaker={near}, so that no speaker is "
        "in two parts"
    )
