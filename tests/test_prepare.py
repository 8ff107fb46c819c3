"""A corpus is prepared whole or not at all, the same however often it is interrupted."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prepared import files_of, prepared, utterances, write_kaldi
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.data.checks import Problem, text_of
from spelldown.data.corpora import CutsSettings, read_part
from spelldown.data.loading.ahead import AHEAD
from spelldown.data.preparing import hearing
from spelldown.data.preparing import prepare as room
from spelldown.data.preparing.hearing import Heard
from spelldown.data.preparing.looking.doubts import DoubtSettings
from spelldown.data.preparing.prepare import PrepareSettings
from spelldown.data.preparing.sources import kaldi
from spelldown.data.preparing.splits import SplitSettings
from spelldown.data.preparing.text import TextSettings
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError

LOWER = PrepareSettings(text=TextSettings(case="lower"))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all utterances that are decoded, as they come."""
    names: list[str] = []
    truly = hearing.hear

    def hear(utterance: Utterance, channel: Any) -> Heard:
        names.append(utterance.id)
        return truly(utterance, channel)

    monkeypatch.setattr(room, "hear", hear)
    return names


def test_a_kaldi_folder_becomes_parts_that_a_recipe_reads(tmp_path: Path) -> None:
    source, out = write_kaldi(tmp_path / "kaldi ü"), tmp_path / "out"
    found = prepared(out, lambda: kaldi.read(source, kaldi.KaldiSettings()))
    parts = {
        name: list(read_part(CutsSettings(root=out), name).cuts) for name in found.record["parts"]
    }
    assert {name: len(cuts) for name, cuts in parts.items()} == {"train": 20, "dev": 4, "test": 24}
    speakers = {name: {c.supervisions[0].speaker for c in cuts} for name, cuts in parts.items()}
    assert not speakers["train"] & speakers["dev"]
    assert {int(speaker) >= 100 for speaker in speakers["test"]} == {True}
    first = parts["test"][0]
    assert text_of(first) == "WE CALL IT A BEAR E" and first.supervisions[0].gender == "m"
    assert first.supervisions[0].custom == {"age": 9}
    assert first.recording.sources[0].source == str(source / "test" / "audio" / "100-0.wav")
    dev = found.record["splits"]["dev_from_train"]
    assert dev["seed"] == 1 and dev["speakers"]["dev"] == sorted(speakers["dev"])


def test_a_part_that_the_corpus_brings_is_kept(tmp_path: Path) -> None:
    source = [
        *utterances(tmp_path / "a", 6, split="train-clean", speaker="a"),
        *utterances(tmp_path / "b", 3, split="dev-clean", speaker="b"),
    ]
    source = [replace(one, id=str(number)) for number, one in enumerate(source)]
    found = prepared(tmp_path / "out", source).record
    assert {name: told["utterances"] for name, told in found["parts"].items()} == {
        "train-clean": 6,
        "dev-clean": 3,
    }
    assert found["vocabulary"]["of"] == "train-clean"


def test_texts_take_their_form_and_are_kept_as_they_were_written(tmp_path: Path) -> None:
    source = utterances(tmp_path / "a", 10, speaker="a")
    found = prepared(tmp_path / "out", source, LOWER).record
    cuts = {
        c.id: c
        for part in found["parts"]
        for c in read_part(CutsSettings(root=tmp_path / "out"), part).cuts
    }
    assert text_of(cuts["u001"]) == "hello world 1"
    assert cuts["u001"].supervisions[0].custom == {"written": "Hello, world 1"}
    assert cuts["u000"].supervisions[0].custom is None
    assert found["text"]["punctuation_removed"] == {",": 2}


def test_recordings_inside_the_prepared_folder_move_with_it(tmp_path: Path) -> None:
    source = utterances(tmp_path / "out" / "audio", 8)
    with pytest.raises(DataError, match="holds something else"):
        prepared(tmp_path / "out", source)
    (tmp_path / "out" / ".preparing").mkdir()  # as a download into it leaves it
    prepared(tmp_path / "out", source)
    (tmp_path / "out").rename(tmp_path / "moved")
    part = read_part(CutsSettings(root=tmp_path / "moved"), "train")
    assert len(part.cuts) and not part.problems


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[str]
) -> None:
    source = utterances(tmp_path / "audio", 30, speaker="a", age=12)
    prepared(tmp_path / "whole" / "out", source, jobs=2)
    assert len(heard) == 30
    del heard[:]

    def stop_at(step: str, count: int) -> Any:
        def progress(doing: str, things: Iterable[Any], total: int | None) -> Iterator[Any]:
            for number, one in enumerate(things):
                if (doing, number) == (step, count):
                    raise KeyboardInterrupt
                yield one

        return progress

    for step, count in (("reading the source", 11), ("hearing", 7), ("hearing", 5), ("writing", 9)):
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "out", source, progress=stop_at(step, count), jobs=1)
        assert not files_of(tmp_path / "out")
    prepared(tmp_path / "out", source)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole" / "out")
    assert len(set(heard)) == 30 and len(heard) <= 30 + 2 * AHEAD  # those under way are lost


