"""The demo's corpus: new sentences by strangers in the test, whole or not there, made politely."""

import importlib.util
import io
import json
import re
import shutil
import stat
import string
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from pydantic import ValidationError

from spelldown.data.frontend import Frontend, MfccSettings
from spelldown.data.synthesis import SynthesisSettings, corpus, engine, make_demo_corpus, voices
from spelldown.data.synthesis.engine import LoaderEngine, ProgramEngine, Request, find_engine
from spelldown.data.synthesis.sentences import draw_sentences
from spelldown.errors import DataError

SMALL = SynthesisSettings(train=6, dev=3, test=3, processes=2)
EVERY_VOICE = frozenset(voices.ACCENTS) | {
    f"!v/{variant}" for variant in (*voices.TRAIN, *voices.DEV, *voices.TEST)
}
PARTS = ("train", "dev", "test")

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None and shutil.which("espeak-ng") is None,
    reason="eSpeak NG is not installed (pip install espeakng-loader)",
)


def read(out: Path, part: str) -> list[Any]:
    cuts = CutSet.from_jsonl(out / f"{part}.jsonl.gz")
    return [cut.with_recording_path_prefix(out) for cut in cuts]


# --- what is said, and by whom


def test_sentences_are_many_and_new_in_a_small_vocabulary() -> None:
    sentences = draw_sentences(4000, Random(1))
    assert len(set(sentences)) == 4000
    text = " ".join(sentences)
    assert set(text) == {*string.ascii_uppercase, "'", " "}
    assert "  " not in text and all(sentence == sentence.strip() for sentence in sentences)
    assert 60 <= len(set(text.split())) <= 100
    assert max(map(len, sentences)) < 60


def test_every_word_of_the_test_is_heard_often_in_training() -> None:
    planned = corpus.plan(SynthesisSettings(), EVERY_VOICE)
    words = [word for u in planned if u.part == "train" for word in u.request.text.split()]
    needed = {word for u in planned if u.part == "test" for word in u.request.text.split()}
    assert min(words.count(word) for word in needed) >= 30


def test_no_sentence_and_no_voice_of_the_test_is_in_training() -> None:
    planned = corpus.plan(SynthesisSettings(), EVERY_VOICE)
    by_part = {part: [u for u in planned if u.part == part] for part in PARTS}
    assert [len(by_part[part]) for part in PARTS] == [2000, 120, 200]
    assert len({u.request.text for u in planned}) == len(planned)
    speakers = [{u.speaker for u in by_part[part]} for part in PARTS]
    assert [len(cast) for cast in speakers] == [len(voices.TRAIN), 8, 8]
    assert len(set.union(*speakers)) == sum(map(len, speakers))
    assert len(voices.TRAIN) >= 40
    accents = {u.request.voice.split("+")[0] for u in by_part["test"]}
    assert accents == set(voices.ACCENTS)
    assert len({u.id for u in planned}) == len(planned)


def test_the_same_settings_plan_the_same_corpus() -> None:
    assert corpus.plan(SMALL, EVERY_VOICE) == corpus.plan(SMALL, EVERY_VOICE)
    other = corpus.plan(SMALL.model_copy(update={"seed": 2}), EVERY_VOICE)
    assert other != corpus.plan(SMALL, EVERY_VOICE)


def test_an_engine_with_too_few_voices_is_refused() -> None:
    few = frozenset(voices.ACCENTS) | {f"!v/{v}" for v in (*voices.TRAIN[:19], *voices.TEST)}
    with pytest.raises(DataError, match="19 of the 42 train voices; at least 20"):
        corpus.plan(SMALL, few | {f"!v/{v}" for v in voices.DEV})


def test_spans_have_their_least_first() -> None:
    with pytest.raises(ValidationError, match="least, most"):
        SynthesisSettings(rate=(200, 100))


# --- making it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthesis") / "demo"
    make_demo_corpus(out, SMALL)
    return out


