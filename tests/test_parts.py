"""From a recipe to ready parts: what they are checked for, and what is said of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Features, MonoCut, Recording, SupervisionSegment

from spelldown.errors import DataError
from spelldown.recipe.parts import build_parts, remedies_in_use
from spelldown.recipe.recipe import Recipe
from spelldown.recipe.run import start
from spelldown.training.remedies import REMEDY_NAMES
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent

WIDTH = 4
LETTERS = "ABCDEFGHIJ"


def recipe_of(root: Path = Path("nowhere"), **sections: Any) -> Recipe:
    page: dict[str, Any] = {
        "name": "tiny",
        "data": {"kind": "arrays", "root": root},
        "frontend": {"kind": "arrays", "width": WIDTH},
        "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
        "speller": {"embedding": 8, "width": 8},
    }
    return Recipe.model_validate({**page, **sections})


CTC: dict[str, Any] = {"ctc": {}, "loss": {"ctc_weight": 0.3}}


def test_what_is_trained_on_fits_ctc_at_the_fastest_speed(
    corpus: Path, write_utterance: Callable[..., None]
) -> None:
    frames = np.random.default_rng(1).normal(size=(2 * len(LETTERS), WIDTH)).astype(np.float32)
    write_utterance(corpus / "train", "train-000", frames, LETTERS)  # 2 a letter: just enough
    with pytest.raises(DataError, match="cannot be used") as caught:
        build_parts(recipe_of(corpus, augment={"speed": [0.9, 1.25]}, **CTC))
    (problem,) = caught.value.problems
    assert "train-000" in problem
    assert "it makes 8 of these 20, which are 16 at the fastest augment.speed" in problem
    for augment in (None, {"speed": None}, {"speed": [0.9, 1.0]}):
        assert build_parts(recipe_of(corpus, augment=augment, **CTC)).problems == ()
    assert build_parts(recipe_of(corpus, augment={"speed": [0.9, 1.25]})).problems == ()


def test_validation_scores_what_could_not_be_trained_on(
    corpus: Path, write_utterance: Callable[..., None], tmp_path: Path
) -> None:
    frames = np.random.default_rng(1).normal(size=(2 * len(LETTERS), WIDTH)).astype(np.float32)
    write_utterance(corpus / "dev", "dev-000", frames, "ÉA Ñ B")
    write_utterance(corpus / "dev", "dev-001", frames, LETTERS + LETTERS)  # too fast for CTC
    recipe = recipe_of(corpus, training={"epochs": 1, "threads": 1, "pictures_every": 0}, **CTC)
    parts = build_parts(recipe)
    assert parts.problems == () and parts.dev.utterances == 4
    (first,) = [batch for batch in parts.dev.epoch(1) if "dev-000" in batch.ids]
    row = first.ids.index("dev-000")
    assert first.texts is not None and first.symbols is not None
    assert first.texts[row] == "ÉA Ñ B"
    assert parts.vocabulary.decode(first.symbols[row, 1:].tolist()) == "A B"
    told: list[str] = []

    class Told(Silent):
        def message(self, text: str) -> None:
            told.append(text)

    run = RunFolder(tmp_path / "run")
    start(recipe, run, Told())
    (line,) = [text for text in told if text.startswith("dev: 1 utterances have")]
    assert "'É'" in line and "'Ñ'" in line and "count as errors" in line
    (validated,) = map(json.loads, run.metrics.read_text().splitlines())
    assert np.isfinite([validated["dev"]["loss"], validated["dev"]["ctc"]]).all()


@pytest.mark.parametrize(
    ("remedy", "with_it", "without_it"),
    [
        ("teacher-forcing", {}, {"teacher_forcing": {"kind": "constant", "rate": 0.9}}),
        ("norm", {}, {"listener": {"blocks": [{"kind": "bilstm", "norm": "none"}]}}),
        ("norm", {}, {"listener": {"blocks": [{"kind": "bilstm", "norm": "batch"}]}}),
        ("convolutions", {}, {"listener": {"blocks": [{"kind": "mobile"}]}}),
        ("dropout", {"speller": {"dropout": 0.2}}, {"speller": {"dropout": 0.3}}),
        ("dropout", {}, {"speller": {"distribution_dropout": 0.3}}),
        ("dropout", {}, {"listener": {"blocks": [{"kind": "conv", "dropout": 0.3}]}}),
        ("ctc", CTC, {}),
        ("leading-ctc", {"ctc": {}, "loss": {"ctc_weight": 0.6}}, CTC),
        ("reduction", {"listener": {"blocks": [{"kind": "conv", "stride": 4}]}}, {}),
        ("shortest-first", {"batching": {"shortest_first_epochs": 1}}, {}),
        ("location", {}, {"attention": {"kind": "dot"}}),
        ("late-augment", {"augment": {"from_epoch": 2}}, {"augment": {}}),
        ("warm-up", {"schedule": {"kind": "noam"}}, {"schedule": {"kind": "constant"}}),
        ("label-smoothing", {"loss": {"label_smoothing": 0.1}}, {}),
    ],
)
def test_a_remedy_that_the_recipe_uses_is_known_to_be_in_use(
    remedy: str, with_it: dict[str, Any], without_it: dict[str, Any]
) -> None:
    assert remedy in remedies_in_use(recipe_of(**with_it))
    assert remedy not in remedies_in_use(recipe_of(**without_it))
    assert remedies_in_use(recipe_of(**with_it)) <= REMEDY_NAMES


@pytest.mark.parametrize(("device", "pinned"), [("auto", True), ("cpu", False)])
def test_batches_are_page_locked_for_a_gpu_alone(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, device: str, pinned: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    parts = build_parts(recipe_of(corpus, training={"device": device}))
    assert (parts.train.pinned, parts.dev.pinned) == (pinned, pinned)


def test_every_remedy_can_be_in_use() -> None:
    everything = recipe_of(
        listener={"blocks": [{"kind": "conv", "stride": 4}]},
        ctc={},
        loss={"ctc_weight": 0.7, "label_smoothing": 0.1},
        batching={"shortest_first_epochs": 2},
        schedule={"kind": "one-cycle"},
    )
    assert remedies_in_use(everything) == REMEDY_NAMES


def cuts_of(root: Path, *, heard: bool, ready: bool) -> Path:
    """Parts `train` and `dev` of one utterance as a lhotse cut: with a recording, frames, both."""
    root.mkdir()
    samples = np.random.default_rng(1).normal(0, 0.1, 16000)
    soundfile.write(root / "u.wav", samples, 16000)
    frames = np.random.default_rng(2).normal(size=(100, WIDTH)).astype(np.float32)
    np.save(root / "u.npy", frames)
    features = Features(
        type="mfcc", num_frames=100, num_features=WIDTH, frame_shift=0.01, sampling_rate=16000,
        start=0, duration=1.0, storage_type="numpy_files", storage_path=str(root),
        storage_key="u.npy", channels=0, recording_id="u",
    )  # fmt: skip
    said = SupervisionSegment("u", "u", 0.0, 1.0, text="ABC")
    recording = Recording.from_file(root / "u.wav", recording_id="u") if heard else None
    cut = MonoCut("u", 0.0, 1.0, 0, [said], features if ready else None, recording)
    for part in ("train", "dev"):
        CutSet.from_cuts([cut]).to_file(root / f"{part}.jsonl.gz")
    return root


def of_cuts(root: Path, frontend: dict[str, Any]) -> Recipe:
    return recipe_of(data={"kind": "cuts", "root": root}, frontend=frontend)


MFCC: dict[str, Any] = {"kind": "mfcc", "width": 5}
ARRAYS: dict[str, Any] = {"kind": "arrays", "width": WIDTH}


def test_cuts_without_what_the_frontend_takes_are_named(tmp_path: Path) -> None:
    heard = cuts_of(tmp_path / "heard", heard=True, ready=False)
    ready = cuts_of(tmp_path / "ready", heard=False, ready=True)
    both = cuts_of(tmp_path / "both", heard=True, ready=True)
    for root, frontend in ((heard, MFCC), (ready, ARRAYS), (both, MFCC), (both, ARRAYS)):
        assert build_parts(of_cuts(root, frontend)).problems == ()
    with pytest.raises(
        DataError, match=r"u\.wav.*: no ready-made frames, and frontend\.kind arrays"
    ):
        build_parts(of_cuts(heard, ARRAYS))
    with pytest.raises(DataError, match=r"u\.npy: no recording, and frontend\.kind mfcc"):
        build_parts(of_cuts(ready, MFCC))


def test_recordings_beside_ready_made_frames_are_looked_at_where_they_are_heard(
    tmp_path: Path,
) -> None:
    root = cuts_of(tmp_path / "both", heard=True, ready=True)
    (root / "u.wav").write_bytes(b"garbage")
    assert build_parts(of_cuts(root, ARRAYS)).problems == ()
    with pytest.raises(DataError, match="not a recording that can be read"):
        build_parts(of_cuts(root, MFCC))
