"""What a report's remarks say of a row: what happened to its runs, and what is worth a word."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_study import EPOCHS, MadeStudy, record, told

from spelldown.study.folder import StudyFolder


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    return MadeStudy(tmp_path / "made")


def test_the_remark_says_whether_attention_aligned(made: MadeStudy) -> None:
    made.row("base", {"aligned_from": 2}, {"aligned_from": 4})
    made.row("lost", {"aligned_from": None}, {"aligned_from": 3})
    stopped = {"aligned_from": None, "state": "stopped", "reason": "attention would not align"}
    made.row("stopped", {**stopped, "epochs": 4})
    path = made.done()
    assert told(path, "base").startswith("Attention aligned in epochs 2 and 4.")
    assert told(path, "lost").startswith(
        "Attention aligned in 1 of 2 runs in epoch 3; attention never aligned in 1 of 2: "
        "attention is spread over all frames."
    )
    said = "Was stopped after 4 epochs: attention would not align."
    assert told(path, "stopped") == f"{said} Best at its last epoch, 4."


def test_a_young_run_is_not_said_to_be_getting_better(made: MadeStudy) -> None:
    made.row("base", {"aligned_from": None})
    path = made.done()
    young = {"verdict": "aligning", "value": 0.0, "reason": "too early to say (alignment 0.00)"}
    epochs_of(made, "base-seed1", *({"alignment": young} for _ in range(EPOCHS)))
    assert told(path, "base").startswith("Attention had not aligned yet: too early to say.")


def test_the_remark_says_what_was_survived(made: MadeStudy) -> None:
    made.row("base", {}, {})
    path = made.done()
    first, second = (StudyFolder(path).run(f"base-seed{seed}") for seed in (1, 2))
    first.memory.write_text('{"update": 3, "most": 4}\n{"update": 5, "most": 2}\n{"upd')
    second.repairs.write_text('{"remedy": "ctc", "changes": ["loss.ctc_weight=0.3"]}\n')
    said = told(path, "base")
    assert "Memory ran out 2 times, and batches were done in parts" in said
    assert "begun anew in 1 of 2 with ctc" in said


def epochs_of(made: MadeStudy, run: str, *lines: dict[str, Any]) -> None:
    """Puts other epochs into a run: what each line of its metrics.jsonl has instead."""
    metrics = made.folder.run(run).metrics
    whole = [record(n, 1 / n, True, **about) for n, about in enumerate(lines, 1)]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in whole))


def test_a_run_whose_rate_has_come_down_is_not_told_to_be_still_improving(made: MadeStudy) -> None:
    made.row("base", {})
    made.row("one-cycle", {})
    path = made.done()
    rates = [1e-4, 1e-3, 8e-4, 5e-4, 2e-4, 1e-6]
    assert len(rates) == EPOCHS
    epochs_of(made, "one-cycle-seed1", *({"rate": rate} for rate in rates))
    assert told(path, "base").endswith(
        f"Best at its last epoch, {EPOCHS}: still improving when its epochs were over."
    )
    assert told(path, "one-cycle").endswith(f"Best at its last epoch, {EPOCHS}.")


def test_epochs_are_compared_where_they_have_the_same_utterances(made: MadeStudy) -> None:
    made.row("base", {})
    made.row("slow", {})
    also = ["data.also=[{root: other, rate: 0.5}]"]
    made.row("mixed", {"changes": also})
    path = made.done()
    for run in ("slow-seed1", "mixed-seed1"):
        epochs_of(made, run, *({"seconds": 8.0} for _ in range(EPOCHS)))
    assert "An epoch took 8 s, 4.0 times as long as the base's." in told(path, "slow")
    assert "An epoch took" not in told(path, "mixed")


def test_the_dev_loss_rose_by_what_it_did_in_the_middle_run(made: MadeStudy) -> None:
    made.row("base", {}, {}, {})
    path = made.done()
    for seed, last in ((1, 3.0), (2, 1.5), (3, 2.0)):
        losses = ({"dev": record(1, 0.1, True)["dev"] | {"loss": loss}} for loss in (1.0, last))
        epochs_of(made, f"base-seed{seed}", *losses)
    assert "The dev loss rose by 100% after epoch 1." in told(path, "base")
