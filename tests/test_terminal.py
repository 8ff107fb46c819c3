"""What the commands print while they work."""

from io import StringIO

import pytest
from rich.console import Console

from spelldown import terminal
from spelldown.terminal import working


def test_a_log_is_told_now_and_then_how_far_work_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0, 40.0, 60.0, 80.0])  # of the end, what comes of it tells
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    log = StringIO()
    passed = list(working(Console(file=log))("spelling", iter("abcd"), 4))
    assert passed == list("abcd")
    assert log.getvalue().splitlines() == [
        "spelling: 2 of 4, 40 s left",
    ]


def test_a_log_is_told_what_is_done_where_nobody_knows_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", -1)
    log = StringIO()
    assert list(working(Console(file=log))("reading", "ab", None)) == ["a", "b"]
    assert log.getvalue() == "reading: 1\nreading: 2\n"


def test_a_terminal_has_a_bar_that_goes_when_the_work_is_done() -> None:
    screen = StringIO()
    out = Console(file=screen, force_terminal=True, width=60)
    assert list(working(out)("spelling", "abc", 3)) == ["a", "b", "c"]
    assert "spelling" in screen.getvalue() and "100%" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # the line is erased
