"""What a preparation tells of sources that are not quite what was meant, and what to do then."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from prepared import RATE, beep
from sources import found_in, touch
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.data.checks import Problem
from spelldown.data.preparing.disk.found import named
from spelldown.data.preparing.prepare import PrepareSettings, prepare
from spelldown.data.preparing.sources.folder import FolderSettings
from spelldown.data.preparing.sources.kinds import read_source
from spelldown.data.preparing.sources.reading.lines import read_lines
from spelldown.data.preparing.sources.table import Columns, TableSettings
from spelldown.data.preparing.splits import SplitSettings
from spelldown.data.preparing.utterance import Remark, Utterance


def told(*words: object) -> str:
    """All that a preparation says, without line breaks."""
    found = CliRunner().invoke(app, ["prepare", *map(str, words)])
    assert found.exit_code == 0, found.output
    return " ".join((found.stderr + found.stdout).split())


def recordings(folder: Path, *names: str) -> Path:
    """Half a second each, with a text beside it."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, beep(0.5, seed=number), RATE)
        path.with_suffix(".txt").write_text(f"some words {number}")
    return folder


# --- folders


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["1.m4a"], "1.m4a is beside it, but .m4a is not read; convert it: `ffmpeg -i 1.m4a 1.wav"),
        (["1.pdf", "1.AAC", "1.zip"], "1.AAC is beside it, but .AAC is not read; convert it"),
        (["1.foo"], ".foo is not read; if it is a recording: `ffmpeg -i 1.foo 1.wav`"),
        (["1.flac"], "1.flac is beside it, but .flac is not among the endings that --audio names"),
        (["2.m4a", "1"], "a text without an audio file beside it"),
    ],
)
def test_a_text_beside_a_file_that_is_not_read_says_how_to_convert_it(
    tmp_path: Path, files: list[str], said: str
) -> None:
    touch(tmp_path / "a.wav", *(tmp_path / name for name in files))
    for name in ("a", "1"):
        (tmp_path / f"{name}.txt").write_text("x")
    (one,), (problem,) = found_in(tmp_path, FolderSettings(audio=(".wav",)))
    assert one.id == "a" and problem.file == str(tmp_path / "1.txt")
    assert said in problem.found


def test_a_name_with_spaces_is_quoted_where_it_is_to_be_converted(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "my own.m4a")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "my own.m4a.txt").write_text("x")
    _, (problem,) = found_in(tmp_path, FolderSettings())
    assert "`ffmpeg -i 'my own.m4a' 'my own.m4a.wav'`" in problem.found


def speakers(source: Path, speaker: Any) -> dict[str, str | None]:
    found, problems = found_in(source, FolderSettings(speaker=speaker))
    assert not problems
    return {one.id: one.speaker for one in found}


