"""What a trained run is for: `spelldown evaluate` and `spelldown transcribe`."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import spelldown
from trained_run import WIDTH, Trained

# --- evaluate


def test_evaluate_prints_measures_intervals_and_the_worst_aligned(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run)
    assert result.exit_code == 0, result.output
    assert "test: 6 utterances" in result.stdout
    assert re.search(r"distance \d+\.\d\d .*\(\d+\.\d\d to \d+\.\d\d\)", result.stdout)
    for name in ("CER", "WER"):
        found = re.search(
            rf"{name} +[\d.]+% \([\d.]+% to [\d.]+%\): \d+ inserted, \d+ deleted, \d+ substituted",
            result.stdout,
        )
        assert found is not None
    assert "the 6 worst:" in result.stdout
    assert result.stdout.count("  said     ") >= 6


def test_evaluate_json_is_one_object_of_fractions_and_nothing_else(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run, "--split", "dev", "--json")
    found = json.loads(result.stdout)
    assert (found["utterances"], found["split"]) == (4, "dev")
    for name in ("distance", "cer", "wer"):
        low, high = found[f"{name}_interval"]
        assert 0 <= low <= found[name] <= high
    for unit, rate in (("characters", "cer"), ("words", "wer")):
        counts = found[unit]
        edits = counts["insertions"] + counts["deletions"] + counts["substitutions"]
        assert found[rate] == pytest.approx(edits / counts["length"])
    assert found["left_out"] == []


def test_evaluate_names_what_it_leaves_out(trained: Trained) -> None:
    spoilt = trained.corpus / "test" / "mfcc" / "test-002.npy"
    np.save(spoilt, np.zeros((30, WIDTH + 1), np.float32))
    assert spelldown("evaluate", trained.run).exit_code == 1
    result = spelldown("evaluate", trained.run, "data.problems=leave-out")
    assert "test: 5 utterances" in result.stdout
    assert f"{spoilt}: " in result.stdout.partition("left out")[2]
    as_json = spelldown("evaluate", trained.run, "data.problems=leave-out", "--json")
    (left_out,) = json.loads(as_json.stdout)["left_out"]
    assert str(spoilt) in left_out


def test_a_text_that_the_run_cannot_spell_is_scored_and_not_left_out(trained: Trained) -> None:
    text = trained.corpus / "test" / "transcripts" / "test-002.npy"
    np.save(text, np.array(["<sos>", "É", "É", "<eos>"]))
    found = json.loads(spelldown("evaluate", trained.run, "--json").stdout)
    assert (found["utterances"], found["left_out"]) == (6, [])


def test_evaluate_takes_a_parts_own_name_and_names_the_nearest(trained: Trained) -> None:
    assert "train: 8 utterances" in spelldown("evaluate", trained.run, "--split", "train").stdout
    result = spelldown("evaluate", trained.run, "--split", "tset")
    assert result.exit_code == 1
    assert "did you mean 'test'?" in result.stderr


def test_evaluate_leaves_a_page_with_attention_if_asked(trained: Trained, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = spelldown("evaluate", trained.run, "--json", "--page", page)
    json.loads(result.stdout)
    assert page.read_text().count("<img") == 6


def test_a_part_without_transcripts_cannot_be_evaluated(trained: Trained) -> None:
    for file in (trained.corpus / "test" / "transcripts").iterdir():
        file.unlink()
    result = spelldown("evaluate", trained.run)
    assert result.exit_code == 1
    assert "has no transcripts" in result.stderr
    assert "spelldown transcribe" in result.stderr


def test_a_trained_runs_model_cannot_be_overridden(trained: Trained) -> None:
    result = spelldown("evaluate", trained.run, "speller.width=8")
    assert result.exit_code == 1
    assert "speller.width=8: only data, search" in result.stderr
    assert spelldown("evaluate", trained.run, "search.longest=5").exit_code == 0


def test_a_run_without_weights_says_how_to_get_them(trained: Trained) -> None:
    for file in (trained.run / "checkpoints" / "best").iterdir():
        file.unlink()
    (trained.run / "checkpoints" / "best").rmdir()
    result = spelldown("evaluate", trained.run)
    assert result.exit_code == 1
    assert f"spelldown train --resume {trained.run}" in result.stderr


# --- transcribe


def test_transcribe_prints_one_line_for_each_input_in_order(trained: Trained) -> None:
    result = spelldown("transcribe", trained.run, trained.corpus / "test")
    ids = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert ids == [f"test-00{number}" for number in range(6)]


def test_transcribe_json_is_an_object_a_line(trained: Trained) -> None:
    file = trained.corpus / "test" / "mfcc" / "test-001.npy"
    result = spelldown("transcribe", trained.run, file, "--json")
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert found["id"] == "test-001"
    assert {"text", "score", "ended", "seconds"} <= set(found)


def test_what_cannot_be_transcribed_is_named_and_the_rest_goes_on(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "odd.npy").write_bytes(b"not an array")
    good = trained.corpus / "test" / "mfcc" / "test-001.npy"
    result = spelldown("transcribe", trained.run, tmp_path / "odd.npy", good)
    assert result.exit_code == 1
    assert result.stdout.startswith("test-001\t")
    assert result.stderr.startswith("odd: ")
    as_json = spelldown("transcribe", trained.run, tmp_path / "odd.npy", good, "--json")
    assert "error" in json.loads(as_json.stdout.splitlines()[0])


def test_a_submission_lists_every_file_in_the_order_of_their_names(
    trained: Trained, tmp_path: Path
) -> None:
    folder, file = trained.corpus / "test" / "mfcc", tmp_path / "submission.csv"
    files = sorted(folder.iterdir(), key=lambda path: path.name)
    each = [spelldown("transcribe", trained.run, path).stdout for path in files]
    expected = [[str(n), said.rstrip("\n").split("\t")[1]] for n, said in enumerate(each)]
    assert len({text for _, text in expected}) > 1
    (folder / "notes.txt").write_text("not speech")
    for asked in ([trained.corpus / "test"], reversed(files), [*files[3:], *files[:3]]):
        result = spelldown("transcribe", trained.run, *asked, "--submission", file)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert list(csv.reader(file.open())) == [["index", "label"], *expected]
        file.unlink()


def test_a_submission_tells_which_files_it_passes_over(trained: Trained, tmp_path: Path) -> None:
    (trained.corpus / "test" / "mfcc" / "notes.txt").write_text("not speech")
    file = tmp_path / "submission.csv"
    result = spelldown("transcribe", trained.run, trained.corpus / "test", "--submission", file)
    assert result.exit_code == 0
    assert "passed over 1 file called" in result.stderr and "notes.txt" in result.stderr


def test_a_submission_refuses_a_file_that_is_asked_for_twice(
    trained: Trained, tmp_path: Path
) -> None:
    part, file = trained.corpus / "test", tmp_path / "submission.csv"
    again = part / "mfcc" / ".." / "mfcc" / "test-002.npy"
    result = spelldown("transcribe", trained.run, part, again, "--submission", file)
    assert result.exit_code == 1
    assert "test-002.npy" in result.stderr and "test-001" not in result.stderr
    assert not file.exists()


def test_a_submission_with_a_missing_line_is_not_written(trained: Trained, tmp_path: Path) -> None:
    (trained.corpus / "test" / "mfcc" / "test-003.npy").write_bytes(b"broken")
    file = tmp_path / "submission.csv"
    file.write_text("what was there before")
    result = spelldown("transcribe", trained.run, trained.corpus / "test", "--submission", file)
    assert result.exit_code == 1
    assert "test-003" in result.stderr
    assert file.read_text() == "what was there before"
