"""Synthetic corpora: every sentence as asked, reproducible to the byte, never half-written."""

import errno
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile
from full_disk import files_of_at_most
from lhotse import CutSet
from spoken import LINES, command, files_of, needs_loader, settings
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.data.corpora import CutsSettings, read_part
from spelldown.data.synthesis import corpus
from spelldown.data.synthesis.folder import open_folder
from spelldown.data.synthesis.sound import record
from spelldown.data.synthesis.synthetic import make_synthetic
from spelldown.errors import DataError
from spelldown.writing import held, write_whole


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    split_up = {"split": {"train": 0.5, "dev": 0.25, "test": 0.25}}
    make_synthetic(folder / "out", settings(folder, shares=split_up), processes=2)
    return folder


# --- the folder


def test_the_corpus_can_be_trained_on_as_it_is(made: Path) -> None:
    root = made / "out"
    counts = []
    for name in ("train", "dev", "test"):
        part = read_part(CutsSettings(root=root), name)
        assert not part.problems
        counts.append(len(part.cuts))
        for cut in part.cuts:
            info = soundfile.info(cut.recording.sources[0].source)
            assert (info.samplerate, info.subtype, info.format) == (16000, "PCM_16", "FLAC")
            assert info.frames == cut.recording.num_samples
            text = cut.supervisions[0].text
            assert text.startswith("SENTENCE NUMBER") and text.endswith("ΈΤΣΙ")
            written = cut.supervisions[0].custom["written"]  # as `prepare` keeps it
            assert written in LINES and written.upper() == f"{text[:-5]}, {text[-4:]}!"
    assert counts == [6, 3, 3]
    record = json.loads((root / "prepared.json").read_text())
    assert record["parts"]["train"]["utterances"] == 6 and record["kind"] == "synthetic"
    shutil.copytree(root, made / "moved")
    cuts = CutSet.from_jsonl(made / "moved" / "dev.jsonl.gz")
    assert all(c.with_recording_path_prefix(made / "moved").load_audio().any() for c in cuts)


def test_a_spoken_corpus_is_looked_at_as_any_other(made: Path) -> None:
    page = (made / "out" / "look.html").read_text(encoding="utf-8")
    assert "12 utterances" in page and "synthetic speech (command)" in page
    parts = read_part(CutsSettings(root=made / "out"), "train").cuts
    assert f'<td>train</td><td class="n">{sum(c.duration for c in parts) / 3600:.2f}' in page
    assert "greek capital letter epsilon with tonos" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_what_is_doubtful_in_spoken_words_is_told(tmp_path: Path) -> None:
    slow = settings(tmp_path, ["a"] * 3 + ["no it is not"], variety={"silence": [5, 5]})
    result = make_synthetic(tmp_path / "out", slow, processes=1)
    told = json.loads((tmp_path / "out" / "prepared.json").read_text())["doubtful"]
    assert result.doubtful == told and sum(told.values()) >= 1
    page = (tmp_path / "out" / "look.html").read_text(encoding="utf-8")
    assert all(reason in page for reason in told)


def test_the_same_settings_give_the_same_bytes_however_interrupted(
    made: Path, tmp_path: Path
) -> None:
    split_up = {"split": {"train": 0.5, "dev": 0.25, "test": 0.25}}
    out, wanted = tmp_path / "out", files_of(made / "out")
    again = settings(made, shares=split_up)
    make_synthetic(out, again, processes=5)
    assert files_of(out) == wanted
    for lost in ("train.jsonl.gz", "prepared.json", *[n for n in wanted if n.endswith("flac")][:4]):
        (out / lost).unlink(missing_ok=True)
    half = next(path for path in out.rglob("*.flac"))
    half.write_bytes(b"")  # as a power failure leaves it
    half.with_name("left-behind.flac").write_bytes(b"of a larger corpus")
    make_synthetic(out, again, processes=1)
    assert files_of(out) == wanted


def test_a_stop_is_told_with_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(tmp_path)
    seconds, done = corpus._Studio.seconds, threading.Semaphore(4)

    def stopping(studio: corpus._Studio, utterance: corpus.Utterance) -> float:
        if not done.acquire(blocking=False):
            raise KeyboardInterrupt
        return seconds(studio, utterance)

    monkeypatch.setattr(corpus._Studio, "seconds", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "out", asked, processes=1)
    assert "the same command goes on" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*.flac"))) == 4 and not list(tmp_path.rglob("*.gz*"))
    monkeypatch.undo()
    monkeypatch.setattr(corpus, "record", record)
    assert make_synthetic(tmp_path / "out", asked).parts["train"].utterances == 12


