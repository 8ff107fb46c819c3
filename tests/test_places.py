"""Runs beyond this machine: on a Ray cluster whose machines come and go, and by submitit."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import write_study
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import StudyError
from spelldown.study.folder import StudyFolder
from spelldown.study.where import slurm
from spelldown.study.where.place import Ended, Handle, Job
from spelldown.study.where.ray import RayPlace, RaySettings
from spelldown.study.where.slurm import SlurmHandle, SlurmPlace, SlurmSettings, Work

PATIENT = """
import signal, sys, time
def leave(number, frame):
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, leave)
import os
print(os.environ["OMP_NUM_THREADS"], os.getcwd(), flush=True)
print("begun", os.getpid(), flush=True)
time.sleep(100)
"""
# Wishes to end when the place's process is gone, as a study's runs do.
LEASHED = "import os, signal, threading\n" + (
    "def watch():\n"
    "    while os.read(0, 1): pass\n"
    "    os.kill(os.getpid(), signal.SIGTERM)\n"
    "threading.Thread(target=watch, daemon=True).start()\n"
)


def ended(handle: Handle, seconds: float = 60) -> Ended:
    assert happened(lambda: handle.poll() is not None, seconds)
    found = handle.poll()
    assert found is not None
    return found


def happened(what: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.05)
    return what()


def said(job: Job) -> str:
    return job.log.read_text() if job.log.exists() else ""


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(name: str, code: str, **others: Any) -> Job:
        log = tmp_path / "logs" / f"{name}.log"
        return Job(name, (sys.executable, "-c", code), tmp_path, log, **others)

    return make


def hold_to_its_promises(place: Any, job: Callable[..., Job], tmp_path: Path) -> None:
    """What every place promises of every job."""
    good, bad = job("good", "print('done')"), job("bad", "raise SystemExit(3)")
    patient, stubborn = job("patient", PATIENT), job("stubborn", LEASHED + PATIENT)
    with place:
        assert place.room() >= 1
        assert ended(place.submit(good)) == Ended(0)
        assert said(good) == "done\n"
        assert ended(place.submit(bad)) == Ended(3, "its process ended with status 3")
        handle = place.submit(patient)
        assert happened(lambda: "begun" in said(patient)) and handle.poll() is None
        handle.stop()
        assert ended(handle).status == 130
        place_of, _, last = said(patient).splitlines()
        assert (place_of, last) == (f"1 {tmp_path}", "saved")
        killed = place.submit(stubborn)
        assert happened(lambda: "begun" in said(stubborn))
        killed.kill()
        assert ended(killed).status != 0 and not ended(killed).lost
        again = job("again", LEASHED + PATIENT)
        left = place.submit(again)
        assert happened(lambda: "begun" in said(again))
    assert left.poll() is not None
    assert happened(lambda: gone(stubborn)) and happened(lambda: gone(again))


def gone(job: Job) -> bool:
    """Whether the job's own process, which wrote its number, is there no more."""
    words = said(job).split()
    try:
        os.kill(int(words[words.index("begun") + 1]), 0)
    except ProcessLookupError:
        return True
    return False


def test_submitit_keeps_the_promises_of_a_place(tmp_path: Path, job: Callable[..., Job]) -> None:
    pytest.importorskip("submitit", reason="no submitit here: make outside")
    settings = SlurmSettings(executor="local", gigabytes=1)
    hold_to_its_promises(SlurmPlace(settings, 4, tmp_path / "study"), job, tmp_path)
    assert (tmp_path / "study" / slurm.FOLDER / slurm.JOBS).read_text() == "[]\n"


def test_a_job_whose_time_is_up_saves_all_and_is_queued_again(tmp_path: Path) -> None:
    import threading

    pytest.importorskip("submitit", reason="no submitit here: make outside")
    wish, log = tmp_path / "wish", tmp_path / "log"
    work = Work((sys.executable, "-c", PATIENT), str(tmp_path), str(log),
                {"OMP_NUM_THREADS": "1"}, str(wish))  # fmt: skip
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(work()))
    thread.start()
    assert happened(lambda: log.exists() and "begun" in log.read_text())
    again = work.checkpoint()
    thread.join(20)
    assert statuses == [130] and log.read_text().endswith("saved\n")
    assert again.function.command == work.command and again.function.process is None


