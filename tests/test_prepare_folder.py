"""What lies in a folder that is prepared into: ours is kept in step, the user's never touched."""

import errno
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from commands import spelldown
from prepared import RATE, beep, prepared, utterances, write_kaldi
from typer.testing import Result

from spelldown.data.preparing import to_arrays as arrays
from spelldown.data.preparing.disk.folder import Partial
from spelldown.data.preparing.disk.journal import Journal, key_of
from spelldown.data.preparing.hearing import Heard
from spelldown.errors import DataError
from spelldown.writing import write_whole


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of twelve stereo recordings, one channel loud and one soft, with texts."""
    for number in range(12):
        folder = tmp_path / "corpus" / f"s{number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        both = np.stack([beep(0.5, seed=number), 0.1 * beep(0.5, seed=number)], 1)
        soundfile.write(folder / f"{number}.wav", both, RATE)
        (folder / f"{number}.txt").write_text(f"some words {number}")
    return tmp_path / "corpus"


def _flat(text: str) -> str:
    """Without line breaks, in which long names are told."""
    return text.replace("\n", " ").replace("  ", " ")


def made(corpus: Path, out: Path, *words: object, to: bool = True) -> Result:
    arrays_too = ["--to", "arrays"] if to else []
    found = spelldown("prepare", "folder", corpus, out, "--speaker", "folder", *arrays_too, *words)
    assert found.exit_code == 0, found.output
    return found


def names(out: Path, kind: str = "mfcc") -> dict[str, list[str]]:
    parts = sorted({path.parent.parent.name for path in out.glob(f"*/{kind}/*.npy")})
    return {part: sorted(p.stem for p in (out / part / kind).glob("*.npy")) for part in parts}


def test_arrays_of_a_part_that_is_no_more_go_and_the_users_own_stay(
    tmp_path: Path, corpus: Path
) -> None:
    out = tmp_path / "out"
    made(corpus, out)
    assert set(names(out)) == {"train", "dev", "test"}
    (out / "test" / "notes.txt").write_text("mine")
    (out / "mine" / "mfcc").mkdir(parents=True)
    (out / "mine" / "mfcc" / "x.npy").write_bytes(b"")
    made(corpus, out, "--split", "train=.5,held=.5")
    assert set(names(out)) == {"train", "held", "mine"}
    assert not (out / "dev").exists() and (out / "test" / "notes.txt").exists()
    assert len(names(out)["train"]) + len(names(out)["held"]) == 12


def test_frames_of_another_channel_are_made_anew(tmp_path: Path, corpus: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    made(corpus, one, "--channel", "0")
    made(corpus, other, "--channel", "1")
    made(corpus, one, "--channel", "1")
    for file in sorted(other.glob("*/mfcc/*.npy")):
        there = one / file.relative_to(other)
        assert np.array_equal(np.load(there), np.load(file))


def test_frames_that_are_whole_are_not_made_again_after_a_kill(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    made(corpus, out)
    journal = out / "train" / ".made"
    journal.write_bytes(journal.read_bytes()[:-1])
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/mfcc/*.npy")}
    made(corpus, out)
    again = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert len(again) == 1 and again[0].parent.parent.name == "train"


def test_interrupted_between_two_channels_no_frames_are_of_the_wrong_one(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = tmp_path / "out", tmp_path / "first"
    made(corpus, out, "--channel", "0")
    made(corpus, first, "--channel", "0")
    written = 0

    def stopping(path: Path, *content: Any, **about: Any) -> None:
        nonlocal written
        written += path.suffix == ".npy"
        if written > 5:
            raise KeyboardInterrupt
        write_whole(path, *content, **about)

    monkeypatch.setattr(arrays, "write_whole", stopping)
    stopped = ["--channel", "1", "--to", "arrays", "--jobs", "1", "--speaker", "folder"]
    assert spelldown("prepare", "folder", corpus, out, *stopped).exit_code == 130
    monkeypatch.undo()
    made(corpus, out, "--channel", "0")
    for file in sorted(first.glob("*/mfcc/*.npy")):
        there = out / file.relative_to(first)
        assert np.array_equal(np.load(there), np.load(file))


def test_arrays_that_another_form_of_the_texts_left_behind_are_told(
    tmp_path: Path, corpus: Path
) -> None:
    out = tmp_path / "out"
    made(corpus, out)
    assert "--to arrays" not in made(corpus, out, to=False).output
    told = " ".join(made(corpus, out, "--case", "lower", to=False).output.split())
    assert "the arrays in dev, test, train are of an earlier preparation" in told
    made(corpus, out, "--case", "lower")
    letters = np.load(next(out.glob("train/transcripts/*.npy")))
    assert "".join(letters[1:5]) == "some"


def test_a_full_disk_while_arrays_are_written_is_told_with_the_file(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    made(corpus, tmp_path / "out", to=False)
    monkeypatch.setattr(arrays, "write_whole", full)
    with pytest.raises(DataError, match=r"train/\S+: the disk is full"):
        arrays.to_arrays(tmp_path / "out", ["train"], arrays.ArraysOutputSettings())


def test_manifests_of_the_users_own_are_never_removed(tmp_path: Path) -> None:
    source = utterances(tmp_path / "a", 12, split="early")
    prepared(tmp_path / "out", source)
    mine = tmp_path / "out" / "mine.jsonl.gz"
    mine.write_bytes(gzip.compress(b"{}"))
    prepared(tmp_path / "out", [replace(one, split="late") for one in source])
    assert mine.exists() and (tmp_path / "out" / "late.jsonl.gz").exists()
    assert not (tmp_path / "out" / "early.jsonl.gz").exists()


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl.gz"])
def test_a_disk_that_is_full_to_the_last_byte_keeps_no_half_files(
    tmp_path: Path, name: str
) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as caught, Partial() as files:
        files.write(tmp_path / name, "one")
        files.write(tmp_path / f"other-{name}", "two")
        for path, file in files._files.items():
            files._files[path] = Full(file)  # type: ignore[assignment]
        files.write(tmp_path / name, "three")
    assert caught.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8_is_a_problem_that_can_be_printed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (b"a\xe4b", b"good"):
        path = os.path.join(os.fsencode(source), name)
        soundfile.write(tmp_path / "x.wav", beep(0.5), RATE)
        try:
            os.rename(tmp_path / "x.wav", path + b".wav")
        except OSError:
            pytest.skip("this file system has no such names")
        with open(path + b".txt", "w") as file:
            file.write("words")
    found = spelldown("prepare", "folder", source, tmp_path / "out")
    assert found.exit_code == 1
    assert "a\\xe4b.wav): a name that is not UTF-8" in " ".join(found.stderr.split())
    left = spelldown("prepare", "folder", source, tmp_path / "out", "--leave-out", "source")
    assert left.exit_code == 0 and "left out, 1 source" in left.stdout


def test_an_option_that_is_no_yaml_is_wrong_usage(tmp_path: Path) -> None:
    found = spelldown("prepare", "yesno", tmp_path / "out", "--options", "a=[")
    assert found.exit_code == 2 and "'[' is no value" in " ".join(found.stderr.split())


def test_what_another_version_heard_is_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spelldown.data.preparing.disk import journal

    (one,) = utterances(tmp_path / "a", 1)
    now = key_of(one, None)
    monkeypatch.setattr(journal, "VERSION", (*journal.VERSION, "more"))
    assert key_of(one, None) != now
    monkeypatch.undo()
    source = [one]
    prepared(tmp_path / "out", source)
    path = tmp_path / "out" / ".preparing" / "heard.jsonl"
    line = {"key": 1, "heard": {**Heard().as_dict(), "a later field": 3}}
    path.write_text(json.dumps(line) + "\n" + path.read_text())
    prepared(tmp_path / "out", source)
    with Journal(path) as kept:
        assert len(kept) == 2


def test_a_failed_preparation_says_why_and_removes_only_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.chdir(mine)
    found = spelldown("prepare", "kaldi", tmp_path / "nowhere", ".")
    assert found.exit_code == 1 and "no such folder" in " ".join(found.stderr.split())
    assert mine.is_dir() and not list(mine.iterdir())
    new = tmp_path / "some" / "new" / "out"
    assert spelldown("prepare", "kaldi", tmp_path / "nowhere", new).exit_code == 1
    assert not (tmp_path / "some").exists()
    source = write_kaldi(tmp_path / "kaldi", speakers=1, each=1)
    assert spelldown("prepare", "kaldi", source, ".").exit_code == 0


def test_a_folder_inside_its_own_source_is_not_read(tmp_path: Path, corpus: Path) -> None:
    (corpus / "README.txt").write_text("who spoke, and when")
    for name in ("inside", "inside", "again"):
        found = made(corpus, corpus / name, to=False)
        assert f"passed over: {corpus / 'README.txt'}: a text without" in _flat(found.stderr)
        record = json.loads((corpus / name / "prepared.json").read_text())
        assert sum(part["utterances"] for part in record["parts"].values()) == 12
    (corpus / "notes.txt").write_text("an utterance whose sound is lost")
    found = spelldown("prepare", "folder", corpus, tmp_path / "out")
    assert found.exit_code == 1 and "notes.txt" in _flat(found.stderr)


def test_a_speaker_in_two_parts_is_told_at_the_end_and_on_the_page(
    tmp_path: Path, corpus: Path
) -> None:
    (corpus / "s0").rename(corpus / "s1" / "train")
    (corpus / "s2").rename(corpus / "test")
    rows = [f"s1/train/{n}.wav,a,train,anna" for n in (0, 1)] + ["test/4.wav,b,test,anna"]
    (corpus / "t.csv").write_text("\n".join(["audio,text,split,speaker", *rows]))
    found = spelldown("prepare", "table", corpus / "t.csv", tmp_path / "out")
    assert "1 speaker is in several parts" in _flat(found.stdout)
    page = (tmp_path / "out" / "look.html").read_text()
    assert "several of the corpus&#39;s parts (anna: test, train)" in page


def test_folders_that_may_be_speakers_are_told(tmp_path: Path, corpus: Path) -> None:
    found = spelldown("prepare", "folder", corpus, tmp_path / "out")
    assert "recordings lie in 6 folders (s0, s1, s2, ...)" in _flat(found.stderr)
    assert "--speaker folder" in _flat(found.stderr)
    assert "--speaker folder" not in made(corpus, tmp_path / "other", to=False).stderr
