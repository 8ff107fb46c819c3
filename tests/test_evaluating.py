"""`spelldown evaluate`: how it searches, what it writes, and what it warns of."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from commands import spelldown
from lhotse import MonoCut, SupervisionSegment
from toy_corpus import write_corpus
from trained_run import WIDTH, Trained

from spelldown.recipe.run import Run
from spelldown.recipe.using.evaluation import ToScore, evaluated
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.transcript import Transcript


def scores(*words: object) -> dict[str, Any]:
    result = spelldown("evaluate", *words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- how to search


def test_options_are_the_recipes_search_with_short_names(trained: Trained) -> None:
    asked = ("--beam", 3, "--nbest", 2, "--ctc", 0.25, "--length-bonus", -0.5)
    search = scores(trained.run, *asked)["search"]
    assert (search["kind"], search["beam"], search["nbest"]) == ("beam", 3, 2)
    assert (search["ctc_weight"], search["length_bonus"], search["longest"]) == (0.25, -0.5, 20)
    said = scores(trained.run, "search.kind=beam", "search.beam=3", "search.ctc_weight=0.25")
    assert said["search"] == {**search, "nbest": 1, "length_bonus": 0.0}


def test_an_option_of_another_kind_of_search_is_refused(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run, "--search", "greedy", "--beam", 3)
    assert result.exit_code == 2
    assert "--beam is for --search beam, and this is greedy" in " ".join(result.stderr.split())
    result = spelldown("evaluate", trained.run, "--beam", 3, "--draws", 5)
    assert result.exit_code == 2


def test_a_tuned_beams_weights_do_not_leak_into_another_kind_of_search(trained: Trained) -> None:
    page = {"kind": "beam", "beam": 2, "length_power": 0.0, "longest": 15}
    (trained.run / "search.yaml").write_text(yaml.safe_dump({"search": page}))
    search = scores(trained.run, "--search", "random", "--draws", 2)["search"]
    assert (search["length_power"], search["longest"]) == (1.0, 15)
    assert scores(trained.run)["search"]["length_power"] == 0.0


def test_a_language_models_weight_of_nothing_means_no_language_model(trained: Trained) -> None:
    page = {"kind": "beam", "beam": 2, "lm": "lms/gone", "lm_weight": 0.5, "ilm": "zero",
            "ilm_weight": 0.2}  # fmt: skip
    (trained.run / "search.yaml").write_text(yaml.safe_dump({"search": page}))
    search = scores(trained.run, "--lm-weight", 0, "--ilm-weight", 0)["search"]
    assert (search["lm"], search["lm_weight"], search["ilm"]) == (None, 0.0, "none")
    result = spelldown("evaluate", trained.run, "--lm", "lms/an4", "--lm-weight", 0)
    assert "search.lm is lms/an4 and search.lm_weight is 0" in result.stderr


def test_weights_out_of_range_are_refused_by_name(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run, "--ctc", 1.5)
    assert result.exit_code == 1
    assert "search.ctc_weight" in result.stderr


def test_a_language_model_that_would_change_nothing_is_refused(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run, "--lm", "lms/an4")
    assert result.exit_code == 1
    assert "search.lm is lms/an4 and search.lm_weight is 0" in result.stderr
    assert f"spelldown tune {trained.run}" in result.stderr
    result = spelldown("evaluate", trained.run, "--beam", 2, "--lm-weight", 0.5)
    assert "there is no search.lm that it would weigh" in result.stderr


def test_a_language_model_that_is_not_there_is_told_before_the_work(trained: Trained) -> None:
    shutil.rmtree(trained.corpus)  # which would be the first thing to be missed
    result = spelldown("evaluate", trained.run, "--lm", "lms/an4", "--lm-weight", 0.5)
    assert result.exit_code == 1
    assert "lms/an4 holds no language model" in result.stderr


def test_the_runs_own_search_page_counts_unless_it_is_passed_over(trained: Trained) -> None:
    (trained.run / "search.yaml").write_text("search: {kind: beam, beam: 2}\n")
    assert scores(trained.run)["search"]["beam"] == 2
    over = scores(trained.run, "--beam", 3)
    assert over["search"]["beam"] == 3 and "is laid over" in " ".join(over["notes"])
    other = scores(trained.run, "--search", "greedy")
    assert other["search"]["kind"] == "greedy" and other["notes"] == []
    assert scores(trained.run, "--untuned")["search"]["kind"] == "greedy"
    (trained.run / "search.yaml").write_text("search: {kind: beam, lm: lms/gone, lm_weight: 0.5}\n")
    gone = " ".join(spelldown("evaluate", trained.run).stderr.split())
    assert "lms/gone holds no language model" in gone
    assert "search.yaml asks for it; --untuned passes that over" in gone
    (trained.run / "search.yaml").write_text("search: {kind: beam}\nspeller: {width: 8}\n")
    result = spelldown("evaluate", trained.run)
    assert result.exit_code == 1
    assert "only `search` may stand there, found speller" in result.stderr
    (trained.run / "search.yaml").write_text("search: {kind: beam, baem: 2}\n")
    assert "search.yaml:1" in spelldown("evaluate", trained.run).stderr


def test_a_search_that_was_tuned_for_other_weights_is_told(trained: Trained) -> None:
    (trained.run / "search.yaml").write_text("search: {kind: beam, beam: 2}\n")
    (trained.run / "tuning").mkdir()
    (trained.run / "tuning" / "tuned.json").write_text('{"epoch": 7}')
    (note,) = scores(trained.run)["notes"]
    assert "tuned with the weights of epoch 7, and those in use are of epoch 1" in note
    assert scores(trained.run, "--untuned")["notes"] == []


# --- what is written


def test_every_utterance_is_written_with_parts_words_and_alternatives(
    trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "utterances.jsonl"
    found = scores(trained.run, "--beam", 4, "--nbest", 3, "--ctc", 0.3, "--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == found["utterances"] == 6
    edits = sum(line["word_edits"] for line in lines)
    assert found["wer"] == pytest.approx(edits / sum(line["words_said"] for line in lines))
    assert found["oracle_wer"] <= found["wer"]
    for line in lines:
        assert sum(line["parts"].values()) == pytest.approx(line["score"], abs=1e-4)
        assert [word["text"] for word in line["words"]] == line["spelled"].split()
        assert all(0 <= word["confidence"] <= 1 for word in line["words"])
        assert len(line["nbest"]) == 2
        assert line["score"] >= line["nbest"][0]["score"] >= line["nbest"][1]["score"]


def test_spaces_at_a_texts_ends_are_told_where_they_count(trained: Trained) -> None:
    assert "spaces before or after" not in spelldown("evaluate", trained.run).stdout
    file = trained.corpus / "test" / "transcripts" / "test-002.npy"
    np.save(file, np.array(["<sos>", *"DOG" + 300 * " ", "<eos>"]))
    result = spelldown("evaluate", trained.run)
    told = re.search(r"of these (\d+\.\d\d) are spaces before or after a text", result.stdout)
    assert told is not None and 40 < float(told[1]) <= 50
    assert scores(trained.run)["edge_distance"] == pytest.approx(float(told[1]), abs=0.01)


def cut(number: int, gender: str, age: int) -> MonoCut:
    name = str(number)
    spoken = SupervisionSegment(
        name, name, 0.0, 1.0, text="A B", gender=gender, custom={"age": age}
    )
    return MonoCut(name, 0.0, 1.0, 0, supervisions=[spoken])


def test_several_ways_of_grouping_are_scored_side_by_side(tmp_path: Path) -> None:
    cuts = (cut(0, "f", 8), cut(1, "m", 30), cut(2, "f", 15))
    texts = ("A B", "A", "A C")
    spelled = [
        Transcript(one.id, text, 0.0, True, 1.0, (), None, 0.01)
        for one, text in zip(cuts, texts, strict=True)
    ]
    run = SimpleNamespace(
        folder=SimpleNamespace(path=tmp_path),
        epoch=1,
        recipe=None,
        transcriber=SimpleNamespace(search=GreedySettings()),
    )
    part = ToScore("test", cuts, (), ())
    found = evaluated(cast(Run, run), part, spelled, by=("gender", "age:14,16"))
    assert {name: group.wer for name, group in found.groups.items()} == {
        "gender f": 0.25,
        "gender m": 0.5,
        "age under 14": 0.0,
        "age 14 to under 16": 0.5,
        "age 16 or more": 0.5,
    }


# --- tables


def test_ways_to_search_are_compared_over_several_runs(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained.run, other)
    page = tmp_path / "ways.yaml"
    page.write_text("greedy: {kind: greedy}\nwide: {kind: beam, beam: 3, ctc_weight: 0.3}\n")
    found = scores(trained.run, other, "--compare", page)
    assert [row["search"] for row in found["rows"]] == ["greedy", "wide"]
    apart = [scores(trained.run), scores(trained.run, "--beam", 3, "--ctc", 0.3)]
    for row, alone in zip(found["rows"], apart, strict=True):
        assert row["wer"] == pytest.approx(alone["wer"])  # listening once changes nothing
        assert row["wer_each"] == pytest.approx([alone["wer"]] * 2)
        assert row["settings"] == [alone["search"]] * 2
    low, high = found["rows"][1]["wer_difference_interval"]
    assert low <= found["rows"][1]["wer_difference"] <= high
    table = spelldown("evaluate", trained.run, other, "--compare", page).stdout
    assert "test: 6 utterances, mean of 2 runs" in table
    assert table.count("\n|") == 4


def test_several_runs_alone_are_a_table_of_their_mean(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained.run, other)
    (row,) = scores(trained.run, other, "search.longest=5")["rows"]
    assert row["settings"][0]["longest"] == 5
    assert row["cer"] == pytest.approx(scores(trained.run, "search.longest=5")["cer"])


def test_a_page_of_searches_names_all_that_is_wrong(trained: Trained, tmp_path: Path) -> None:
    page = tmp_path / "ways.yaml"
    page.write_text("greedy: gready\nwide: 3\n")
    result = spelldown("evaluate", trained.run, "--compare", page)
    assert result.exit_code == 1
    assert "ways.yaml:1" in result.stderr and "ways.yaml:2" in result.stderr
    page.write_text(
        "wide: {kind: beam, beem: 3}\nheavy: {kind: beam, ctc_weight: 2}\nx: 5\n"
        "many: {kind: beam, beam: 2, nbest: 3}\n"
    )
    told = spelldown("evaluate", trained.run, "--compare", page).stderr
    for problem in (
        "wide: search.beem: unknown key; did you mean 'beam'?",
        "heavy: search.ctc_weight: should be less than or equal to 1",
        "x: should be settings",
        "many: search.nbest: 3 of a beam of 2",
        "ways.yaml:2",
        "ways.yaml:4",
    ):
        assert problem in " ".join(told.split())
    gone = spelldown("evaluate", trained.run, "--compare", tmp_path / "gone.yaml").stderr
    assert "no page of ways to search at" in gone and "pages there: ways.yaml" in gone
    page.write_text("mine: tuned\n")
    assert "has no search.yaml" in spelldown("evaluate", trained.run, "--compare", page).stderr
    (trained.run / "tuning").mkdir()
    (trained.run / "tuning" / "landscape.html").write_text("")  # tuned, and nothing was better
    found = scores(trained.run, "--compare", page)
    assert found["rows"][0]["settings"][0]["kind"] == "greedy"
    assert any("tuning found nothing better" in note for note in found["notes"])
    (trained.run / "tuning" / "tuned.json").write_text("{}")  # there was, and its page is gone
    assert "has no search.yaml" in spelldown("evaluate", trained.run, "--compare", page).stderr
    result = spelldown("evaluate", trained.run, "--compare", page, "--by", "gender")
    assert result.exit_code == 2


@pytest.mark.parametrize("asked", [("--search", "beam", "--ctc", 0.3), ("search.longest=5",),
                                   ("--untuned",)])  # fmt: skip
def test_nothing_changes_the_rows_of_a_page_from_outside(
    trained: Trained, tmp_path: Path, asked: tuple[object, ...]
) -> None:
    page = tmp_path / "ways.yaml"
    page.write_text("greedy: {kind: greedy}\n")
    result = spelldown("evaluate", trained.run, "--compare", page, *asked)
    assert result.exit_code == 2
    assert "the page alone says how each row searches" in " ".join(
        result.stderr.replace("│", " ").split()
    )


# --- what was trained on


def test_nothing_is_told_where_train_dev_and_test_are_as_they_were(trained: Trained) -> None:
    for split in ("train", "dev", "test"):
        assert scores(trained.run, "--split", split)["notes"] == []


def test_utterances_that_were_trained_on_are_told_when_they_are_scored(trained: Trained) -> None:
    for kind in ("mfcc", "transcripts"):
        for part, name in (("train", "train-003"), ("train", "train-005"), ("dev", "dev-001")):
            file = trained.corpus / part / kind / f"{name}.npy"
            shutil.move(file, trained.corpus / "test" / kind / file.name)
    learnt, judged = scores(trained.run)["notes"]
    assert learnt.startswith("2 of the 9 utterances of test were trained on (")
    assert judged.startswith("1 of the 9 utterances of test chose the weights, as part of dev (")
    assert learnt in spelldown("evaluate", trained.run).stderr


def test_another_corpus_whose_names_are_the_same_is_no_cause_for_alarm(
    trained: Trained, tmp_path: Path
) -> None:
    other = write_corpus(tmp_path / "other", {"train": 8, "dev": 4, "test": 6}, WIDTH, seed=9)
    shutil.copytree(other / "train", other / "more")
    notes = scores(trained.run, f"data.root={other}", "--split", "more")["notes"]
    assert all(not note.startswith("8 of the 8") for note in notes)


def test_an_older_run_that_noted_nothing_tells_when_dev_has_changed(trained: Trained) -> None:
    (trained.run / "trained_on.json").unlink()
    assert scores(trained.run, "--split", "dev")["notes"] == []
    for kind in ("mfcc", "transcripts"):
        (trained.corpus / "dev" / kind / "dev-001.npy").unlink()
    (note,) = scores(trained.run, "--split", "dev")["notes"]
    assert "dev has not the utterances that it had when the run was trained" in note


def test_a_resumed_run_says_how_to_train_otherwise(trained: Trained) -> None:
    result = spelldown("train", "--resume", trained.run, "optimizer.rate=1e-3")
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "optimizer.rate=1e-3: a resumed run goes on by its own recipe" in said