def test_a_line_that_a_kill_tore_is_heard_again(tmp_path: Path, heard: list[str]) -> None:
    source = utterances(tmp_path / "audio", 6)
    prepared(tmp_path / "out", source)
    whole, journal = files_of(tmp_path / "out"), tmp_path / "out" / ".preparing" / "heard.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for torn in (lines[4][:-1], lines[4][:9], b"{}\n" + lines[4], b"\xff\n"):
        journal.write_bytes(b"".join(lines[:4]) + torn)
        del heard[:]
        prepared(tmp_path / "out", source)
        assert heard == ["u004", "u005"] and files_of(tmp_path / "out") == whole


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    source = write_kaldi(tmp_path / "kaldi", speakers=20, each=10)
    words = [sys.executable, "-m", "spelldown", "prepare", "kaldi", str(source)]
    about: dict[str, Any] = {"cwd": Path(__file__).parent.parent, "stderr": subprocess.PIPE}
    about |= {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL}
    out, journal = tmp_path / "out", tmp_path / "out" / ".preparing" / "heard.jsonl"
    child = subprocess.Popen([*words, str(out), "--jobs", "1"], **about)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 0 < journal.read_bytes().count(b"\n") < 400 and not files_of(out)
    again = CliRunner().invoke(app, ["prepare", "kaldi", str(source), str(out)])
    assert again.exit_code == 0 and "of 400 utterances were heard before" in again.stderr
    prepared(tmp_path / "whole" / "out", lambda: kaldi.read(source, kaldi.KaldiSettings()))
    for part in ("train", "dev", "test"):
        name = f"{part}.jsonl.gz"
        assert files_of(out)[name] == files_of(tmp_path / "whole" / "out")[name]


def test_only_what_changed_is_heard_again(tmp_path: Path, heard: list[str]) -> None:
    source = utterances(tmp_path / "audio", 6)
    said: list[str] = []
    prepared(tmp_path / "out", source)
    del heard[:]
    prepared(tmp_path / "out", source, LOWER, say=said.append)
    assert heard == [] and said[0].endswith('settings.text.case "upper" -> "lower"')
    assert "6 of 6 utterances were heard before" in said
    audio = source[2].audio
    assert audio is not None
    os.utime(audio, ns=(1, 1))
    prepared(tmp_path / "out", [*source, *utterances(tmp_path / "more", 1)][:6], LOWER)
    assert heard == ["u002"]
    del heard[:]
    prepared(tmp_path / "out", source, PrepareSettings(channel=0))
    assert len(heard) == 6


def test_another_corpus_is_replaced_only_when_told(tmp_path: Path) -> None:
    first, second = utterances(tmp_path / "a", 12, split="early"), utterances(tmp_path / "b", 3)
    prepared(tmp_path / "out", first)
    about = {"kind": "test", "source": "elsewhere"}
    with pytest.raises(DataError, match="was prepared from test here; choose another folder"):
        room.prepare(lambda: second, about, tmp_path / "out", PrepareSettings())
    room.prepare(lambda: second, about, tmp_path / "out", PrepareSettings(), overwrite=True)
    assert not (tmp_path / "out" / "early.jsonl.gz").exists()
    assert (tmp_path / "out" / "train.jsonl.gz").exists()


def test_folders_of_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for name, message in (("mine", r"holds something else \(thesis.tex"), ("file", "is a file")):
        with pytest.raises(DataError, match=message):
            prepared(tmp_path / name, utterances(tmp_path / "a", 1))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_source_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    def nowhere() -> Iterator[Utterance]:
        raise DataError("no such folder")
        yield

    with pytest.raises(DataError, match="no such folder"):
        prepared(tmp_path / "new" / "out", nowhere)
    assert not (tmp_path / "new" / "out").exists()
    about = {"kind": "test", "source": "the right one"}
    room.prepare(lambda: utterances(tmp_path / "a", 1), about, tmp_path / "out", LOWER)


def test_what_the_source_cannot_give_stops_or_is_left_out(tmp_path: Path) -> None:
    source: list[Utterance | Problem] = [*utterances(tmp_path / "a", 5)]
    source.append(Problem("x", "t.csv, line 9", "there is no x.wav"))
    with pytest.raises(DataError, match="1 of 6 utterances cannot be used") as caught:
        prepared(tmp_path / "out", source)
    assert "x (t.csv, line 9): there is no x.wav" in str(caught.value)
    settings = PrepareSettings(doubts=DoubtSettings(leave_out=("source",)))
    assert prepared(tmp_path / "out", source, settings).record["left_out"] == {"source": 1}
    with pytest.raises(DataError, match="no utterance in the source"):
        prepared(tmp_path / "none", source[5:])