def test_more_hours_go_on_with_what_is_there(tmp_path: Path) -> None:
    def hours(number: float) -> dict[str, bytes]:
        asked = settings(tmp_path, shares={"hours": number})
        result = make_synthetic(tmp_path / "out", asked, processes=2)
        seconds = result.parts["train"].seconds
        assert 3600 * number <= seconds < 3600 * number + 2
        return {n: b for n, b in files_of(tmp_path / "out").items() if n.endswith(".flac")}

    few, many = hours(0.001), hours(0.004)
    assert few.items() < many.items() and len(many) > 12  # the text was said more than once
    assert hours(0.001) == few


def test_a_folder_of_other_settings_or_other_things_is_not_touched(made: Path) -> None:
    before = files_of(made / "out")
    with pytest.raises(DataError, match=r"(?s)made otherwise.*variety\.seed: 1 there, 2 now"):
        make_synthetic(made / "out", settings(made, variety={"seed": 2}))
    assert files_of(made / "out") == before
    with pytest.raises(DataError, match="something else"):
        make_synthetic(made, settings(made))
    assert not (made / "corpus.json").exists()


def test_a_sentence_that_cannot_be_said_stops_or_is_left_out(tmp_path: Path) -> None:
    lines = [*LINES, "This makes me cough"]
    with pytest.raises(DataError, match=r"'This makes me cough' as .*a frog in the throat"):
        make_synthetic(tmp_path / "out", settings(tmp_path, lines), processes=2)
    assert not list(tmp_path.rglob("*.gz*"))
    lenient = settings(tmp_path, lines, saying={"problems": "leave-out"})
    result = make_synthetic(tmp_path / "out", lenient, processes=2)
    assert result.parts["train"].utterances == 12
    assert "This makes me cough" in (tmp_path / "out" / "left_out.txt").read_text()
    broken = [f"cough number {number}" for number in range(30)]
    with pytest.raises(DataError, match="a frog"):  # not one sentence: the engine
        make_synthetic(
            tmp_path / "none", settings(tmp_path, broken, saying={"problems": "leave-out"})
        )


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("before")
    with files_of_at_most(10), pytest.raises(OSError) as error:
        write_whole(tmp_path / "page.txt", "x" * 11)
    assert error.value.filename == str(tmp_path / "page.txt") and error.value.filename2 is None
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_disk_without_room_for_the_first_file_is_left_as_it_was(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    with files_of_at_most(10), pytest.raises(OSError) as error:
        make_synthetic(tmp_path / "new" / "out", asked)
    assert error.value.filename == str(tmp_path / "new" / "out" / "corpus.json")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("what", [".flac", "train.jsonl.gz"])
def test_a_full_disk_is_told_with_the_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, lasting: bool = True) -> None:
        if path.name.endswith(what):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_whole(path, content, lasting=lasting)

    monkeypatch.setattr(corpus, "write_whole", full)
    result = CliRunner().invoke(
        app, command(tmp_path, "--problems", "leave-out", str(tmp_path / "o"))
    )
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    told = "no space left on the disk" if what == "train.jsonl.gz" else "No space left on device"
    assert f"{what}: {told}" in result.output and result.output.count("o space left") == 1
    monkeypatch.undo()
    assert CliRunner().invoke(app, command(tmp_path, str(tmp_path / "o2"))).exit_code == 0


def test_a_full_disk_without_a_files_name_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spelldown.data.synthesis.engines.kinds.list_engines", full)
    result = CliRunner().invoke(app, ["prepare", "synthetic", "--list"])
    assert result.exit_code == 1 and "no space left on the disk" in result.output


# --- whose folder it is


def test_one_process_at_a_time_makes_a_corpus_in_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_folder(out, {"of": "somebody"}, replace=False):
        before = files_of(out)
        with pytest.raises(DataError, match="another process is making a corpus"):
            make_synthetic(out, settings(tmp_path))
        assert files_of(out) == before
    assert not out.exists()  # nothing was spoken
    assert make_synthetic(out, settings(tmp_path)).parts["train"].utterances == 12
    assert not (out / ".lock").exists()


