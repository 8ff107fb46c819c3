"""Folders, arrays and manifests: what lies beside each other belongs together."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lhotse import (
    AudioSource,
    CutSet,
    MonoCut,
    MultiCut,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
)
from pydantic import TypeAdapter, ValidationError
from sources import found_in, touch, write_audio

from spelldown.data.preparing.sources.arrays import ArraysSourceSettings
from spelldown.data.preparing.sources.cuts import CutsSourceSettings
from spelldown.data.preparing.sources.folder import FolderSettings
from spelldown.data.preparing.sources.kinds import (
    KINDS,
    SourceSettings,
    source_kinds,
)
from spelldown.errors import DataError

FOLDER = FolderSettings()
CUTS = CutsSourceSettings()


def write_pair(path: Path, text: str | bytes) -> None:
    """An audio file, by its name alone, and the text beside it."""
    touch(path)
    raw = text if isinstance(text, bytes) else text.encode()
    path.with_suffix(".txt").write_bytes(raw)


# --- folders


def test_each_audio_file_has_the_text_beside_it_however_deep(tmp_path: Path) -> None:
    write_pair(tmp_path / "b.FLAC", "\ufeffzwei\r\n\r\n  drei\r\n")
    write_pair(tmp_path / "Grüße aus/Ähm x.opus", "eins\n")
    touch(tmp_path / "talk.mp3")
    (tmp_path / "talk.mp3.txt").write_text("vier")
    touch(tmp_path / ".hidden/c.wav", tmp_path / "._b.wav", tmp_path / "notes.pdf")
    utterances, problems = found_in(tmp_path, FOLDER)
    assert not problems
    assert [(one.id, one.text, one.audio) for one in utterances] == [
        ("b", "zwei drei", tmp_path / "b.FLAC"),
        ("talk", "vier", tmp_path / "talk.mp3"),
        ("Grüße_aus-Ähm_x", "eins", tmp_path / "Grüße aus/Ähm x.opus"),
    ]
    assert all(one.speaker is None and one.split is None for one in utterances)


def test_top_folders_may_be_splits_and_folders_may_be_speakers(tmp_path: Path) -> None:
    for name in ("train/anna/1.wav", "test/ben/day 1/1.wav", "carl/1.wav", "train/2.wav", "3.wav"):
        write_pair(tmp_path / name, "x")
    utterances, _ = found_in(tmp_path, FolderSettings(speaker="folder"))
    assert {one.id: (one.split, one.speaker) for one in utterances} == {
        "3": (None, None),
        "carl-1": (None, "carl"),
        "test-ben-day_1-1": ("test", "day 1"),
        "train-2": ("train", None),
        "train-anna-1": ("train", "anna"),
    }
    utterances, _ = found_in(tmp_path, FolderSettings(splits=("carl",)))
    assert {one.split for one in utterances} == {None, "carl"}


def test_audio_without_text_and_text_without_audio_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "good.wav", "x")
    write_pair(tmp_path / "empty.wav", " \n")
    write_pair(tmp_path / "old.wav", b"zeile eins\nsch\xf6n\n")
    write_pair(tmp_path / "wide.wav", "weit".encode("utf-16"))
    touch(tmp_path / "silent.wav")
    (tmp_path / "lost.txt").write_text("x")
    utterances, problems = found_in(tmp_path, FOLDER)
    assert [one.id for one in utterances] == ["good"]
    assert {Path(one.file).name: one.found for one in problems} == {
        "empty.txt": "an empty text",
        "old.txt, line 2": "byte 4 of the line, 0xF6, is not UTF-8; say --encoding "
        "if it is another (windows-1252 reads 'schön')",
        "wide.txt": "written in UTF-16, not in UTF-8, by its first bytes; say --encoding utf-16",
        "silent.wav": "no text file silent.txt beside it",
        "lost.txt": "a text without an audio file beside it",
    }


@pytest.mark.parametrize(
    "name", ["train", "Test", "valid", "validation", "val", "dev-clean", "eval", "train-other-500"]
)
def test_folders_that_are_called_like_parts_are_parts(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path / name / "anna" / "a.wav", "x")
    (one,), _ = found_in(tmp_path, FolderSettings(speaker="folder"))
    assert (one.split, one.speaker) == (name, "anna")


def test_endings_are_found_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "B.Wav")
    (tmp_path / "a.Lab").write_text("eins")
    (tmp_path / "B.LAB").write_text("zwei")
    utterances, problems = found_in(tmp_path, FolderSettings(audio=(".WAV",), text=".LAB"))
    assert not problems and [one.text for one in utterances] == ["zwei", "eins"]


def test_two_audio_files_of_one_name_are_named_both(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.wav", "x")
    touch(tmp_path / "a.flac")
    (first,), (problem,) = found_in(tmp_path, FOLDER)
    assert first.audio == tmp_path / "a.flac"
    assert problem.file == str(tmp_path / "a.wav")
    assert problem.found == f"this id is there twice; the first is {tmp_path / 'a.flac'}"


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    write_pair(tmp_path / "x/a.wav", "x")
    (tmp_path / "x/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "broken.txt").write_text("x")
    utterances, (problem,) = found_in(tmp_path, FOLDER)
    assert [one.id for one in utterances] == ["x-a"]
    assert problem.found == f"no such audio file: {tmp_path / 'broken.wav'}"


def test_a_folder_without_audio_is_refused_whole(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="no audio in it"):
            found_in(tmp_path, FOLDER)
        (tmp_path / "README.txt").write_text("what there was")
    with pytest.raises(DataError, match="no such folder"):
        found_in(tmp_path / "absent", FOLDER)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.wav", "x")
    write_pair(tmp_path / "b/b.wav", "x")
    (tmp_path / "b").chmod(0)
    try:
        utterances, (problem,) = found_in(tmp_path, FOLDER)
    finally:
        (tmp_path / "b").chmod(0o755)
    assert [one.id for one in utterances] == ["a"]
    assert problem.found == "the folder cannot be read: Permission denied"


# --- arrays


def test_the_courses_arrays_come_as_cuts_with_their_frames(
    make_corpus: Callable[..., Path],
) -> None:
    source = make_corpus(parts={"train": 3, "test": 2})
    (source / "train/mfcc/zzz.npy").write_bytes(b"no array")
    utterances, problems = found_in(source, ArraysSourceSettings())
    assert [one.split for one in utterances] == ["test"] * 2 + ["train"] * 3
    assert len({one.id for one in utterances}) == 5
    assert all(one.cut is not None and one.cut.has_features for one in utterances)
    assert [one.text is None for one in utterances] == [True] * 2 + [False] * 3
    assert all(one.cut is not None and one.cut.id == one.id for one in utterances)
    assert {one.utterance for one in problems} == {"zzz"}
    only, _ = found_in(source, ArraysSourceSettings(parts=("test",)))
    assert len(only) == 2
    with pytest.raises(DataError, match="no part dev; there is test, train"):
        found_in(source, ArraysSourceSettings(parts=("dev",)))
    with pytest.raises(DataError, match="no folder in it holds mfcc"):
        found_in(source / "train", ArraysSourceSettings())


def test_a_name_that_two_parts_of_arrays_share_is_told_apart_by_the_part(
    tmp_path: Path, write_utterance: Callable[..., None]
) -> None:
    frames = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for part in ("dev", "train"):
        write_utterance(tmp_path / part, "0001", frames, part.upper())
    utterances, _ = found_in(tmp_path, ArraysSourceSettings())
    assert [(one.id, one.text) for one in utterances] == [("0001", "DEV"), ("train.0001", "TRAIN")]
    assert [one.cut.id for one in utterances if one.cut] == ["0001", "train.0001"]


# --- lhotse's manifests


def recording(path: Path, name: str, channels: int = 1) -> Recording:
    return Recording.from_file(write_audio(path, 1.0, channels), recording_id=name)


def said(name: str, of: str, start: float = 0.0, **more: object) -> SupervisionSegment:
    return SupervisionSegment(name, of, start, 0.5, text=f"TEXT OF {name}", **more)


def test_cuts_come_as_they_are_each_manifest_a_split(tmp_path: Path) -> None:
    one = recording(tmp_path / "a.wav", "a")
    one.sources[0].source = "a.wav"  # from the manifest's folder
    cut = MonoCut("a-1", 0.25, 0.5, 0, [said("a-1", "a", speaker="anna")], recording=one)
    CutSet.from_cuts([cut]).to_file(tmp_path / "x_cuts_train.jsonl.gz")
    other = MonoCut("b-1", 0.0, 0.5, 0, [said("b-1", "a")], recording=one)
    CutSet.from_cuts([other]).to_file(tmp_path / "dev.jsonl")
    (second, first), problems = found_in(tmp_path, CUTS)
    assert not problems
    assert (first.id, first.split, first.text, first.speaker) == (
        "a-1",
        "train",
        "TEXT OF a-1",
        "anna",
    )
    assert first.cut is not None
    assert (first.cut.start, first.cut.duration) == (0.25, 0.5)
    assert first.cut.recording.sources[0].source == str(tmp_path / "a.wav")
    assert first.where == f"{tmp_path / 'x_cuts_train.jsonl.gz'}, line 1"
    assert (second.id, second.split) == ("b-1", "dev")
    (alone,), _ = found_in(tmp_path / "dev.jsonl", CUTS)
    assert alone.split is None
    with pytest.raises(DataError, match="no manifest of test; there is dev, train"):
        found_in(tmp_path, CutsSourceSettings(parts=("test",)))


def test_audio_from_a_command_in_a_manifest_is_refused(tmp_path: Path) -> None:
    source = AudioSource("command", [0], "touch ran")
    ran = Recording("a", [source], 16000, 16000, 1.0)
    far = Recording("b", [AudioSource("url", [0], "http://x.y/b.wav")], 16000, 16000, 1.0)
    gone = Recording("c", [AudioSource("file", [0], "gone.wav")], 16000, 16000, 1.0)
    cuts = [
        MonoCut(one.id, 0, 0.5, 0, [said(one.id, one.id)], recording=one)
        for one in (ran, far, gone)
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    utterances, problems = found_in(tmp_path, CUTS)
    assert not utterances
    assert "a command (touch ran), which would run a program" in problems[0].found
    assert "comes from a url; a file expected" in problems[1].found
    assert "no such audio file: gone.wav" in problems[2].found


def test_bad_lines_of_a_manifest_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    one = recording(tmp_path / "a.wav", "a")
    cuts = [MonoCut(f"a{i}", 0.0, 0.5, 0, [said(f"a{i}", "a")], recording=one) for i in range(3)]
    path = tmp_path / "train.jsonl"
    CutSet.from_cuts([*cuts, cuts[0]]).to_file(path)
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:40]
    mixed = CutSet.from_cuts([cuts[0].mix(cuts[1])]).data[0].to_dict()
    lines += ['{"x": 1}', "", str(mixed).replace("'", '"')]
    path.write_text("\n".join(lines))
    utterances, problems = found_in(path, CUTS)
    assert [one.id for one in utterances] == ["a0", "a2"]
    assert [one.file for one in problems] == [f"{path}, line {i}" for i in (2, 4, 5, 7)]
    assert "not a line of a manifest" in problems[0].found
    assert f"the first is {path}, line 1" in problems[1].found


def test_a_manifest_that_is_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    one = recording(tmp_path / "a.wav", "a")
    cuts = [MonoCut(f"a{i}", 0.0, 0.5, 0, [said(f"a{i}", "a")], recording=one) for i in range(500)]
    path = tmp_path / "train.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    path.write_bytes(path.read_bytes()[:-40])
    utterances, problems = found_in(path, CUTS)
    assert utterances
    assert "cut short or damaged" in problems[-1].found
    path.write_bytes(b"nothing packed")
    with pytest.raises(DataError, match="cannot be read"):
        found_in(path, CUTS)
    with pytest.raises(DataError, match=r"ending in \.jsonl\.gz or \.jsonl expected"):
        found_in(tmp_path / "a.wav", CUTS)


def test_recordings_and_supervisions_make_an_utterance_each(tmp_path: Path) -> None:
    talk = recording(tmp_path / "talk.wav", "talk")
    unused = recording(tmp_path / "unused.wav", "unused")
    both = recording(tmp_path / "both.wav", "both", channels=2)
    RecordingSet.from_recordings([talk, unused, both]).to_file(
        tmp_path / "x_recordings_dev.jsonl.gz"
    )
    SupervisionSet.from_segments(
        [
            said("t-1", "talk", 0.0, speaker="anna", gender="f", language="en"),
            said("t-2", "talk", 0.5),
            said("lost", "nowhere"),
            said("two", "both", 0.25, channel=[0, 1]),
        ]
    ).to_file(tmp_path / "x_supervisions_dev.jsonl.gz")
    (first, second, two), (lost, idle) = found_in(tmp_path, CUTS)
    assert (first.id, first.speaker, first.gender, first.language) == ("t-1", "anna", "f", "en")
    assert second.cut is not None
    assert (second.cut.start, second.cut.duration, second.text) == (0.5, 0.5, "TEXT OF t-2")
    assert second.cut.supervisions[0].start == 0
    assert (two.cut, two.audio, two.start, two.end, two.channel) == (
        None,
        tmp_path / "both.wav",
        0.25,
        0.75,
        None,
    )
    assert (lost.utterance, lost.found) == ("lost", "there is no recording nowhere")
    assert (idle.utterance, idle.found) == ("unused", "no supervision says what is said in it")
    (tmp_path / "x_recordings_dev.jsonl.gz").unlink()
    with pytest.raises(DataError, match="no manifest x_recordings_dev of recordings"):
        found_in(tmp_path, CUTS)


def test_a_cut_of_many_channels_leaves_the_choice_to_the_settings(tmp_path: Path) -> None:
    both = recording(tmp_path / "both.wav", "both", channels=2)
    cut = MultiCut("m", 0.25, 0.5, [0, 1], [said("m", "both", channel=[0, 1])], recording=both)
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        import json

        file.write(json.dumps(cut.to_dict()))
    (one,), problems = found_in(tmp_path, CUTS)
    assert not problems
    assert (one.audio, one.start, one.end, one.channel) == (tmp_path / "both.wav", 0.25, 0.75, None)


# --- all kinds


def test_every_kind_is_chosen_by_its_name() -> None:
    adapter: TypeAdapter[SourceSettings] = TypeAdapter(SourceSettings)
    for name, (settings, _, about) in KINDS.items():
        more = {"corpus": "yesno"} if name == "catalogue" else {}
        assert type(adapter.validate_python({"kind": name, **more})) is settings
        assert source_kinds()[name] == about
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        adapter.validate_python({"kind": "tables"})
    for settings, _, _ in KINDS.values():
        assert all(one.description for name, one in settings.model_fields.items() if name != "kind")
