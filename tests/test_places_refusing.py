"""Places that take no runs for a while: nothing is lost by it, and nobody is asked without end."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import FakePlace, Seen, planned_in, write_study

from spelldown.errors import NotNowError, StudyError
from spelldown.study.folder import Outcome, StudyFolder, read_outcome, write_outcome
from spelldown.study.running import runner as running
from spelldown.study.running.runner import Runner
from spelldown.study.where.place import Ended, Job
from spelldown.study.where.ray import RayHandle, RayPlace, RaySettings
from spelldown.study.where.slurm import SlurmPlace, SlurmSettings

WAITS = (0.01, 0.02, 0.03)
FIGURES = {"cer": 0.25, "wer": 0.5, "distance": 3.0, "utterances": 4, "unended": 0}


def finishes(job: Job) -> Ended:
    run = Path(job.command[-2]) / "rows" / job.name
    before = read_outcome(run)
    assert isinstance(before, Outcome)
    scores = {"dev": FIGURES, "test": FIGURES}
    write_outcome(run, before.now("finished", starts=before.starts + 1, scores=scores))
    return Ended(0)


class Refusing(FakePlace):
    """Takes no runs, or does not say whether it would, so many times."""

    def __init__(self, rooms: int = 0, submits: int = 0) -> None:
        super().__init__({}, finishes, lanes=2)
        self.rooms, self.submits, self.asked = rooms, submits, 0

    def room(self) -> int:
        self.asked += 1
        self.rooms -= 1
        if self.rooms >= 0:
            raise NotNowError("nobody answers")
        return super().room()

    def submit(self, job: Job) -> Any:
        self.submits -= 1
        if self.submits >= 0:
            raise NotNowError(f"{job.name} could not be submitted: Socket timed out")
        return super().submit(job)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Runner, Seen]]:
    """Two rows, a and b, of one seed."""
    rows = {name: {"changes": {"speller.width": width}} for name, width in (("a", 9), ("b", 10))}
    page = write_study(tmp_path, tmp_path / "corpus", rows=rows, base_row=False)
    folder = StudyFolder(tmp_path / "studies" / "tiny")
    monkeypatch.setattr(running, "TICK", 0.001)
    monkeypatch.setattr(running, "WAITS", WAITS)

    def make() -> tuple[Runner, Seen]:
        seen = Seen()
        return Runner(planned_in(page, folder), folder, seen), seen

    return make


def states(runner: Runner) -> list[str]:
    return [outcome.state for outcome in runner.outcomes.values()]


def test_a_submission_that_fails_in_passing_is_tried_again_after_a_while(study: Any) -> None:
    runner, seen = study()
    place = Refusing(submits=2)
    assert runner.run(place)
    assert states(runner) == ["finished"] * 2
    assert place.submits == 2 - 4 and len(seen.messages) == 2
    assert "a-seed1 could not be submitted: Socket timed out; the next try" in seen.messages[0]


def test_a_place_that_takes_nothing_at_all_fails_the_runs_in_the_end(study: Any) -> None:
    runner, seen = study()
    place = Refusing(submits=99)
    assert runner.run(place)
    assert states(runner) == ["failed"] * 2
    assert 99 - place.submits == len(WAITS) + 2  # waited for the first; the second only tried
    assert "Socket timed out" in runner.outcomes["b-seed1"].reason
    assert len(seen.messages) == len(WAITS)


def test_a_place_that_does_not_say_whether_there_is_room_is_asked_again(study: Any) -> None:
    runner, seen = study()
    assert runner.run(Refusing(rooms=3))
    assert states(runner) == ["finished"] * 2
    assert seen.messages[0] == "nobody answers; the next try is in 0 s"


def test_a_place_that_never_answers_again_ends_the_study_with_the_reason(study: Any) -> None:
    runner, _ = study()
    place = Refusing(rooms=99)
    with pytest.raises(StudyError, match="nobody answers"):
        runner.run(place)
    assert place.asked == len(WAITS) + 1
    assert states(runner) == ["waiting"] * 2


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Socket timed out on send/recv operation", NotNowError),
        ("Batch job submission failed: Unable to contact slurm controller", NotNowError),
        ("Batch job submission failed: Invalid account or account/partition", StudyError),
        ("Requested node configuration is not available", StudyError),
    ],
)
def test_sbatch_is_asked_again_unless_it_will_never_take_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]
) -> None:
    pytest.importorskip("submitit", reason="no submitit here: make outside")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "sacct"):
        (commands / name).write_text(f"#!/bin/sh\necho 'sbatch: error: {said}' >&2\nexit 1\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    job = Job("a", (sys.executable, "-c", ""), tmp_path, tmp_path / "a.log")
    with (
        SlurmPlace(SlurmSettings(), 1, tmp_path / "study") as place,
        pytest.raises(StudyError, match="a could not be submitted") as refused,
    ):
        place.submit(job)
    assert type(refused.value) is kind and said in str(refused.value)


def test_a_ray_cluster_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    def silent(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("Failed to connect to GCS.\nmore of that")

    ray = SimpleNamespace(cluster_resources=silent, nodes=silent, remote=silent, wait=silent,
                          kill=silent)  # fmt: skip
    place = RayPlace.__new__(RayPlace)
    place.ray, place.settings, place.runs, place.running = ray, RaySettings(), 3, []
    for ask in (place.room, lambda: place.submit(Job("a", ("true",), tmp_path, tmp_path / "log"))):
        with pytest.raises(NotNowError, match=r"does not answer: Failed to connect to GCS\.$"):
            ask()
    handle = RayHandle.__new__(RayHandle)
    handle.ray, handle.status, handle.ended = ray, None, None
    handle.keeper = SimpleNamespace(send=SimpleNamespace(remote=silent))
    assert handle.poll() is None
    handle.stop()
    handle.kill()
    assert handle.ended is not None and not handle.ended.lost
