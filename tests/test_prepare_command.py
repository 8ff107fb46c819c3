"""`spelldown prepare`: any kind from the command line, to a recipe that trains on it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from commands import spelldown
from prepared import RATE, beep, files_of, prepared, utterances, write_kaldi
from toy_corpus import write_corpus

from spelldown.data.corpora import ArraysSettings, CutsSettings, read_part
from spelldown.data.preparing.looking.page import look_page, shown
from spelldown.recipe.recipe import read_recipe

TINY = {
    "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
    "attention": {"kind": "dot", "width": 8},
    "speller": {"embedding": 8, "width": 16},
    "training": {"epochs": 1, "threads": 1, "pictures_every": 1, "pictures": 1},
    "search": {"kind": "greedy", "longest": 20},
}


def recipe(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump({"name": "tiny", **TINY, **sections}))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_kaldi(tmp_path / "corpus")


@pytest.mark.parametrize("vocabulary", [{"kind": "characters"}, {"kind": "pieces", "size": 32}])
def test_what_is_prepared_trains_and_transcribes(
    tmp_path: Path, corpus: Path, vocabulary: dict[str, Any]
) -> None:
    found = spelldown("prepare", "kaldi", corpus, tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert re.search(r"^train +0\.\d+ +20 +5 ", found.output, re.MULTILINE)
    data = {"kind": "cuts", "root": str(tmp_path / "out")}
    page = recipe(tmp_path / "r.yaml", data=data, frontend={"kind": "mfcc"}, vocabulary=vocabulary)
    trained = spelldown("train", page, "--run", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    symbols = json.loads((tmp_path / "run" / "vocabulary.json").read_text())["symbols"]
    assert len(symbols) == 32 or symbols[3:5] == [" ", "'"]
    assert list((tmp_path / "run" / "pictures").glob("epoch-001-*.png"))
    scored = json.loads(spelldown("evaluate", tmp_path / "run", "--by", "speaker", "--json").stdout)
    assert scored["utterances"] == 24
    assert sum(group["utterances"] for group in scored["groups"].values()) == 24
    assert (
        all(name.startswith("speaker ") for name in scored["groups"]) and len(scored["groups"]) > 1
    )
    wav = corpus / "test" / "audio" / "100-0.wav"
    assert spelldown("transcribe", tmp_path / "run", wav).exit_code == 0


def test_arrays_are_the_courses_layout_and_are_not_made_twice(tmp_path: Path, corpus: Path) -> None:
    words = ("prepare", "kaldi", corpus, tmp_path / "out", "--to", "arrays")
    assert spelldown(*words).exit_code == 0
    part = read_part(ArraysSettings(root=tmp_path / "out"), "train")
    assert len(part.cuts) == 20 and not part.problems
    assert {cut.num_features for cut in part.cuts} == {28}
    folder = tmp_path / "out" / "train"
    files = sorted((folder / "mfcc").glob("*.npy"))
    letters = np.load(folder / "transcripts" / files[0].name)
    assert letters[0] == "<sos>" and letters[-1] == "<eos>" and len(letters[1]) == 1
    times = {file: file.stat().st_mtime_ns for file in files}
    files[3].write_bytes(files[3].read_bytes()[:-4])
    assert spelldown(*words).exit_code == 0
    changed = [file for file in files if file.stat().st_mtime_ns != times[file]]
    assert changed == [files[3]]
    wider = ("--features", "log-mel", "--width", "40", "--leave-out", "repeated")
    assert spelldown(*words, *wider).exit_code == 0
    frames = [np.load(file) for file in sorted((folder / "mfcc").glob("*.npy"))]
    left = json.loads((tmp_path / "out" / "prepared.json").read_text())["parts"]["train"]
    assert {one.shape[1] for one in frames} == {40} and len(frames) == left["utterances"] < 20
    assert len(list((folder / "transcripts").glob("*.npy"))) == len(frames)


def test_arrays_that_were_made_elsewhere_are_not_touched(tmp_path: Path, corpus: Path) -> None:
    assert spelldown("prepare", "kaldi", corpus, tmp_path / "out").exit_code == 0
    (tmp_path / "out" / "dev" / "mfcc").mkdir(parents=True)
    (tmp_path / "out" / "dev" / "mfcc" / "mine.npy").write_bytes(b"")
    found = spelldown("prepare", "kaldi", corpus, tmp_path / "out", "--to", "arrays")
    assert found.exit_code == 1 and "were not made here" in found.stderr
    assert (tmp_path / "out" / "dev" / "mfcc" / "mine.npy").exists()


def test_a_table_is_prepared_with_its_own_options(tmp_path: Path) -> None:
    (tmp_path / "töne").mkdir()
    for number in range(12):
        soundfile.write(tmp_path / "töne" / f"{number} a.wav", beep(seed=number), RATE)
    rows = [f"{n} a.wav;»Ein Satz« Nr. {n};{n % 4}" for n in range(12)]
    (tmp_path / "töne" / "t.csv").write_text("\n".join(["file;said;who", *rows]), "utf-8")
    words = ["prepare", "table", tmp_path / "töne" / "t.csv", tmp_path / "out"]
    words += ["--columns", "audio=file", "--columns", "text=said", "--columns", "speaker=who"]
    words += ["--case", "lower", "--split", "train=0.5,dev=0.5", "--seed", "3", "--json"]
    found = spelldown(*words)
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert record["splits"]["shares"] == {"train": 0.5, "dev": 0.5}
    assert record["source_settings"]["columns"]["text"] == "said"
    assert record["text"]["punctuation_removed"] == {".": 12, "«": 12, "»": 12}
    assert record == json.loads((tmp_path / "out" / "prepared.json").read_text())


def test_the_courses_arrays_and_cuts_can_be_sources_too(tmp_path: Path, corpus: Path) -> None:
    write_corpus(tmp_path / "course", {"train": 12, "dev": 4})
    found = spelldown("prepare", "arrays", tmp_path / "course", tmp_path / "a", "--json")
    assert json.loads(found.stdout)["parts"]["train"]["utterances"] == 12
    assert spelldown("prepare", "kaldi", corpus, tmp_path / "b").exit_code == 0
    found = spelldown("prepare", "cuts", tmp_path / "b", tmp_path / "c", "--json")
    record = json.loads(found.stdout)
    assert {name: told["utterances"] for name, told in record["parts"].items()} == {
        "train": 20,
        "dev": 4,
        "test": 24,
    }
    assert files_of(tmp_path / "b").keys() == files_of(tmp_path / "c").keys()


def test_what_is_prepared_from_here_is_found_from_anywhere(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "course", {"train": 6})
    monkeypatch.chdir(tmp_path)
    assert spelldown("prepare", "kaldi", "corpus", "a").exit_code == 0
    assert spelldown("prepare", "cuts", "a", "b").exit_code == 0
    assert spelldown("prepare", "arrays", "course", "c").exit_code == 0
    monkeypatch.chdir("/")
    for name in "abc":
        part = read_part(CutsSettings(root=tmp_path / name), "train")
        assert len(part.cuts) and not part.problems
        for cut in part.cuts:
            assert len(cut.load_audio() if cut.has_recording else cut.load_features())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--leave-out", "ugly"], "no reason 'ugly'; known: unusable, source"),
        (["--split", "train=0.5"], "sum to 1"),
        (["--channel", "left"], "a number from 0 on, or mix"),
        (["--to", "kaldi"], "only arrays can be written"),
        (["--width", "40"], "goes with --to arrays"),
        (["--case", "title"], "title"),
        (["--dev-share", "2"], "--dev-share"),
        (["--text-form", "librispeech", "--case", "lower"], "leave --case lower away"),
        (["--split", "train=0.5,dev=0.5", "--dev-share", "0"], "leave --dev-share away"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    tmp_path: Path, corpus: Path, words: list[str], message: str
) -> None:
    found = spelldown("prepare", "kaldi", corpus, tmp_path / "out", *words)
    assert found.exit_code == 2 and message in " ".join(found.stderr.replace("│", "").split())
    assert not (tmp_path / "out").exists()


def test_a_bad_recording_ends_with_status_1_and_its_name(tmp_path: Path, corpus: Path) -> None:
    (corpus / "train" / "audio" / "001-2.wav").write_bytes(b"")
    found = spelldown("prepare", "kaldi", corpus, tmp_path / "out")
    assert found.exit_code == 1 and not found.stdout
    assert "001-2.wav): an empty file (0 bytes)" in found.stderr
    again = spelldown("prepare", "kaldi", corpus, tmp_path / "out", "--leave-out", "unreadable")
    assert again.exit_code == 0 and "left out, 1 unreadable" in again.stdout


def test_corpora_are_listed_and_an_unknown_one_has_a_neighbour() -> None:
    found = spelldown("prepare", "--list")
    assert found.exit_code == 0 and "mini-librispeech" in found.stdout
    found = spelldown("prepare", "librispech", "a", "b")
    assert found.exit_code == 1 and "did you mean 'librispeech'" in found.stderr
    found = spelldown("prepare", "tabel", "a", "b")
    assert found.exit_code == 1 and "did you mean 'table'" in found.stderr
    found = spelldown("prepare", "nokind", "a", "b")
    said = " ".join(found.stderr.split())
    assert said == "no corpus is called 'nokind'; `spelldown prepare --list` names them all"


def test_librispeech_is_prepared_by_its_name(tmp_path: Path) -> None:
    for part, speaker in (("train-clean-5", "19"), ("train-clean-5", "26"), ("dev-clean-2", "84")):
        chapter = tmp_path / "LibriSpeech" / part / speaker / "1"
        chapter.mkdir(parents=True)
        lines = []
        for number in range(3):
            name = f"{speaker}-1-{number:04}"
            soundfile.write(chapter / f"{name}.flac", beep(seed=number), RATE)
            lines.append(f"{name} SOME WORDS {'ABC'[number]}\n")
        (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines))
    source = tmp_path / "LibriSpeech"
    found = spelldown("prepare", "mini-librispeech", tmp_path / "out", "--from", source, "--json")
    assert found.exit_code == 0, found.output
    parts = json.loads(found.stdout)["parts"]
    assert {name: told["utterances"] for name, told in parts.items()} == {
        "train-clean-5": 6,
        "dev-clean-2": 3,
    }
    again = spelldown("prepare", "mini-librispeech", source, tmp_path / "out")
    assert again.exit_code == 0 and "train-clean-5" in again.stdout
    line = f"root: {tmp_path / 'out'}, train: train-clean-5, dev: dev-clean-2}}"
    assert line in again.stdout


def test_help_names_every_kind_and_each_shows_its_own_options() -> None:
    every = spelldown("prepare", "--help").stdout
    assert all(kind in every for kind in ("kaldi", "table", "folder", "arrays", "cuts"))
    table = spelldown("prepare", "table", "--help").stdout
    assert "--columns" in table and "--text-form" in table
    assert "--columns" not in spelldown("prepare", "kaldi", "--help").stdout


def test_the_page_needs_no_network_and_shows_what_was_found(tmp_path: Path) -> None:
    source = utterances(tmp_path / "a", 30, speaker="<b>&", text="naïve <i> & Ω")
    record = prepared(tmp_path / "<out>", source).record
    page = (tmp_path / "<out>" / "look.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|https?://|@import", page)
    assert (
        "<i> &" not in page and "&lt;out&gt;" in page and page == look_page(record, "<out>") + "\n"
    )
    assert "U+03A9 greek capital letter omega" in page
    bars = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', page)]
    assert len(bars) > 10 and all(0 < height <= 74 for height in bars)


def test_characters_that_cannot_be_seen_are_named() -> None:
    assert [shown(c) for c in (" ", "a", "\u0301", "\u200d", "\u00a0")] == [
        "␣", "a", "◌\u0301", "U+200D", "U+00A0",
    ]  # fmt: skip


def test_the_recipe_page_takes_pieces(tmp_path: Path) -> None:
    data = {"kind": "cuts", "root": "x"}
    page = recipe(tmp_path / "r.yaml", data=data, frontend={"kind": "mfcc"})
    found = read_recipe(page, ["vocabulary={kind: pieces, size: 300, model: bpe}"]).vocabulary
    assert found.model_dump() == {"kind": "pieces", "size": 300, "model": "bpe"}
