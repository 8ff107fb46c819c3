import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spelldown.training.run.run_folder import RunFolder, plain
from spelldown.training.run.tracking import (
    Clock,
    LiveDisplay,
    PlainLines,
    duration,
    tracker_for,
)
from spelldown.writing import write_whole


def record(epoch: int, **changed: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "rate": 1e-3,
        "teacher_forcing": 0.9,
        "seconds": 75.0,
        "best": epoch == 1,
        "train": {"loss": 1.5},
        "dev": {"loss": 1.25, "distance": 12.3, "cer": 0.115, "wer": 0.3},
        "alignment": {"verdict": "aligned"},
        **changed,
    }


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_time_left_is_reckoned_from_what_it_took_so_far() -> None:
    hand = Hand()
    clock = Clock(epochs=10, now=hand)
    clock.epoch_begins(1, batches=20, done=0)
    assert clock.epoch_left is None and clock.run_left is None
    hand.time += 10
    clock.updated(5, utterances=40)
    assert clock.utterances_per_second == 4
    assert clock.epoch_left == 30
    assert clock.run_left == 30 + 9 * 40
    hand.time += 40  # the rest, and the validation
    clock.updated(20, utterances=120)
    clock.epoch_ends()
    assert clock.run_left == 9 * 50


def test_what_an_earlier_process_did_does_not_count_as_speed() -> None:
    hand = Hand()
    clock = Clock(epochs=2, now=hand)
    clock.epoch_begins(1, batches=20, done=10)
    hand.time += 10
    clock.updated(15, utterances=50)
    assert (clock.epoch_left, clock.utterances_per_second) == (10, 5)
    assert clock.run_left is None  # a half epoch says nothing about whole ones
    clock.epoch_ends()
    assert clock.run_left is None


def test_durations_are_told_in_two_figures() -> None:
    told = [duration(seconds) for seconds in (3.4, 89, 100, 5400, 47 * 3600, 60 * 3600, None)]
    assert told == ["3 s", "89 s", "2 min", "1 h 30 min", "47 h 00 min", "2 d 12 h", "?"]


def test_a_file_gets_plain_lines_and_a_terminal_a_live_display() -> None:
    assert isinstance(tracker_for(Console(file=io.StringIO())), PlainLines)
    assert isinstance(tracker_for(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)


def test_plain_lines_say_each_epoch_and_now_and_then_where_it_stands() -> None:
    lines: list[str] = []
    tracker, hand = PlainLines(lines.append), Hand()
    tracker.clock.now = hand
    with tracker:
        tracker.epoch_begins(1, 2, 10, 0)
        for done in range(1, 11):
            hand.time += 7
            tracker.updated(done, 3, 1.75)
        tracker.validating()
        tracker.validated(record(1))
        tracker.message("[that is all]")
    assert len(lines) == 4
    assert lines[0].startswith("epoch 1/2  5/10 batches  loss 1.750  0.4 utterances/s  35 s left")
    for part in ("distance 12.30", "CER 11.5%", "attention aligned", "best", "(at most 70 s left)"):
        assert part in lines[2]
    assert lines[3] == "[that is all]"


def test_the_live_display_shows_progress_and_the_last_validations() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with LiveDisplay(console) as display:
        display.epoch_begins(9, 20, 10, 0)
        display.updated(4, 32, 0.5)
        for epoch in range(1, 13):
            display.validated(record(epoch, dev={**record(1)["dev"], "cer": None}))
        display.message("[a line that stays]")
        console.print(display.render())
    shown = screen.getvalue()
    assert "epoch 9/20" in shown and "40%" in shown and "utt/s" in shown
    assert "12.30" in shown and "[a line that stays]" in shown
    assert len(display.rows) == 8 and display.rows[0]["epoch"] == "5"


def test_a_number_that_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.append_metrics({"epoch": 1, "train": {"loss": math.nan, "norms": [math.inf, 1.0]}})
    assert folder.read_metrics() == [{"epoch": 1, "train": {"loss": None, "norms": [None, 1.0]}}]
    assert plain((1, "x", None)) == [1, "x", None]


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "file.json"
    write_whole(path, json.dumps({"old": True}))

    def full(_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("spelldown.writing.to_disk", full)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, json.dumps({"new": True}) * 1000)
    assert json.loads(path.read_text()) == {"old": True}
    assert list(path.parent.iterdir()) == [path]