def test_a_lock_goes_with_its_process_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from spelldown.writing import held\n"
        "with held(Path(sys.argv[1])) as ours: print(ours, flush=True); os.kill(os.getpid(), 9)"
    )
    lock = tmp_path / ".lock"
    killed = subprocess.run([sys.executable, "-c", code, lock], capture_output=True, text=True)
    assert killed.stdout == "True\n" and lock.exists()
    with held(lock) as ours, held(lock) as again:
        assert ours and not again
    assert not lock.exists()


def test_a_lock_that_was_taken_away_at_the_last_moment_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl, lock = pytest.importorskip("fcntl"), tmp_path / ".lock"
    tried: list[Any] = []
    flock = fcntl.flock

    def late(file: Any, how: int) -> None:
        if not tried:
            lock.unlink()
        tried.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(lock) as ours:
        assert ours and lock.exists() and len(tried) == 2


def test_a_folder_in_which_nothing_was_spoken_yet_takes_other_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "corpus.json").write_text('{"version": 1}')  # as a power failure leaves it
    (out / ".lock").touch()
    assert make_synthetic(out, settings(tmp_path)).parts["train"].utterances == 12


def test_a_folder_that_was_prepared_from_another_corpus_since_is_not_touched(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    make_synthetic(out, settings(tmp_path))
    (out / "prepared.json").write_text('{"kind": "folder", "source": "my/recordings"}')
    before = files_of(out)
    with pytest.raises(DataError, match="prepared from folder my/recordings meanwhile"):
        make_synthetic(out, settings(tmp_path))
    assert files_of(out) == before


def test_a_command_that_the_system_cannot_run_is_told_with_its_option_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    program = tmp_path / "noshebang"
    program.write_text("say hello\n")
    program.chmod(0o755)
    asked = settings(tmp_path, speaking={"command": f"{program} {{text}} {{voice}}"})
    with pytest.raises(
        DataError, match=r"'Sentence number .*--command: .*noshebang' cannot be run"
    ):
        make_synthetic(tmp_path / "out", asked)
    assert not (tmp_path / "out").exists()


@needs_loader
def test_a_text_in_another_script_needs_its_language_said(tmp_path: Path) -> None:
    asked = settings(tmp_path, ["καλημέρα κόσμε"], speaking={"engine": "espeak", "command": None})
    with pytest.raises(DataError, match="greek letters"):
        make_synthetic(tmp_path / "out", asked)
    assert not (tmp_path / "out").exists()


# --- the command


def test_the_command_says_what_it_made_and_how_to_use_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--case", "lower", "--split", "train=0.75,dev=0.25", "--pitches", "1,1.2", str(out)]
    result = CliRunner().invoke(app, command(tmp_path, *more))
    assert result.exit_code == 0, result.output
    assert f"data: {{kind: cuts, root: {out}}}" in result.output
    assert "9" in result.output and "dev" in result.output and "judges" not in result.output
    assert "12 sentences are spelled with digits" in result.output
    assert "" not in result.stderr.splitlines()  # no bar where nobody looks
    assert f"\n{settings(tmp_path).speaking.command}, " in result.output
    assert f"a look at it: {out / 'look.html'}" in result.output
    texts = [cut.supervisions[0].text for cut in CutSet.from_jsonl(out / "train.jsonl.gz")]
    assert texts[0].startswith("sentence number")
    result = CliRunner().invoke(app, command(tmp_path, str(tmp_path / "train alone")))
    assert "no part of it judges a run, and a recipe needs one" in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--noise", "40,10", "OUT"], "--noise: [40.0, 10.0] is not [least, most]"),
        (["--pitches", "high", "OUT"], "--pitches"),
        (["--split", "train", "OUT"], "KEY=VALUE"),
        (["--engine", "espeak", "OUT"], "go together"),
        (["--pitches", "0,0", "OUT"], "--pitches: [0.0, 0.0] is not [least, most] within 0.5 to 2"),
        (["--pitches=-1,-0.5", "OUT"], "--pitches"),
        (["--speeds", "0,0", "OUT"], "--speeds"),
        (["--speeds=-1,-1", "OUT"], "--speeds"),
        (["--loudness", "50,60", "OUT"], "--loudness: [50.0, 60.0] is not [least, most] within"),
        (["--language", "el,en", "OUT"], "name the one that it speaks"),
        ([], "the folder OUT expected"),
    ],
)
def test_wrong_usage_names_the_option(
    more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command(tmp_path, *more), env={"COLUMNS": "200"})
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "OUT").exists()


def test_what_can_speak_is_listed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["prepare", "synthetic", "--list"])
    assert result.exit_code == 0
    for name in ("espeak", "hibari", "piper", "command"):
        assert name in result.output
