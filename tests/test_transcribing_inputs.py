"""What is asked for on a command line: files, folders, patterns, standard input."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spelldown.errors import DataError
from spelldown.search.transcribing.inputs import Inputs, inputs


def ids(found: Inputs) -> list[str]:
    return [item.id for item in found.items]


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_folders_are_searched_through_in_order_and_unknown_types_named(
    touch: Callable[..., Path],
) -> None:
    folder = touch(
        "b.WAV",
        "a.npy",
        "d/z.flac",
        "c/y.opus",
        "c/notes.txt",
        ".hidden.npy",
        ".x/b.npy",
        "e.w64",
        "f.caf",
    )
    found = inputs([folder])
    assert ids(found) == ["a", "b", "e", "f", "c/y", "d/z"]
    assert found.unknown == [folder / "c" / "notes.txt"]


def test_in_the_course_s_layout_only_features_are_taken(touch: Callable[..., Path]) -> None:
    folder = touch("dev/mfcc/2.npy", "dev/mfcc/10.npy", "dev/transcripts/2.npy", "test/mfcc/3.npy")
    assert ids(inputs([folder / "dev"])) == ["10", "2"]
    assert ids(inputs([folder])) == ["dev/mfcc/10", "dev/mfcc/2", "test/mfcc/3"]


def test_files_are_named_by_their_stem_or_by_their_path_where_two_are_alike(
    touch: Callable[..., Path],
) -> None:
    folder = touch("one/a.wav", "two/a.wav", "two/b.wav")
    assert ids(inputs([folder / "one" / "a.wav", str(folder / "two" / "b.wav")])) == ["a", "b"]
    both = [folder / "one" / "a.wav", folder / "two" / "a.wav"]
    assert ids(inputs(both)) == [str(path) for path in both]
    assert ids(inputs([*both, folder / "two" / "b.wav"])) == [*map(str, both), "b"]
    assert ids(inputs([both[0], both[0]])) == ["a", "a"]
    touch("one/a.flac")
    assert len(set(ids(inputs([folder / "one"])))) == 2


def test_a_file_that_is_asked_for_by_its_name_may_be_called_anything(
    touch: Callable[..., Path],
) -> None:
    folder = touch("later.mp3")  # by its name a recording: what is in it is told in its turn
    sound = np.zeros(800, np.float32)
    for name in ("recording", "talk.wave", "2024.05.01", "deep/talk.wave"):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, sound, 8000, format="WAV")
    asked = [folder / name for name in ("recording", "later.mp3", "talk.wave", "2024.05.01")]
    found = inputs(asked)
    assert [item.source for item in found.items] == asked and not found.failures
    assert ids(inputs([folder / "recording", folder / "talk.wave"])) == ["recording", "talk"]
    touch("deep/notes.txt", "deep/broken.wave")
    by_ending = inputs([f"{folder}/**/*.wave"])
    assert ids(by_ending) == ["deep/talk", "talk"]
    assert [one.error for one in by_ending.failures] == ["an empty file (0 bytes)"]
    assert ids(inputs([folder])) == ["later"]  # a folder is searched for what is called so


def test_what_cannot_be_transcribed_is_a_failure_and_the_rest_is_found(
    touch: Callable[..., Path],
) -> None:
    folder = touch("a.wav", "empty", "z.wav")
    (folder / "s.txt").write_text("HELLO\n", encoding="utf-8")
    wrong = {
        folder / "s.txt": "not a recording that can be read (Format not recognised); WAV, FLAC",
        folder / "empty": "an empty file (0 bytes)",
        folder / "missing.npy": "no such file or folder",
        folder / "a.wav" / "below": "no such file or folder",
        folder / "*.flac": "no file is named like that",
        folder / ("x" * 300): "cannot be read: File name too long",
    }
    found = inputs([folder / "a.wav", *wrong, folder / "z.wav"])
    assert ids(found) == ["a", "z"] and not found.unknown
    assert [failure.id for failure in found.failures] == [str(path) for path in wrong]
    for failure, why in zip(found.failures, wrong.values(), strict=True):
        assert failure.error.startswith(why)
    with pytest.raises(DataError) as caught:  # nothing is left: all of it is told at once
        inputs(wrong)
    assert all(f"{path}: {why}" in str(caught.value) for path, why in wrong.items())


def test_patterns_that_the_shell_left_alone_are_followed(touch: Callable[..., Path]) -> None:
    folder = touch("talks/a.wav", "talks/b.flac", "talks/c/d.wav", "talks/notes.txt", "e.wav")
    assert ids(inputs([f"{folder}/talks/*.wav"])) == ["a"]
    assert ids(inputs([f"{folder}/talks/**/*.wav"])) == ["a", "c/d"]
    assert ids(inputs([f"{folder}/**/*.[wf]*"])) == ["e", "talks/a", "talks/b", "talks/c/d"]
    assert ids(inputs([f"{folder}/talks/**"])) == ["a", "b", "c/d"]
    found = inputs([f"{folder}/talks/*"])
    assert ids(found) == ["a", "b", "c/d"]  # folders, as a shell would have given them
    assert found.unknown == [folder / "talks" / "notes.txt"]
    (none,) = inputs([f"{folder}/*.mp3", folder]).failures
    assert (none.id, none.error) == (f"{folder}/*.mp3", "no file is named like that")


def test_a_file_named_like_a_pattern_is_a_file(touch: Callable[..., Path]) -> None:
    folder = touch("take [1].wav", "take 1.wav")
    assert ids(inputs([folder / "take [1].wav"])) == ["take [1]"]


def test_odd_names_are_found(touch: Callable[..., Path]) -> None:
    folder = touch("mein Ordner/Straße äöü.wav", "mein Ordner/日本.flac")
    assert ids(inputs([folder / "mein Ordner"])) == ["Straße äöü", "日本"]


def test_standard_input_is_asked_for_by_a_dash_and_once(touch: Callable[..., Path]) -> None:
    folder = touch("one/stdin.wav", "a.wav")
    assert ids(inputs(["-", folder / "a.wav"])) == ["stdin", "a"]
    assert ids(inputs(["-", folder / "one"])) == ["stdin", str(folder / "one" / "stdin.wav")]
    with pytest.raises(DataError, match="standard input can be read only once"):
        inputs(["-", "-"])


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_found(
    touch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = touch("a.wav", "closed/b.wav", "open/c.wav")
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("closed"):  # root, who may run this, is allowed everything
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = inputs([folder])
    assert ids(found) == ["a", "open/c"]
    (failure,) = found.failures
    assert failure.id == str(folder / "closed")
    assert failure.error == "the folder cannot be read: Permission denied"
