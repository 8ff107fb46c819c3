"""What is asked for on a command line: files, folders, patterns, standard input."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_all_that_cannot_be_transcribed_is_named_at_once(touch: Callable[..., Path]) -> None:
    folder = touch("a.wav", "b.doc")
    with pytest.raises(DataError) as caught:
        inputs([folder / "a.wav", folder / "b.doc", folder / "missing.npy"])
    told = str(caught.value)
    assert f"{folder / 'b.doc'}: not of a known type; known: .npy .wav" in told
    assert f"{folder / 'missing.npy'}: no such file or folder" in told


def test_patterns_that_the_shell_left_alone_are_followed(touch: Callable[..., Path]) -> None:
    folder = touch("talks/a.wav", "talks/b.flac", "talks/c/d.wav", "talks/notes.txt", "e.wav")
    assert ids(inputs([f"{folder}/talks/*.wav"])) == ["a"]
    assert ids(inputs([f"{folder}/talks/**/*.wav"])) == ["a", "c/d"]
    assert ids(inputs([f"{folder}/**/*.[wf]*"])) == ["e", "talks/a", "talks/b", "talks/c/d"]
    assert ids(inputs([f"{folder}/talks/**"])) == ["a", "b", "c/d"]
    found = inputs([f"{folder}/talks/*"])
    assert ids(found) == ["a", "b", "c/d"]  # folders, as a shell would have given them
    assert found.unknown == [folder / "talks" / "notes.txt"]
    with pytest.raises(DataError, match="no file is named like that"):
        inputs([f"{folder}/*.mp3"])


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
