"""Tables: whatever they were written with, each row is an utterance or is named with its line."""

import csv
import io
import json
import os
import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError
from sources import found_in, touch

from spelldown.data.preparing.sources.kinds import read_source
from spelldown.data.preparing.sources.reading.lines import Line
from spelldown.data.preparing.sources.reading.rows import delimited, split_line
from spelldown.data.preparing.sources.table import Columns, TableSettings
from spelldown.errors import DataError

TABLE = TableSettings()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three audio files and, so far, no table."""
    touch(*(tmp_path / name for name in ("a.wav", "b.wav", "Grüße/c d.wav")))
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "between"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.csv", "|")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_a_mark_are_told_by_themselves(
    folder: Path, name: str, between: str, end: str, mark: str
) -> None:
    rows = [
        ("id", "audio", "speaker", "start", "end", "text"),
        ("u1", "a.wav", "anna", "", "", "eins"),
        ("u2", "Grüße/c d.wav", "ben", "0.5", "1.25", "zwei drei"),
    ]
    table = write(folder, name, mark + "".join(between.join(row) + end for row in rows))
    utterances, problems = found_in(table, TABLE)
    assert not problems
    first, second = utterances
    assert (first.id, first.text, first.audio, first.speaker) == (
        "u1",
        "eins",
        folder / "a.wav",
        "anna",
    )
    assert (first.start, first.end, first.where) == (0.0, None, f"{table}, line 2")
    assert (second.audio, second.start, second.end) == (folder / "Grüße/c d.wav", 0.5, 1.25)


def test_the_delimiter_is_the_one_that_finds_the_columns(folder: Path) -> None:
    table = write(folder, "t.csv", "audio;text;notes, one, two, three\na.wav;ja, nein;\n")
    (one,), problems = found_in(table, TABLE)
    assert not problems
    assert one.text == "ja, nein"
    wrong = TableSettings(delimiter="comma")
    with pytest.raises(DataError, match="no column 'audio'"):
        found_in(table, wrong)


def test_paths_that_were_written_on_windows_are_found(folder: Path) -> None:
    table = write(folder, "t.tsv", "audio\ttext\nGrüße\\c d.wav\tx\n")
    (one,), problems = found_in(table, TABLE)
    assert not problems
    assert one.audio == folder / "Grüße/c d.wav"


def test_only_a_line_feed_ends_a_line(folder: Path) -> None:
    table = write(folder, "t.tsv", "audio\ttext\na.wav\tone\rtwo\x0bthree\u2028four\x85\n\t\n")
    (one,), (problem,) = found_in(table, TABLE)
    assert one.text == "one\rtwo\x0bthree\u2028four\x85"
    assert problem.file == f"{table}, line 3"


def test_quotes_delimiters_tabs_and_line_breaks_may_stand_inside_a_text(folder: Path) -> None:
    rows = [["a.wav", 'she said "no", twice\tand left'], ["b.wav", "one\ntwo"]]
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["audio", "text"], *rows])
    utterances, problems = found_in(folder / "t.csv", TABLE)
    assert not problems
    assert [one.text for one in utterances] == [row[1] for row in rows]
    assert [one.where[-6:] for one in utterances] == ["line 2", "line 3"]


def test_json_lines_may_leave_out_what_is_optional(folder: Path) -> None:
    rows = [
        {"audio": "a.wav", "text": 'tab\tand "quotes"', "start": 0.5, "age": 31, "deep": {"x": 1}},
        {"audio": "b.wav", "text": "zwei", "speaker": None, "split": "dev", "id": 7},
    ]
    table = write(folder, "t.jsonl", "\n".join(map(json.dumps, rows)))
    (first, second), problems = found_in(table, TABLE)
    assert not problems
    assert (first.id, first.text, first.start, first.age) == (
        "a-0000500",
        'tab\tand "quotes"',
        0.5,
        31,
    )
    assert (second.id, second.speaker, second.split) == ("7", None, "dev")


def test_columns_go_by_any_names_that_are_given(folder: Path) -> None:
    table = write(folder, "t.csv", "file,said by,gesagt\na,anna,eins\n/b.wav,,zwei\n")
    columns = Columns(audio="file", text="gesagt", speaker="said by")
    settings = TableSettings(columns=columns, audio_suffix=".wav")
    (first,), (problem,) = found_in(table, settings)
    assert (first.audio, first.text, first.speaker) == (folder / "a.wav", "eins", "anna")
    assert problem.found == "no such audio file: /b.wav"
    silent = TableSettings(columns=Columns(audio="file", text=None), audio_suffix=".wav")
    assert found_in(table, silent)[0][0].text is None


def test_a_table_without_a_header_row_has_its_columns_named(folder: Path) -> None:
    table = write(folder, "t.csv", "a.wav|eins\nb.wav|zwei\n")
    with pytest.raises(DataError, match="name the columns by --names"):
        found_in(table, TABLE)
    utterances, problems = found_in(table, TableSettings(names=("audio", "text")))
    assert not problems
    assert [(one.text, one.where[-6:]) for one in utterances] == [
        ("eins", "line 1"),
        ("zwei", "line 2"),
    ]


def test_a_missing_column_is_named_with_those_there_are_and_the_nearest(folder: Path) -> None:
    table = write(folder, "t.csv", "Audio,transcription,who\na.wav,eins,anna\n")
    with pytest.raises(DataError) as raised:
        found_in(table, TABLE)
    said = str(raised.value)
    assert "the columns are 'Audio', 'transcription', 'who'" in said
    assert (
        "no column 'audio' for the audio; did you mean 'Audio'? Say --columns audio=Audio" in said
    )
    assert "did you mean 'transcription'?" in said
    with pytest.raises(DataError, match="no column 'speaker_id' for the speaker"):
        found_in(
            write(folder, "u.csv", "audio,text\n"),
            TableSettings(columns=Columns(speaker="speaker_id")),
        )
    with pytest.raises(DataError, match="two columns are called 'text'"):
        found_in(write(folder, "v.csv", "audio,text,text\n"), TABLE)
    with pytest.raises(DataError, match="say --form common-voice"):
        found_in(write(folder, "w.tsv", "client_id\tpath\tsentence\n"), TABLE)
    with pytest.raises(DataError, match="did you mean 'audio_filepath'"):
        found_in(write(folder, "x.jsonl", '{"audio_filepath": "a.wav", "text": "x"}\n'), TABLE)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("gone.wav,eins,,", "no such audio file: "),
        (",eins,,", "no audio file in column 'audio'"),
        ("a.wav,  ,,", "no text in column 'text'"),
        ("a.wav,eins", "2 fields where there are 4 columns"),
        ("a.wav,eins, zwei,,", "5 fields where there are 4 columns; a text with ',' in it"),
        ("a.wav,eins,x,", "start 'x'; seconds expected"),
        ("a.wav,eins,-1,", "start '-1'; seconds from the file's beginning expected"),
        ("a.wav,eins,nan,", "start 'nan'; seconds from"),
        ("a.wav,eins,2,1", "from 2 to 1 s is no stretch"),
        ('a.wav,"eins,,', "a quotation mark that is never closed"),
        ("Grüße,eins,,", "is a folder"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_the_rest_goes_on(
    folder: Path, row: str, why: str
) -> None:
    table = write(folder, "t.csv", f"audio,text,start,end\na.wav,null,0,1\n{row}\n\nb.wav,drei,,\n")
    utterances, problems = found_in(table, TABLE)
    assert [one.text for one in utterances] == ["null", "drei"]
    (problem,) = problems
    assert problem.file == f"{table}, line 3"
    assert why in problem.found


def test_a_quote_that_is_never_closed_does_not_swallow_what_follows(folder: Path) -> None:
    rows = "".join(f'a.wav,"open {i}\n' if i % 3 == 0 else f"a.wav,t{i}\n" for i in range(9))
    table = write(folder, "t.csv", "audio,text\n" + rows)
    utterances, problems = found_in(table, TABLE)
    assert len([one for one in problems if "never closed" in one.found]) == 3
    assert [one.text for one in utterances] == ["t1"]  # the same file again is the same id
    utterances, problems = found_in(table, TableSettings(quotes=False))
    assert utterances[0].text == '"open 0'


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"audio": "b.wav"}', "no text in column 'text'"),
        ('{"audio": "b.wav", "text": "ein', "not JSON: "),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"audio": "b.wav", "text": "\\ud800"}', "half of a character"),
        ('{"audio": "b.wav", "text": null}', "no text"),
    ],
)
def test_a_bad_line_of_json_is_named_too(folder: Path, row: str, why: str) -> None:
    table = write(folder, "t.jsonl", f'{{"audio": "a.wav", "text": "eins"}}\n{row}\n')
    utterances, (problem,) = found_in(table, TABLE)
    assert [one.text for one in utterances] == ["eins"]
    assert problem.file == f"{table}, line 2"
    assert why in problem.found


def test_another_encoding_is_named_with_file_row_and_byte(folder: Path) -> None:
    content = "audio;text\na.wav;schön\nb.wav;gut\n"
    table = write(folder, "t.csv", content.encode("windows-1252"))
    utterances, (problem,) = found_in(table, TABLE)
    assert [one.text for one in utterances] == ["gut"]
    assert problem.file == f"{table}, line 2"
    assert "byte 10 of the line, 0xF6, is not UTF-8; say --encoding" in problem.found
    assert "(windows-1252 reads 'schön')" in problem.found
    for encoding in ("windows-1252", "utf-16", "utf-16-le", "utf-8"):
        table = write(folder, "t.csv", content.encode(encoding))
        utterances, problems = found_in(table, TableSettings(encoding=encoding))
        assert not problems
        assert [one.text for one in utterances] == ["schön", "gut"]
    with pytest.raises(ValidationError, match="no encoding is called 'klingon'"):
        TableSettings(encoding="klingon")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", b"", "the first line is empty"),
        ("t.csv", b"audio,text\n", "a table without rows"),
        ("t.csv", "audio,text\na.wav,x\n".encode("utf-16"), "written in UTF-16"),
        ("t.csv", b"PK\x03\x04\xff\xfe\x9d spreadsheet", "line 1: byte 5 of the line, 0xFF"),
        ("t.jsonl", b"", "an empty file"),
        (
            "t.json",
            b'[\n{"audio": "a.wav"},\n{"audio": "a.wav"}\n]',
            "line 1: a JSON array; JSON lines",
        ),
        ("t.json", b'[{"audio": "a.wav", "text": "x"}]', "one object a line"),
        ("t.csv", "audio,text\na.wav,речь\n".encode("utf-16-le"), "perhaps --encoding utf-16-le"),
        ("t.csv", "audio,text\na.wav,言語\n".encode("utf-16-be"), "perhaps --encoding utf-16-be"),
        ("t.jsonl", '{"audio": "a.wav"}\n'.encode("utf-16-le"), "perhaps --encoding utf-16-le"),
    ],
)
def test_what_is_no_table_at_all_is_refused_whole(
    folder: Path, name: str, content: bytes, why: str
) -> None:
    with pytest.raises(DataError, match=why):
        found_in(write(folder, name, content), TABLE)


def test_an_utterance_without_an_id_is_named_for_its_file_and_place(folder: Path) -> None:
    table = write(
        folder,
        "t.csv",
        f"audio,text,start\nGrüße/c d.wav,x,\n./a.wav,y,1.5\n{folder}/b.wav,z,\na.wav,again,1.5\n",
    )
    utterances, (problem,) = found_in(table, TABLE)
    assert [one.id for one in utterances] == ["Grüße-c_d", "a-0001500", "b"]
    assert problem.file == f"{table}, line 5"
    assert f"the first is {table}, line 3" in problem.found


def test_the_tables_of_a_folder_are_splits_and_ids_are_unique_among_them(folder: Path) -> None:
    write(folder, "train.csv", "audio,text\na.wav,x\n")
    assert found_in(folder, TABLE)[0][0].split is None
    write(folder, "test.csv", "audio,text,split\nb.wav,y,\nb.wav,y,\n")
    utterances, (problem,) = found_in(folder, TABLE)
    assert [(one.id, one.split) for one in utterances] == [("b", "test"), ("a", "train")]
    assert f"the first is {folder / 'test.csv'}, line 2" in problem.found
    utterances, _ = found_in(folder, TableSettings(parts=("train",)))
    assert [one.id for one in utterances] == ["a"]
    with pytest.raises(DataError, match=r"no table dev; there is test\.csv, train\.csv"):
        found_in(folder, TableSettings(parts=("dev",)))
    with pytest.raises(DataError, match="holds no table"):
        found_in(folder / "Grüße", TABLE)
    with pytest.raises(DataError, match="no such folder"):
        found_in(folder / "absent", TABLE)
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        found_in(folder / "absent.csv", TABLE)


HEADER = "client_id\tpath\tsentence\tage\tgender\taccents\tvariant\tlocale\tsegment\n"


def common_voice(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in files.items():
        (folder / name).write_text(HEADER + rows, encoding="utf-8")
        touch(*(folder / "clips" / row.split("\t")[1] for row in rows.splitlines()))
    return folder


def test_common_voice_is_read_with_its_own_splits_and_its_stray_quotes(tmp_path: Path) -> None:
    row = "c4f3\tcommon_voice_de_{}.mp3\t{}\ttwenties\tfemale\tBerlin\t\tde\t\n"
    folder = common_voice(
        tmp_path / "cv-corpus" / "de",
        {
            "train.tsv": row.format(1, '"Guten Tag') + row.format(2, '"Ja", sagte er.'),
            "dev.tsv": row.format(3, "Nein"),
            "test.tsv": row.format(4, "Vielleicht"),
            "validated.tsv": "".join(row.format(i, "Alle") for i in range(1, 6)),
        },
    )
    settings = TableSettings(form="common-voice")
    for source in (folder, folder.parent):
        utterances, problems = found_in(source, settings)
        assert not problems
        assert [(one.split, one.text) for one in utterances] == [
            ("dev", "Nein"),
            ("test", "Vielleicht"),
            ("train", '"Guten Tag'),
            ("train", '"Ja", sagte er.'),
        ]
    one = utterances[2]
    assert (one.id, one.speaker, one.gender, one.age, one.language) == (
        "common_voice_de_1",
        "c4f3",
        "female",
        None,
        "de",
    )
    assert one.more == {"age": "twenties", "accents": "Berlin"}
    assert one.audio == folder / "clips/common_voice_de_1.mp3"
    validated, _ = found_in(folder, TableSettings(form="common-voice", parts=("validated",)))
    assert [one.split for one in validated] == [None] * 5
    (only, *_), _ = found_in(folder / "dev.tsv", settings)
    assert only.split == "dev"
    common_voice(folder.parent / "fr", {"validated.tsv": row.format(9, "Oui")})
    with pytest.raises(DataError, match=r"several languages \(de, fr\)"):
        found_in(folder.parent, settings)


def test_ljspeech_is_read_with_its_numbers_written_out(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        'LJ001-0001|Printed in "1455, in|Printed in "fourteen fifty-five, in\nLJ001-0002|No.|\n'
    )
    touch(tmp_path / "wavs/LJ001-0001.wav", tmp_path / "wavs/LJ001-0002.wav")
    (first,), (problem,) = found_in(tmp_path, TableSettings(form="ljspeech"))
    assert (first.id, first.text) == ("LJ001-0001", 'Printed in "fourteen fifty-five, in')
    assert (first.audio, first.language) == (tmp_path / "wavs/LJ001-0001.wav", "en")
    assert (problem.utterance, problem.found) == ("LJ001-0002", "no text in column 'text'")
    written = TableSettings(form="ljspeech", columns=Columns(text="written"))
    assert [one.text for one in found_in(tmp_path, written)[0]] == ['Printed in "1455, in', "No."]
    with pytest.raises(DataError, match=r"holds no metadata\.csv"):
        found_in(tmp_path / "wavs", TableSettings(form="ljspeech"))


def test_a_hundred_thousand_rows_are_read_in_seconds(folder: Path) -> None:
    rows = (f'u{i},a.wav,"the text, number {i}",speaker{i % 50},0,1\n' for i in range(100_000))
    table = write(folder, "t.csv", "id,audio,text,speaker,start,end\n" + "".join(rows))
    started = time.process_time()
    count = sum(1 for _ in read_source(table, TABLE))
    assert count == 100_000
    assert time.process_time() - started < 20  # 3 s where it was measured


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_table_and_audio_that_may_not_be_read_are_named(folder: Path) -> None:
    table = write(folder, "t.csv", "audio,text\na.wav,x\n")
    (folder / "a.wav").chmod(0)
    assert "no permission to read" in found_in(table, TABLE)[1][0].found
    table.chmod(0)
    with pytest.raises(DataError, match=r"t\.csv: cannot be read: Permission denied"):
        found_in(table, TABLE)


field = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028"), max_size=12)


@examples(max_examples=100, deadline=None)
@given(st.lists(st.tuples(field, field, field), max_size=6), st.sampled_from(",;\t|"))
def test_what_a_csv_writer_wrote_is_read_back_or_named(
    rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    """What is not read: a line that goes on with a field and might be a whole row."""
    written = []
    for row in rows:
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerow(row)
        written.append(out.getvalue().removesuffix("\n").split("\n"))
    lines = (Line(1 + i, text) for i, text in enumerate(chain.from_iterable(written)))
    read = list(delimited(lines, ["a", "b", "c"], delimiter, quotes=True))
    wrong = [row for row in read if row.wrong]
    if not any(text.count(delimiter) >= 2 for row in written for text in row[1:]):
        assert not wrong
        want = [dict(zip("abc", row, strict=True)) for row in rows]
        assert [row.fields for row in read] == want


def test_a_line_of_quotes_gone_wrong_is_still_split() -> None:
    assert split_line('a,"b,c', ",", quotes=True) == ["a", "b,c"]
    assert split_line('a,"b,c', ",", quotes=False) == ["a", '"b', "c"]


NEMO = [
    {"audio_filepath": "a.wav", "text": "eins", "offset": 1.5, "duration": 0.25},
    {"audio_filepath": "b.wav", "text": "zwei", "duration": 2},
]


def test_manifests_as_nemo_writes_them_are_read_with_their_stretches(folder: Path) -> None:
    table = write(folder, "t.json", "".join(f"{json.dumps(row)}\n" for row in NEMO))
    utterances, problems = found_in(table, TableSettings(form="nemo"))
    assert not problems
    assert [(one.start, one.end) for one in utterances] == [(1.5, 1.75), (0.0, 2.0)]
    assert [one.id for one in utterances] == ["a-0001500", "b-0000000"]


def test_a_column_that_says_which_sound_is_meant_is_never_silently_ignored(folder: Path) -> None:
    table = write(folder, "t.csv", "audio,text,Offset,duration,channel\na.wav,eins,1,0.5,1\n")
    with pytest.raises(DataError) as caught:
        found_in(table, TABLE)
    for name, column in (("start", "Offset"), ("duration", "duration"), ("channel", "channel")):
        assert f"column {column!r} is not used: say --columns {name}={column}" in str(caught.value)
    columns = Columns(start="Offset", duration="duration", channel="channel")
    (one,), _ = found_in(table, TableSettings(columns=columns))
    assert (one.start, one.end, one.channel) == (1.0, 1.5, 1)
    (one,), _ = found_in(
        table, TableSettings(columns=Columns(start=None, duration=None, channel=None))
    )
    assert (one.start, one.end, one.channel) == (0.0, None, None)
    both = write(folder, "b.csv", "audio,text,start,end,duration\na.wav,eins,1,2,1\n")
    assert not found_in(both, TABLE)[1]
    bad = write(folder, "c.csv", "audio,text,channel\na.wav,eins,left\n")
    _, (problem,) = found_in(bad, TableSettings(columns=Columns(channel="channel")))
    assert problem.found == "channel 'left'; a number from 0 on expected"
