"""`spelldown transcribe`: what it prints, writes and refuses."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_sound import RATE, bursts, hearing_transcriber, write_sound
from typer.testing import CliRunner, Result

from spelldown.cli import app
from spelldown.data.frontend import ArraysFrontendSettings, MfccSettings
from spelldown.recipe import run as runs
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.sound import activity
from spelldown.search.transcribing.sound import microphone as microphones
from spelldown.search.transcribing.sound.pauses import PauseSettings

SPANS = ((0.5, 2.0), (2.6, 3.5), (5.0, 5.9), (9.0, 10.5))
LONG = bursts(*SPANS, seconds=12.0)
CUT = ("--longest", "4", "--pauses", "energy")


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for a trained run, whatever folder is named."""
    frontend = MfccSettings(width=5, filters=20, sample_rate=RATE)
    made = SimpleNamespace(
        transcriber=hearing_transcriber(),
        recipe=SimpleNamespace(frontend=frontend, data=None),
        folder=SimpleNamespace(path=Path("runs/a"), read_metrics=lambda: []),
        epoch=2,
        notes=(),
    )
    monkeypatch.setattr(runs, "load_run", lambda path, changes, tuned: made)
    return made


def transcribe(*words: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["transcribe", "runs/a", *map(str, words)], input=stdin)


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """A folder with a long and two short recordings, two of one name."""
    folder = tmp_path / "die Vorträge"
    write_sound(folder / "long.wav", LONG)
    write_sound(folder / "a" / "short.flac", LONG[: 3 * RATE])
    write_sound(folder / "b" / "short.wav", LONG[2 * RATE : 4 * RATE])
    return folder


def test_text_is_a_line_each_in_order(talks: Path) -> None:
    result = transcribe(talks, *CUT)
    assert result.exit_code == 0, result.output
    ids = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert ids == ["long", "a/short", "b/short"]
    told = result.stderr.splitlines()  # no bar where nobody sees it
    assert all("had not ended at its limit" in line for line in told)  # weights are random


def test_times_of_a_run_that_has_not_aligned_come_with_a_warning(
    talks: Path, run: SimpleNamespace
) -> None:
    def line(epoch: int, verdict: str) -> dict[str, object]:
        return {"epoch": epoch, "alignment": {"verdict": verdict, "value": 0.42}}

    file = talks / "a" / "short.flac"
    run.folder.read_metrics = lambda: [line(1, "aligned"), line(2, "aligning"), line(3, "aligned")]
    assert "had not aligned" not in transcribe(file).stderr
    told = " ".join(transcribe(file, "--json").stderr.split())
    assert "had not aligned when these weights were kept (0.42 of 1 in epoch 2)" in told
    run.folder.read_metrics = lambda: [line(1, "aligning"), line(2, "aligned")]
    assert "had not aligned" not in transcribe(file, "--json").stderr


def test_json_has_words_and_segments_of_a_long_recording(talks: Path) -> None:
    result = transcribe(talks / "long.wav", "--json", *CUT)
    (found,) = map(json.loads, result.stdout.splitlines())
    assert len(found["segments"]) == len(SPANS)
    assert " ".join(word["text"] for word in found["words"]).split() == found["text"].split()
    assert transcribe(talks / "long.wav", "--format", "json", *CUT).stdout == result.stdout


