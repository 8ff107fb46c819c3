"""Utterances of tables without an id column: names that stay, and that tell them apart."""

from pathlib import Path

from sources import found_in, touch

from spelldown.data.preparing.sources.table import Columns, TableSettings

CHANNELS = TableSettings(columns=Columns(channel="channel"))


def write(folder: Path, name: str, content: str) -> Path:
    touch(folder / "a.wav", folder / "b.wav")
    (folder / name).write_text(content)
    return folder / name


def test_utterances_that_begin_at_the_same_place_are_named_by_what_tells_them_apart(
    tmp_path: Path,
) -> None:
    rows = ["0,2,0", "0,2,1", "0,3,0", "0,3,1", "0,,0", "1,2,1", "1,,1", "0,2,1"]
    body = "".join(f"a.wav,x,{row}\n" for row in rows)
    table = write(tmp_path, "t.csv", f"audio,text,start,end,channel\n{body}")
    utterances, (problem,) = found_in(table, CHANNELS)
    assert [one.id for one in utterances] == [
        "a-0000000",
        "a-0000000-channel1",
        "a-0000000-0003000",
        "a-0000000-0003000-channel1",
        "a",
        "a-0001000",
        "a-0001000-end",
    ]
    assert (problem.utterance, problem.file) == ("a-0000000-channel1", f"{table}, line 9")
    assert f"the first is {table}, line 3" in problem.found


def test_names_are_told_apart_among_all_tables_and_only_where_they_must_be(tmp_path: Path) -> None:
    write(tmp_path, "dev.csv", "audio,text,channel\na.wav,,0\na.wav,x,1\nb.wav,x,1\n")
    write(tmp_path, "train.csv", "audio,text,channel\na.wav,x,0\na.wav,x,\n")
    utterances, (problem,) = found_in(tmp_path, TableSettings(columns=Columns(channel="channel")))
    assert [(one.split, one.id) for one in utterances] == [
        ("dev", "a"),
        ("dev", "b"),
        ("train", "a-channel0"),
        ("train", "a-all"),
    ]
    assert problem.found == "no text in column 'text'"
