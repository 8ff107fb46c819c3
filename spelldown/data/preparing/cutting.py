"""From an utterance that was heard to the lhotse cut that stands for it in a manifest."""

import os
from pathlib import Path
from typing import Any

from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from spelldown.data.preparing.hearing import Heard
from spelldown.data.preparing.utterance import Utterance


def cut_of(utterance: Utterance, heard: Heard, text: str | None, out: Path) -> Cut:
    """The lhotse cut of an utterance, for a manifest in the folder `out`.

    The text as it was written is kept in the supervision's custom field `written` where it differs;
    age and whatever else the source knew are there, too. Recordings inside `out` are named from
    there, so that it can be moved; others by whole paths.
    """
    custom = {**utterance.more}
    if utterance.age is not None:
        custom["age"] = utterance.age
    if text is not None and text != utterance.text:
        custom["written"] = utterance.text
    about: dict[str, Any] = {
        "text": text,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "language": utterance.language,
    }
    if utterance.cut is not None:
        return _anywhere(_cut_with_text(utterance.cut, about, custom), out)
    assert utterance.audio is not None
    taken = list(heard.taken)
    recording = Recording(
        id=utterance.id if not heard.start else utterance.audio.stem,
        sources=[AudioSource("file", list(range(heard.channels)), _place(utterance.audio, out))],
        sampling_rate=heard.rate,
        num_samples=heard.samples,
        duration=heard.samples / heard.rate,
    )
    start, duration = heard.start / heard.rate, heard.length / heard.rate
    channel = taken if len(taken) > 1 else taken[0]
    spoken = SupervisionSegment(
        utterance.id, recording.id, 0.0, duration, channel, custom=custom or None, **about
    )
    kind = MultiCut if len(taken) > 1 else MonoCut
    return kind(utterance.id, start, duration, channel, [spoken], recording=recording)


def _cut_with_text(cut: Cut, about: dict[str, Any], custom: dict[str, Any]) -> Cut:
    """A cut of somebody else's: only its text changes, and one supervision stands for several."""
    if about["text"] is None or not cut.supervisions:
        return cut
    first = cut.supervisions[0]
    first.custom = {**(first.custom or {}), **custom} or None
    first.text = about["text"]
    if len(cut.supervisions) > 1:
        first.start, first.duration = 0.0, cut.duration
        cut.supervisions = [first]
    return cut


def _anywhere(cut: Cut, out: Path) -> Cut:
    """A cut of somebody else's whose files are found from any folder."""
    if cut.has_recording:
        for source in cut.recording.sources:
            if source.type == "file":
                source.source = _place(Path(source.source), out)
    if cut.has_features:
        cut.features.storage_path = os.path.abspath(cut.features.storage_path)
    return cut


def _place(audio: Path, out: Path) -> str:
    whole = Path(os.path.abspath(audio))
    try:
        return whole.relative_to(os.path.abspath(out)).as_posix()
    except ValueError:
        return str(whole)