def test_slurm_is_asked_for_what_the_study_says(tmp_path: Path, job: Callable[..., Job]) -> None:
    pytest.importorskip("submitit", reason="no submitit here: make outside")
    settings = SlurmSettings(
        executor="local", partition="gpu", minutes=90, gigabytes=16, most=3,
        more={"constraint": "a100"}, setup=("module load cuda",),
    )  # fmt: skip
    place = SlurmPlace(settings, 10, tmp_path)
    asked = place._parameters(job("a", ""), 4)
    assert asked["slurm_partition"] == "gpu" and asked["cpus_per_task"] == 4
    assert asked["slurm_additional_parameters"] == {"constraint": "a100"}
    assert asked["slurm_setup"] == ["module load cuda"] and asked["timeout_min"] == 90
    assert "slurm_account" not in asked and place.room() == 3
    assert asked["mem_gb"] == 16
    large = place._parameters(job("large", "", memory=20 << 30), 4)
    assert large["mem_gb"] == 21  # what the recipe limits, and libraries beside it


def test_a_job_that_waits_in_the_queue_is_taken_out_of_it(
    tmp_path: Path, job: Callable[..., Job]
) -> None:
    cancelled: list[str] = []
    wish = tmp_path / "a.stop"

    def submitted(name: str) -> Any:
        return SimpleNamespace(cancel=lambda: cancelled.append(name), done=lambda: False)

    queued = SlurmHandle(job("queued", ""), submitted("queued"), wish)
    queued.stop()
    assert cancelled == ["queued"] and queued.poll() is not None
    slurm.begun_at(wish).touch()
    running = SlurmHandle(job("running", ""), submitted("running"), wish)
    running.stop()
    assert cancelled == ["queued"] and running.poll() is None and wish.exists()


@pytest.mark.parametrize(
    ("on", "package", "more"),
    [("slurm", "submitit", ["slurm.executor=local", "slurm.gigabytes=1"]), ("ray", "ray", [])],
)
def test_a_whole_study_goes_through_a_cluster(
    on: str,
    package: str,
    more: list[str],
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(package, reason=f"no {package} here: make outside")
    monkeypatch.chdir(tmp_path)
    page = write_study(tmp_path, corpus, on=on)
    told = CliRunner().invoke(app, ["study", str(page), *more])
    assert told.exit_code == 0, told.output
    known = StudyFolder(tmp_path / "studies" / "study").known()
    assert [(name, one.state) for name, one in known.items()] == [
        ("base-seed1", "finished"),
        ("wide-seed1", "finished"),
    ]
    assert "report.html" in told.stdout


def test_a_place_that_is_not_here_is_refused_with_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"pip install 'spelldown\[ray\]'"):
        RayPlace(RaySettings(), 1)
    pytest.importorskip("submitit", reason="no submitit here: make outside")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="no sbatch on this machine"):
        SlurmPlace(SlurmSettings(), 1, tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(StudyError, match=r"pip install 'spelldown\[slurm\]'"):
        SlurmPlace(SlurmSettings(), 1, tmp_path)


@pytest.fixture(scope="module")
def two_machines() -> Iterator[Any]:
    """A Ray cluster of two machines with a core each, here."""
    pytest.importorskip("ray", reason="no ray here: make outside")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield cluster
    cluster.shutdown()


def test_ray_keeps_the_promises_of_a_place_though_a_machine_goes_away(
    tmp_path: Path, job: Callable[..., Job], two_machines: Any
) -> None:
    node = two_machines.add_node(num_cpus=1)
    settings = RaySettings(address=two_machines.address)
    with RayPlace(settings, 8) as place:
        assert place.room() == 2
        jobs = [job(name, LEASHED + PATIENT) for name in ("one", "other")]
        handles = [place.submit(each) for each in jobs]
        assert happened(lambda: all("begun" in said(each) for each in jobs))
        assert place.room() == 0
        two_machines.remove_node(node, allow_graceful=False)
        assert happened(lambda: any(handle.poll() is not None for handle in handles))
        (lost,) = [handle for handle in handles if handle.poll() is not None]
        assert ended(lost) == Ended(None, "its machine, or Ray's process there, is gone", lost=True)
        assert happened(lambda: gone(lost.job))  # it does not go on without its machine
        (safe,) = [handle for handle in handles if handle is not lost]
        again = place.submit(job("again", "print('done')"))  # waits for a core
        assert again.poll() is None and safe.poll() is None
        safe.stop()
        assert ended(safe).status == 130
        assert ended(again) == Ended(0)
        with pytest.raises(StudyError, match=r"wants 7 cores, and the largest machine .* has 1"):
            place.submit(job("large", "", threads=7))
    hold_to_its_promises(RayPlace(settings, 8), job, tmp_path)
