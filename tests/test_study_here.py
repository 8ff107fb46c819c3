"""Runs as processes of this machine, and how they share it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import planned_in, write_study

from spelldown.study.folder import StudyFolder
from spelldown.study.where import local
from spelldown.study.where.local import LocalPlace, LocalSettings, said_of
from spelldown.study.where.place import Ended, Job


@pytest.fixture
def place() -> Iterator[LocalPlace]:
    with LocalPlace(LocalSettings(side_by_side=2, threads=3), 9) as place:
        place.gpus = ()
        yield place


def job(tmp_path: Path, script: str, **about: Any) -> Job:
    return Job("run", ("sh", "-c", script), tmp_path, tmp_path / "rows" / "run.log", **about)


def wait(handle: Any) -> Ended:
    while (ended := handle.poll()) is None:
        time.sleep(0.01)
    assert isinstance(ended, Ended)
    return ended


def test_a_process_has_its_threads_its_log_and_its_status(
    place: LocalPlace, tmp_path: Path
) -> None:
    script = "echo said $OMP_NUM_THREADS $EXTRA in $PWD; exit 3"
    ended = wait(place.submit(job(tmp_path, script, environment={"EXTRA": "more"})))
    assert ended == Ended(3, "its process ended with status 3")
    assert wait(place.submit(job(tmp_path, "echo $OMP_NUM_THREADS", threads=1))) == Ended(0)
    said = (tmp_path / "rows" / "run.log").read_text().splitlines()
    assert said == [f"said 3 more in {tmp_path}", "1"]


def test_there_is_room_again_when_a_process_has_ended(place: LocalPlace, tmp_path: Path) -> None:
    handles = [place.submit(job(tmp_path, "cat")) for _ in range(2)]
    assert place.room() == 0
    handles[0].stop()
    assert wait(handles[0]) == Ended(-15, "its process was killed by SIGTERM")
    assert place.room() == 1
    handles[1].kill()
    assert "SIGKILL; it may have been for want of memory" in wait(handles[1]).reason
    assert said_of(-11) == "its process was killed by SIGSEGV"


def test_gpus_take_a_run_each(place: LocalPlace, tmp_path: Path) -> None:
    place.gpus = ("0", "GPU-b")
    for _ in range(2):
        place.submit(job(tmp_path, "echo $CUDA_VISIBLE_DEVICES; cat"))
    log = tmp_path / "rows" / "run.log"
    while len(log.read_text().splitlines()) < 2:
        time.sleep(0.01)
    assert sorted(log.read_text().splitlines()) == ["0", "GPU-b"]


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, ["0", "1"]),
        ("1, GPU-b,", ["1", "GPU-b"]),
        ("3,4,5", ["3", "4"]),  # two are there
    ],
)
def test_gpus_are_those_that_are_named_and_there(
    named: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local._gpus() == found


@pytest.mark.parametrize(
    ("about", "asked", "lanes"),
    [
        ({}, {}, 4),
        ({}, {"gibibytes": 12.0}, 1),
        ({"gigabytes": 8.0}, {"gibibytes": 1.0}, 2),
        ({}, {"threads": 2}, 2),
        ({"threads": 3}, {}, 1),
        ({"side_by_side": 3}, {"threads": 4, "gibibytes": 12.0}, 3),
        ({}, {"on_gpus": True}, 2),
    ],
)
def test_runs_share_the_machine_by_what_they_ask_for(
    monkeypatch: pytest.MonkeyPatch, about: Any, asked: Any, lanes: int
) -> None:
    monkeypatch.setattr(local, "_gpus", lambda: ("0", "1"))
    monkeypatch.setattr(local, "_cores", lambda: 4)
    monkeypatch.setattr(local, "left_on_computer", lambda: 16 << 30)
    assert LocalPlace(LocalSettings(**about), 9, **{"on_gpus": False, **asked}).lanes == lanes


def test_what_runs_ask_for_is_the_most_of_what_their_recipes_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_cores", lambda: 12)
    monkeypatch.setattr(local, "left_on_computer", lambda: 20 << 30)
    changes = {"training.memory": "6GiB", "training.threads": 3}
    page = write_study(tmp_path, tmp_path, rows={"large": {"changes": changes}})
    searching = [
        "base_row=false",
        "rows={}",
        "axes={speller.width: {low: 1, high: 9, whole: true}}",
        "explore={kind: optuna}",
        "training.memory=8GiB",
    ]
    for overrides, lanes in (([], 3), (["training.memory=4GiB"], 3), (searching, 2)):
        planned = planned_in(page, StudyFolder(tmp_path), *overrides)
        place = LocalPlace.shared(planned.study.settings.local, planned.each(), 7)
        assert (place.lanes, place.gpus) == (lanes, ())


def test_nothing_runs_any_more_when_the_place_is_left(tmp_path: Path) -> None:
    with LocalPlace(LocalSettings(side_by_side=1), 1) as place:
        handle = place.submit(job(tmp_path, "cat"))
    assert handle.process.returncode == -signal.SIGKILL
