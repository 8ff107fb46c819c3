"""A limit on memory is real: what asks for more fails, and training goes on in smaller parts."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spelldown.errors import DoesNotFitError, TrainingError
from spelldown.training.guard.budget import LONGEST_SEARCH, largest_budget
from spelldown.training.guard.limit import bytes_of, held_to

CPU = torch.device("cpu")

REAL = """
import sys; sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
from test_memory_guard import MANNER, batch_of
from spelldown.model.listening.blocks import ConvSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.attention import DotSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.training.guard.guard import Guard
from spelldown.training.guard.limit import _held
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import SgdSettings, build_optimizer
from spelldown.training.memory import keep_freed_memory, peak_memory
from spelldown.training.update import Updater
from dataclasses import replace
keep_freed_memory()
CPU = torch.device("cpu")
MANNER = replace(MANNER, ctc_weight=0.0)

def updater(guard):
    torch.manual_seed(1)
    recognizer = Recognizer(
        ListenerSettings(blocks=(ConvSettings(widths=(256, 256), stride=2),)),
        DotSettings(width=16), SpellerSettings(embedding=8, width=16), None,
        input_width=2, vocabulary=31)
    optimizer = build_optimizer(recognizer, SgdSettings(rate=0.1))
    return Updater(recognizer, optimizer, LossSettings(), 1.0, "float32", CPU, guard=guard)

batch = batch_of(40, 1600, 9)
batch = replace(batch, frames=torch.randn(40, 1600, 2))
updater(None).update([batch_of(2, 90)], MANNER)  # libraries are read into memory
held = _held()
limit = held["RssAnon"] + held["RssFile"] + 64 * 2**20 + 66 * 2**20
guard = Guard(CPU, memory=f"{{limit / 1e6:.0f}}MB")
with guard:
    tried = updater(guard)
    losses = []
    for update in range(1):
        guard.now(update)
        losses.append(tried.update([batch], MANNER).loss)
peak = peak_memory()
free = updater(None)
for loss in losses:
    other = free.update([batch], MANNER).loss
    assert abs(other - loss) < 1e-5 * loss, (other, loss)
assert peak < limit, (peak, limit)
assert peak_memory() > limit, (peak_memory(), limit)
print(len(guard.fits.lessons), "lessons")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit")
@pytest.mark.parametrize("threads", ["1", None], ids=["one thread", "a thread a core"])
def test_training_keeps_within_a_real_limit_and_learns_the_same(
    threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's BLAS takes 40 MB of addresses for each thread that it may have, and uses none."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    script = REAL.format(tests=str(Path(__file__).parent))
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    assert int(told.stdout.split()[0]) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit")
def test_a_limit_that_leaves_nothing_to_train_in_is_refused_with_what_would_do() -> None:
    with (
        pytest.raises(TrainingError, match=r"100 MB is too little: .* more than"),
        held_to("100MB", CPU),
    ):
        pass


def test_the_limit_of_a_gpu_is_asked_for_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes `cuda` without a number everywhere but here."""
    asked: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 * 10**9)
    )
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda share, device: asked.append((share, device)),
    )
    for name in ("cuda", "cuda:3"):
        with held_to("2GB", torch.device(name)):
            pass
    assert asked == [(0.25, 1), (1.0, 1), (0.25, 3), (1.0, 3)]
    with pytest.raises(TrainingError, match=r"9\.0 GB, but cuda has 8\.0 GB"), \
            held_to("9GB", torch.device("cuda")):  # fmt: skip
        pass


def test_sizes_are_read_as_they_are_written() -> None:
    assert [bytes_of(size) for size in ("6GB", "1.5 GiB", "512MB")] == [
        6_000_000_000, 3 << 29, 512_000_000,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="write 6GB"):
        bytes_of("six")


# The largest frame budget


class Machine:
    """Updates that fit where utterances x (frames + frames x symbols / 100) stay below a limit."""

    def __init__(self, limit: float, seconds_a_frame: float = 0.0) -> None:
        self.limit, self.pace, self.clock = limit, seconds_a_frame, 0.0
        self.tries: list[tuple[int, int, int]] = []

    def fits(self, utterances: int, frames: int, symbols: int) -> bool:
        self.tries.append((utterances, frames, symbols))
        self.clock += self.pace * utterances * frames
        return utterances * (frames + frames * symbols / 100) <= self.limit

    def now(self) -> float:
        return self.clock


SHAPES = [(100, 10), (300, 40), (1200, 180)]


def test_the_largest_budget_is_what_fits_of_the_longest_utterances() -> None:
    machine = Machine(33_600.0)  # ten of the longest, at 3,360 each
    budget = largest_budget(machine.fits, SHAPES, 64)
    assert 0.75 * 12_000 <= budget <= 12_000
    assert {frames for _, frames, _ in machine.tries} == {100, 300, 1200}
    assert len(machine.tries) < 15


def test_a_budget_that_utterances_bound_before_memory_does_is_all_of_them() -> None:
    assert largest_budget(Machine(1e9).fits, SHAPES, 64) == 64 * 1200


def test_a_search_for_the_budget_ends_in_time_with_what_it_knows() -> None:
    machine = Machine(1e9, seconds_a_frame=0.005)  # 6 s for one of the longest
    budget = largest_budget(machine.fits, SHAPES, 64, machine.now)
    assert machine.clock <= LONGEST_SEARCH
    assert 1200 <= budget < 64 * 1200


def test_an_utterance_that_does_not_fit_alone_ends_the_search_with_its_size() -> None:
    with pytest.raises(DoesNotFitError, match="1200 frames and 180 symbols"):
        largest_budget(Machine(10.0).fits, SHAPES, 64)
