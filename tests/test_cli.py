"""The commands: what they print, what they leave behind, and how they fail."""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner, Result

from spelldown.cli import app
from spelldown.data.synthesis import DemoCorpusSettings, make_demo_corpus
from spelldown.recipe.recipe import read_recipe

# Looked for, not imported: the engine is under the GPL and must stay out of this process.
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)


SOURCE = Path(__file__).parent.parent
WIDTH = 4  # of the corpora that `make_corpus` writes


def spelldown(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def process(*words: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "spelldown", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_recipe(path: Path, corpus: Path, **sections: Any) -> Path:
    """A page of a recognizer so small that it trains in seconds."""
    page = {
        "name": "tiny",
        "data": {"kind": "arrays", "root": str(corpus)},
        "frontend": {"kind": "arrays", "width": WIDTH},
        "batching": {"utterances": 4},
        "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
        "attention": {"kind": "dot", "width": 8},
        "speller": {"embedding": 8, "width": 16},
        "training": {"epochs": 2, "threads": 1, "pictures_every": 0},
        "search": {"kind": "greedy", "longest": 20},
    }
    path.write_text(yaml.safe_dump({**page, **sections}))
    return path


@dataclass(frozen=True)
class Trained:
    """A trained run with its corpus, and what `train` printed."""

    run: Path
    corpus: Path
    recipe: Path
    said: str


@pytest.fixture
def recipe(tmp_path: Path, make_corpus: Callable[..., Path]) -> Path:
    corpus = make_corpus({"train": 12, "dev": 4, "test": 6}, silent=())
    return write_recipe(tmp_path / "tiny.yaml", corpus)


@pytest.fixture
def trained(tmp_path: Path, recipe: Path) -> Trained:
    run = tmp_path / "run"
    result = spelldown("train", recipe, "--run", run)
    assert result.exit_code == 0, result.output
    return Trained(run, tmp_path / "corpus", recipe, result.output)


# --- starting up


@pytest.mark.parametrize("command", ["train", "evaluate", "transcribe", "recipe", "demo"])
def test_every_command_explains_itself(command: str) -> None:
    result = spelldown(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_package_can_be_run_as_a_module(tmp_path: Path) -> None:
    said, _ = process("recipe", "--help", cwd=tmp_path).communicate()
    assert "Usage: " in said and "--schema" in said


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("train", "a.yaml", "--resume", "runs/a"),
        ("train", "--resume", "runs/a", "--run", "runs/b"),
        ("evaluate",),
        ("evaluate", "runs/a", "--spilt", "dev"),
        ("transcribe", "runs/a"),
        ("recipe",),
        ("recipe", "a.yaml", "--schema"),
        ("sing",),
    ],
)
def test_wrong_usage_ends_with_status_2(words: tuple[str, ...]) -> None:
    assert spelldown(*words).exit_code == 2


def test_a_users_mistake_is_one_message_on_stderr_with_status_1(tmp_path: Path) -> None:
    for words in (
        ("train", tmp_path / "gone.yaml"),
        ("train", "--resume", tmp_path / "gone"),
        ("evaluate", tmp_path / "gone"),
        ("transcribe", tmp_path / "gone", "a.npy"),
        ("recipe", tmp_path / "gone.yaml"),
    ):
        result = spelldown(*words)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "gone" in result.stderr
        assert "Traceback" not in result.stderr


# --- recipe


def test_recipe_shows_the_resolved_page_the_parts_and_what_an_epoch_takes(recipe: Path) -> None:
    result = spelldown("recipe", recipe, "attention.heads=2")
    assert result.exit_code == 0, result.output
    page = result.stdout.split("\n\n")[0]
    assert yaml.safe_load(page)["attention"] == {
        "kind": "dot", "width": 8, "heads": 2, "values": None
    }  # fmt: skip
    total = re.search(r"total +([\d,]+)", result.stdout)
    assert total is not None
    parts = re.findall(r"^(?:listener|attention|speller)\S* .* ([\d,]+)$", result.stdout, re.M)
    assert sum(int(part.replace(",", "")) for part in parts) == int(total[1].replace(",", ""))
    assert re.search(r"4 utterances of \d+ frames .* s an update, \d\.\d GiB", result.stdout)
    assert re.search(r"an epoch: 3 batches, about \d+ s of training", result.stdout)
    assert re.search(r"all \d+ epochs: about \d+ s", result.stdout)


def test_recipe_says_so_when_the_corpus_is_not_there(tmp_path: Path) -> None:
    page = write_recipe(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    result = spelldown("recipe", page)
    assert result.exit_code == 0, result.output
    assert "is not a folder" in result.stderr
    assert "an epoch: unknown, since the corpus is not there" in result.stdout


def test_a_recipes_mistakes_are_all_on_stderr(recipe: Path) -> None:
    result = spelldown("recipe", recipe, "optimizer.rte=1", "training.epochs=none")
    assert result.exit_code == 1
    assert "did you mean optimizer.rate?" in result.stderr
    assert "training.epochs: should be a whole number" in result.stderr


def test_the_schema_is_printed_for_editors() -> None:
    schema = json.loads(spelldown("recipe", "--schema").stdout)
    assert {"base", "listener", "optimizer"} <= set(schema["properties"])


# --- train


def test_a_run_is_a_folder_with_its_resolved_recipe(trained: Trained) -> None:
    assert read_recipe(trained.run / "recipe.yaml") == read_recipe(trained.recipe)
    lines = (trained.run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    for name in ("vocabulary.json", "environment.json", "checkpoints/best", "checkpoints/last"):
        assert (trained.run / name).exists()
    assert "finished after 2 epochs" in trained.said
    assert f"spelldown evaluate {trained.run}" in trained.said


def test_runs_are_numbered_and_never_written_over(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert spelldown("train", recipe, "training.epochs=1").exit_code == 0
    assert sorted(run.name for run in (tmp_path / "runs").iterdir()) == ["tiny-1", "tiny-2"]


def test_a_folder_with_a_run_is_refused_and_resuming_told(trained: Trained) -> None:
    before = (trained.run / "metrics.jsonl").read_text()
    result = spelldown("train", trained.recipe, "--run", trained.run)
    assert result.exit_code == 1
    assert f"spelldown train --resume {trained.run}" in result.stderr
    assert (trained.run / "metrics.jsonl").read_text() == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path, recipe: Path) -> None:
    result = spelldown("train", recipe, "--run", tmp_path)
    assert result.exit_code == 1
    assert "is not an empty folder" in result.stderr


def test_data_that_is_not_there_leaves_no_run_behind(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = spelldown("train", recipe, "data.root=elsewhere")
    assert result.exit_code == 1
    assert str(tmp_path / "elsewhere") in result.stderr
    assert not list((tmp_path / "runs").iterdir())


def test_a_finished_run_has_nothing_left_to_resume(trained: Trained) -> None:
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 0, result.output
    assert "finished after 2 epochs" in result.output
    assert len((trained.run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_killed_before_it_learnt_anything_can_be_resumed(trained: Trained) -> None:
    weights = (trained.run / "checkpoints" / "best" / "model.safetensors").read_bytes()
    for file in trained.run.rglob("*"):
        if file.is_file() and file.name != "recipe.yaml":
            file.unlink()  # as it stands when the corpus is being read
    shutil.rmtree(trained.run / "checkpoints")
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 0, result.output
    assert "beginning anew" in result.output
    assert (trained.run / "checkpoints" / "best" / "model.safetensors").read_bytes() == weights


def test_utterances_left_out_are_listed_with_the_run(tmp_path: Path, recipe: Path) -> None:
    spoilt = tmp_path / "corpus" / "train" / "mfcc" / "train-003.npy"
    np.save(spoilt, np.full((30, WIDTH), np.nan, np.float32))
    stopped = spelldown("train", recipe, "--run", tmp_path / "stopped")
    assert stopped.exit_code == 1
    assert str(spoilt) in stopped.stderr
    run = tmp_path / "left-out"
    result = spelldown("train", recipe, "--run", run, "data.problems=leave-out")
    assert result.exit_code == 0, result.output
    assert str(spoilt) in (run / "left_out.txt").read_text()


def wait_for_epochs(training: subprocess.Popen[str], run: Path, least: int) -> list[int]:
    """The epochs in the run's metrics once there are so many, or once its process has ended."""
    deadline = time.monotonic() + 60
    epochs: list[int] = []
    while len(epochs) < least and training.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if (run / "metrics.jsonl").exists():
            lines = (run / "metrics.jsonl").read_text().splitlines()
            epochs = [json.loads(line)["epoch"] for line in lines if line.endswith("}")]
    return epochs


def test_ctrl_c_saves_says_how_to_go_on_and_ends_with_status_130(
    tmp_path: Path, recipe: Path
) -> None:
    run = tmp_path / "run"
    training = process("train", recipe, "--run", run, "training.epochs=5000", cwd=tmp_path)
    try:
        wait_for_epochs(training, run, 1)
        training.send_signal(signal.SIGINT)
        said, complained = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 130, complained
    assert f"spelldown train --resume {run}" in said
    assert "Traceback" not in complained
    done = len((run / "metrics.jsonl").read_text().splitlines())
    resumed = process("train", "--resume", run, cwd=tmp_path)
    try:
        epochs = wait_for_epochs(resumed, run, done + 1)
    finally:
        resumed.kill()
        resumed.communicate()
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) > done


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
    assert "train: 12 utterances" in spelldown("evaluate", trained.run, "--split", "train").stdout
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


# --- resume


def contents_of(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not held there")
def test_a_run_that_another_process_trains_is_not_touched(trained: Trained) -> None:
    with (trained.run / "metrics.jsonl").open(
        "a"
    ) as file:  # as one that is ahead of its checkpoint
        file.write('{"epoch": 99}\n')
    before = contents_of(trained.run)
    code = (
        "from spelldown.training.run.run_folder import RunFolder\n"
        f"with RunFolder({str(trained.run)!r}).held(): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        result = spelldown("train", "--resume", trained.run)
        assert contents_of(trained.run) == before
        other.communicate("\n")
    assert result.exit_code == 1
    assert "another process is training in this folder" in result.stderr


def test_a_run_is_not_resumed_with_another_corpus(trained: Trained) -> None:
    file = trained.corpus / "train" / "transcripts" / "train-003.npy"
    np.save(file, np.array(["<sos>", *"CHANGED", "<eos>"]))
    result = spelldown("train", "--resume", trained.run)
    assert result.exit_code == 1
    assert "train had 12 utterances" in result.stderr and "(other texts)" in result.stderr


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


# --- demo


@needs_engine
def test_the_demo_makes_trains_tests_spells_and_shows_and_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spelldown.demo import run_demo

    monkeypatch.chdir(tmp_path)
    corpus = DemoCorpusSettings(train=16, dev=4, test=6, processes=1)
    tiny = ["training.epochs=1", "training.threads=1", "speller.width=16"]
    tiny += ["listener.blocks=[{kind: conv, widths: [8], stride: 4}]", "search.longest=20"]
    tiny += ["loss.ctc_weight=0", "ctc=null", "vocabulary.kind=course"]
    first = run_demo(overrides=tiny, corpus=corpus)
    said = capsys.readouterr().out
    assert first is not None
    assert first.scores.utterances == 6
    assert said.count("  heard    ") == said.count("  spelled  ") == 6
    assert (tmp_path / "runs" / "demo" / "attention.html").read_text().count("<img") == 6
    recording = re.search(r"spelldown transcribe runs/demo (\S+\.wav)", said)
    assert recording is not None
    assert soundfile.info(tmp_path / recording[1]).samplerate == 16000
    second = run_demo(overrides=tiny, corpus=corpus)
    assert "is there from an earlier demo and is used" in capsys.readouterr().out
    assert second is not None
    assert second.scores.cer == first.scores.cer
    run_demo(overrides=[*tiny, "seed=2"], corpus=corpus)
    assert "trained by another recipe; training anew beside it" in capsys.readouterr().out
    assert sorted(run.name for run in (tmp_path / "runs").iterdir()) == ["demo", "demo-1"]


# --- the pages that explain


@needs_engine
def test_the_tours_journey_can_be_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tour = (SOURCE / "docs" / "tour.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", tour, re.DOTALL)
    (tmp_path / "recipes").symlink_to(SOURCE / "recipes")
    monkeypatch.chdir(tmp_path)
    corpus = DemoCorpusSettings(train=40, dev=4, test=4, processes=1)
    make_demo_corpus(tmp_path / "data" / "demo", corpus)
    exec(compile(code, "tour.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"frames in +\(\d+, \d+, 40\)", said)
    assert re.search(r"attention +\(\d+, 1, \d+, \d+\)", said)


PAGES = ["README.md", "docs/speech.md", "docs/search.md", "docs/studies.md"]  # for users


@pytest.mark.parametrize("page", [*PAGES, "docs/tour.md", "docs/results.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_points_to_is_there(page: str) -> None:
    text = (SOURCE / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links or page in ("CONTRIBUTING.md", "docs/speech.md", "docs/search.md")
    for link in links:
        assert (SOURCE / page).parent.joinpath(link).exists(), f"{page} points to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one_that_there_is(page: str) -> None:
    text = (SOURCE / page).read_text()
    commands = re.findall(r"^spelldown (prepare [\w-]+|[\w-]+)(.*)$", text, re.MULTILINE)
    assert len(commands) > 5
    different = {command for command, _ in commands}
    help_of = {command: spelldown(*command.split(), "--help") for command in different}
    for command, rest in commands:
        explained = help_of[command]
        assert explained.exit_code == 0, command
        for option in re.findall(r"--[a-z-]+", f"{command} {rest}".partition("#")[0]):
            assert option in explained.stdout, f"{command} {option}"


def test_square_brackets_in_a_path_are_shown_as_they_are(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = spelldown("train", recipe, "training.epochs=1", "--run", "runs[red]")
    assert result.exit_code == 0, result.output
    assert "next: spelldown evaluate runs[red]" in result.stdout


def test_a_gpu_that_is_not_there_is_told_and_leaves_nothing_behind(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        result = spelldown("train", recipe, f"training.device={device}", "--run", tmp_path / "run")
        assert result.exit_code == 1
        assert "training.device: no GPU here; cpu or auto" in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run").exists()
