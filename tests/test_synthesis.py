"""The demo's corpus: new sentences by strangers in the test, whole or not there, made politely."""

import importlib.util
import json
import shutil
import string
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from pydantic import ValidationError
from spoken import needs_espeak

from spelldown.data.frontend import Frontend, MfccSettings
from spelldown.data.synthesis import DemoCorpusSettings, corpus, make_demo_corpus
from spelldown.data.synthesis.demo_corpus import plan
from spelldown.data.synthesis.engines import espeak_voices as voices
from spelldown.data.synthesis.engines.espeak import find_espeak
from spelldown.data.synthesis.engines.speaking import Request
from spelldown.data.synthesis.sentences import draw_sentences
from spelldown.errors import DataError

SMALL = DemoCorpusSettings(train=6, dev=3, test=3, processes=2)
EVERY_VOICE = frozenset(voices.ACCENTS) | {
    f"!v/{variant}" for variant in (*voices.TRAIN, *voices.DEV, *voices.TEST)
}
PARTS = ("train", "dev", "test")


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
    planned = dict(plan(DemoCorpusSettings(), EVERY_VOICE))
    words = [word for u in planned["train"] for word in u.text.split()]
    needed = {word for u in planned["test"] for word in u.text.split()}
    assert min(words.count(word) for word in needed) >= 30


def test_no_sentence_and_no_voice_of_the_test_is_in_training() -> None:
    planned = dict(plan(DemoCorpusSettings(), EVERY_VOICE))
    everything = [u for part in PARTS for u in planned[part]]
    assert [len(planned[part]) for part in PARTS] == [2000, 120, 200]
    assert len({u.text for u in everything}) == len(everything)
    speakers = [{u.speaker for u in planned[part]} for part in PARTS]
    assert [len(cast) for cast in speakers] == [len(voices.TRAIN), 8, 8]
    assert len(set.union(*speakers)) == sum(map(len, speakers))
    assert len(voices.TRAIN) >= 40
    accents = {u.request.voice.split("+")[0] for u in planned["test"]}
    assert accents == set(voices.ACCENTS)
    assert len({u.id for u in everything}) == len(everything)


def test_the_same_settings_plan_the_same_corpus() -> None:
    assert dict(plan(SMALL, EVERY_VOICE)) == dict(plan(SMALL, EVERY_VOICE))
    other = SMALL.model_copy(update={"seed": 2})
    assert dict(plan(other, EVERY_VOICE)) != dict(plan(SMALL, EVERY_VOICE))


def test_an_engine_with_too_few_voices_is_refused() -> None:
    few = frozenset(voices.ACCENTS) | {f"!v/{v}" for v in (*voices.TRAIN[:19], *voices.TEST)}
    with pytest.raises(DataError, match="19 of the 42 train voices; at least 20"):
        dict(plan(SMALL, few | {f"!v/{v}" for v in voices.DEV}))


def test_spans_have_their_least_first() -> None:
    with pytest.raises(ValidationError, match="least, most"):
        DemoCorpusSettings(rate=(200, 100))


# --- making it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthesis") / "demo"
    make_demo_corpus(out, SMALL)
    return out


@needs_espeak
def test_recordings_are_speech_of_16_khz_at_the_loudness_asked_for(made: Path) -> None:
    for part, count in (("train", 6), ("dev", 3), ("test", 3)):
        cuts = read(made, part)
        assert len(cuts) == count
        for cut in cuts:
            info = soundfile.info(cut.recording.sources[0].source)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert info.frames == cut.recording.num_samples
            text = cut.supervisions[0].text
            assert 0.03 < (cut.duration - 0.4) / len(text) < 0.15
            samples = cut.load_audio()[0]
            loudness = 20 * np.log10(np.sqrt(np.mean(samples**2)))
            assert -34 < loudness < -19 and np.abs(samples).max() < 0.99
            # Speech goes up and down; neither noise nor a buzz does by as much.
            level = 10 * np.log10(
                np.mean(samples[: len(samples) // 400 * 400].reshape(-1, 400) ** 2, 1)
            )
            assert np.percentile(level, 95) - np.percentile(level, 5) > 15


@needs_espeak
def test_the_manifests_can_be_moved_with_their_folder(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(made, moved)
    cut = read(moved, "test")[0]
    assert cut.recording.sources[0].source.startswith(str(moved))
    frontend = Frontend(MfccSettings())
    assert len(frontend.static(cut)) == frontend.count(cut)
    assert cut.supervisions[0].speaker in voices.TEST


@needs_espeak
def test_different_voices_and_the_same_words_sound_different() -> None:
    with find_espeak()() as speaking:
        one, other, again = (
            speaking.speak(Request("HELLO THERE", f"gmw/en+{variant}")).samples
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


@needs_espeak
def test_a_corpus_that_is_there_is_left_alone(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    make_demo_corpus(made, SMALL)
    assert "is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@needs_espeak
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


@needs_espeak
def test_a_corpus_of_other_settings_is_replaced(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(made, out)
    make_demo_corpus(out, SMALL.model_copy(update={"train": 2, "seed": 5}))
    assert len(read(out, "train")) == 2
    assert len(list(out.rglob("*.wav"))) == 8


@needs_espeak
def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="something else"):
        make_demo_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@needs_espeak
def test_an_error_while_speaking_leaves_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = corpus._Studio.seconds
    done: list[str] = []

    def failing(studio: corpus._Studio, utterance: corpus.Utterance) -> float:
        done.append(utterance.id)
        if len(done) == 5:
            raise DataError("out of breath")
        return seconds(studio, utterance)

    monkeypatch.setattr(corpus._Studio, "seconds", failing)
    with pytest.raises(DataError, match="out of breath"):
        make_demo_corpus(tmp_path / "demo", SMALL)
    assert not list(tmp_path.rglob("*.jsonl.gz*"))
    monkeypatch.undo()
    make_demo_corpus(tmp_path / "demo", SMALL)
    assert len(read(tmp_path / "demo", "train")) == 6


@needs_espeak
def test_the_same_corpus_is_made_anew_to_the_byte(made: Path, tmp_path: Path) -> None:
    make_demo_corpus(tmp_path / "demo", SMALL.model_copy(update={"processes": 3}))
    for path in made.rglob("*"):
        if path.is_file():
            again = tmp_path / "demo" / path.relative_to(made)
            assert again.read_bytes() == path.read_bytes()


@needs_espeak
def test_the_corpus_says_what_it_was_made_from(made: Path) -> None:
    about = json.loads((made / "corpus.json").read_text())
    assert about["engine"].startswith("eSpeak NG 1.") and about["settings"]["train"] == 6


def test_without_an_engine_the_command_that_installs_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="pip install espeakng-loader"):
        make_demo_corpus(tmp_path / "demo", SMALL)
    assert not (tmp_path / "demo").exists()
