"""What a language model is made from, and `spelldown train-lm` as people meet it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy_corpus import write_corpus
from trained_run import write_page
from typer.testing import CliRunner, Result

from spelldown.cli import app
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError, LanguageModelError
from spelldown.recipe.language.ngram import train_ngram
from spelldown.recipe.language.texts import Texts, TextsSettings
from spelldown.search.language.language_model import load_language_model, log_probs_of
from spelldown.search.language.ngram import ARPA, NODES

LINES = ["ONE TWO THREE", "  FOUR   FIVE ", "", "SIX SEVEN", "ONE TWO THREE", "EIGHT"]
COURSE, CPU = Vocabulary.course(), torch.device("cpu")


def texts_of(folder: Path, lines: list[str], **settings: object) -> Texts:
    file = folder / "lines.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = {"text": (file,), "held_out": 0.0, **settings}
    return Texts(TextsSettings.model_validate(asked), COURSE)


def train_lm(*given: object) -> Result:
    return CliRunner().invoke(app, ["train-lm", *map(str, given)])


def test_sentences_are_those_of_the_file_without_spare_spaces(tmp_path: Path) -> None:
    texts = texts_of(tmp_path, LINES)
    assert list(texts.sentences()) == [" ".join(line.split()) for line in LINES if line]
    assert (texts.met.learnt, texts.met.left_out) == (5, 0)


def test_sentences_of_a_test_are_left_out_by_line_or_from_a_kaldi_text(tmp_path: Path) -> None:
    plain, kaldi = tmp_path / "plain.txt", tmp_path / "text"
    plain.write_text("one two three\n")
    kaldi.write_text("speaker1-utterance7 SIX SEVEN\n")
    texts = texts_of(tmp_path, LINES, leave_out=(plain, kaldi))
    assert list(texts.sentences()) == ["FOUR FIVE", "EIGHT"]
    assert texts.met.left_out == 3


def test_sentences_of_a_part_of_arrays_are_left_out_by_its_folder(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"test": 2})
    part = read_part(ArraysSettings(root=corpus), "test")
    texts = texts_of(tmp_path, [*part.texts, "ZOO"], leave_out=(corpus / "test",))
    assert list(texts.sentences()) == ["ZOO"]
    assert texts.met.left_out == 2


def test_a_language_model_in_the_making_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "lm" / "checkpoints").mkdir(parents=True)
    with pytest.raises(LanguageModelError, match="training is not over"):
        load_language_model(tmp_path / "lm", COURSE)


def test_unknown_characters_stop_it_and_are_counted_and_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        list(texts_of(tmp_path, ["ONE", "CAFÉ 2", "2 2"]).sentences())
    said = str(error.value)
    assert "2 lines have characters that the vocabulary lacks ('2' 3, 'É' 1 times)" in said
    assert "line 2: characters outside the vocabulary" in said and "--unknown drop-line" in said


def test_unknown_characters_are_dropped_with_their_line_or_alone(tmp_path: Path) -> None:
    lines = ["ONE", "CAFÉ TWO", "É"]
    dropping = texts_of(tmp_path, lines, unknown="drop-line")
    assert list(dropping.sentences()) == ["ONE"] and dropping.met.odd == 2
    mending = texts_of(tmp_path, lines, unknown="drop-character")
    assert list(mending.sentences()) == ["ONE", "CAF TWO"]


def test_printed_text_is_brought_to_the_form_that_is_spelled(tmp_path: Path) -> None:
    texts = texts_of(
        tmp_path, ["\u201cIt\u2019s a caf\xe9,\u201d he said."], text_form="librispeech"
    )
    assert list(texts.sentences()) == ["IT'S A CAFE HE SAID"]


def test_held_out_sentences_are_not_learnt_in_any_copy(tmp_path: Path) -> None:
    lines = [f"{'ABCDEFGHIJ'[n % 10]} {'KLMNOPQRST'[n // 10 % 10]}" for n in range(300)]
    texts = texts_of(tmp_path, lines, held_out=0.2)
    learnt = list(texts.sentences())
    assert not set(learnt) & set(texts.judging)
    assert sorted(learnt + texts.judging) == sorted(lines)
    assert 0 < len(texts.judging) < 150
    assert list(texts.sentences()) == learnt  # the same again


def test_empty_texts_are_an_error_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sentence to learn from"):
        train_ngram(texts_of(tmp_path, ["", "  "]), tmp_path / "lm")
    assert not (tmp_path / "lm").exists()


def test_the_command_makes_a_model_that_search_can_load(tmp_path: Path) -> None:
    text, out = tmp_path / "some.txt", tmp_path / "lm"
    text.write_text("\n".join(["ONE TWO", "TWO THREE", "IT'S ONE"] * 9))
    done = train_lm(out, "--text", text, "--order", 3, "--held-out", 0, "--json")
    assert done.exit_code == 0, done.output
    page = json.loads(done.stdout.strip().splitlines()[-1])
    assert (page["kind"], page["order"], page["sentences"]) == ("ngram", 3, 27)
    assert page["symbols"] == list(COURSE.symbols)
    assert {file.name for file in out.iterdir()} == {ARPA, NODES, "language_model.json"}
    asked = [COURSE.encode("TWO THREE"), COURSE.encode("TQO THRXE")]
    likely, unlikely = log_probs_of(load_language_model(out, COURSE), asked, CPU)
    assert likely > unlikely
    again = train_lm(out, "--text", text)
    assert again.exit_code == 1 and "holds a language model already" in again.output


def test_nodes_that_are_kept_never_outlive_their_file(tmp_path: Path) -> None:
    train_ngram(texts_of(tmp_path, LINES), tmp_path / "a", order=2)
    train_ngram(texts_of(tmp_path, ["ZOO"] * 5), tmp_path / "b", order=2)
    zoo = [COURSE.encode("ZOO")]
    before = log_probs_of(load_language_model(tmp_path / "a", COURSE), zoo, CPU)
    (tmp_path / "a" / ARPA).write_bytes((tmp_path / "b" / ARPA).read_bytes())
    changed = log_probs_of(load_language_model(tmp_path / "a", COURSE), zoo, CPU)
    wanted = log_probs_of(load_language_model(tmp_path / "b", COURSE), zoo, CPU)
    assert changed == pytest.approx(wanted, rel=1e-4) and changed[0] > before[0] + 1
    (tmp_path / "b" / NODES).write_bytes(b"damaged")
    damaged = log_probs_of(load_language_model(tmp_path / "b", COURSE), zoo, CPU)
    assert damaged == pytest.approx(wanted, rel=1e-4)


def test_a_model_of_another_vocabulary_says_what_differs(tmp_path: Path) -> None:
    train_ngram(texts_of(tmp_path, LINES), tmp_path / "lm", order=2)
    other = Vocabulary.of_texts(["abc É"])
    with pytest.raises(LanguageModelError) as error:
        load_language_model(tmp_path / "lm", other)
    assert "another vocabulary: 31 symbols, and the recognizer has 8" in str(error.value)
    assert "the recognizer has symbols that the language model lacks, 4 of them" in str(error.value)
    with pytest.raises(LanguageModelError, match="holds no language model"):
        load_language_model(tmp_path / "nothing", COURSE)


def test_the_dev_part_of_the_run_judges_even_where_its_transcripts_are_not_learnt(
    tmp_path: Path,
) -> None:
    corpus, run, text = tmp_path / "corpus", tmp_path / "run", tmp_path / "a.txt"
    write_corpus(corpus, {"train": 3, "dev": 4})
    run.mkdir()
    write_page(run / "recipe.yaml", corpus)
    (run / "vocabulary.json").write_text(COURSE.to_json())
    text.write_text("\n".join("AB" * number for number in range(1, 101)))
    asked = ("--run", run, "--no-transcripts", "--text", text, "--order", 2, "--json")
    done = train_lm(tmp_path / "lm", *asked)
    assert done.exit_code == 0, done.output
    judged = json.loads(done.stdout)
    assert (judged["transcripts"], judged["sentences"]) == (0, 100)
    assert judged["judged_by"]["sentences"] == 4
    shutil.rmtree(corpus)
    alone = train_lm(tmp_path / "other", *asked, "--held-out", 0.5)
    assert "the run's dev part cannot judge the model" in alone.stderr
    assert 20 < json.loads(alone.stdout)["sentences"] < 80


def test_the_same_symbols_in_another_order_are_told_what_fits(tmp_path: Path) -> None:
    train_ngram(texts_of(tmp_path, LINES), tmp_path / "lm", order=2)
    *first, last, before = COURSE.symbols
    turned = Vocabulary.from_json(json.dumps({**json.loads(COURSE.to_json()),
                                              "symbols": [*first, before, last]}))  # fmt: skip
    with pytest.raises(LanguageModelError, match="make it with --run RUN") as error:
        load_language_model(tmp_path / "lm", turned)
    assert "model.arpa fits as it is" in str(error.value)
    load_language_model(tmp_path / "lm" / ARPA, turned)


def test_an_arpa_file_may_have_a_byte_order_mark_and_is_told_when_it_cannot_be_read(
    tmp_path: Path,
) -> None:
    train_ngram(texts_of(tmp_path, LINES), tmp_path / "lm", order=2)
    path, content = tmp_path / "of windows.arpa", (tmp_path / "lm" / ARPA).read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    load_language_model(path, COURSE)
    path.write_bytes(b"")
    with pytest.raises(LanguageModelError, match="is empty: not an ARPA file"):
        load_language_model(path, COURSE)
    path.write_bytes(content + b"\xe9\n")
    with pytest.raises(LanguageModelError, match=r"after line \d+: not a text in UTF-8"):
        load_language_model(path, COURSE)


def test_wrong_use_says_what_would_be_right(tmp_path: Path) -> None:
    for given, said in (
        ([tmp_path / "lm"], "nothing to learn from"),
        ([tmp_path / "lm", "model.width=3", "--text", "x"], "an n-gram model has no settings"),
        ([tmp_path / "lm", "--text", "x", "--kind", "lstm", "--order", 3], "are for --kind ngram"),
        ([tmp_path / "lm", "--corpus", "x", "--no-transcripts"], "leave one of the two out"),
    ):
        done = train_lm(*given)
        assert done.exit_code == 2 and said in " ".join(done.output.replace("│", " ").split())
    missing = train_lm(tmp_path / "lm", "--text", tmp_path / "nowhere.txt")
    assert missing.exit_code == 1 and "nowhere.txt" in missing.output
    assert not (tmp_path / "lm").exists()


def test_a_text_without_line_ends_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: 120,001 characters in one line"):
        list(texts_of(tmp_path, ["A B", "A B C " * 20_000]).sentences())


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: a\n")
    (tmp_path / "a.txt").write_text("A B\n" * 9)
    done = train_lm(tmp_path / "run", "--text", tmp_path / "a.txt", "--held-out", 0)
    assert done.exit_code == 1 and "is not an empty folder: recipe.yaml" in done.output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
