"""The commands: how they explain themselves and fail; recipes, the demo and the pages."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import yaml
from commands import SOURCE, process, spelldown
from spoken import needs_loader
from trained_run import write_page

from spelldown.data.synthesis import DemoCorpusSettings, make_demo_corpus


@pytest.fixture
def recipe(tmp_path: Path, make_corpus: Callable[..., Path]) -> Path:
    corpus = make_corpus({"train": 12, "dev": 4, "test": 6}, silent=())
    return write_page(tmp_path / "toy.yaml", corpus)


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
    parts = re.findall(r"^(?:listener|attention|speller|ctc)\S* .* ([\d,]+)$", result.stdout, re.M)
    assert sum(int(part.replace(",", "")) for part in parts) == int(total[1].replace(",", ""))
    assert re.search(r"4 utterances of \d+ frames .* s an update, \d\.\d GiB", result.stdout)
    assert re.search(r"an epoch: 3 batches, about \d+ s of training", result.stdout)
    assert re.search(r"all \d+ epochs: about \d+ s", result.stdout)


def test_recipe_says_so_when_the_corpus_is_not_there(tmp_path: Path) -> None:
    page = write_page(tmp_path / "tiny.yaml", tmp_path / "nowhere")
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


# --- demo


@needs_loader
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


@needs_loader
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