@needs_engine
def test_recordings_are_speech_of_16_khz_at_the_loudness_asked_for(made: Path) -> None:
    for part, count in (("train", 6), ("dev", 3), ("test", 3)):
        cuts = read(made, part)
        assert len(cuts) == count
        for cut in cuts:
            info = soundfile.info(cut.recording.sources[0].source)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert info.frames == cut.recording.num_samples
            text = cut.supervisions[0].text
            assert 0.03 < cut.duration / len(text) < 0.15
            samples = cut.load_audio()[0]
            loudness = 20 * np.log10(np.sqrt(np.mean(samples**2)))
            assert -31 < loudness < -19 and np.abs(samples).max() < 0.99
            # Speech goes up and down; neither noise nor a buzz does by as much.
            level = 10 * np.log10(
                np.mean(samples[: len(samples) // 400 * 400].reshape(-1, 400) ** 2, 1)
            )
            assert np.percentile(level, 95) - np.percentile(level, 5) > 15


@needs_engine
def test_the_manifests_can_be_moved_with_their_folder(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(made, moved)
    cut = read(moved, "test")[0]
    assert cut.recording.sources[0].source.startswith(str(moved))
    frontend = Frontend(MfccSettings())
    assert len(frontend.static(cut)) == frontend.count(cut)
    assert cut.supervisions[0].speaker in voices.TEST


@needs_engine
def test_different_voices_and_the_same_words_sound_different() -> None:
    with find_engine()() as speaking:
        one, other, again = (
            speaking.speak(Request("HELLO THERE", f"gmw/en+{variant}"))
            for variant in ("f3", "m3", "f3")
        )
    frontend = Frontend(MfccSettings(normalise="mean"))

    def distance(a: Any, b: Any) -> float:
        first, second = (
            frontend.finish(frontend.of_samples(torch.from_numpy(x / 2**15), 22050)) for x in (a, b)
        )
        length = min(len(first), len(second))
        return float((first[:length] - second[:length]).square().mean().sqrt())

    assert distance(one, again) < 0.2 * distance(one, other)


@needs_engine
def test_a_corpus_that_is_there_is_left_alone(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    make_demo_corpus(made, SMALL)
    assert "is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@needs_engine
def test_an_interrupted_corpus_is_finished_without_speaking_again(
    made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(made, out)
    wanted = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    recordings = sorted(out.rglob("*.wav"))
    recordings[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in recordings[1:]}
    for part in PARTS:
        (out / f"{part}.jsonl.gz").unlink()
    make_demo_corpus(out, SMALL)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == wanted
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@needs_engine
def test_a_corpus_of_other_settings_is_replaced(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(made, out)
    make_demo_corpus(out, SMALL.model_copy(update={"train": 2, "seed": 5}))
    assert len(read(out, "train")) == 2
    assert len(list(out.rglob("*.wav"))) == 8


@needs_engine
def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="something else"):
        make_demo_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@needs_engine
def test_an_error_while_speaking_leaves_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = corpus._record_one
    done: list[str] = []

    def failing(out: Path, utterance: corpus.Utterance, speaking: engine.Engine) -> float:
        done.append(utterance.id)
        if len(done) == 5:
            raise DataError("out of breath")
        return record(out, utterance, speaking)

    monkeypatch.setattr(corpus, "_record_one", failing)
    with pytest.raises(DataError, match="out of breath"):
        make_demo_corpus(tmp_path / "demo", SMALL)
    assert not list(tmp_path.rglob("*.jsonl.gz"))
    monkeypatch.undo()
    make_demo_corpus(tmp_path / "demo", SMALL)
    assert len(read(tmp_path / "demo", "train")) == 6


# --- the engines


@needs_engine
def test_the_gpl_library_is_never_loaded_in_this_process(made: Path) -> None:
    assert made.exists()
    assert "espeakng_loader" not in sys.modules
    loaded = Path("/proc/self/maps")
    if loaded.exists():
        assert "espeak" not in loaded.read_text()


@needs_engine
@pytest.mark.parametrize("voice", ["gmw/en+nobody", "gmw/nowhere", "gmw/nowhere+f3"])
def test_a_voice_that_is_not_there_is_told_rather_than_replaced(voice: str) -> None:
    with (
        find_engine()() as speaking,
        pytest.raises(DataError, match=re.escape(f"no voice {voice!r}")),
    ):
        speaking.speak(Request("HELLO", voice))


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)
def test_an_engine_that_dies_is_told() -> None:
    with LoaderEngine() as speaking:
        speaking._process.kill()
        speaking._process.wait()
        with pytest.raises(DataError, match="eSpeak NG has stopped"):
            speaking.speak(Request("HELLO", "gmw/en"))


def test_without_an_engine_the_command_that_installs_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="pip install espeakng-loader"):
        make_demo_corpus(tmp_path / "demo", SMALL)
    assert not (tmp_path / "demo").exists()


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
        "--voices=en) echo ' 2  en-us   --/M  English_(America)  gmw/en-US   (en 3)' ;;\n"
        "--voices=variant) echo ' 5  variant  --/F  female3   !v/f3' ;;\n"
        f"*) cat {tmp_path}/said.wav ;;\n"
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    with find_engine()() as speaking:
        assert isinstance(speaking, ProgramEngine)
        assert speaking.version == "1.51"
        assert speaking.voices == {"gmw/en-US", "!v/f3"}
        said = speaking.speak(Request("IT'S COLD", "gmw/en-US+f3", rate=150, pitch=40))
        assert np.array_equal(said, samples) and speaking.sample_rate == 22050
        for voice in ("gmw/en-US+f9", "gmw/en-GB", "gmw/en-GB+f3"):
            with pytest.raises(DataError, match=re.escape(f"no voice {voice!r}")):
                speaking.speak(Request("IT'S COLD", voice))
    call = (tmp_path / "calls").read_text().splitlines()[-1]
    assert call == "-v gmw/en-US+f3 -s 150 -p 40 -a 35 --stdout -- it's cold"


@needs_engine
def test_the_corpus_says_what_it_was_made_from(made: Path) -> None:
    about = json.loads((made / "corpus.json").read_text())
    assert about["engine"].startswith("eSpeak NG 1.") and about["settings"]["train"] == 6