def test_folders_of_one_name_in_two_places_are_two_speakers(tmp_path: Path) -> None:
    names = ("train/ann/day 1/1", "train/ben/day 1/2", "train/ben/day 2/3", "test/ben/day 1/4")
    for name in (*names, "test/ann/5", "6", "dev/7"):
        touch(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text("x")
    assert speakers(tmp_path, "folder") == {
        "6": None,
        "dev-7": None,
        "test-ann-5": "ann",
        "test-ben-day_1-4": "ben/day 1",
        "train-ann-day_1-1": "ann/day 1",
        "train-ben-day_1-2": "ben/day 1",
        "train-ben-day_2-3": "day 2",
    }
    above = speakers(tmp_path, "top-folder")
    order = ["ann", "ben", "ann", "ben", "ben"]
    assert [who for _, who in sorted(above.items())] == [None, None, *order]


def test_speakers_of_folders_within_folders_are_told(tmp_path: Path) -> None:
    source = recordings(tmp_path / "in", "den/1.wav", "den/again/2.wav", "ann/3.wav", "ann/4.wav")
    line = "1 speaker is named by folders within folders (as den/again)"
    said = told("folder", source, tmp_path / "a", "--speaker", "folder")
    assert line in said and "--speaker top-folder" in said
    assert line not in told("folder", source, tmp_path / "b", "--speaker", "top-folder")
    recordings(source, "ann/again/5.wav", "ann/again/6.wav", "den/again/7.wav")
    assert "if the upper folder is one, --speaker top-folder" in told(
        "folder", source, tmp_path / "c"
    )


# --- parts


def test_a_corpus_without_a_part_that_judges_is_told_at_the_end(tmp_path: Path) -> None:
    source = recordings(tmp_path / "in", *(f"{number}.wav" for number in range(30)))
    needed = "no part of it judges a run yet, and a recipe needs one (data.dev): "
    said = told("folder", source, tmp_path / "a", "--dev-share", "0")
    assert f"{needed}--dev-share 0.1 takes it from train" in said
    for shares in ("all=1", "train=0.8,test=0.2"):
        anew = told("folder", source, tmp_path / shares, "--split", shares)
        assert f"{needed}--split train=0.9,dev=0.1 makes one" in anew
    assert needed not in told("folder", source, tmp_path / "c")


# --- tables


def remarks(table: Path, settings: TableSettings) -> list[str]:
    return [one.found for one in read_source(table, settings) if isinstance(one, Remark)]


def test_columns_that_are_not_used_are_named_and_one_may_be_the_speaker(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    table = tmp_path / "t.csv"
    table.write_text("path,sentence,who,votes,duration\na.wav,x,ann,3,1\n")
    columns = Columns(audio="path", text="sentence", duration=None)
    assert remarks(table, TableSettings(columns=columns)) == [
        "not used: columns 'who', 'votes'; if one of them says who speaks, say "
        "--columns speaker=who, so that no speaker is in two parts"
    ]
    known = columns.model_copy(update={"speaker": "who"})
    assert remarks(table, TableSettings(columns=known)) == ["not used: column 'votes'"]
    table.write_text("audio,text,speaker\na.wav,x,ann\n")
    assert remarks(table, TableSettings()) == []


def test_tables_of_the_same_columns_are_remarked_upon_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    for part, name in (("train", "a"), ("dev", "b")):
        (tmp_path / f"{part}.jsonl").write_text(f'{{"audio": "{name}.wav", "text": "x", "z": 1}}')
    assert len(remarks(tmp_path, TableSettings())) == 1


def test_a_remark_is_told_and_counts_as_no_utterance(tmp_path: Path) -> None:
    audio = recordings(tmp_path / "in", "1.wav") / "1.wav"

    def source() -> Iterator[Utterance | Problem]:
        yield Remark("columns", "t.csv", "not used: column 'votes'")
        yield Utterance("1", "t.csv, line 2", "words", audio)

    said: list[str] = []
    about = {"kind": "test", "source": "here"}
    split = PrepareSettings(split=SplitSettings(split={"train": 1}))
    made = prepare(source, about, tmp_path / "out", split, say=said.append)
    assert said[0] == "t.csv: not used: column 'votes'"
    assert made.record["parts"]["train"]["utterances"] == 1


# --- what stands in a message


@pytest.mark.parametrize(
    ("text", "encoding", "readings"),
    [
        ("schön", "windows-1252", "(windows-1252 reads 'schön')"),
        ("it\u2019s", "windows-1252", "(windows-1252 reads 'it\u2019s')"),
        ("très", "windows-1252", "(windows-1252 reads 'très', windows-1250 reads 'trčs')"),
        ("a-1.wav,Привет", "windows-1251", "(windows-1251 reads 'Привет', koi8-r reads "),
        ("Привет", "koi8-r", "koi8-r reads 'Привет')"),
        ("sch\x94n", "latin-1", "if it is another"),
    ],
)
def test_a_byte_that_is_not_utf_8_is_read_by_every_encoding_that_makes_a_word_of_it(
    tmp_path: Path, text: str, encoding: str, readings: str
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode(encoding))
    (line,) = read_lines(path)
    assert readings in line.wrong
    latin = any(one.isascii() and one.isalpha() for one in text.split(",")[-1])
    assert latin or "windows-1252" not in line.wrong


def test_a_file_is_named_once() -> None:
    audio = Path("in/1.wav")
    assert named(Utterance("1", "in/1.wav", audio=audio)) == "1 (in/1.wav)"
    assert named(Utterance("1", "t.csv, line 2", audio=audio)) == "1 (t.csv, line 2; in/1.wav)"