@pytest.mark.parametrize("format", ["text", "json", "srt", "vtt", "ctm"])
def test_each_input_has_its_own_file_in_the_folder_asked_for(
    talks: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "out"
    result = transcribe(talks, "--out", out, "--format", format, *CUT)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    ending = {"text": "txt", "json": "jsonl"}.get(format, format)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {f"long.{ending}", f"a/short.{ending}", f"b/short.{ending}"}
    if format in ("srt", "vtt", "ctm"):  # text goes without the id, scores are rounded in batches
        alone = transcribe(talks / "long.wav", "--format", format, *CUT).stdout
        assert (out / f"long.{ending}").read_text(encoding="utf-8") == alone


def test_files_of_like_names_outside_the_folder_stay_inside_the_one_asked_for(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(talks / "a" / "short.wav", LONG[: 3 * RATE])
    monkeypatch.chdir(talks / "b")
    out = tmp_path / "out"
    files = ["../a/short.wav", "../b/short.wav", talks / "a" / "short.wav"]
    result = transcribe(*files, "--out", out, *CUT)
    assert result.exit_code == 0, result.output
    found = [path.relative_to(out).as_posix() for path in out.rglob("*.txt")]
    inside = str(talks / "a" / "short.wav.txt").lstrip("/")
    assert sorted(found) == sorted(["a/short.wav.txt", "b/short.wav.txt", inside])


def test_what_failed_is_named_counted_and_the_rest_is_there(talks: Path, tmp_path: Path) -> None:
    (talks / "broken.wav").write_bytes(b"no sound at all")
    content = (talks / "long.wav").read_bytes()
    (talks / "long.wav").write_bytes(content[: len(content) // 2])
    result = transcribe(talks, *CUT)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert "broken.wav: not a recording that can be read" in result.stderr
    assert "long: cut short: 6.0 s of 12.0 s are there; what there is was spelled" in result.stderr
    assert "2 of 4 inputs failed or are incomplete" in result.stderr
    out = tmp_path / "out"
    assert transcribe(talks, "--out", out, *CUT).exit_code == 1
    assert not (out / "broken.txt").exists() and (out / "long.txt").exists()


def test_an_odd_or_missing_name_is_told_and_the_rest_is_spelled(talks: Path) -> None:
    (talks / "notes.txt").write_text("GOOD MORNING\n", encoding="utf-8")
    odd = (talks / "notes.txt", talks / "gone.wav", talks / "*.aiff")
    result = transcribe(talks / "long.wav", *odd, talks / "b" / "short.wav", *CUT)
    assert result.exit_code == 1
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["long", "short"]
    told = "".join(result.stderr.split())
    for path, why in zip(odd, ("notarecording", "nosuchfile", "nofileisnamed"), strict=True):
        assert f"{path}:{why}".replace(" ", "") in told
    assert "3 of 5 inputs failed or are incomplete" in result.stderr
    alone = transcribe(talks / "long.wav", talks / "gone.wav", "--format", "srt", *CUT)
    assert alone.exit_code == 1 and alone.stdout.startswith("1\n00:00:00,")
    nothing = transcribe(*odd)
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "nothing that was asked for can be transcribed" in nothing.stderr


def test_a_hand_in_is_refused_for_anything_that_cannot_be_read(talks: Path, tmp_path: Path) -> None:
    (talks / "notes.txt").write_text("GOOD MORNING\n", encoding="utf-8")
    odd = (talks / "notes.txt", talks / "gone.wav")
    result = transcribe(talks / "long.wav", *odd, "--submission", tmp_path / "x.csv")
    assert result.exit_code == 1 and not (tmp_path / "x.csv").exists()
    assert all(str(path).replace(" ", "") in "".join(result.stderr.split()) for path in odd)


def test_ctm_of_one_channel_says_which(tmp_path: Path) -> None:
    both = np.stack([LONG, LONG[::-1]], axis=1)
    soundfile.write(tmp_path / "two.wav", both, RATE)
    for words, number in (((), "1"), (("--channel", 0), "1"), (("--channel", 1), "2")):
        result = transcribe(tmp_path / "two.wav", "--format", "ctm", *words, *CUT)
        assert {line.split()[1] for line in result.stdout.splitlines()} == {number}, result.output


def test_where_nobody_speaks_it_says_so_and_that_is_no_failure(tmp_path: Path) -> None:
    write_sound(tmp_path / "silence.wav", bursts(seconds=6.0))
    result = transcribe(tmp_path / "silence.wav", *CUT)
    assert (result.exit_code, result.stdout) == (0, "silence\t\n")
    assert "silence: nobody speaks in it" in result.stderr


def test_help_tells_the_defaults_that_hold() -> None:
    told = " ".join(CliRunner().invoke(app, ["transcribe", "--help"]).output.split())
    for value in (PauseSettings().pause, PauseSettings().longest):
        assert f"[default: ({value:g})]" in told


def test_samples_that_are_no_numbers_end_with_status_1_and_a_text(tmp_path: Path) -> None:
    broken = LONG.copy()
    broken[4 * RATE] = np.nan
    soundfile.write(tmp_path / "talk.wav", broken, RATE, subtype="FLOAT")
    result = transcribe(tmp_path / "talk.wav", *CUT)
    assert result.exit_code == 1 and len(result.stdout) > len("talk\t\n")
    assert "talk: 1 samples that are not finite numbers" in result.stderr


def test_a_spelling_that_did_not_end_is_told(talks: Path, run: SimpleNamespace) -> None:
    run.transcriber = hearing_transcriber(longest=1)
    result = transcribe(talks / "long.wav", *CUT)
    assert result.exit_code == 0
    told = " ".join(result.stderr.split())
    assert "long: in 4 of 4 pieces, first in the one from 0.4 to 2.1 s, the spelling" in told


def test_an_id_that_is_a_path_is_named_once(talks: Path) -> None:
    (talks / "a" / "short.flac").write_bytes(b"no sound")
    both = [talks / "a" / "short.flac", talks / "b" / "short.wav"]
    result = transcribe(*both, *CUT)
    assert result.exit_code == 1
    assert "".join(result.stderr.split()).count("short.flac") == 1


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_standard_input_is_a_recording(talks: Path, tmp_path: Path, ending: str) -> None:
    path = write_sound(tmp_path / f"same.{ending}", LONG)
    piped = transcribe("-", *CUT, stdin=path.read_bytes())
    assert piped.exit_code == 0, piped.output
    assert piped.stdout == transcribe(path, *CUT).stdout.replace("same", "stdin")


def test_standard_input_may_be_an_array_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.random.default_rng(0).normal(size=(90, 5)))
    piped = transcribe("-", stdin=path.read_bytes())
    assert piped.stdout == transcribe(path).stdout.replace("a\t", "stdin\t")
    empty = transcribe("-")
    assert empty.exit_code == 1
    assert "stdin: standard input: an empty file (0 bytes)" in empty.stderr


def test_patterns_in_quotes_are_followed(talks: Path) -> None:
    result = transcribe(f"{talks}/**/short.*", *CUT)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["a/short", "b/short"]


@pytest.mark.parametrize(
    "words, told",
    [
        ((), "give inputs, or --microphone"),
        (("a.wav", "--microphone"), "give inputs, or --microphone"),
        (("LONG", "LONG", "--format", "srt"), "--out DIR"),
        (("LONG", "--json", "--format", "vtt"), "--json is --format json"),
        (("LONG", "--submission", "x.csv", "--json"), "a file of its own"),
        (("LONG", "--submission", "x.csv", "--out", "x"), "a file of its own"),
        (("LONG", "--submission", "x.csv", "--longest", "5"), "nothing is cut for it"),
        (("LONG", "--longest", "1"), "longest"),
        (("LONG", "--nbest", "3", "--format", "srt"), "add --format json"),
        (("LONG", "--longest", "4", "--pause", "5"), "a pause of 5 s is longer than"),
        (("LONG", "--channel", "-1"), "channel"),
        (("--microphone", "--channel", "1"), "--channel chooses among a file's"),
        (("LONG", "--submission", "x.csv", "--channel", "1"), "all channels are heard"),
        (("LONG", "--out", "LONG"), "is a file; a folder is needed"),
        (("LONG", "--out", "LONG/deeper"), "is a file; a folder is needed"),
        (("LONG", "--format", "docx"), "docx"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(words: tuple[str, ...], told: str, talks: Path) -> None:
    result = transcribe(*(word.replace("LONG", str(talks / "long.wav")) for word in words))
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())


def test_a_detector_that_is_not_installed_is_told_before_anything_is_read(
    talks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MODULE", "a_module_that_is_not_there")
    result = transcribe(talks, "--pauses", "silero")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'spelldown[pauses]'" in result.stderr


def test_the_microphone_is_spelled_when_enter_is_pressed(
    run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_transcribing_microphone import Device, device_module

    monkeypatch.setattr(microphones, "_sounddevice", lambda: device_module(Device))
    result = transcribe("--microphone", "--json", *CUT, stdin=b"\n")
    assert result.exit_code == 0, result.output
    assert "press Enter to end" in result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["id"] == "microphone" and len(found["segments"]) == 2
    run.recipe.frontend = ArraysFrontendSettings(width=5)
    result = transcribe("--microphone")
    assert result.exit_code == 1
    assert "runs/a takes frames that come ready" in result.stderr


def test_without_portaudio_the_microphone_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", absent)
    result = transcribe("--microphone")
    assert result.exit_code == 1
    assert "apt install libportaudio2" in result.stderr


def test_a_limit_that_recordings_do_not_go_by_is_refused(run: SimpleNamespace, talks: Path) -> None:
    asked = (talks / "long.wav", *CUT, "--set", "search.longest=5")
    run.transcriber.search = GreedySettings(longest=5, longest_per_second=30)
    refused = transcribe(*asked)
    assert refused.exit_code == 2
    assert "longest_per_second=30" in refused.output
    run.transcriber.search = GreedySettings(longest=5)
    assert transcribe(*asked).exit_code == 0
