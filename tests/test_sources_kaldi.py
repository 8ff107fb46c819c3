"""Kaldi folders: each utterance with all that its files say, each bad line by its number."""

import os
import tracemalloc
from pathlib import Path

import pytest
from sources import found_in, touch

from spelldown.data.preparing.sources.kaldi import KaldiSettings
from spelldown.data.preparing.sources.kinds import read_source
from spelldown.data.preparing.utterance import Utterance
from spelldown.errors import DataError

KALDI = KaldiSettings()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two utterances of one girl and one of a man."""
    return write_kaldi(
        tmp_path / "corpus",
        {
            "wav.scp": "a1 audio/a1.wav\na2\taudio/a2.wav\nb1 audio/b1.wav\n",
            "text": "a1 GOOD MORNING\na2\tIT IS  LATE\nb1 GO\n",
            "utt2spk": "a1 anna\na2 anna\nb1 ben\n",
            "spk2gender": "anna f\nben m\n",
            "spk2age": "anna 9\nben old\n",
            "utt2dur": "a1 not a number, and never read\n",
        },
    )


def write_kaldi(folder: Path, files: dict[str, str | bytes], audio: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(raw)
    if audio:
        for line in (folder / "wav.scp").read_bytes().decode(errors="ignore").splitlines():
            path = line.replace("\t", " ").partition(" ")[2].strip()
            if path.endswith((".wav", ".flac")):
                touch(folder / path)
    return folder


def test_an_utterance_comes_with_all_that_the_files_say_of_it(folder: Path) -> None:
    utterances, problems = found_in(folder, KALDI)
    assert not problems
    first, second, third = utterances
    assert (first.id, first.text, first.speaker, first.gender, first.age) == (
        "a1",
        "GOOD MORNING",
        "anna",
        "f",
        9,
    )
    assert first.audio == folder / "audio/a1.wav"
    assert first.where == f"{folder / 'text'}, line 1"
    assert (first.start, first.end, first.split, first.cut) == (0.0, None, None, None)
    assert second.text == "IT IS  LATE"
    assert (third.age, third.more) == (None, {"age": "old"})


def test_lines_may_stand_in_any_order_and_end_as_on_any_system(folder: Path) -> None:
    (folder / "wav.scp").write_bytes(
        b"b1 audio/b1.wav\r\n\r\na2 audio/a2.wav\r\na1  audio/a1.wav \r\n"
    )
    (folder / "text").write_bytes("\ufeffb1 GO\r\na1 GÜTEN\u2028MORGEN\r\na2 LATE\r\n".encode())
    utterances, problems = found_in(folder, KALDI)
    assert not problems
    assert [one.id for one in utterances] == ["b1", "a1", "a2"]
    assert utterances[1].text == "GÜTEN\u2028MORGEN"
    assert utterances[1].speaker == "anna"


def test_paths_may_hold_spaces_and_umlauts_and_be_absolute(tmp_path: Path) -> None:
    far = tmp_path / "far away" / "x.wav"
    touch(far)
    folder = write_kaldi(
        tmp_path / "Schöne Aufnahmen",
        {"wav.scp": f"a Größe 1/ä b.wav\nb {far}\n", "text": "a EINS\nb ZWEI\n"},
    )
    touch(folder / "Größe 1/ä b.wav")
    utterances, problems = found_in(folder, KALDI)
    assert not problems
    assert [one.audio for one in utterances] == [folder / "Größe 1/ä b.wav", far]


def test_each_folder_inside_is_a_split_by_its_name(folder: Path) -> None:
    source = folder.parent
    write_kaldi(source / "test", {"wav.scp": "c1 c1.wav\n", "text": "c1 STOP\n"})
    (source / "notes").mkdir()
    utterances, problems = found_in(source, KALDI)
    assert not problems
    assert [(one.id, one.split) for one in utterances] == [
        ("a1", "corpus"),
        ("a2", "corpus"),
        ("b1", "corpus"),
        ("c1", "test"),
    ]
    only, _ = found_in(source, KaldiSettings(parts=("test",)))
    assert [one.id for one in only] == ["c1"]
    with pytest.raises(DataError, match="no Kaldi folder dev; there is corpus, test"):
        found_in(source, KaldiSettings(parts=("dev",)))


def test_an_utterance_in_two_splits_is_named_with_both_lines(folder: Path) -> None:
    write_kaldi(folder.parent / "test", {"wav.scp": "x x.wav\na1 y.wav\n", "text": "x X\na1 A\n"})
    utterances, problems = found_in(folder.parent, KALDI)
    assert [one.id for one in utterances] == ["a1", "a2", "b1", "x"]
    assert [str(one) for one in problems] == [
        f"{folder.parent / 'test/text'}, line 2 (utterance a1): this id is there twice; "
        f"the first is {folder / 'text'}, line 1"
    ]


def test_segments_cut_recordings_into_utterances(tmp_path: Path) -> None:
    folder = write_kaldi(
        tmp_path,
        {
            "wav.scp": "talk talk.flac\nunused unused.flac\n",
            "segments": "t-1 talk 0.5 2.25\nt-2 talk 3 -1\nt-3 talk 9 8\nt-4 talk x 8\n"
            "t-5 nowhere 0 1\nt-6 talk\nt-7 talk nan 2\n",
            "text": "t-1 ONE\nt-2 TWO\nt-3 THREE\nt-4 FOUR\nt-5 FIVE\nt-6 SIX\nt-7 SEVEN\n",
            "utt2spk": "t-1 anna\nt-2 ben\n",
        },
    )
    utterances, problems = found_in(folder, KALDI)
    assert [(one.id, one.start, one.end, one.speaker) for one in utterances] == [
        ("t-1", 0.5, 2.25, "anna"),
        ("t-2", 3.0, None, "ben"),
    ]
    assert all(one.audio == folder / "talk.flac" for one in utterances)
    told = {one.utterance: (one.file, one.found) for one in problems}
    assert set(told) == {"t-3", "t-4", "t-5", "t-6", "t-7", "unused"}
    assert told["t-3"][0] == f"{folder / 'segments'}, line 3"
    assert "from 9 to 8 s" in told["t-3"][1]
    assert "start and end in seconds expected" in told["t-4"][1]
    assert "no usable entry of the recording nowhere" in told["t-5"][1]
    assert told["unused"] == (f"{folder / 'wav.scp'}, line 2", "no segment of it in segments")


def test_what_has_no_counterpart_is_named_with_its_line(folder: Path) -> None:
    (folder / "text").write_text("a1 A\nb1 B\nz9 NOBODY\n")
    utterances, problems = found_in(folder, KALDI)
    assert [one.id for one in utterances] == ["a1", "b1"]
    assert [(one.utterance, one.file, one.found) for one in problems] == [
        ("z9", f"{folder / 'text'}, line 3", "no entry of this id in wav.scp"),
        ("a2", f"{folder / 'wav.scp'}, line 2", "no entry of this id in text"),
    ]


def test_an_id_that_is_there_twice_is_named_with_both_lines(folder: Path) -> None:
    (folder / "text").write_text("a1 A\na2 B\nb1 C\na2 ANOTHER\n")
    utterances, problems = found_in(folder, KALDI)
    assert [one.text for one in utterances] == ["A", "C"]  # who knows which line is right?
    (problem,) = problems
    assert (problem.file, problem.found) == (
        f"{folder / 'text'}, line 4",
        "this id is there twice; the first is in line 2",
    )


@pytest.mark.parametrize("line", ["a2", "a2 ben\na2 anna"])
def test_a_bad_line_of_a_speaker_leaves_its_utterance_out(folder: Path, line: str) -> None:
    (folder / "utt2spk").write_text(f"a1 anna\n{line}\nb1 ben\n")
    utterances, (problem,) = found_in(folder, KALDI)
    assert [(one.id, one.speaker) for one in utterances] == [("a1", "anna"), ("b1", "ben")]
    assert problem.utterance == "a2"
    assert problem.file.startswith(f"{folder / 'utt2spk'}, line ")


def test_an_id_with_several_faults_is_one_problem_that_names_them_all(folder: Path) -> None:
    (folder / "text").write_text("a1 A\na2\nb1 B\nz9\nb1 C\n")
    (folder / "wav.scp").write_text("a1 audio/a1.wav\na2 gone.wav\nb1 x.wav\nb1 y.wav\n")
    utterances, problems = found_in(folder, KALDI)
    assert [one.id for one in utterances] == ["a1"]
    assert [(one.utterance, one.file, one.found) for one in problems] == [
        (
            "b1",
            f"{folder / 'wav.scp'}, line 4",
            "this id is there twice; the first is in line 3; "
            "text, line 5: this id is there twice; the first is in line 3",
        ),
        ("a2", f"{folder / 'text'}, line 2", "an id with no text after it"),
        (
            "z9",
            f"{folder / 'text'}, line 4",
            "an id with no text after it; text, line 4: no entry of this id in wav.scp",
        ),
    ]


def test_a_folder_without_texts_gives_utterances_without_texts(folder: Path) -> None:
    (folder / "text").unlink()
    utterances, problems = found_in(folder, KALDI)
    assert not problems
    assert [(one.id, one.text, one.speaker) for one in utterances] == [
        ("a1", None, "anna"),
        ("a2", None, "anna"),
        ("b1", None, "ben"),
    ]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("touch ran |", "a command (touch ran |), which would run a program"),
        ("| touch ran", "a command"),
        ("-", "standard input"),
        ("raw.ark:1234", "Kaldi's archives"),
        ("gone.wav", "no such audio file"),
        ("audio", "is a folder"),
        ("", "an id with no entry after it"),
        ("long" * 100 + ".wav", "cannot be reached: File name too long"),
    ],
)
def test_an_entry_that_is_no_audio_file_is_named_and_never_run(
    folder: Path, entry: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "wav.scp").write_text(f"a1 audio/a1.wav\na2 {entry}\nb1 audio/b1.wav\n")
    utterances, problems = found_in(folder, KALDI)
    assert [one.id for one in utterances] == ["a1", "b1"]
    (problem,) = problems
    assert problem.file == f"{folder / 'wav.scp'}, line 2"
    assert why in problem.found
    assert not (folder / "ran").exists()


def test_a_missing_file_says_where_relative_paths_start(folder: Path) -> None:
    (folder / "audio/a2.wav").unlink()
    _, (problem,) = found_in(folder, KALDI)
    assert str(folder / "audio/a2.wav") in problem.found
    assert "relative paths start from the folder that holds wav.scp" in problem.found


def test_a_folder_of_nothing_but_commands_is_refused_whole(folder: Path) -> None:
    (folder / "wav.scp").write_text("a1 sph2pipe a1.sph |\na2 sph2pipe a2.sph |\n")
    with pytest.raises(DataError, match=r"wav\.scp, line 1: a command \(sph2pipe a1\.sph \|\)"):
        found_in(folder, KALDI)


def test_a_line_of_another_encoding_is_named_with_its_byte_and_the_rest_goes_on(
    folder: Path,
) -> None:
    (folder / "text").write_bytes(b"a1 GOOD\na2 SCH\xd6N\nb1 GO\n")
    utterances, problems = found_in(folder, KALDI)
    assert [one.id for one in utterances] == ["a1", "b1"]
    (problem,) = problems
    assert (problem.utterance, problem.file) == ("a2", f"{folder / 'text'}, line 2")
    assert "byte 7 of the line, 0xD6, is not UTF-8" in problem.found
    assert "windows-1252 reads 'SCHÖN'" in problem.found
    utterances, problems = found_in(folder, KaldiSettings(encoding="latin-1"))
    assert not problems
    assert utterances[1].text == "SCHÖN"


def test_what_is_no_kaldi_folder_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        found_in(tmp_path / "absent", KALDI)
    with pytest.raises(DataError, match="a file; a folder expected"):
        found_in(folder / "text", KALDI)
    with pytest.raises(DataError, match=r"holds a file wav\.scp"):
        found_in(folder / "audio", KALDI)
    (folder / "text").write_text("\n")
    with pytest.raises(DataError, match="an empty file"):
        found_in(folder, KALDI)
    (folder / "text").write_bytes("a1 GOOD\n".encode("utf-16"))
    with pytest.raises(DataError, match="say --encoding utf-16"):
        found_in(folder, KALDI)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read_are_named(folder: Path) -> None:
    (folder / "audio/a2.wav").chmod(0)
    _, (problem,) = found_in(folder, KALDI)
    assert "no permission" in problem.found
    (folder / "text").chmod(0)
    with pytest.raises(DataError, match="text: cannot be read: Permission denied"):
        found_in(folder, KALDI)


def test_nothing_is_read_before_it_is_asked_for(folder: Path) -> None:
    reading = read_source(folder / "absent", KALDI)
    with pytest.raises(DataError):
        next(reading)


def test_texts_and_paths_wait_outside_memory_until_their_turn(tmp_path: Path) -> None:
    touch(tmp_path / "x.wav")
    ids = [f"speaker{i % 977:04d}-utterance-{i:09d}" for i in range(8_000)]
    words = "SOME WORDS " * 20  # 1.8 MB in all
    (tmp_path / "wav.scp").write_text("".join(f"{one} x.wav\n" for one in ids))
    (tmp_path / "text").write_text("".join(f"{one} {words}\n" for one in reversed(ids)))
    del ids
    tracemalloc.start()
    try:
        found = sum(isinstance(one, Utterance) for one in read_source(tmp_path, KALDI))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 8_000
    assert most < 0.5e6


@pytest.mark.data
def test_speechocean762_is_read_as_it_is(shared_data: Path) -> None:
    source = shared_data / "speechocean762"
    if not source.is_dir():
        pytest.skip(f"speechocean762 is not here: no folder {source}")
    utterances, problems = found_in(source, KALDI)
    assert not problems
    for split in ("train", "test"):
        part = [one for one in utterances if one.split == split]
        assert len(part) == 2500
        assert len({one.speaker for one in part}) == 125
        assert all(one.age and one.gender in ("m", "f") and one.text for one in part)
    assert len({one.speaker for one in utterances}) == 250