def test_words_that_are_learnt_and_tested_are_named_and_leave_training_when_told(
    tmp_path: Path,
) -> None:
    train = utterances(tmp_path / "a", 5, split="train", speaker="a")
    tests = utterances(tmp_path / "b", 2, split="test", speaker="b", text="SO BE IT 4")
    source = [*train, *(replace(one, id=f"t{n}") for n, one in enumerate(tests))]
    found = prepared(tmp_path / "out", source, PrepareSettings(split=SplitSettings(dev_share=0)))
    (repeated,) = found.record["doubtful"]["repeated"]["first"]
    assert repeated == {"id": "u004", "part": "train", "found": "the same words are in test"}
    assert "u004" in (tmp_path / "out" / "doubtful.txt").read_text()
    leave = PrepareSettings(
        split=SplitSettings(dev_share=0), doubts=DoubtSettings(leave_out=("repeated",))
    )
    parts = prepared(tmp_path / "out", source, leave).record["parts"]
    assert (parts["train"]["utterances"], parts["test"]["utterances"]) == (4, 2)


def test_a_part_without_texts_is_kept_to_be_transcribed(tmp_path: Path) -> None:
    source = utterances(tmp_path / "a", 3, text=None, split="test")
    parts = prepared(tmp_path / "out", source).record["parts"]
    assert parts["test"]["without_text"] == 3
    (cut, *_) = read_part(CutsSettings(root=tmp_path / "out"), "test").cuts
    assert text_of(cut) is None


def test_a_full_disk_is_said_and_nothing_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = utterances(tmp_path / "a", 4)

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    for step in ("cut_of", "look_page"):
        monkeypatch.setattr(room, step, full)
        with pytest.raises(DataError, match="the disk is full"):
            prepared(tmp_path / "out", source)
        monkeypatch.undo()
        assert not files_of(tmp_path / "out")
    prepared(tmp_path / "out", source)
    prepared(tmp_path / "whole" / "out", source)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole" / "out")


def test_two_preparations_into_one_folder_keep_apart(tmp_path: Path) -> None:
    source, lock = utterances(tmp_path / "a", 2), tmp_path / "out" / ".preparing" / "lock"
    lock.parent.mkdir(parents=True)
    code = f"import fcntl, sys; f = open({str(lock)!r}, 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
    holds: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", f"{code} print(flush=True); input()"], **holds
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(DataError, match="another process is preparing into this folder"):
            prepared(tmp_path / "out", source)
        assert lock.exists()
        other.communicate(b"\n")
    prepared(tmp_path / "out", source)


def test_a_large_corpus_is_never_in_memory_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, most = 1500, 0

    def hear(utterance: Utterance, channel: Any) -> Heard:
        return Heard(16000, 32000, 1, 0, 32000, (0,), -20.0, -10.0, 0.5, 0.0)

    def source() -> Iterator[Utterance]:
        for n in range(count):
            text = f"number {n} of very many"
            yield Utterance(f"u{n}", f"line {n}", text, Path(f"/x/{n}.wav"), speaker=f"{n % 50}")

    def progress(doing: str, things: Iterable[Any], total: int | None) -> Iterator[Any]:
        nonlocal most
        for number, one in enumerate(things):
            if number % 500 == 499:
                alive = sum(type(thing) in (Utterance, Heard) for thing in gc.get_objects())
                most = max(most, alive)
            yield one

    monkeypatch.setattr(room, "hear", hear)
    found = prepared(tmp_path / "out", source, progress=progress, jobs=2)
    assert sum(told["utterances"] for told in found.record["parts"].values()) == count
    assert 0 < most < 100


def test_the_record_says_how_to_do_it_again(tmp_path: Path) -> None:
    prepared(tmp_path / "out", utterances(tmp_path / "a", 20), LOWER)
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["settings"]["text"]["case"] == "lower"
    assert record["splits"]["shares"] == {"train": 0.8, "dev": 0.1, "test": 0.1}
    assert record["splits"]["seed"] == 1 and record["splits"]["by"] == "utterance"
    assert PrepareSettings(**record["settings"]) == LOWER


def test_a_part_that_nothing_came_to_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    found = prepared(tmp_path / "out", utterances(tmp_path / "a", 1), say=said.append)
    assert len(found.record["parts"]) == 1
    assert sum("there are too few for its share" in line for line in said) == 2
